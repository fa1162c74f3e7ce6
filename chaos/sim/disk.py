"""What is durable when: one sync at a time takes virtual time, and a crash loses what is behind it.

A `SimDisk` outlives the processes that use it. `sync` is one fdatasync: everything written
before it began is durable when it ends. What a crash leaves of writes that no sync covered is a
random number of the oldest, the last of them perhaps torn (it is there and can't be read).
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Final, Generic, TypeVar

from chaos.sim.loop import SimFuture, SimLoop
from envd.core.errors import Unavailable

SYNC_S: Final = (0.000_15, 0.004)
SLOW_SYNC_S: Final = (0.05, 0.4)
ItemT = TypeVar("ItemT")


@dataclass
class _Write(Generic[ItemT]):
    item: ItemT
    synced: SimFuture[int]


class SimDisk(Generic[ItemT]):
    """A log of items on one machine's disk.

    `durable` is what a reader after a crash would find; `full` refuses new items; a `slow` disk
    takes a hundred times as long to sync.
    """

    def __init__(self, loop: SimLoop, chance: Random) -> None:
        self.durable: list[ItemT] = []
        self.full = False
        self.slow = False
        self.syncs = 0
        self.flush_begun = 0
        self._loop = loop
        self._chance = chance
        self._written: deque[_Write[ItemT]] = deque()
        self._syncing: list[_Write[ItemT]] = []

    @property
    def is_syncing(self) -> bool:
        """Whether a group is being synced right now."""
        return bool(self._syncing)

    def append(self, item: ItemT) -> SimFuture[int]:
        """Write an item; the future gives how many are durable with it.

        It fails with Unavailable where the disk is full.
        """
        synced: SimFuture[int] = self._loop.create_future()
        if self.full:
            synced.set_exception(Unavailable("the disk is full; nothing was written"))
            return synced
        self._written.append(_Write(item, synced))
        if not self._syncing:
            self._begin_sync()
        return synced

    async def sync(self) -> None:
        """Wait as long as a sync takes."""
        await asyncio.sleep(self.sync_s())

    def sync_s(self) -> float:
        """How long the next sync takes."""
        return self._chance.uniform(*(SLOW_SYNC_S if self.slow else SYNC_S))

    def _begin_sync(self) -> None:
        self._syncing, self._written = list(self._written), deque()
        self._loop.call_later(self.sync_s(), self._end_sync, self._syncing)

    def _end_sync(self, group: list[_Write[ItemT]]) -> None:
        if group is not self._syncing:
            return  # a crash came first
        self.syncs += 1
        self._syncing = []
        for write in group:
            self.durable.append(write.item)
            if not write.synced.done():
                write.synced.set_result(len(self.durable))
        if self._written:
            self._begin_sync()

    def crash(self) -> int:
        """Lose what was not synced, but for some of the oldest; return how many survived."""
        unsynced = [write.item for write in (*self._syncing, *self._written)]
        self._syncing, self._written = [], deque()
        survivors = self._chance.randrange(len(unsynced) + 1)
        self.durable += unsynced[:survivors]
        return survivors

    def wipe(self) -> None:
        """A new, empty disk."""
        self.crash()
        self.durable = []
        self.full = self.slow = False
