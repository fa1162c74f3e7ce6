"""One daemon for each module: what a module did to it shows when its last test is done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.victim import Victim, victim


@pytest.fixture(scope="module")
def daemon() -> Iterator[Victim]:
    with victim() as one:
        yield one
