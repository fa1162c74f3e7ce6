"""What tests of backends for clouds share: an emulator or fake each, if its library is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.backends.fake_cloud_run import FakeCloudRun
    from tests.backends.fake_parameter_manager import FakeParameterManager
    from tests.backends.fake_secret_manager import FakeSecretManager


@pytest.fixture(scope="session")
def aws() -> Iterator[str]:
    """The URL of the emulator; each test empties it."""
    pytest.importorskip("moto")
    from tests.backends import aws_emulator

    with aws_emulator.emulator() as url:
        yield url


@pytest.fixture(scope="session")
def secret_manager() -> Iterator[FakeSecretManager]:
    """A fake of Google's Secret Manager, whose server runs; each test empties it."""
    pytest.importorskip("google.cloud.secretmanager_v1")
    from tests.backends.fake_secret_manager import FakeSecretManager

    store = FakeSecretManager()
    with store.server.running():
        yield store


@pytest.fixture(scope="session")
def parameter_manager() -> Iterator[FakeParameterManager]:
    """A fake of Google's Parameter Manager, whose server runs; each test empties it."""
    pytest.importorskip("google.cloud.parametermanager_v1")
    from tests.backends.fake_parameter_manager import FakeParameterManager

    store = FakeParameterManager()
    with store.server.running():
        yield store


@pytest.fixture(scope="session")
def cloud_run() -> Iterator[FakeCloudRun]:
    """A fake of Google's Cloud Run, whose server runs; each test begins with one new service."""
    pytest.importorskip("google.cloud.run_v2")
    from tests.backends.fake_cloud_run import FakeCloudRun

    store = FakeCloudRun()
    with store.server.running():
        yield store
