"""What a governor changes about who holds what, and when; the nodes are told of by fakes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from envd.core.errors import Unavailable
from envd.core.moves import MOST_MOVING, Progress
from envd.core.partitions import EVERY_NODE, PartitionTable, Stage, first_table
from envd.core.placement import Site
from envd.core.ring import PARTITIONS
from envd.core.shares import to_bitmap
from envd.core.topology import Topology
from envd.node.balancing import PACE_S, SETTLES_S, Balancing, Change
from envd.wire import peers as wire
from tests.node.voters import virtually

UIDS = (1, 2, 3, 4)
SITES = tuple(Site(uid, f"z{uid}") for uid in UIDS)
WHOLE = Topology(7, SITES, (1, 2, 3))
TWO = {"": 2}


class World:
    """The nodes of a cluster as they answer: what they have pulled and keep, and who is silent."""

    def __init__(self, topology: Topology = WHOLE, copies: Mapping[str, int] = TWO) -> None:
        self.topology = topology
        self.pulled: frozenset[int] = frozenset()
        self.kept: frozenset[int] = frozenset()
        self.silent: set[int] = set()
        self.late: set[int] = set()
        self.lost: set[int] = set()
        self.changes: list[str] = []
        self.balancing = self.governor(copies)
        self._planning = [asyncio.create_task(self.balancing.run())]

    def governor(self, copies: Mapping[str, int] = TWO) -> Balancing:
        return Balancing(copies, lambda: self._progress(1), 1, self._ask, lambda: None)

    def take_over(self) -> None:
        """Another node governs from now on."""
        self.balancing = self.governor()
        self._planning.append(asyncio.create_task(self.balancing.run()))

    def _progress(self, uid: int) -> Progress:
        epoch = self.topology.epoch - (uid in self.late)
        return Progress(epoch, self.pulled, self.kept)

    async def _ask(self, uid: int, method: str, _: bytes) -> bytes:
        assert method == "partitions.progress"
        if uid in self.silent:
            raise Unavailable("silent")
        epoch, pulled, kept = self._progress(uid)
        return wire.pack(wire.PartitionProgress(epoch, to_bitmap(pulled), to_bitmap(kept)))

    @property
    def table(self) -> PartitionTable:
        assert self.topology.table is not None
        return self.topology.table

    @property
    def able(self) -> Collection[int]:
        return {site.uid for site in self.topology.nodes} - self.lost

    async def look(self) -> Change | None:
        """What is due now; it becomes the topology."""
        await asyncio.sleep(PACE_S)
        change = await self.balancing.change(self.topology, self.able, self.lost)
        if change is not None:
            self.topology = change.topology
            self.changes.append(change.message)
        return change

    async def settle(self) -> None:
        """Look until nothing is due any more; for so long that a plan would be made."""
        quiet = 0
        while quiet < 2 * SETTLES_S / PACE_S:
            quiet = 0 if await self.look() else quiet + 1

    async def finish(self) -> None:
        """Have all moves come to their end, by nodes that pull and let go at once."""
        self.pulled = frozenset(range(PARTITIONS))
        await self.settle()


@virtually
async def test_nodes_that_are_as_many_as_copies_need_no_table() -> None:
    world = World(copies={"": 4})

    await world.settle()

    assert world.changes == []


@virtually
async def test_the_first_table_waits_until_the_nodes_have_been_the_same_for_a_while() -> None:
    world = World()
    for _ in range(int(SETTLES_S / PACE_S)):
        assert await world.look() is None
    world.topology = world.topology.with_nodes((*SITES, Site(5)))
    for _ in range(int(SETTLES_S / PACE_S)):
        assert await world.look() is None

    await world.look()

    assert set(world.table.holders[0]) == {1, 2, 3}
    assert world.table.copies == TWO
    assert world.table.waiting == PARTITIONS - 1


@virtually
async def test_there_is_no_table_before_every_node_knows_what_one_is() -> None:
    world = World()
    world.silent.add(4)

    await world.settle()

    assert world.changes == []
    world.silent.clear()
    await world.settle()
    assert world.changes


@virtually
async def test_moves_are_planned_and_begun_some_hundreds_at_once() -> None:
    world = World()

    await world.settle()

    table = world.table
    assert len(table.moves) == MOST_MOVING
    assert table.stages() == {Stage.STREAMING: MOST_MOVING}
    assert table.waiting > 1000
    assert all(len(move.to) == 2 for move in table.moves.values())


@virtually
async def test_all_moves_come_to_their_end_and_loads_are_even() -> None:
    world = World()

    await world.finish()

    table = world.table
    assert not table.moves
    assert table.waiting == 0
    loads = table.loads()
    assert max(loads.values()) <= 1.05 * loads.total() / len(UIDS)
    assert table.under_replicated(UIDS) == 0
    last = world.topology.epoch
    await world.settle()
    assert world.topology.epoch == last


@virtually
async def test_a_move_waits_for_former_holders_that_keep_it() -> None:
    world = World()
    world.kept = frozenset(range(PARTITIONS))

    await world.finish()

    assert world.table.stages() == {Stage.USE_NEW: MOST_MOVING}
    world.kept = frozenset()
    await world.finish()
    assert not world.table.moves


@virtually
async def test_nothing_goes_on_while_a_node_that_can_be_reached_knows_an_older_topology() -> None:
    world = World()
    world.late.add(4)

    await world.finish()

    assert world.table.stages() == {Stage.WRITE_BOTH: MOST_MOVING}


@virtually
async def test_moves_to_a_node_that_is_lost_are_given_up_and_begun_again_once_it_is_back() -> None:
    world = World()
    await world.settle()
    assert any(4 in move.to for move in world.table.moves.values())

    world.lost.add(4)
    await world.settle()

    assert not any(4 in move.to for move in world.table.moves.values())
    assert world.table.waiting > 0
    world.lost.clear()
    await world.finish()
    assert world.table.loads()[4] > 1700


@virtually
async def test_what_a_leaving_node_holds_goes_to_the_others() -> None:
    world = World()
    await world.finish()

    world.topology = world.topology.with_leaving(2, leaves=True)
    await world.finish()

    assert 2 not in world.table.uids()
    assert world.table.under_replicated({1, 3, 4}) == 0


@virtually
async def test_what_a_struck_node_held_gets_new_copies() -> None:
    world = World()
    await world.finish()

    world.topology = world.topology.with_nodes(site for site in SITES if site.uid != 4)
    assert world.table.under_replicated(UIDS) > 1700
    await world.finish()

    assert world.table.uids() == {1, 2, 3}
    assert world.table.under_replicated(UIDS) == 0


@virtually
async def test_another_governor_goes_on_where_the_first_one_stood() -> None:
    world = World()
    await world.settle()
    before = dict(world.table.moves)

    world.take_over()
    await world.look()
    assert world.table.moves.keys() == before.keys()
    await world.finish()

    assert not world.table.moves
    assert all(set(world.table.holders[at]) == set(move.to) for at, move in before.items())


@virtually
async def test_a_plan_is_not_kept_while_another_node_governs() -> None:
    world = World()
    await world.finish()
    rows = list(world.table.holders)
    rows[:100] = [(1, 4)] * 100
    world.topology = world.topology.with_table(replace(world.table, holders=tuple(rows)))

    await world.settle()

    assert not world.table.moves
    assert world.table.waiting == 0


@virtually
async def test_a_table_stays_when_the_cluster_is_small_again() -> None:
    world = World(copies={})
    world.topology = WHOLE.with_table(first_table((1, 2, 3), TWO))

    await world.finish()

    assert world.table.copies == {"": EVERY_NODE}
    assert set(world.table.holders[5]) == set(UIDS)


@virtually
async def test_the_governors_number_of_copies_counts_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(copies={"": 1})
    world.topology = WHOLE.with_table(first_table((1, 2, 3), TWO))

    with caplog.at_level(logging.WARNING):
        await world.settle()

    assert world.table.copies == {"": 1}
    assert [each.message for each in caplog.records] == ["partitions.other_copies"]
