"""How a node pulls the partitions that it is to have, and takes what others hand over."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

import pytest

from chaos.sim.chance import Chance, SimRng
from envd.core.errors import Unavailable
from envd.core.partitions import Move, PartitionTable, Stage, first_table
from envd.core.shares import from_bitmap, to_bitmap
from envd.node.handshake import Peer
from envd.node.holdings import Holdings
from envd.node.moving import BATCH, TAKES_S, Moving
from envd.wire import peers as wire
from tests.node.voters import virtually

OLD = (1, 2, 3)
ME = 4
EPOCH = 8
PEER = Peer(9, 1, b"b" * 16, "c1", "call", 1, b"")
MANY = range(10, 10 + 3 * BATCH)


def moving_table(
    *partitions: int,
    stage: Stage = Stage.STREAMING,
    to: tuple[int, ...] = (2, 3, ME),
    since: int = EPOCH,
) -> PartitionTable:
    moves = {at: Move(stage, to, since) for at in partitions}
    return replace(first_table(OLD, {"": 3}), moves=moves)


class World:
    """One node among others, which are pulled from in a moment unless they are `broken`."""

    def __init__(self, table: PartitionTable | None, uid: int = ME) -> None:
        self.holdings = Holdings(uid)
        self.holdings.follow(table)
        self.epoch = EPOCH
        self.able: set[int] = {1, 2, 3, ME}
        self.broken: set[int] = set()
        self.taken: list[tuple[int, int, tuple[int, ...]]] = []
        self.pulled: list[tuple[int, tuple[int, ...]]] = []
        self.takes_s = 0.1
        self.moving = self.started()
        self._running = asyncio.create_task(self.moving.run())

    def started(self) -> Moving:
        return Moving(
            self.holdings,
            lambda: self.epoch,
            lambda: self.able,
            lambda: frozenset({77}),
            SimRng(Chance("moving").stream("rng")),
            take_over=self._take_over,
            pull=self._pull,
            on_identity_lost=lambda _: None,
        )

    def restart(self) -> None:
        self._running.cancel()
        self.moving = self.started()
        self._running = asyncio.create_task(self.moving.run())

    async def _take_over(self, uid: int, epoch: int, partitions: Collection[int]) -> None:
        await asyncio.sleep(self.takes_s)
        if uid in self.broken:
            raise Unavailable("broken")
        self.taken.append((uid, epoch, tuple(partitions)))

    async def _pull(self, uid: int, partitions: Collection[int]) -> None:
        await asyncio.sleep(self.takes_s)
        self.pulled.append((uid, tuple(partitions)))

    def has(self) -> frozenset[int]:
        return self.moving.progress().pulled

    async def take(self, *partitions: int, epoch: int = EPOCH) -> frozenset[int]:
        body = wire.pack(wire.TakePartitions(epoch, to_bitmap(partitions)))
        serve = self.moving.methods()["partitions.take"]
        return from_bitmap(wire.unpack(bytes, await serve(PEER, body)))


@virtually
async def test_a_new_holder_takes_over_from_every_old_one() -> None:
    world = World(moving_table(5, 6))

    await asyncio.sleep(5)

    assert world.taken == [(uid, EPOCH, (5, 6)) for uid in OLD]
    assert world.has() == {5, 6}


@virtually
async def test_a_holder_that_goes_on_takes_over_from_the_other_ones() -> None:
    world = World(moving_table(5), uid=3)

    await asyncio.sleep(5)

    assert [uid for uid, _, _ in world.taken] == [1, 2]
    assert world.has() == {5}


@virtually
async def test_nothing_is_pulled_before_everybody_knows_of_the_move() -> None:
    world = World(moving_table(5, stage=Stage.WRITE_BOTH))
    await asyncio.sleep(60)
    assert world.taken == []

    world.holdings.follow(moving_table(5))
    await asyncio.sleep(5)

    assert world.has() == {5}


@virtually
async def test_a_majority_of_the_old_holders_is_enough_where_one_is_away() -> None:
    world = World(moving_table(5))
    world.able = {2, 3, ME}

    await asyncio.sleep(5)

    assert world.has() == {5}


@virtually
async def test_a_minority_of_the_old_holders_is_not_enough() -> None:
    world = World(moving_table(5))
    world.able = {2, ME}
    await asyncio.sleep(60)
    assert world.has() == frozenset()

    world.able = {2, 1, ME}
    await asyncio.sleep(60)

    assert world.has() == {5}
    assert [uid for uid, _, _ in world.taken] == [2, 1]


@virtually
async def test_an_old_holder_that_can_be_reached_is_asked_until_it_answers() -> None:
    world = World(moving_table(5))
    world.broken = {1}
    await asyncio.sleep(60)
    assert world.has() == frozenset()

    world.broken.clear()
    await asyncio.sleep(60)

    assert world.has() == {5}


@virtually
async def test_many_partitions_are_pulled_in_batches_whose_end_is_told() -> None:
    world = World(moving_table(*MANY))
    world.takes_s = 1.0

    await asyncio.sleep(4)

    assert world.has() == frozenset(MANY[:BATCH])
    await asyncio.sleep(6)
    assert world.has() == frozenset(MANY)
    assert {len(partitions) for _, _, partitions in world.taken} == {BATCH}


@virtually
async def test_what_is_left_after_a_restart_is_pulled_again() -> None:
    world = World(moving_table(5))
    await asyncio.sleep(5)

    world.restart()

    assert world.has() == frozenset()
    await asyncio.sleep(5)
    assert world.has() == {5}


@virtually
async def test_what_was_pulled_for_a_move_that_was_given_up_counts_for_no_other() -> None:
    world = World(moving_table(5))
    await asyncio.sleep(5)

    world.holdings.follow(moving_table())
    world.holdings.follow(moving_table(5, since=EPOCH + 2))

    assert world.has() == frozenset()
    await asyncio.sleep(5)
    assert world.has() == {5}
    assert world.taken[-1][:2] == (3, EPOCH + 2)


@virtually
async def test_progress_tells_the_epoch_and_what_is_kept() -> None:
    world = World(moving_table(5))
    await asyncio.sleep(5)

    raw = await world.moving.methods()["partitions.progress"](PEER, b"")
    said = wire.unpack(wire.PartitionProgress, raw)

    assert said.epoch == EPOCH
    assert from_bitmap(said.pulled) == {5}
    assert from_bitmap(said.kept) == {77}


@virtually
async def test_what_a_peer_hands_over_is_pulled_from_it() -> None:
    world = World(moving_table(5))

    assert await world.take(5) == {5}

    assert world.pulled == [(PEER.uid, (5,))]


@virtually
async def test_a_node_takes_nothing_that_it_does_not_hold() -> None:
    world = World(moving_table(5))

    with pytest.raises(Unavailable, match="does not hold"):
        await world.take(5, 6)

    assert world.pulled == []


@virtually
async def test_a_node_takes_nothing_from_who_knows_an_older_topology() -> None:
    world = World(moving_table(5))

    with pytest.raises(Unavailable, match="newer topology"):
        await world.take(5, epoch=EPOCH - 1)

    assert await world.take(5, epoch=EPOCH + 1) == {5}


@virtually
async def test_who_hands_over_much_is_told_what_was_done_in_a_while() -> None:
    world = World(moving_table(*MANY))
    world.takes_s = TAKES_S
    world.able = set()

    done = await world.take(*MANY)

    assert len(MANY) > len(done) >= BATCH
    assert world.pulled[0] == (PEER.uid, tuple(MANY[:BATCH]))
