"""A node over a store in memory, with a clock that stands still until it is moved."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from envd.core.requests import Put, WriteRequest
from envd.node.coordinator import Coordinator
from envd.node.views import NodeIdentity
from envd.storage.memory import MemoryStore

DIGEST_KEY = b"d" * 32


class StillClock:
    """Both clocks stand at `now_ms`."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms


@dataclass
class Node:
    """A coordinator with what it stands on."""

    clock: StillClock = field(default_factory=StillClock)
    store: MemoryStore = field(default_factory=MemoryStore)
    identity: NodeIdentity = field(default_factory=lambda: NodeIdentity(7, "n1", "here"))

    def __post_init__(self) -> None:
        self.coordinator = Coordinator(self.store, self.clock, self.identity, DIGEST_KEY)

    async def put(self, environment: str, **values: str) -> str:
        """Set variables; return the new revision."""
        puts = tuple(Put(name, value) for name, value in values.items())
        answer = await self.coordinator.write(WriteRequest(environment, puts), "tester")
        return answer.revision


@pytest.fixture
async def node() -> Node:
    return Node()
