"""Who founds the first topology of a cluster, and when."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from math import inf
from types import SimpleNamespace
from typing import Any, cast

from envd.core.members import Member, MemberState
from envd.core.moves import Progress
from envd.core.placement import Site
from envd.core.requests import WriteRequest
from envd.core.topology import VARIABLE
from envd.node.electorate import FOUNDS_S, Electorate, Others
from envd.node.floors import Floors
from envd.node.holdings import Holdings
from envd.storage.memory import MemoryStore
from envd.wire import peers as wire
from tests.node.voters import virtually

ME = 5


def member(uid: int) -> Member:
    return Member(uid, 1, 0, MemberState.ALIVE, f"n{uid}", "", "")


class World:
    """A node among others, none of which knows of a topology; `founded` is when it made one."""

    def __init__(self, *others: int, founds: bool) -> None:
        self.founded: list[float] = []
        members = [member(uid) for uid in others]
        store, holdings = MemoryStore(), Holdings(ME)
        self.electorate = Electorate(
            Site(ME),
            store,
            lambda: Others(members, others, False, ()),
            holdings,
            Floors(store, holdings),
            gives_up_s=inf,
            expects_others=True,
            founds=founds,
            copies={},
        )
        serial: Any = SimpleNamespace(propose=self._propose)
        nothing = cast("Any", None)
        self.electorate.connect(nothing, serial, nothing, self._ask, lambda: Progress(0), nothing)

    async def _propose(self, request: WriteRequest, _: str) -> None:
        assert VARIABLE in [put.name for put in request.puts]
        self.founded.append(asyncio.get_running_loop().time())

    async def _ask(self, _: int, method: str, __: bytes) -> bytes:
        assert method == "topology.known"
        return wire.pack(False)

    async def run(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.electorate.run()


@virtually
async def test_who_made_the_cluster_founds_its_topology_at_once() -> None:
    world = World(1, 9, founds=True)

    await world.run(0.5)

    assert world.founded == [0.0]


@virtually
async def test_who_joined_leaves_that_to_the_first_node() -> None:
    world = World(1, 9, founds=False)

    await world.run(60.0)

    assert world.founded == []


@virtually
async def test_the_first_of_several_that_know_of_none_founds_one_after_a_while() -> None:
    world = World(7, 9, founds=False)

    await world.run(60.0)

    assert world.founded[0] > 2 * FOUNDS_S - 1.0


@virtually
async def test_who_made_the_cluster_long_ago_asks_the_others_first() -> None:
    world = World(1, 9, founds=True)
    await asyncio.sleep(2 * FOUNDS_S)

    await world.run(60.0)

    assert world.founded == []
