"""Faults of clusters in which partitions move: deaths in the midst of a move, and old topologies.

They come on top of those that befall every cluster (`chaos.sim.faults`). A join, a leave, and a
wipe whose node an operator removes make partitions move; these here aim at those that take part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Any, Final, Protocol

from chaos.sim.cluster import Cluster, Machine
from chaos.sim.faults import Disks, Faults, Holding
from chaos.sim.shares import Shares
from envd.core.partitions import Move, PartitionTable, Stage

KINDS: Final = ("cut-off voters", "death in a move", "long absence", "old topology")
_AWAITS_S: Final = 30.0
_POLL_S: Final = 0.1
_CUT_S: Final = (5.0, 30.0)
_OLD_S: Final = (30.0, 90.0)
_ABSENT_S: Final = (20.0, 80.0)


class MovingDisks(Disks, Protocol):
    """What these faults ask besides."""

    def shares(self) -> Shares:
        """Who is to hold what, by the newest topology that a node has."""
        ...

    @property
    def machine_of(self) -> dict[int, str]:
        """The machine of each node that there ever was."""
        ...


class MovingFaults(Faults):
    """The schedule of a cluster whose partitions move."""

    def __init__(
        self,
        cluster: Cluster[Any],
        disks: MovingDisks,
        chance: Random,
        on_disk_lost: Callable[[Machine, float], None],
        machines: range,
    ) -> None:
        super().__init__(cluster, disks, chance, on_disk_lost, machines)
        self._moving = disks
        more: dict[str, Callable[[], Awaitable[None]]] = {
            "cut-off voters": self._cut_off_voters,
            "death in a move": self._death_in_a_move,
            "long absence": self._long_absence,
            "old topology": self._old_topology,
        }
        self.kinds |= more

    async def _death_in_a_move(self) -> None:
        """One that takes part in a move dies in a stage that is drawn, as soon as there is one."""
        stage = self._chance.choice(list(Stage))
        loop = self._cluster.loop
        until = loop.time() + _AWAITS_S
        while loop.time() < until:
            machine = self._in_a_move(stage)
            if machine is not None and machine.is_up:
                silently = self._chance.random() < 0.5
                self._began("death in a move", f"{machine.name} {stage.name}")
                async with Holding(self._busy, machine):
                    self._cluster.crash(machine, silently=silently)
                    await self._for(0.05, 15)
                    await self._start(machine)
                return
            await asyncio.sleep(_POLL_S)

    def _in_a_move(self, stage: Stage) -> Machine | None:
        """A machine whose node gives, gets or keeps a partition that is in this stage."""
        table = self._moving.shares().table
        if table is None:
            return None
        names = {self._moving.machine_of.get(uid, "") for uid in taking_part(table, stage)}
        free = sorted(names & self._cluster.machines.keys() - self._busy.keys())
        return self._cluster.machines[self._chance.choice(free)] if free else None

    async def _cut_off_voters(self) -> None:
        """Who votes, or all but one of them, and who does not lose sight of each other."""
        topology = self._moving.shares().topology
        if topology is None:
            return
        voters = list(topology.quorum.members)
        voters.sort()
        if len(voters) > 1 and self._chance.random() < 0.5:
            voters.remove(self._chance.choice(voters))
        await self._apart("cut-off voters", self._machines_of(voters), _CUT_S)

    async def _old_topology(self) -> None:
        """A minority is cut off for so long that the others take a node in, and move partitions."""
        names = self._names()
        here = self._chance.sample(names, self._chance.randrange(1, max(2, len(names) // 2)))
        joins = self._cluster.loop.create_task(self._join_there(here), name="join")
        try:
            await self._apart("old topology", here, _OLD_S)
        finally:
            joins.cancel()
            await asyncio.wait([joins])

    async def _join_there(self, here: Iterable[str]) -> None:
        """A machine comes that these can't reach."""
        await self._for(0, 5)
        await self._join(away_from=here)

    async def _apart(self, kind: str, names: Iterable[str], seconds: tuple[float, float]) -> None:
        here = sorted(names)
        there = [name for name in self._names() if name not in here]
        if not here or not there:
            return
        self._began(kind, f"{here} {there}")
        network = self._cluster.network
        network.partition(here, there)
        try:
            await self._for(*seconds)
        finally:
            for one in here:
                for other in dict.fromkeys((*there, *self._cluster.machines)):
                    network.mend(one, other)
                    network.mend(other, one)

    def _machines_of(self, uids: Iterable[int]) -> list[str]:
        found = (self._moving.machine_of.get(uid, "") for uid in uids)
        return [name for name in found if name in self._cluster.machines]

    async def _long_absence(self) -> None:
        """A node is away for so long that others take its place, and comes back."""
        machine = self._free()
        if machine is None or not machine.is_up:
            return
        self._began("long absence", machine.name)
        async with Holding(self._busy, machine):
            self._cluster.crash(machine, silently=True)
            await self._for(*_ABSENT_S)
            await self._start(machine)


def taking_part(table: PartitionTable, stage: Stage) -> frozenset[int]:
    """The nodes that are, or were, or are to be holders of what is in this stage of a move."""
    moves: Iterable[tuple[int, Move]] = table.moves.items()
    return frozenset(
        uid
        for partition, move in moves
        if move.stage is stage
        for uid in (*table.holders[partition], *move.to)
    )
