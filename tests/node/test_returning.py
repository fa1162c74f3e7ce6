"""What only a node has that was given up is merged or put on record, and then it begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from chaos.sim.chance import Chance, SimRng
from chaos.sim.nodes import SNAPSHOT_EVERY_S, Settings
from envd.core.commit import Change, Commit, Kind
from envd.core.errors import Corrupt, StorageError, Unavailable
from envd.core.history import Retention
from envd.core.partitions import ANYWHERE, PartitionTable
from envd.core.placement import Site
from envd.core.requests import ConflictsRequest
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION, partition_of
from envd.core.sealing import Floor, FloorPace, Sealing
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp
from envd.core.topology import Topology
from envd.node.floors import Floors
from envd.node.handshake import Peer
from envd.node.holdings import Holdings
from envd.node.intake import MAX_AHEAD_MS, Intake
from envd.node.returning import Offers, Returning
from envd.wire import peers as wire
from envd.wire import records
from tests.node.conftest import DIGEST_KEY
from tests.node.machines import Machines, simulate
from tests.node.test_repair import Side
from tests.node.voters import virtually
from tests.storage.world import values_of

STALE = 9
HOLDERS = (1, 2, 3)
NAME = "web/prod"
PLACE = partition_of(NAME)
PEER = Peer(STALE, 1, b"b" * 16, "c1", "call", 1, b"")
QUICK = FloorPace(age_ms=5_000, every_ms=3_000, gives_up_s=20.0)


@dataclass
class Member(Side):
    """A node with what it knows of the floor, and what it answers to those that return."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.holdings = Holdings(self.uid)
        self.floors = Floors(self.store, self.holdings)
        self.intake = Intake(
            self.store,
            self.clock,
            self.coordinator.drafter.hlc,
            DIGEST_KEY,
            self.uid,
            self.holdings,
            self.floors,
        )
        self.intake.salvage = self.coordinator.salvage
        self.offers = Offers(self.store, self.intake, self.holdings, self.floors).methods()

    def lost(self) -> list[tuple[str, str, str | None]]:
        """(environment, variable, value) of all conflict records."""
        found = self.coordinator.conflicts(ConflictsRequest("", reveal=True)).conflicts
        return [(each.environment, each.variable, each.lost.value) for each in found]


