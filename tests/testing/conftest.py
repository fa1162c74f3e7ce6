"""A directory that costs no waiting for a disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

_IN_MEMORY = Path("/dev/shm")


@pytest.fixture
def quick_directory() -> Iterator[Path]:
    """In memory where that can be: the kit writes thousands of times, and tries no disk."""
    place = _IN_MEMORY if _IN_MEMORY.is_dir() else None
    with TemporaryDirectory(prefix="envd-conformance-", dir=place) as directory:
        yield Path(directory)
