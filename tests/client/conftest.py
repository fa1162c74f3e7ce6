"""A node in memory behind gRPC, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import envd
from tests.client.world import client_of
from tests.net.world import Node, Rpc, grpc_to


@pytest.fixture
async def node() -> Node:
    return Node()


@pytest.fixture
async def rpc(node: Node) -> AsyncIterator[Rpc]:
    async with grpc_to(node) as served:
        yield served


@pytest.fixture
async def client(rpc: Rpc, tmp_path: Path) -> AsyncIterator[envd.Client]:
    async with client_of(rpc, tmp_path / "snapshots") as made:
        yield made
