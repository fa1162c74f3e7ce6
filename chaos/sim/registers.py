"""The registers of a simulated node's acceptors, on the disk of its machine.

Each is synced by itself, in the order in which they were saved. A crash keeps what was synced, and
a random number of the oldest that were on their way; a full disk refuses, and then nothing that was
on its way is there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random

from chaos.sim.loop import Process, SimLoop
from chaos.sim.store import SLOW, SYNC_S, Platter
from envd.core.errors import Unavailable
from envd.core.paxos import Acceptor
from envd.storage.memory_registers import MemoryRegisters


class SimRegisters(MemoryRegisters):
    """What is durable is kept in `disk`, which outlives the process."""

    def __init__(
        self,
        disk: dict[str, Acceptor],
        platter: Platter,
        chance: Random,
        process: Process,
        loop: SimLoop,
    ) -> None:
        super().__init__(disk)
        self.durable = disk
        self._platter = platter
        self._chance = chance
        self._process = process
        self._loop = loop
        self._queue: deque[tuple[str, Acceptor, asyncio.Future[None]]] = deque()

    def _write(self, register: str, acceptor: Acceptor, saved: asyncio.Future[None]) -> None:
        self._queue.append((register, acceptor, saved))
        if len(self._queue) == 1:
            self._begin()

    def _begin(self) -> None:
        took = self._chance.uniform(*SYNC_S)
        took *= SLOW if self._platter.slow else 1
        self._loop.call_later(took, self._process.call_soon, self._end)

    def _end(self) -> None:
        if not self._queue:
            return
        if self._platter.full:
            refused = [saved for _, _, saved in self._queue]
            self._queue.clear()
            error = Unavailable("the disk is full; nothing was written", reason="DISK_FULL")
            self._refused(error, *refused)
            return
        self._written(*self._queue.popleft())
        if self._queue:
            self._begin()

    def lose_power(self) -> None:
        """End at once: what no sync covered is there or not, the oldest first."""
        for _ in range(self._chance.randrange(len(self._queue) + 1)):
            register, acceptor, _ = self._queue.popleft()
            self.durable[register] = acceptor
        self._queue.clear()
