"""A node in memory and the servers before it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.net.http_world import Http, http_to
from tests.net.world import Node, Rpc, grpc_to


@pytest.fixture
async def node() -> Node:
    return Node()


@pytest.fixture
async def rpc(node: Node) -> AsyncIterator[Rpc]:
    async with grpc_to(node) as served:
        yield served


@pytest.fixture
async def http(node: Node) -> AsyncIterator[Http]:
    async with http_to(node) as served:
        yield served
