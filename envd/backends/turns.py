"""Taking turns by name: who writes one item of a store does so alone, as far as this backend goes.

A store that can't compare versions is looked at before it is written. Two writes of one item that
look at once would both believe that they were first; in turn, the second finds what the first left.
Nothing is kept for names that nobody writes, so there are never more than calls under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    members: int = 0


class Turns:
    """One queue for each name that somebody writes now."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait until it is one's turn with this name, and have it until the end."""
        queue = self._queues.setdefault(name, _Queue())
        queue.members += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.members -= 1
            if not queue.members:
                del self._queues[name]
