from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.bench import Envctl, NodeInMemory


@pytest.fixture
def node() -> Iterator[NodeInMemory]:
    made = NodeInMemory()
    yield made
    made.loop.close()


@pytest.fixture
def envctl(node: NodeInMemory, tmp_path: Path) -> Envctl:
    return Envctl(node, tmp_path)
