"""What a node has and does not hold is handed over to who holds it, and then dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from chaos.sim.chance import Chance, SimRng
from envd.core.errors import Unavailable
from envd.core.hlc import HybridClock
from envd.core.partitions import Move, PartitionTable, Stage, first_table
from envd.core.ring import partition_of
from envd.core.shares import from_bitmap, to_bitmap
from envd.core.topology import TOPOLOGY
from envd.node.holdings import Holdings
from envd.node.intake import Intake
from envd.node.leftovers import Leftovers
from envd.node.letting_go import LettingGo
from envd.wire import peers as wire
from envd.wire import records
from tests.node.conftest import DIGEST_KEY, Node
from tests.node.voters import opening, turns, virtually

ME = 7
"""As the node of `conftest`."""
HOLDERS = (1, 2, 3)
NAME, OTHER = "web/prod", "web/test"
PLACE = partition_of(NAME)
EPOCH = 8


def planned(**fields: object) -> PartitionTable:
    """All is where it should be, on HOLDERS."""
    table = replace(first_table(HOLDERS, {"": 3}), waiting=0)
    return replace(table, **fields)  # type: ignore[arg-type]


class World:
    """A node with an environment that others hold; they take it unless they are `refusing`."""

    def __init__(self) -> None:
        self.node = Node()
        self.store = self.node.store
        self.holdings = Holdings(ME)
        self.able: set[int] = {*HOLDERS, ME}
        self.refusing: set[int] = set()
        self.asked: list[tuple[int, int, frozenset[int]]] = []
        self.leaves = False
        self.kept = Leftovers(self.store, self.holdings)
        self.letting_go = LettingGo(
            self.store,
            self.holdings,
            lambda: EPOCH,
            lambda: self.able,
            SimRng(Chance("letting-go").stream("rng")),
            kept=self.kept,
            leaves=lambda: self.leaves,
            ask=self._ask,
            drop=self._drop,
        )
        self._running = asyncio.create_task(self.letting_go.run())

    async def _ask(self, uid: int, method: str, body: bytes) -> bytes:
        assert method == "partitions.take"
        said = wire.unpack(wire.TakePartitions, body)
        wanted = from_bitmap(said.partitions)
        self.asked.append((uid, said.epoch, wanted))
        await self.on_ask()
        if uid in self.refusing:
            raise Unavailable("no")
        return wire.pack(to_bitmap(wanted))

    async def on_ask(self) -> None:
        await asyncio.sleep(0.01)

    async def _drop(self, partition: int, lsn: int) -> bool:
        return await self.store.drop(partition, lsn, ME)

    async def begun(self, table: PartitionTable, *names: str) -> World:
        """With these environments, from a time when this node held everything."""
        for name in names or (NAME,):
            await self.node.put(name, PORT="1")
        self.holdings.follow(table)
        return self

    def there(self, name: str = NAME) -> bool:
        return self.store.visible(name) is not None

    def takers(self) -> list[int]:
        return [uid for uid, _, _ in self.asked]


@virtually
async def test_every_holder_takes_it_and_then_it_is_dropped() -> None:
    world = await World().begun(planned())

    await asyncio.sleep(5)

    assert world.asked == [(uid, EPOCH, frozenset({PLACE})) for uid in HOLDERS]
    assert not world.there()
    assert world.kept() == frozenset()


@virtually
async def test_while_every_node_holds_everything_nothing_is_handed_over() -> None:
    world = World()
    await world.node.put(NAME, PORT="1")

    await asyncio.sleep(60)

    assert world.there()
    assert world.asked == []


@virtually
async def test_what_this_node_holds_stays() -> None:
    rows = list(planned().holders)
    rows[PLACE] = (1, 2, ME)
    world = await World().begun(planned(holders=tuple(rows)), NAME, OTHER)

    await asyncio.sleep(30)

    assert world.there()
    assert not world.there(OTHER)


@virtually
async def test_the_systems_own_partition_stays() -> None:
    world = World()
    commit = records.encode_commit(opening(ME, TOPOLOGY))
    await Intake(
        world.store, world.node.clock, HybridClock(ME, 0), DIGEST_KEY, ME, world.holdings
    ).repair(commit)
    await turns()
    world.holdings.follow(planned())

    await asyncio.sleep(30)

    assert world.there(TOPOLOGY)
    assert world.asked == []


@virtually
async def test_it_stays_until_all_holders_that_can_be_reached_have_taken_it() -> None:
    world = await World().begun(planned())
    world.refusing = {3}
    await asyncio.sleep(60)
    assert world.there()

    world.able = {1, 2, ME}
    await asyncio.sleep(60)

    assert not world.there()


@virtually
async def test_one_holder_is_not_enough_where_there_are_several() -> None:
    world = await World().begun(planned())
    world.able = {1, ME}
    await asyncio.sleep(60)
    assert world.there()
    assert world.asked == []

    world.able = {1, 2, ME}
    await asyncio.sleep(60)

    assert not world.there()


@virtually
async def test_one_holder_is_enough_where_there_is_only_one() -> None:
    rows = [(1,) if row else () for row in planned().holders]
    world = await World().begun(planned(copies={"": 1}, holders=tuple(rows)))

    await asyncio.sleep(5)

    assert world.takers() == [1]
    assert not world.there()


@virtually
async def test_what_no_node_holds_stays_here() -> None:
    world = await World().begun(planned(holders=((),) * 4096))

    await asyncio.sleep(60)

    assert world.there()


@virtually
async def test_what_came_meanwhile_is_handed_over_before_it_is_dropped() -> None:
    world = World()
    written = 0

    async def write_once() -> None:
        nonlocal written
        if not written:
            written += 1
            await world.node.put(NAME, PORT="2")

    world.on_ask = write_once  # type: ignore[method-assign]
    await world.begun(planned())

    await asyncio.sleep(30)

    assert not world.there()
    assert world.takers() == [1, 2, 3, 1, 2, 3]


@virtually
async def test_a_copy_that_comes_later_is_handed_on_too() -> None:
    world = await World().begun(planned())
    await asyncio.sleep(30)
    world.asked.clear()

    await world.node.put(NAME, PORT="2")
    await asyncio.sleep(5)

    assert world.takers() == [1, 2, 3]
    assert not world.there()


@virtually
async def test_while_it_is_planned_where_all_is_to_go_nothing_is_dropped_that_may_come_back() -> (
    None
):
    world = await World().begun(planned(waiting=9))
    await asyncio.sleep(60)
    assert world.takers() == [1, 2, 3]
    assert world.there()

    world.holdings.follow(planned())
    await asyncio.sleep(60)

    assert not world.there()


@virtually
async def test_what_a_move_took_from_this_node_is_dropped_at_once() -> None:
    moves: Mapping[int, Move] = {PLACE: Move(Stage.USE_NEW, (1, 2, 4), 7)}
    world = World()
    world.able.add(4)
    await world.begun(planned(waiting=9, moves=moves))

    await asyncio.sleep(5)

    assert world.takers() == [1, 2, 4]
    assert not world.there()


@virtually
async def test_a_node_that_leaves_waits_for_no_plan() -> None:
    world = await World().begun(planned(waiting=9))
    world.leaves = True

    await asyncio.sleep(30)

    assert not world.there()


@virtually
async def test_who_is_to_hold_it_now_must_have_taken_it() -> None:
    world = await World().begun(planned(waiting=9))
    await asyncio.sleep(30)
    assert world.takers() == [1, 2, 3]

    rows = tuple((4, 5, 6) if row else () for row in planned().holders)
    world.able |= {4, 5, 6}
    world.holdings.follow(planned(holders=rows))
    await asyncio.sleep(60)

    assert world.takers() == [1, 2, 3, 4, 5, 6]
    assert not world.there()
