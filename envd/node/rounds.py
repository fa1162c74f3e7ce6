"""The rounds that raise the floor (`core.sealing`): what a governor does about them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from envd.core.errors import EnvdError
from envd.core.sealing import FloorPace, Sealed, is_done, may_begin, next_floor
from envd.core.stamp import MAX_HLC
from envd.core.topology import Topology
from envd.node.balancing import Change
from envd.node.proposing import Ask
from envd.ports import Clock
from envd.wire import peers as wire

ASKS_S: Final = 2.0
_log = logging.getLogger(__name__)


class Rounds:
    """Ask it for the `change` that is due."""

    def __init__(
        self, pace: FloorPace, clock: Clock, uid: int, progress: Callable[[], Sealed], ask: Ask
    ) -> None:
        """`progress` tells how far this node is itself."""
        self._pace = pace
        self._clock = clock
        self._uid = uid
        self._progress = progress
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._from_s = self._loop.time() + pace.every_ms / 1000
        """Not right after a start: each step is an epoch, and others start then too."""
        self.awaited: tuple[int, ...] = ()
        """The nodes for which the floor waits, as they were when that was last looked at."""

    async def change(
        self, topology: Topology, there: Callable[[], Collection[int]]
    ) -> Change | None:
        """What is to be changed next about the floor; None for nothing.

        `there` tells the storage nodes that can be reached, and those that are about to join.
        """
        nodes = [site.uid for site in topology.nodes]
        to = next_floor(topology.floor, self._pace, self._clock.wall_ms())
        if topology.sealing is None and (to is None or self._is_early() or _moves(topology)):
            return None
        if self._waits_for_others(there(), nodes):
            return None
        told = await self._ask_all(nodes)
        if self._waits_for_others(there(), nodes):  # Who came meanwhile was not asked.
            return None
        if topology.sealing is None:
            assert to is not None
            begins = may_begin(topology.floor, to, nodes, told)
            change = Change(topology.seal(to), "a floor is sealed") if begins else None
        elif not is_done(topology.sealing, nodes, told):
            change = None
        elif topology.sealing.gathering:
            change = Change(topology.raise_floor(), "the floor is raised")
        else:
            change = Change(topology.gather(), "what is below the floor is gathered")
        self._wait_for(() if change is not None else _behind(topology, nodes, told))
        return change

    def _waits_for_others(self, there: Collection[int], nodes: Collection[int]) -> bool:
        """Whether somebody came, or is away, and has to be waited for."""
        others = {*there}.symmetric_difference(nodes)
        if others:
            self._wait_for(others)
        return bool(others)

    def _wait_for(self, uids: Collection[int]) -> None:
        """Note for whom the floor waits; log it where others are waited for than before."""
        awaited = tuple(sorted(uids))
        if awaited and awaited != self.awaited:
            _log.info("floor.awaits", extra={"nodes": [f"{uid:016x}" for uid in awaited]})
        self.awaited = awaited

    def _is_early(self) -> bool:
        return self._loop.time() < self._from_s

    async def _ask_all(self, nodes: Collection[int]) -> Mapping[int, Sealed]:
        """How far the nodes are, of those that answer in time."""
        others = sorted(uid for uid in nodes if uid != self._uid)
        answers = await asyncio.gather(*map(self._ask_one, others))
        told = {uid: said for uid, said in zip(others, answers, strict=True) if said is not None}
        return {**told, self._uid: self._progress()}

    async def _ask_one(self, uid: int) -> Sealed | None:
        try:
            async with asyncio.timeout(ASKS_S):
                raw = await self._ask(uid, "floor.progress", b"")
            said = wire.unpack(wire.FloorProgress, raw)
            return Sealed(said.floor, said.sealed, said.gathered)
        except (EnvdError, TimeoutError):
            return None


def _moves(topology: Topology) -> bool:
    """Whether partitions are on their way, or about to be."""
    table = topology.table
    return table is not None and bool(table.moves or table.waiting)


def _behind(
    topology: Topology, nodes: Collection[int], told: Mapping[int, Sealed]
) -> Collection[int]:
    """Who is not as far as the others."""
    sealing = topology.sealing
    if sealing is None:
        late = (uid for uid in nodes if not may_begin(topology.floor, MAX_HLC, [uid], told))
    else:
        late = (uid for uid in nodes if not is_done(sealing, [uid], told))
    return tuple(late)
