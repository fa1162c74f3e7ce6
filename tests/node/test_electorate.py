"""A change of the topology that was made of an earlier one than there is by now."""

from __future__ import annotations

import asyncio

import pytest

from envd.core.errors import Conflict
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
