"""How nodes leave a cluster: what they hand over first, and what they refuse meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from envd.core.errors import Conflict, OutcomeUnknown, Unavailable
from envd.core.requests import Durability
from envd.node.node import Node
from tests.node.machines import Machines, simulate

ALL = ("n1", "n2", "n3")


def _votes(node: Node) -> bool:
    topology = node.consent.electorate.current
    return topology is not None and node.membership.me.uid in topology.quorum.members


def test_a_node_that_stops_in_good_order_leaves_nothing_unsent() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        writes = [
            machines.write("n1", "web/prod", durability=Durability.LOCAL, **{f"V{n}": "x"})
            for n in range(50)
        ]
        await asyncio.gather(*writes)

        await machines.cluster.stop(machines.machine("n1"))

        assert machines.shows("n2", "web/prod", "V49", "x")
        assert machines.shows("n3", "web/prod", "V49", "x")
        states = {
            member.name: member.state.name
            for member in machines.node("n2").node.membership.members()
        }
        assert states["n1"] == "LEFT"

    simulate(story)


def test_a_node_that_left_for_good_is_waited_for_no_longer() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1", "n2")
        await machines.run("n2", machines.node("n2").node.leave(for_good=True))
        machines.cluster.crash(machines.machine("n2"))
        await asyncio.sleep(1)

        answer = await machines.write("n1", "web/prod", PORT="1")

        assert (answer.acknowledged, answer.detached) == (1, False)

    simulate(story)


def test_a_node_that_leaves_takes_no_more_writes_and_leaves_nothing_behind() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        leaving = asyncio.ensure_future(machines.run("n1", machines.node("n1").leave()))
        await asyncio.sleep(0.001)

        with pytest.raises(Unavailable, match="leaving"):
            await machines.write("n1", "web/prod", PORT="1")

        await leaving

    simulate(story)


def test_what_was_on_its_way_as_a_node_began_to_leave_is_handed_over_too() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        leaver = machines.node("n1").node
        machines.factory.set_slow(machines.machine("n1"), slow=True)
        writing = asyncio.ensure_future(machines.write("n1", "web/prod", PORT="1"))
        await asyncio.sleep(0)

        await machines.run("n1", leaver.hand_over())
        await machines.run("n1", leaver.leave(for_good=True))
        await writing
        machines.cluster.crash(machines.machine("n1"))

        assert all(machines.shows(name, "web/prod", "PORT", "1") for name in ("n2", "n3"))

    simulate(story)


def test_a_node_leaves_only_once_two_others_hold_everything() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n3"], ["n1", "n2"])
        await machines.write("n1", "web/prod", PORT="1")

        with pytest.raises(Unavailable, match="not enough other nodes"):
            await machines.run("n1", machines.node("n1").node.hand_over(2.0))

        machines.cluster.network.heal()
        await machines.until(machines.equal, 20.0)
        await machines.run("n1", machines.node("n1").node.hand_over())

    simulate(story)


def test_a_node_does_not_leave_while_what_it_has_waits_in_quarantine_elsewhere() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        machines.machine("n1").clock.jump(180_000)
        await asyncio.sleep(5)
        await machines.write("n1", "web/prod", PORT="1")
        machines.machine("n1").clock.mend()
        machines.cluster.network.heal()
        await machines.until(lambda: all(machines.node(n).node.quarantined for n in ALL[1:]), 60.0)

        with pytest.raises(Unavailable, match="waits elsewhere for its time"):
            await machines.run("n1", machines.node("n1").node.hand_over())

        await machines.until(machines.equal, 180.0)
        await machines.run("n1", machines.node("n1").node.hand_over())
        assert all(machines.shows(name, "web/prod", "PORT", "1") for name in ("n2", "n3"))

    simulate(story)


def test_a_second_leave_does_not_undo_the_first_one() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        leaver = machines.node("n1").node
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        await machines.write("n1", "web/prod", PORT="1")
        first = asyncio.ensure_future(machines.run("n1", leaver.hand_over(30.0)))
        await asyncio.sleep(1)

        with pytest.raises(Conflict, match="about to leave"):
            await machines.run("n1", leaver.hand_over(1.0))

        with pytest.raises(Unavailable, match="is leaving"):
            await machines.write("n1", "web/prod", PORT="2")
        machines.cluster.network.heal()
        await first

    simulate(story)


def test_a_node_that_reaches_nobody_does_not_leave() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n1"], ["n2", "n3"])
        await asyncio.sleep(5)
        await machines.write("n1", "web/prod", PORT="1")

        with pytest.raises(Unavailable, match="nothing was changed"):
            await machines.run("n1", machines.node("n1").node.hand_over())

        answer = await machines.write("n1", "web/prod", PORT="2")
        assert answer.detached

    simulate(story)


def test_an_agent_may_leave() -> None:
    async def story(machines: Machines) -> None:
        await machines.start("n1")
        await machines.start_agent("n3")

        await machines.run("n3", machines.node("n3").node.hand_over())

    simulate(story)


def test_a_node_that_leaves_is_no_second_copy_for_others() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        machines.cluster.network.partition(["n3"], ["n1", "n2"])
        await machines.write("n1", "web/prod", PORT="1")
        leaver = machines.node("n1").node
        leaving = asyncio.ensure_future(machines.run("n1", leaver.hand_over(3.0)))
        await machines.until(lambda: not _votes(leaver), 10.0)
        await asyncio.sleep(0.5)

        with pytest.raises((OutcomeUnknown, Unavailable), match="no other storage node"):
            await machines.write("n2", "web/prod", durability=Durability.STRICT, PORT="2")

        with pytest.raises(Unavailable, match="not enough other nodes"):
            await leaving
        await asyncio.sleep(2)
        await machines.write("n2", "web/prod", durability=Durability.STRICT, PORT="3")

    simulate(story)
