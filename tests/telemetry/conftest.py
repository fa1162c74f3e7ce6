"""A collector, and real nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Node
from tests.telemetry.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Node]:
    """A node that was not started yet; it is killed at the end if it runs."""
    node = Node(tmp_path)
    yield node
    if node.process is not None:
        node.kill()


@pytest.fixture
def joiner(stopped: Node, tmp_path: Path) -> Iterator[Node]:
    """A node that was not started yet, for the cluster of `stopped`; see `join`."""
    directory = tmp_path / "joiner"
    directory.mkdir()
    node = Node(directory)
    yield node
    if node.process is not None:
        node.kill()
