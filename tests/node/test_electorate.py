"""A change of the topology that was made of an earlier one than there is by now."""

from __future__ import annotations

import asyncio

import pytest

from envd.core.errors import Conflict
from envd.core.members import MemberState
from tests.node.machines import Machines, simulate


def test_a_change_made_of_an_earlier_topology_is_not_written_over_a_later_one() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await asyncio.sleep(15)
        electorate = machines.node("n1").node.consent.electorate
        early = electorate.current
        assert early is not None
        uid = machines.node("n2").uid
        stale = early.with_leaving(machines.node("n3").uid, leaves=True)
        await machines.run("n1", electorate.write(early.with_leaving(uid, leaves=True), "leaves"))
        later = electorate.current
        assert later is not None
        assert later.epoch == early.epoch + 1

        with pytest.raises(Conflict, match="changed meanwhile"):
            await machines.run("n1", electorate.write(stale, "made of an earlier one"))

        assert electorate.current is later

    simulate(story)


def test_a_voter_that_was_removed_is_struck_though_nobody_can_take_its_place() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        electorate = machines.node("n1").node.consent.electorate
        gone = machines.node("n5").uid

        def nodes() -> set[int]:
            return {site.uid for site in electorate.current.nodes} if electorate.current else set()

        def votes() -> set[int]:
            return set(electorate.current.voters) if electorate.current else set()

        await machines.until(lambda: len(votes()) == 5, 30)
        machines.cluster.crash(machines.machine("n5"))
        membership = machines.node("n1").node.membership
        await machines.until(lambda: is_down(machines, gone), 60)

        membership.remove(gone)

        await machines.until(lambda: gone not in nodes(), 30)
        assert (len(nodes()), len(votes())) == (4, 3)
        assert gone not in votes()

    simulate(story, 5)


def is_down(machines: Machines, uid: int) -> bool:
    """Whether n1 takes a node for dead."""
    members = machines.node("n1").node.membership.members()
    return any(each.uid == uid and each.state is MemberState.DOWN for each in members)
