"""What tests of the backends for AWS share: one emulator, where moto is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def aws() -> Iterator[str]:
    """The URL of the emulator; each test empties it."""
    pytest.importorskip("moto")
    from tests.backends import aws_emulator

    with aws_emulator.emulator() as url:
        yield url
