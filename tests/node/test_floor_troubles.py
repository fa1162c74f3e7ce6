"""What must not happen where floors rise: wrong clocks, several that return, short absences."""

from __future__ import annotations

import asyncio

from chaos.sim.nodes import SNAPSHOT_EVERY_S, Settings
from envd.core.history import Retention
from envd.core.sealing import FloorPace
from envd.core.topology import Topology
from tests.node.machines import Machines, simulate
from tests.node.test_sealing import QUICK, SETTINGS, agreed, floors, now, passes

NAMES = ("n1", "n2", "n3")


def topology(machines: Machines, name: str) -> Topology:
    found = machines.node(name).node.consent.electorate.current
    assert found is not None
    return found


async def deletes(machines: Machines) -> None:
    """A is unset, and what did that leaves the history."""
    await machines.write("n3", "web", unset="A")
    for n in range(3):
        await machines.write("n3", "web", B=str(n))


def test_two_short_absences_long_apart_are_no_long_one() -> None:
    pace = replace_pace(gives_up_s=100.0)

    async def story(machines: Machines) -> None:
        await machines.start()
        await asyncio.sleep(30)
        uids = {machines.node(name).uid: name for name in NAMES}
        first = uids[min(topology(machines, "n1").voters)]
        other = next(name for name in NAMES if name != first)
        await machines.cluster.stop(machines.machine(first))
        await asyncio.sleep(8)
        await machines.start(first)
        await asyncio.sleep(pace.gives_up_s)
        before = topology(machines, other)

        await machines.cluster.stop(machines.machine(first))
        await asyncio.sleep(20)

        after = topology(machines, other)
        assert (after.nodes, after.voters) == (before.nodes, before.voters)

    simulate(story, settings=Settings(pace=pace))


def test_two_that_are_put_back_do_not_wait_for_each_other() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web", A="1", B="1")
        await machines.until(lambda: shown(machines, "1"))
        saving = asyncio.create_task(machines.factory.keep_saving())
        await asyncio.sleep(1.5 * SNAPSHOT_EVERY_S)
        saving.cancel()
        await deletes(machines)
        await passes(machines, now(machines), 60.0)
        for name in ("n4", "n5"):
            machines.cluster.crash(machines.machine(name))
            machines.factory.go_back(machines.machine(name))
        for name in ("n4", "n5"):
            await machines.cluster.start(machines.machine(name))

        await machines.until(
            lambda: len(machines.cluster.nodes) == 5 and shown(machines, None), 120.0
        )
        await machines.until(machines.equal, 60.0)

    def shown(machines: Machines, value: str | None) -> bool:
        return all(machines.shows(name, "web", "A", value) for name in machines.cluster.nodes)

    simulate(story, 5, SETTINGS)


def test_a_joiner_with_a_slow_clock_waits_and_does_not_begin_again_and_again() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web", A="1")
        await passes(machines, 0, 100.0)
        await asyncio.sleep(60)
        machines.cluster.add("n4")
        machines.machine("n4").clock.jump(-3_600_000)
        await machines.cluster.start(machines.machine("n4"))
        await asyncio.sleep(60)
        assert len(machines.emptied) <= 1

        machines.machine("n4").clock.jump(3_600_000)

        await machines.until(
            lambda: len(machines.cluster.nodes) == 4 and len(floors(machines)) == 1, 60.0
        )
        assert len(machines.emptied) <= 2

    simulate(story, settings=Settings(Retention(2, 0), pace=replace_pace(age_ms=30_000)))


def test_a_commit_from_far_ahead_does_not_hold_the_floor() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await passes(machines, 0)
        machines.cluster.network.partition(["n2"], ["n1", "n3"])
        machines.machine("n2").clock.jump(10 * 86_400_000)
        await asyncio.sleep(10)
        await machines.write("n2", "web", A="1")
        machines.machine("n2").clock.jump(-10 * 86_400_000)
        machines.cluster.network.heal()
        await asyncio.sleep(30)
        assert any(each.node.quarantined for each in machines.cluster.nodes.values())

        await passes(machines, agreed(machines).hlc, 60.0)

    simulate(story, settings=SETTINGS)


def test_after_the_voters_were_lost_the_floor_goes_on() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await passes(machines, 0)
        for name in ("n2", "n3"):
            machines.cluster.crash(machines.machine(name))
        await machines.until(lambda: down(machines), 60.0)
        await machines.run("n1", machines.node("n1").node.consent.electorate.recover())
        for name in ("n2", "n3"):
            await machines.cluster.start(machines.machine(name))

        await passes(machines, now(machines), 120.0)
        await machines.until(machines.equal, 10.0)

    def down(machines: Machines) -> bool:
        members = machines.node("n1").node.membership.members()
        return sum(each.reachable for each in members) == 1

    simulate(story, settings=SETTINGS)


def replace_pace(*, gives_up_s: float = QUICK.gives_up_s, age_ms: int = QUICK.age_ms) -> FloorPace:
    return QUICK._replace(gives_up_s=gives_up_s, age_ms=age_ms)


def test_two_that_join_at_once_are_both_filled() -> None:
    async def story(machines: Machines) -> None:
        for name in NAMES:
            await machines.cluster.start(machines.machine(name))
        await passes(machines, 0, 60.0)
        await machines.write("n1", "web", A="1")
        for name in ("n4", "n5"):
            machines.cluster.add(name)
            await machines.cluster.start(machines.machine(name))
        for n in range(20):
            await machines.write("n4", "web", A=str(n))
            await machines.write("n5", "other", A=str(n))
            await asyncio.sleep(0.05)

        await machines.until(lambda: len(floors(machines)) == 1 and machines.equal(), 60.0)

        assert not machines.emptied
        assert machines.shows("n1", "web", "A", "19")

    simulate(story, settings=SETTINGS)


def governor(machines: Machines) -> str:
    """The machine whose node raises the floor."""
    first = min(topology(machines, "n1").voters)
    return next(name for name in NAMES if machines.node(name).uid == first)


async def joins_unreached(machines: Machines) -> str:
    """n4 joins and is filled, and only who governs can't reach it; returns who that is."""
    await machines.start()
    await passes(machines, 0)
    who = governor(machines)
    machines.cluster.add("n4")
    machines.cluster.network.partition(["n4"], [who])
    await machines.cluster.start(machines.machine("n4"))
    await machines.until(lambda: len(floors(machines)) == 1, 30.0)
    return who


def test_who_joins_is_not_left_behind_where_who_governs_can_not_reach_it_yet() -> None:
    async def story(machines: Machines) -> None:
        who = await joins_unreached(machines)
        before, joined = now(machines), machines.node("n4").uid
        await asyncio.sleep(QUICK.gives_up_s / 2)
        rounds = machines.node(who).node.consent.electorate.rounds
        assert agreed(machines, who).hlc < before
        assert rounds.awaited == (joined,)

        machines.cluster.network.heal()

        await passes(machines, before)
        assert machines.node("n4").uid == joined
        assert not machines.emptied

    simulate(story, settings=SETTINGS)


def test_who_joins_and_is_not_reached_for_too_long_is_given_up() -> None:
    async def story(machines: Machines) -> None:
        await joins_unreached(machines)
        before = now(machines)
        await passes(machines, before, QUICK.gives_up_s + 40.0, NAMES)

        machines.cluster.network.heal()

        await machines.until(lambda: machines.emptied == ["n4"], 60.0)
        await machines.until(
            lambda: len(machines.cluster.nodes) == 4 and len(floors(machines)) == 1, 60.0
        )

    simulate(story, settings=SETTINGS)