class World:
    """Three nodes at a floor, and one that was given up before it was raised.

    What the three log comes to each other once one is asked, unless `silent`.
    """

    def __init__(self) -> None:
        self.members = {uid: Member(uid) for uid in HOLDERS}
        self.stale = Member(STALE, Retention(2, 0))
        self.able = {*HOLDERS, STALE}
        self.asked: list[int] = []
        self.pages: list[wire.Offer] = []
        self.told: list[str] = []
        self.steps: list[str] = []
        self.last_words: Callable[[], Awaitable[object]] | None = None
        self.silent = False
        self.unwritable = 0
        self.returning = Returning(
            self.stale.store,
            self.stale.holdings,
            self.stale.floors,
            lambda: self.able,
            SimRng(Chance("returning").stream("rng")),
            ask=self._ask,
            isolate=lambda: self.steps.append("isolated"),
            ends=self._ends,
            on_stale=self._on_stale,
        )

    @property
    def now(self) -> int:
        return self.stale.clock.now_ms << COUNTER_BITS

    async def raised(self, floor: int, *, behind: int = 0) -> None:
        """The floor is agreed, and all are at it but the one that was given up, and `behind`."""
        nodes = tuple(Site(uid, "", "") for uid in HOLDERS)
        self.topology = Topology(7, nodes, HOLDERS, floor=Floor(floor, 4))
        for each in (*self.members.values(), self.stale):
            each.floors.follow(self.topology)
        for uid, member in self.members.items():
            member.clock.now_ms += 60_000
            if uid != behind:
                await member.store.raise_floor(floor)

    def follow(self, table: PartitionTable) -> None:
        for each in (*self.members.values(), self.stale):
            each.holdings.follow(table)

    async def ship(self) -> None:
        """Have the holders' logs come to each other."""
        for one in self.members.values():
            for other in self.members.values():
                if one is not other:
                    await one.copy_to(other)

    async def _ask(self, uid: int, method: str, body: bytes) -> bytes:
        if method == "floor.progress":
            return wire.pack(wire.FloorProgress(self.members[uid].store.floor(), 0, 0))
        if not self.silent:
            await self.ship()
        self.asked.append(uid)
        self.pages.append(wire.unpack(wire.Offer, body))
        return await self.members[uid].offers[method](PEER, body)

    async def _ends(self) -> None:
        """What is written last is settled before this returns."""
        self.steps.append("ended")
        if self.last_words is not None:
            written, self.last_words = self.last_words(), None
            await written

    def _on_stale(self, why: str) -> None:
        if self.unwritable:
            self.unwritable -= 1
            raise StorageError("no room")
        self.told.append(why)

    async def run_for(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.returning.run()
        except TimeoutError:
            return


def held_by(*uids: int) -> PartitionTable:
    """The partition of NAME is on these, with two copies of each."""
    found: list[tuple[int, ...]] = [uids] * PARTITIONS
    found[SYSTEM_PARTITION] = ()
    return PartitionTable({ANYWHERE: len(uids)}, tuple(found))


def wrote(stamp: Stamp, **values: str | None) -> Commit:
    changes = tuple(
        Change(Kind.VARIABLE, name, value, False, ZERO) for name, value in values.items()
    )
    return Commit(NAME, stamp, changes, author="bob", time_ms=stamp.time_ms, node="n9")


# -- what becomes of it ------------------------------------------------------------------------


@virtually
async def test_what_is_above_the_floor_is_merged_by_two_holders() -> None:
    world = World()
    floor = world.now
    await world.stale.put(NAME, A="mine")
    await world.raised(floor)

    await world.returning.run()

    assert world.asked == [1, 2]
    for uid in (1, 2):
        assert values_of(world.members[uid].store, NAME) == {"A": "mine"}
        assert world.members[uid].lost() == []
    assert world.members[3].store.visible(NAME) is None
    assert len(world.told) == 1


@virtually
async def test_what_nobody_has_at_the_floor_or_below_is_put_on_record_once() -> None:
    world = World()
    await world.stale.put(NAME, A="mine")
    await world.raised(world.now)

    await world.returning.run()
    await world.ship()

    for member in world.members.values():
        assert values_of(member.store, NAME) == {}
        assert member.lost() == [(NAME, "A", "mine")]
        commits = member.store.commits(NAME, None, 10)
        assert [commit.salvages is not None for commit in commits] == [True]
    assert world.returning.late == 1
    assert len(world.told) == 1


@virtually
async def test_the_second_holder_is_not_asked_before_it_has_what_the_first_recorded() -> None:
    world = World()
    await world.stale.put(NAME, A="mine")
    await world.raised(world.now)
    world.silent = True

    await world.run_for(60.0)
    waiting = list(world.told)
    world.silent = False
    await world.returning.run()

    assert waiting == []
    assert {len(member.lost()) for member in world.members.values()} == {1}
    assert len(world.told) == 1


@virtually
async def test_who_put_it_on_record_and_went_is_not_waited_for() -> None:
    world = World()
    await world.stale.put(NAME, A="mine")
    await world.raised(world.now)
    world.silent = True
    await world.run_for(5.0)
    world.able = {2, 3}

    await world.returning.run()

    assert len(world.told) == 1
    assert world.members[2].lost() == [(NAME, "A", "mine")]


@virtually
async def test_what_the_holders_have_does_nothing() -> None:
    world = World()
    await world.stale.put(NAME, A="1")
    await world.stale.put(NAME, A="2")
    for member in world.members.values():
        await world.stale.copy_to(member)
    floor = world.stale.store.commits(NAME, None, 1)[0].stamp.hlc - 1
    before = {uid: member.store.last_lsn() for uid, member in world.members.items()}
    await world.raised(floor)

    await world.returning.run()

    assert {uid: member.store.last_lsn() for uid, member in world.members.items()} == before
    assert [member.lost() for member in world.members.values()] == [[], [], []]
    assert world.returning.late == 0
    assert len(world.told) == 1


@virtually
async def test_nothing_at_or_below_the_own_floor_is_offered() -> None:
    world = World()
    await world.stale.put(NAME, A="forgotten by all others")
    await world.stale.store.raise_floor(world.now)
    world.stale.clock.now_ms += 1
    await world.raised(world.now)

    await world.returning.run()

    assert world.asked == []
    assert len(world.told) == 1


@virtually
async def test_what_a_history_starts_from_is_merged_or_put_on_record() -> None:
    world = World()
    await world.stale.put(NAME, LATE="mine")
    floor = world.now
    await world.stale.put(NAME, NEW="mine")
    for n in range(4):
        await world.stale.put(NAME, N=str(n))
    await world.stale.store.flush()
    assert set(world.stale.store.base(NAME).variables) == {"LATE", "NEW", "N"}
    await world.raised(floor)

    await world.returning.run()

    one = world.members[1]
    assert one.lost() == [(NAME, "LATE", "mine")]
    assert values_of(one.store, NAME) == {"NEW": "mine", "N": "3"}


@virtually
async def test_what_waits_in_quarantine_waits_there_too() -> None:
    world = World()
    await world.raised(world.now - 1)
    ahead_ms = world.members[1].clock.now_ms + 2 * MAX_AHEAD_MS
    future = wrote(Stamp(0, ahead_ms << COUNTER_BITS, 8), A="later")
    await world.stale.intake.repair(records.encode_commit(future))
    assert world.stale.intake.quarantined == 1

    await world.returning.run()

    assert [member.intake.quarantined for member in world.members.values()] == [1, 1, 0]
    world.members[1].clock.now_ms = ahead_ms
    await world.members[1].intake.release()
    assert values_of(world.members[1].store, NAME) == {"A": "later"}


# -- who is asked ------------------------------------------------------------------------------


@virtually
async def test_with_copies_only_holders_are_asked() -> None:
    world = World()
    floor = world.now
    await world.stale.put(NAME, A="mine")
    world.follow(held_by(2, 3))
    await world.raised(floor)

    await world.returning.run()

    assert world.asked == [2, 3]
    assert len(world.told) == 1


@virtually
async def test_who_is_below_the_floor_is_passed_over() -> None:
    world = World()
    floor = world.now
    await world.stale.put(NAME, A="mine")
    await world.raised(floor, behind=1)

    await world.returning.run()

    assert world.asked == [2, 3]
    assert world.members[1].store.visible(NAME) is None
    assert len(world.told) == 1


@virtually
async def test_where_only_one_holds_it_one_is_enough() -> None:
    world = World()
    floor = world.now
    await world.stale.put(NAME, A="mine")
    await world.raised(floor)
    nodes = (Site(2, "", ""),)
    world.stale.floors.follow(replace(world.topology, nodes=nodes, voters=(2,)))

    await world.returning.run()

    assert world.asked == [2]
    assert len(world.told) == 1


@pytest.mark.parametrize("able", [(), (1,)])
@virtually
async def test_nothing_is_given_up_where_too_few_can_be_reached(able: tuple[int, ...]) -> None:
    world = World()
    floor = world.now
    await world.stale.put(NAME, A="mine")
    await world.raised(floor)
    world.able = {*able, STALE}

    await world.run_for(90.0)
    waiting = list(world.told)
    world.able = {1, 3}
    await world.returning.run()

    assert waiting == []
    assert world.asked == [1, 3]
    assert len(world.told) == 1


@virtually
async def test_where_nobody_else_holds_it_nothing_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    floor = world.now
    await world.stale.put(NAME, A="canary-7d21")
    await world.raised(floor)
    me = (Site(STALE, "", ""),)
    world.stale.floors.follow(replace(world.topology, nodes=me, voters=(STALE,)))

    await world.run_for(90.0)

    assert world.told == []
    assert caplog.text.count("floor.not_given") == 1
    assert "canary-7d21" not in caplog.text


@virtually
async def test_what_came_meanwhile_is_given_too() -> None:
    world = World()
    floor = world.now
    await world.stale.put(NAME, A="first")
    await world.raised(floor)
    world.able = {1}
    await world.run_for(5.0)
    await world.stale.put(NAME, B="second")
    world.able = {*HOLDERS}

    await world.returning.run()

    for uid in (1, 2):
        assert values_of(world.members[uid].store, NAME) == {"A": "first", "B": "second"}


@virtually
async def test_large_histories_go_in_pages() -> None:
    world = World()
    floor = world.now
    for letter in "abc":
        await world.stale.put(NAME, **{f"V{n}": letter * 50_000 for n in range(40)})
    await world.raised(floor)

    await world.returning.run()

    sizes = [sum(map(len, (*page.commits, *page.bases))) for page in world.pages]
    assert len(sizes) == 4
    assert max(sizes) <= 4 << 20
    found = values_of(world.members[2].store, NAME)
    assert found == {f"V{n}": "c" * 50_000 for n in range(40)}


@virtually
async def test_until_it_is_noted_it_is_told_again_and_then_no_more() -> None:
    world = World()
    await world.raised(world.now)
    world.unwritable = 2

    await world.returning.run()
    await world.returning.run()

    assert world.unwritable == 0
    assert len(world.told) == 1


# -- what is refused ---------------------------------------------------------------------------


def offer(commit: Commit, floor: int, partition: int = PLACE) -> bytes:
    return wire.pack(wire.Offer(partition, floor, [records.encode_commit(commit)]))


@virtually
async def test_who_holds_no_more_of_it_takes_nothing() -> None:
    world = World()
    await world.raised(world.now)
    one = world.members[1]
    one.holdings.follow(held_by(2, 3))
    late = wrote(Stamp(0, world.now, STALE), A="mine")

    with pytest.raises(Unavailable, match="nothing was taken"):
        await one.offers["floor.offer"](PEER, offer(late, world.now))

    assert one.store.last_lsn() == 0


@virtually
async def test_what_is_being_sealed_is_not_taken_from_who_was_given_up() -> None:
    world = World()
    floor = world.now
    await world.raised(floor)
    one = world.members[1]
    sealing = Sealing(floor + (2 << COUNTER_BITS), 8, gathering=True)
    one.floors.follow(replace(world.topology, sealing=sealing))
    commit = wrote(Stamp(0, floor + (1 << COUNTER_BITS), STALE), A="mine")

    with pytest.raises(Unavailable):
        await one.offers["floor.offer"](PEER, offer(commit, floor))

    assert one.store.last_lsn() == 0


@virtually
async def test_what_is_no_offer_is_told_as_damage() -> None:
    world = World()
    floor = world.now
    await world.raised(floor)
    one = world.members[1]
    commit = wrote(Stamp(0, floor + 1, STALE), A="mine")
    bad = [
        b"rubbish",
        wire.pack([PLACE, floor]),
        offer(commit, 0),
        offer(commit, floor, PARTITIONS),
        offer(commit, floor, (PLACE + 1) % PARTITIONS),
        wire.pack(wire.Offer(PLACE, floor, [b"\x01rubbish"])),
        wire.pack(wire.Offer(PLACE, floor, [], [b"\x01rubbish"])),
    ]

    for body in bad:
        with pytest.raises(Corrupt):
            await one.offers["floor.offer"](PEER, body)

    assert one.store.last_lsn() == 0


# -- whole nodes -------------------------------------------------------------------------------


def test_who_was_given_up_comes_back_with_nothing_and_what_only_it_had_is_on_record() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web", A="1")
        await machines.until(lambda: machines.shows("n3", "web", "A", "1"))
        lost = machines.node("n3").uid
        machines.cluster.network.partition(["n3"], ["n1", "n2"])
        await machines.write("n3", "web", B="mine")
        machines.cluster.crash(machines.machine("n3"))
        await machines.write("n1", "web", unset="A")
        at = machines.machine("n1").clock.wall_ms() << COUNTER_BITS
        await machines.until(lambda: machines.node("n1").store.floor() > at, 200.0)
        machines.cluster.network.heal()

        await machines.cluster.start(machines.machine("n3"))
        await machines.until(lambda: machines.emptied == ["n3"], 30.0)
        await machines.until(lambda: len(machines.cluster.nodes) == 3 and machines.equal(), 60.0)

        assert machines.node("n3").uid != lost
        for name in ("n1", "n2", "n3"):
            assert machines.shows(name, "web", "A", None)
            assert machines.shows(name, "web", "B", None)
            assert machines.conflicts(name) == [("web", "B", None, "mine")]
        await machines.write("n3", "web", C="here")
        await machines.until(lambda: machines.shows("n1", "web", "C", "here"))

    simulate(story, settings=Settings(pace=QUICK))


def test_a_directory_that_was_put_back_brings_nothing_back() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.write("n1", "web", A="1", B="1")
        await machines.until(lambda: machines.shows("n3", "web", "A", "1"))
        saving = asyncio.create_task(machines.factory.keep_saving())
        await asyncio.sleep(1.5 * SNAPSHOT_EVERY_S)
        saving.cancel()
        await machines.write("n3", "web", unset="A")
        for n in range(3):
            await machines.write("n3", "web", B=str(n))
        at = machines.machine("n1").clock.wall_ms() << COUNTER_BITS
        await machines.until(lambda: machines.node("n1").store.floor() > at, 60.0)
        machines.cluster.crash(machines.machine("n3"))
        machines.factory.go_back(machines.machine("n3"))

        await machines.cluster.start(machines.machine("n3"))
        await machines.until(lambda: "n3" in machines.emptied, 60.0)
        await machines.until(lambda: len(machines.cluster.nodes) == 3 and machines.equal(), 60.0)

        for name in machines.cluster.nodes:
            assert machines.shows(name, "web", "A", None)
            assert machines.shows(name, "web", "B", "2")

    simulate(story, settings=Settings(Retention(2, 0), pace=QUICK))


def test_with_copies_what_only_it_had_comes_to_those_that_hold_it() -> None:
    async def story(machines: Machines) -> None:
        await machines.start()
        await machines.until(lambda: settled(machines), 120.0)
        names = [f"team{n}" for n in range(8)]
        lost = machines.node("n4").uid
        machines.cluster.network.partition(["n4"], ["n1", "n2", "n3"])
        await asyncio.sleep(10.0)  # Until it knows that it reaches nobody.
        for name in names:
            await machines.write("n4", name, A="mine")
        at = machines.machine("n4").clock.wall_ms() << COUNTER_BITS
        machines.cluster.crash(machines.machine("n4"))
        await machines.until(lambda: machines.node("n1").store.floor() > at, 200.0)
        machines.cluster.network.heal()

        await machines.cluster.start(machines.machine("n4"))
        await machines.until(lambda: machines.emptied == ["n4"], 120.0)
        await machines.until(lambda: "n4" in machines.cluster.nodes, 30.0)

        assert machines.node("n4").uid != lost
        for name in names:
            holders = machines.node("n1").node.holdings.readers(partition_of(name))
            assert holders is not None
            for each, node in machines.cluster.nodes.items():
                if node.uid in holders:
                    assert (name, "A", None, "mine") in machines.conflicts(each)

    def settled(machines: Machines) -> bool:
        table = machines.node("n1").node.holdings.table
        return table is not None and not table.moves and not table.waiting

    simulate(story, 4, Settings(copies=2, pace=QUICK))


@virtually
async def test_what_it_takes_until_the_end_is_given_too() -> None:
    world = World()
    floor = world.now
    await world.stale.put(NAME, A="first")
    await world.raised(floor)
    world.last_words = lambda: world.stale.put(NAME, A="last")

    await world.returning.run()

    assert world.steps == ["isolated", "ended"]
    assert len(world.told) == 1
    taken = [values_of(world.members[uid].store, NAME) for uid in HOLDERS]
    assert taken.count({"A": "last"}) >= 2
