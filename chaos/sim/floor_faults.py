"""Faults of clusters that forget: absences until a node is given up, deaths and joins in a round.

They come on top of those that befall every cluster (`chaos.sim.faults`), and of those whose
partitions move. One machine at a time is away for so long, so that the others can agree on it;
which directory is put back is older than the floor as often as not, since the floor rises soon.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from random import Random
from typing import Any, Final, Protocol

from chaos.sim.cluster import Cluster, Machine
from chaos.sim.faults import Disks, Faults, Holding
from chaos.sim.moving_faults import MovingDisks, MovingFaults
from chaos.sim.shares import Shares
from envd.core.sealing import NO_FLOOR, Floor
from envd.core.topology import Topology

KINDS: Final = ("absence", "cut-off node", "death in a round", "join in a round")
_AWAITS_S: Final = 20.0
_POLL_S: Final = 0.02
_BETWEEN_S: Final = (1.0, 8.0)
"""A round takes all nodes, for seconds: with more faults none would ever end."""
_AT_ONCE: Final = 3
_LONGER_S: Final = (6.0, 25.0)
_DEAD_S: Final = (0.05, 10.0)
_EARLY: Final = 0.7


class Step(Enum):
    """How far a round is, by the newest topology that a node has."""

    NONE = "none"
    SEALING = "sealing"
    GATHERING = "gathering"
    RAISED = "raised"


class RoundDisks(Disks, Protocol):
    """What these faults ask besides."""

    def shares(self) -> Shares:
        """Who is to hold what, by the newest topology that a node has."""
        ...


class FloorFaults(Faults):
    """The schedule of a cluster whose floor is raised; who is away for `gives_up_s` is given up."""

    def __init__(
        self,
        cluster: Cluster[Any],
        disks: RoundDisks,
        chance: Random,
        on_disk_lost: Callable[[Machine, float], None],
        machines: range,
        gives_up_s: float,
    ) -> None:
        super().__init__(cluster, disks, chance, on_disk_lost, machines)
        self._gives_up_s = gives_up_s
        self._between_s, self._at_once = _BETWEEN_S, _AT_ONCE
        self._rounds = disks
        self._away = False
        more: dict[str, Callable[[], Awaitable[None]]] = {
            "absence": self._absence,
            "cut-off node": self._cut_off_node,
            "death in a round": self._death_in_a_round,
            "join in a round": self._join_in_a_round,
        }
        self.kinds |= more

    async def run(self, seconds: float, enabled: list[str]) -> None:
        """Of short runs most begin with an absence: else none would end in them."""
        absent = [kind for kind in ("absence", "cut-off node") if kind in enabled]
        if absent and self._chance.random() < _EARLY:
            await self._for(1, 6)
            kind = self._chance.choice(absent)
            self._running[self._cluster.loop.create_task(self._inflict(kind), name=kind)] = None
        await super().run(seconds, enabled)

    # -- absences ----------------------------------------------------------------------

    async def _absence(self) -> None:
        """A machine is down until its node is given up; then it comes back."""
        machine = self._may_go()
        if machine is None:
            return
        self._began("absence", machine.name)
        self._away = True
        try:
            async with Holding(self._busy, machine):
                self._cluster.crash(machine, silently=self._chance.random() < 0.5)
                await self._for_long()
                await self._start(machine)
        finally:
            self._away = False

    async def _cut_off_node(self) -> None:
        """A node sees nobody until it is given up, while its clients go on writing to it."""
        machine = self._may_go()
        if machine is None:
            return
        self._began("cut-off node", machine.name)
        network = self._cluster.network
        self._away = True
        try:
            network.partition([machine.name], [one for one in self._names() if one != machine.name])
            await self._for_long()
        finally:
            self._away = False
            for other in self._names():
                if other != machine.name:
                    network.mend(machine.name, other)
                    network.mend(other, machine.name)

    def _may_go(self) -> Machine | None:
        machine = self._free()
        return None if self._away or machine is None or not machine.is_up else machine

    async def _for_long(self) -> None:
        least_s, most_s = _LONGER_S
        await self._for(self._gives_up_s + least_s, self._gives_up_s + most_s)

    # -- rounds ------------------------------------------------------------------------

    async def _death_in_a_round(self) -> None:
        """A machine dies as soon as a round is at a step that is drawn."""
        step = self._chance.choice([each for each in Step if each is not Step.NONE])
        machine = self._free()
        if machine is None or not await self._comes_to(step) or not machine.is_up:
            return
        if machine.name in self._busy:
            return
        self._began("death in a round", f"{machine.name} {step.value}")
        async with Holding(self._busy, machine):
            self._cluster.crash(machine, silently=self._chance.random() < 0.3)
            await self._for(*_DEAD_S)
            await self._start(machine)

    async def _join_in_a_round(self) -> None:
        """A machine comes while a round is under way."""
        step = self._chance.choice([Step.SEALING, Step.GATHERING])
        if len(self._cluster.machines) < self._most and await self._comes_to(step):
            self.counts["join in a round"] += 1
            await self._join()

    async def _comes_to(self, step: Step) -> bool:
        """Wait until a round is at this step, a while."""
        loop = self._cluster.loop
        until, before = loop.time() + _AWAITS_S, self._floor()
        while loop.time() < until:
            if step_of(self._rounds.shares().topology, before) is step:
                return True
            await self._for(0.5 * _POLL_S, _POLL_S)
        return False

    def _floor(self) -> Floor:
        topology = self._rounds.shares().topology
        return NO_FLOOR if topology is None else topology.floor


class MovingFloorFaults(FloorFaults, MovingFaults):
    """The schedule of a cluster that forgets and whose partitions move."""

    def __init__(
        self,
        cluster: Cluster[Any],
        disks: MovingDisks,
        chance: Random,
        on_disk_lost: Callable[[Machine, float], None],
        machines: range,
        gives_up_s: float,
    ) -> None:
        super().__init__(cluster, disks, chance, on_disk_lost, machines, gives_up_s)


def step_of(topology: Topology | None, before: Floor) -> Step:
    """How far the round is; RAISED where the floor is not as it was `before`."""
    if topology is None:
        return Step.NONE
    if topology.sealing is not None:
        return Step.GATHERING if topology.sealing.gathering else Step.SEALING
    return Step.RAISED if topology.floor != before else Step.NONE
