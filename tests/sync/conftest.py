"""The emulator that the tests of the backends for AWS have, for those of both sides."""

from __future__ import annotations

from tests.backends.conftest import aws

__all__ = ["aws"]
