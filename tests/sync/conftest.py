"""The emulators and fakes that the tests of the backends for clouds have, for both sides."""

from __future__ import annotations

from tests.backends.conftest import aws, cloud_run, parameter_manager, secret_manager

__all__ = ["aws", "cloud_run", "parameter_manager", "secret_manager"]
