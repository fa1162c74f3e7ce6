"""Names of what changes in a store, for as long as somebody takes them.

A follower has no queue: a name that changes again before it is taken is told once. Where more
names wait than are worth keeping, they are forgotten, and it is told that it may have missed some.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from envd.core.names import has_prefix
from envd.ports import Applied, Store

MAX_WAITING: Final = 10_000


class Following:
    """All followers of one store."""

    def __init__(self, store: Store, *, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._followers: dict[_Follower, None] = {}
        store.subscribe(self._applied)

    @property
    def followers(self) -> int:
        """How many there are now."""
        return len(self._followers)

    def _applied(self, applied: Applied) -> None:
        for follower in self._followers:
            follower.take(applied.record.commit.environment)

    async def names(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names at and below a prefix as they change, for ever; "" where some may be missing.

        It follows from the moment on in which the first one is asked for.
        """
        follower = _Follower(prefix, self._max_waiting)
        self._followers[follower] = None
        try:
            while True:
                for name in await follower.waiting():
                    yield name
        finally:
            del self._followers[follower]


class _Follower:
    """One follower, and what it was not told yet."""

    def __init__(self, prefix: str, max_waiting: int) -> None:
        self._prefix = prefix
        self._max_waiting = max_waiting
        self._names: dict[str, None] = {}
        self._any = asyncio.Event()

    def take(self, name: str) -> None:
        """Something changed."""
        if not has_prefix(name, self._prefix):
            return
        if len(self._names) == self._max_waiting and name not in self._names:
            self._names = {"": None}
        self._names[name] = None
        self._any.set()

    async def waiting(self) -> list[str]:
        """What changed since the last time; waits until there is something."""
        await self._any.wait()
        self._any.clear()
        names, self._names = list(self._names), {}
        return names
