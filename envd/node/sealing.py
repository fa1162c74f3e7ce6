"""A node's own part in raising the floor (`core.sealing`): it seals, gathers, goes up, and forgets.

What it takes to be at the floor is that it has all there is up to there. It has where it gathered
in the round that raised the floor; a node that began empty has once it was filled from one at the
floor. Any other was away meanwhile, or its directory was put back: it hands over what it has and
begins anew (`returning`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from envd.core.errors import EnvdError, Unavailable
from envd.core.hlc import HybridClock
from envd.core.ring import SYSTEM_PARTITION
from envd.core.sealing import Floor, Sealed, Sealing
from envd.core.stamp import COUNTER_BITS
from envd.node.acceptor import AcceptorService
from envd.node.calls import Method
from envd.node.coordinator import Coordinator
from envd.node.floors import Floors
from envd.node.handshake import Peer
from envd.node.holdings import Holdings
from envd.node.intake import Intake
from envd.node.proposing import Ask
from envd.node.repair import Repairer
from envd.ports import Clock, Forgotten, Store
from envd.wire import peers as wire

AGAIN_S: Final = 1.0
SWEEPS_S: Final = 600.0
"""History is trimmed at any time, and then there may be more to collect at the same floor."""
BUSY_S: Final = 10.0
"""What had writes on their way is looked at again so soon."""
_log = logging.getLogger(__name__)


class FloorKeeper:
    """`run` it on each storage node; `methods` is what a channel for calls serves."""

    def __init__(
        self,
        store: Store,
        holdings: Holdings,
        floors: Floors,
        hlc: HybridClock,
        clock: Clock,
        *,
        coordinator: Coordinator,
        intake: Intake,
        acceptor: AcceptorService,
        repairer: Repairer,
        ask: Ask,
        hand_back: Callable[[], Awaitable[None]],
    ) -> None:
        """`hand_back` has others take what this node has, and then has it end."""
        self._store = store
        self._holdings = holdings
        self._floors = floors
        self._hlc = hlc
        self._clock = clock
        self._coordinator = coordinator
        self._intake = intake
        self._acceptor = acceptor
        self._repairer = repairer
        self._ask = ask
        self._hand_back = hand_back
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._sealed = 0
        self._asked: tuple[int, set[tuple[int, bool]]] = (0, set())
        """Of which round, from whom it pulled already: what is theirs to have, and what is not."""
        self._began_hlc = hlc.reading(clock.wall_ms())
        self._filled: Sealed | None = None
        """How far the node was, when this one began to be filled from it."""
        self._swept: tuple[int, float] = (0, 0.0)
        self._problem = ""
        self.forgotten = Forgotten()
        """What was collected since the start."""
        hlc.raise_to(floors.sealed_to)  # What was promised before this start.
        floors.subscribe(self._changed)

    @property
    def stale(self) -> bool:
        """Whether what this node has may be what all others deleted and forgot."""
        agreed = self._floors.agreed
        return self._floors.behind and not (self._has_all(agreed) or self._may_be_filled(agreed))

    def _has_all(self, agreed: Floor) -> bool:
        """Whether this node has all there is up to a floor."""
        if self._store.gathered() >= agreed.round:
            return True
        filled = self._filled
        if filled is None or self._floors.unproven <= agreed.hlc:
            return False
        return filled.floor >= agreed.hlc or filled.gathered >= agreed.round

    def _may_be_filled(self, agreed: Floor) -> bool:
        """Whether this node began empty, after the time up to which all is agreed.

        And took nothing from a node that is below: that may be what all others forgot.
        """
        floors = self._floors
        began_after = floors.began_empty and agreed.hlc <= self._began_hlc
        return began_after and self._filled is None and agreed.hlc < floors.unproven

    # -- what it tells -------------------------------------------------------------------------

    def progress(self) -> Sealed:
        """How far this node is."""
        return Sealed(self._store.floor(), self._sealed, self._store.gathered())

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves."""
        return {"floor.progress": self._serve_progress}

    async def _serve_progress(self, _: Peer, __: bytes) -> bytes:
        return wire.pack(wire.FloorProgress(*self.progress()))

    # -- its work ------------------------------------------------------------------------------

    def _changed(self) -> None:
        """The floor or the round is another one: from now on nothing is stamped below."""
        sealing = self._floors.sealing
        self._hlc.raise_to(self._floors.agreed.hlc)
        if sealing is not None and not self._is_ahead(sealing):
            self._hlc.raise_to(sealing.hlc)
        self._news.set()

    def _is_ahead(self, sealing: Sealing) -> bool:
        """Whether who governs seals the future, as it seems here: one of the clocks is wrong."""
        return sealing.hlc > self._hlc.reading(self._clock.wall_ms())

    async def run(self) -> None:
        """Do what is to be done, for ever."""
        while True:
            self._news.clear()
            waits_s = AGAIN_S
            try:
                if await self._is_settled():
                    waits_s = BUSY_S
                self._problem = ""
            except EnvdError as error:
                self._note(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(waits_s):
                    await self._news.wait()

    async def _is_settled(self) -> bool:
        """Do what can be done now; tell whether nothing is left."""
        floors = self._floors
        if floors.behind:
            await self._go_up(floors.agreed)
            return False
        sealing, done = floors.sealing, True
        if sealing is not None:
            done = await self._take_part(sealing)
        return await self._is_collected() and done

    async def _go_up(self, agreed: Floor) -> None:
        if not self._has_all(agreed):
            self._check_clock(agreed)
        if self.stale:
            _log.warning("floor.stale", extra={"floor_ms": agreed.hlc >> COUNTER_BITS})
            await self._hand_back()
            await self._loop.create_future()  # This node ends.
        if not self._has_all(agreed):
            await self._fill(agreed)
            if not self._has_all(agreed):  # It took something meanwhile from one that is below.
                return
        await self._store.raise_floor(agreed.hlc)
        _log.info("floor.raised", extra={"floor_ms": agreed.hlc >> COUNTER_BITS})
        self._news.set()

    def _check_clock(self, agreed: Floor) -> None:
        """Raise Unavailable where the clock is so far behind that no start here would be after it.

        This node would begin anew again and again.
        """
        if agreed.hlc >> COUNTER_BITS > self._clock.wall_ms():
            raise Unavailable(
                "this node's clock is behind the floor of the cluster, which lies in the past",
                hint="set the clocks of the nodes right (NTP)",
                reason="CLOCK_SKEW",
            )

    async def _fill(self, agreed: Floor) -> None:
        """Have all that one at the floor has; raises Unavailable where there is none."""
        error: EnvdError = Unavailable("no node at the floor can be asked", reason="NOT_FILLED")
        for uid in sorted(self._floors.members - {self._holdings.uid}):
            ask = partial(self._ask, uid)
            try:
                said = wire.unpack(wire.FloorProgress, await ask("floor.progress", b""))
                if said.floor < agreed.hlc:
                    continue
                pulled = await self._repairer.catch_up(uid, ask, self._holdings.both(uid))
            except EnvdError as problem:
                error = problem
                continue
            if pulled.early_hlc > agreed.hlc:
                self._filled = Sealed(said.floor, said.sealed, said.gathered)
                return
        raise error

    # -- a round -------------------------------------------------------------------------------

    async def _take_part(self, sealing: Sealing) -> bool:
        """Do the step that a round is in; tell whether it is done."""
        if self._sealed != sealing.round and not await self._seal(sealing):
            return False
        if not sealing.gathering or self._store.gathered() == sealing.round:
            return True
        return await self._gather(sealing)

    async def _seal(self, sealing: Sealing) -> bool:
        """See to it that nothing of this node can come to be at or below there."""
        if self._is_ahead(sealing):
            raise Unavailable("what is to be sealed lies ahead of this node's clock")
        self._hlc.raise_to(sealing.hlc)
        await self._coordinator.settle()
        await self._intake.settled(self._intake.mark())
        if self._acceptor.open_below(sealing.hlc) or self._intake.holds_back_below(sealing.hlc):
            return False
        self._sealed = sealing.round
        return True

    async def _gather(self, sealing: Sealing) -> bool:
        """Pull what this node is to have of all others, first from those that are not to have it.

        Those hand it over to those that are, and drop it: asked in this order, it is found.
        """
        if self._asked[0] != sealing.round:
            self._asked = (sealing.round, set())
        asked = self._asked[1]
        others = sorted(self._floors.members - {self._holdings.uid})
        for theirs in (False, True):
            for uid in others:
                if (uid, theirs) not in asked:
                    await self._gather_from(uid, sealing, theirs=theirs)
                    asked.add((uid, theirs))
        if self._floors.sealing != sealing:
            return False
        await self._store.flush()
        await self._store.note_gathered(sealing.round)
        return True

    async def _gather_from(self, uid: int, sealing: Sealing, *, theirs: bool) -> None:
        table, me = self._holdings.table, self._holdings.uid
        partitions: Collection[int] | None = None
        if table is not None:
            held = table.held_by(me)
            partitions = held & table.held_by(uid) if theirs else held - table.held_by(uid)
            partitions = partitions | {SYSTEM_PARTITION} if theirs else partitions
        elif not theirs:
            return
        pulled = await self._repairer.pull(uid, partial(self._ask, uid), partitions, kind="floor")
        if pulled.early_hlc <= sealing.hlc:
            raise Unavailable("something of a peer waits for its time", reason="NOT_GATHERED")

    # -- forgetting ----------------------------------------------------------------------------

    async def _is_collected(self) -> bool:
        """Collect where that is due; tell whether nothing was left."""
        floor, now_s = self._store.floor(), self._loop.time()
        if not floor or (self._swept[0] == floor and now_s < self._swept[1] + SWEEPS_S):
            return True
        await self._store.flush()
        total = Forgotten()
        for partition, root in enumerate(self._store.roots().partitions):
            if root:
                total += await self._store.collect(partition)
                await asyncio.sleep(0)
        self.forgotten += total
        if total != Forgotten(busy=total.busy):
            _log.info(
                "floor.collected",
                extra={"tombstones": total.tombstones, "environments": total.environments},
            )
        self._swept = (floor, now_s - (SWEEPS_S - BUSY_S if total.busy else 0.0))
        return True

    def _note(self, error: EnvdError) -> None:
        """Log a problem once, until there is another one."""
        if error.message != self._problem:
            self._problem = error.message
            extra = {"reason": error.reason, "detail": error.message}
            _log.info("floor.waits", extra=extra)
