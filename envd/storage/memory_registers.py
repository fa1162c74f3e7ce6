"""The Registers in memory: the same contract without a disk, for tests and the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

from envd.core.errors import EnvdError
from envd.core.paxos import Acceptor
from envd.core.stamp import Stamp


class MemoryRegisters:
    """What is saved is durable one turn of the event loop later, or when a subclass says so.

    `durable` is what a crash leaves, and what to begin with after it.
    """

    def __init__(self, durable: Mapping[str, Acceptor] | None = None) -> None:
        self.durable = dict(durable or {})
        self._heads = dict(self.durable)

    def get(self, register: str) -> Acceptor:
        return self._heads.get(register) or Acceptor()

    def save(self, register: str, acceptor: Acceptor) -> Awaitable[None]:
        self._heads[register] = acceptor
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._write(register, acceptor, saved)
        return saved

    def _write(self, register: str, acceptor: Acceptor, saved: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().call_soon(self._written, register, acceptor, saved)

    def _written(self, register: str, acceptor: Acceptor, saved: asyncio.Future[None]) -> None:
        self.durable[register] = acceptor
        if not saved.done():
            saved.set_result(None)

    def _refused(self, error: EnvdError, *saved: asyncio.Future[None]) -> None:
        """What was on its way is gone."""
        self._heads = dict(self.durable)
        for each in saved:
            if not each.done():
                each.set_exception(error)

    def prune(self, register: str, position: Stamp) -> None:
        for kept in (self._heads, self.durable):
            if register in kept:
                kept[register] = kept[register].pruned(position)

    def accepted(self) -> Mapping[str, Acceptor]:
        return {name: at for name, at in sorted(self._heads.items()) if at.accepted is not None}
