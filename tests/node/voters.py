"""Acceptors of one environment over stores in memory, and the chain that they vote on."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from envd.core.chain import MODE, SERIAL, bottom
from envd.core.commit import Change, Commit, Kind
from envd.core.hlc import HybridClock
from envd.core.paxos import Acceptor, Ballot, Proposal
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp
from envd.node.acceptor import AcceptorService
from envd.node.coordinator import Coordinator
from envd.node.handshake import Peer
from envd.node.intake import Intake
from envd.node.views import NodeIdentity
from envd.ports import StoredState
from envd.storage.memory import MemoryStore
from envd.storage.memory_registers import MemoryRegisters
from envd.wire import records
from tests.node.conftest import DIGEST_KEY, StillClock
from tests.node.virtual_loop import run_virtually

NAME = "web/prod"
PLACE = bottom(1)
PEER = Peer(9, 1, b"b" * 16, "c1", "call", 1, b"")
_NOW = StillClock().now_ms << COUNTER_BITS
Params = ParamSpec("Params")


def virtually(test: Callable[Params, Coroutine[Any, Any, None]]) -> Callable[Params, None]:
    """Run a test on an event loop whose time jumps to the next timer."""

    @functools.wraps(test)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> None:
        run_virtually(test(*args, **kwargs))

    return run


def opening(uid: int = 1, name: str = NAME) -> Commit:
    """The commit that begins the chain."""
    mode = Change(Kind.METADATA, MODE, SERIAL, False, ZERO)
    return Commit(name, Stamp(1, _NOW + 1, uid), (mode,), follows=PLACE)


def after(commit: Commit, value: str, uid: int = 1) -> Commit:
    """A commit that sets X, and follows another one."""
    put = Change(Kind.VARIABLE, "X", value, False, ZERO)
    stamp = Stamp(1, commit.stamp.hlc + 1, uid)
    return Commit(commit.environment, stamp, (put,), follows=commit.stamp)


def proposed(commit: Commit, counter: int = 1, uid: int = 9) -> Proposal:
    return Proposal(Ballot(counter, uid), commit.follows, records.encode_commit(commit))


OPENING = opening()
FIRST = after(OPENING, "first")
SECOND = after(FIRST, "second")


class SlowRegisters(MemoryRegisters):
    """While `slow`, what is saved waits until `finish`."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self._waiting: list[tuple[str, Acceptor, asyncio.Future[None]]] = []

    def _write(self, register: str, acceptor: Acceptor, saved: asyncio.Future[None]) -> None:
        if self.slow:
            self._waiting.append((register, acceptor, saved))
        else:
            super()._write(register, acceptor, saved)

    def finish(self) -> None:
        for waiting in self._waiting:
            self._written(*waiting)
        self._waiting.clear()


class SlowStore(MemoryStore):
    """While `slow`, what is logged waits until `finish`."""

    slow = False

    def __init__(self, uid: int) -> None:
        super().__init__(node_uid=uid, digest_key=DIGEST_KEY)
        self._held: list[tuple[bytes, StoredState, asyncio.Future[int]]] = []

    def _sync(self, row: bytes, after: StoredState, durable: asyncio.Future[int]) -> None:
        if self.slow:
            self._held.append((row, after, durable))
        else:
            super()._sync(row, after, durable)

    def finish(self) -> None:
        self.slow = False
        for held in self._held:
            super()._sync(*held)
        self._held.clear()


@dataclass
class Voter:
    """One acceptor; `pull` runs `on_pull`, which by default brings nothing.

    It is sealed up to one time (hlc), and up to another nothing is left to finish.
    """

    uid: int = 1
    epoch: int = 1
    clock: StillClock = field(default_factory=StillClock)
    registers: SlowRegisters = field(default_factory=SlowRegisters)
    pulled: list[tuple[str, int]] = field(default_factory=list)
    sealed_to: int = 0
    closed_to: int = 0

    def __post_init__(self) -> None:
        self.store = SlowStore(self.uid)
        hlc = HybridClock(self.uid, 0)
        identity = NodeIdentity(self.uid, f"n{self.uid}", "here")
        self.coordinator = Coordinator(self.store, self.clock, identity, DIGEST_KEY, hlc=hlc)
        self.intake = Intake(self.store, self.clock, hlc, DIGEST_KEY, self.uid)
        self.on_pull: Callable[[], Coroutine[Any, Any, None]] = self.log
        self.service = AcceptorService(
            self.store,
            self.registers,
            self.intake,
            self.clock,
            self._pull,
            lambda: self.epoch,
            sealed_to=lambda: self.sealed_to,
            closed_to=lambda: self.closed_to,
        )

    async def _pull(self, name: str, uid: int) -> None:
        self.pulled.append((name, uid))
        await self.on_pull()

    async def log(self, *commits: Commit) -> None:
        """Have the log hold these, durably."""
        mark = self.intake.mark()
        for commit in commits:
            await self.intake.repair(records.encode_commit(commit))
        await self.intake.settled(mark)

    async def begin(self, *commits: Commit) -> None:
        """Log commits of which it is not known yet whether they are durable."""
        self.store.slow = True
        for commit in commits:
            await self.intake.repair(records.encode_commit(commit))
        await turns()

    def holds(self, commit: Commit) -> bool:
        return commit.stamp in [stamp for stamp, _ in self.store.commit_rows(commit.environment)]

    @property
    def accepted(self) -> Proposal | None:
        return self.registers.get(NAME).accepted


async def turns(count: int = 20) -> None:
    """Let everything run that can, without time going by."""
    for _ in range(count):
        await asyncio.sleep(0)
