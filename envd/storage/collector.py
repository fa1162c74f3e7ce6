"""When a durable store collects below its floor, and what it leaves alone meanwhile.

A transaction collects in environments of which all is in the state, as they are when it begins;
those with records on their way, or not flushed yet, wait for the next time. A record that comes
meanwhile is built upon what is about to go: in the turn of the event loop in which readers begin to
see what is left, the same is taken out of the states in memory, and of those on their way. That is
safe because nothing at or below the floor is ever appended: what is newer supersedes no less of
what is left than it did of what went.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from envd.core.ring import PARTITIONS
from envd.ports import Forgotten
from envd.storage.collecting import Slice
from envd.storage.journal import stopping
from envd.storage.memtable import Memtable
from envd.storage.state import StateDb
from envd.storage.write_behind import Pace, WriteBehind
from envd.threads import finish_in_thread


class Collector:
    """Collects in one durable store."""

    def __init__(self, state: StateDb, memtable: Memtable, behind: WriteBehind) -> None:
        self._state = state
        self._memtable = memtable
        self._behind = behind

    async def raise_floor(self, hlc: int) -> None:
        """As the port says."""
        await self._write(self._state.raise_floor, hlc)

    async def note_gathered(self, round_: int) -> None:
        """As the port says."""
        await self._write(self._state.note_gathered, round_)

    async def _write(self, write: Callable[[int], None], number: int) -> None:
        async with self._behind.alone():
            if self._behind.ends:
                raise stopping()
            await finish_in_thread(write, number)
            self._state.refresh()

    async def collect(self, partition: int) -> Forgotten:
        """As the port says."""
        if not 0 <= partition < PARTITIONS:
            raise ValueError(f"there is no partition {partition}")
        total = Forgotten()
        if not self._state.is_collectable(partition):
            return total
        await self._behind.flush()
        after: bytes | None = b""
        while after is not None:
            async with self._behind.in_turn() as pace:
                if self._behind.ends:
                    raise stopping()
                done = await self._slice(partition, after, pace)
            total, after = total + done.forgotten, done.after
            await asyncio.sleep(0)
        return total

    async def _slice(self, partition: int, after: bytes, pace: Pace) -> Slice:
        busy = self._memtable.unsettled(partition)
        done: Slice | None = None

        def write() -> Slice:
            nonlocal done
            done = self._state.collect(partition, after, busy, pace)
            return done

        try:
            return await finish_in_thread(write)
        finally:  # Where the caller was cancelled, it is written all the same.
            self._state.refresh()
            if done is not None:
                self._memtable.collected(done.removed)
