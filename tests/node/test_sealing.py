"""The floor goes up, and what was deleted before is forgotten, by whole simulated clusters."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from chaos.sim.nodes import Settings
from envd.core.history import Retention
from envd.core.ring import partition_of
from envd.core.sealing import Floor, FloorPace
from envd.core.stamp import COUNTER_BITS
from tests.node.machines import Machines, simulate

QUICK = FloorPace(age_ms=5_000, every_ms=3_000, gives_up_s=60.0)
SETTINGS = Settings(Retention(2, 0), pace=QUICK)
SETTLES_S = 15.0


def floors(machines: Machines) -> set[int]:
    return {each.store.floor() for each in machines.cluster.nodes.values()}


def agreed(machines: Machines, name: str = "n1") -> Floor:
    return machines.node(name).node.floors.agreed


def now(machines: Machines, name: str = "n1") -> int:
    return machines.machine(name).clock.wall_ms() << COUNTER_BITS


async def passes(
    machines: Machines, hlc: int, within_s: float = 40.0, names: Collection[str] = ()
) -> None:
    """Wait until these nodes, or all, are at a floor above `hlc`."""

    def passed() -> bool:
        nodes = machines.cluster.nodes
        found = {nodes[name].store.floor() for name in names or nodes}
        return len(found) == 1 and min(found) > hlc

    await machines.until(passed, within_s)


def tombstones(machines: Machines, name: str, environment: str) -> int:
    state = machines.node(name).store.visible(environment)
    if state is None:
        return 0
    return sum(entry.value is None for entry in state.environment.variables.values())


def test_what_was_unset_is_forgotten_everywhere() -> None:
    async def story(machines: Machines) -> None:
        names = ("n1", "n2", "n3")
        await machines.start()
        await machines.write("n1", "web", A="1", B="2")
        await machines.write("n2", "web", unset="A")
        for n in range(3):  # The one that unset it leaves the history.
            await machines.write("n3", "web", B=str(n))
        assert tombstones(machines, "n1", "web") == 1

        await passes(machines, now(machines))
        await machines.until(lambda: not any(tombstones(machines, n, "web") for n in names), 5.0)

        assert machines.shows("n2", "web", "B", "2")
        await machines.until(machines.equal, 5.0)
        assert not machines.conflicts("n1")

    simulate(story, settings=SETTINGS)


def test_the_floor_waits_for_who_is_away() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await asyncio.sleep(SETTLES_S)
        machines.cluster.crash(machines.machine("n3"))
        before = now(machines)
        await asyncio.sleep(QUICK.gives_up_s / 2)

        assert agreed(machines).hlc < before
        awaited = {
            uid
            for each in machines.cluster.nodes.values()
            for uid in each.node.consent.electorate.rounds.awaited
        }
        assert awaited == {machines.factory.directories["n3"].uid}

        await machines.start("n3")
        await passes(machines, before)
        assert not machines.factory.directories["n3"].former_uids

    simulate(story, settings=SETTINGS)


def test_who_is_away_for_too_long_is_given_up() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await asyncio.sleep(SETTLES_S)
        lost = machines.node("n3").uid
        machines.cluster.crash(machines.machine("n3"))
        before = now(machines)

        await machines.until(lambda: agreed(machines).hlc > before, QUICK.gives_up_s + 80.0)

        topology = machines.node("n1").node.consent.electorate.current
        assert topology is not None
        assert lost not in [site.uid for site in topology.nodes]

    simulate(story, settings=SETTINGS)


def test_who_joins_is_filled_and_goes_up() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.write("n1", "web", A="1")
        await machines.write("n1", "web", unset="A")
        for n in range(3):
            await machines.write("n1", "web", B=str(n))
        await passes(machines, now(machines))
        machines.cluster.add("n3")
        await machines.start("n3")

        await machines.until(lambda: len(floors(machines)) == 1 and machines.equal(), 10.0)

        assert machines.shows("n3", "web", "B", "2")
        assert floors(machines) != {0}
        await passes(machines, now(machines))
        await machines.write("n3", "web", C="here")
        await machines.until(lambda: machines.shows("n1", "web", "C", "here"))

    simulate(story, settings=SETTINGS)


def test_nothing_is_stamped_below_what_is_sealed_after_a_restart_with_a_slow_clock() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await passes(machines, 0)
        floor = machines.node("n2").store.floor()
        machines.cluster.crash(machines.machine("n2"))
        machines.machine("n2").clock.jump(-3_600_000)
        await machines.start("n2")

        written = await machines.write("n2", "web", A="1")

        assert written.stamp > f"{0:08x}{floor:016x}"
        await machines.until(lambda: machines.shows("n1", "web", "A", "1"))

    simulate(story, settings=SETTINGS)


def test_with_copies_each_holder_gathers_and_forgets() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.until(lambda: settled(machines), 120.0)
        names = [f"team{n}" for n in range(20)]
        for name in names:
            await machines.write("n1", name, A="1", B="0")
            await machines.write("n2", name, unset="A")
            for n in range(3):
                await machines.write("n3", name, B=str(n))

        await passes(machines, now(machines), 60.0)

        def forgotten() -> bool:
            return not any(
                tombstones(machines, n, e) for n in machines.cluster.nodes for e in names
            )

        await machines.until(forgotten, 5.0)
        for name in names:
            holders = machines.node("n1").node.holdings.readers(partition_of(name))
            assert holders is not None
            for each, node in machines.cluster.nodes.items():
                if node.uid in holders:
                    assert machines.shows(each, name, "B", "2")

    def settled(machines: Machines) -> bool:
        table = machines.node("n1").node.holdings.table
        return table is not None and not table.moves and not table.waiting

    simulate(story, 4, Settings(Retention(2, 0), copies=2, pace=QUICK))


def test_who_was_given_up_returns_with_what_only_it_had_and_nothing_comes_back() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web", A="1", B="1")
        await asyncio.sleep(SETTLES_S)
        machines.cluster.network.partition(["n3"], ["n1", "n2"])
        await machines.write("n3", "web", C="alone")
        await machines.write("n1", "web", unset="A")
        for n in range(3):
            await machines.write("n2", "web", B=str(n))
        uid = machines.node("n3").uid
        await passes(machines, now(machines), QUICK.gives_up_s + 80.0, ("n1", "n2"))
        await machines.until(lambda: not tombstones(machines, "n1", "web"), 5.0)
        assert machines.shows("n3", "web", "A", "1")

        await machines.write("n3", "web", D="late")
        machines.cluster.network.heal()
        await machines.until(
            lambda: "n3" in machines.cluster.nodes and machines.node("n3").uid != uid, 60.0
        )
        await machines.until(machines.equal, 60.0)

        for name in machines.cluster.nodes:
            assert machines.shows(name, "web", "A", None)
            assert machines.shows(name, "web", "D", "late")
            assert ("web", "C", None, "alone") in machines.conflicts(name)

    simulate(story, settings=SETTINGS)
