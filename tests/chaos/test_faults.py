"""Which disks the simulator loses: never so many that a promise about any one node says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from chaos.sim.chance import Chance
from chaos.sim.cluster import Cluster, Machine
from chaos.sim.faults import Faults
from chaos.sim.loop import SimLoop
from chaos.sim.nodes import EnvdFactory, Settings, SimNode
from chaos.sim.trace import Trace
from envd.core.topology import TOPOLOGY, topology_in
from envd.node.electorate import LOST_AFTER_S

VOTERS = 3


class World:
    """Some of envd's nodes; `lost` are the machines that lost their disks, and how many voters
    then had theirs is in `left`."""

    def __init__(self, machines: int) -> None:
        chance = Chance(1)
        self.loop = SimLoop()
        self.factory = EnvdFactory(
            self.loop, chance.below("nodes"), Settings(), lambda *_: None, lambda *_: None
        )
        self.cluster: Cluster[SimNode] = Cluster(
            self.loop, chance.below("cluster"), Trace(self.loop.time), self.factory
        )
        self.factory.cluster = self.cluster
        self.machines = [self.cluster.add(f"n{number}") for number in range(machines)]
        self.lost: list[str] = []
        self.left: list[int] = []
        self.faults = Faults(self.cluster, self.factory, chance.stream("faults"), self._disk_lost)

    def run(self, asked: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            for machine in self.machines:
                await self.cluster.start(machine)
            wanted = VOTERS if len(self.machines) >= VOTERS else 1
            await self.until(lambda: self.voters_left() == wanted)
            await asked()

        self.loop.simulate(main())
        self.loop.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.1)

    def voters_left(self) -> int:
        """How many voters have their disks, by the topology of the node for which it is fewest."""
        uids = {self.factory.directories[machine.name].uid for machine in self.machines}
        states = [node.store.visible(TOPOLOGY) for node in self.cluster.nodes.values()]
        known = [topology_in(state.environment) if state else None for state in states]
        return min(len(uids.intersection(each.voters)) if each else 0 for each in known)

    def _disk_lost(self, machine: Machine, back_to_s: float) -> None:
        self.lost.append(machine.name)
        self.left.append(self.voters_left())


def test_a_disk_is_lost_only_where_a_majority_of_the_voters_keeps_theirs() -> None:
    world = World(VOTERS)

    async def lose_many() -> None:
        for _ in range(6):
            await world.faults.kinds["wipe"]()

    world.run(lose_many)

    assert len(world.lost) > 1
    assert min(world.left) >= 2


def test_another_voter_may_be_lost_soon_after_the_lost_one_was_removed() -> None:
    world = World(VOTERS)

    async def replace() -> None:
        operator = world.loop.create_task(world.factory.keep_removing())
        first, second, _ = world.machines
        world.cluster.wipe(first)
        assert world.factory.spares(first)
        assert not world.factory.spares(second)
        await world.cluster.start(first)
        began = world.loop.time()
        await world.until(lambda: world.factory.spares(second))
        assert world.loop.time() - began < LOST_AFTER_S / 2  # Else it would be struck by itself.
        assert world.voters_left() == VOTERS
        operator.cancel()

    world.run(replace)


def test_who_votes_alone_may_be_lost() -> None:
    world = World(machines=2)

    async def ask() -> None:
        assert world.voters_left() == 1
        assert all(map(world.factory.spares, world.machines))

    world.run(ask)
