"""Finding what one node lacks of another by fingerprints, and pulling just that."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count, islice

import msgspec
import pytest

from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.errors import Corrupt, Unavailable
from envd.core.history import Retention
from envd.core.hlc import HybridClock
from envd.core.requests import Put, WriteRequest
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp
from envd.core.versions import FAN_OUT, Cursor
from envd.node.coordinator import Coordinator
from envd.node.handshake import Peer
from envd.node.intake import IdentityLost, Intake, Taken
from envd.node.repair import Repairer
from envd.node.repair_server import RepairServer
from envd.node.vectors import VectorFeed
from envd.node.views import NodeIdentity
from envd.ports import StoredState
from envd.storage.memory import MemoryStore
from envd.wire import peers as wire
from envd.wire import records
from tests.node.conftest import DIGEST_KEY, StillClock
from tests.node.voters import FIRST, OPENING, SECOND

PEER = Peer(2, 1, b"b" * 16, "c1", "call", 1, b"")


@dataclass
class Side:
    """One node, and how the other one asks it."""

    uid: int
    retention: Retention = field(default_factory=Retention)
    clock: StillClock = field(default_factory=StillClock)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.retention, node_uid=self.uid, digest_key=DIGEST_KEY)
        hlc = HybridClock(self.uid, 0)
        identity = NodeIdentity(self.uid, f"n{self.uid}", "here")
        self.coordinator = Coordinator(self.store, self.clock, identity, DIGEST_KEY, hlc=hlc)
        self.intake = Intake(self.store, self.clock, hlc, DIGEST_KEY, self.uid)
        self.held: list[tuple[int, int]] = []
        server = RepairServer(self.store, DIGEST_KEY, lambda uid, lsn: self.held.append((uid, lsn)))
        self._methods = server.methods()
        self.repairer = Repairer(
            self.store, self.intake, VectorFeed(self.store), DIGEST_KEY, self.uid
        )
        self.asked: list[str] = []

    async def ask(self, method: str, body: bytes) -> bytes:
        self.asked.append(method)
        return await self._methods[method](PEER, body)

    async def put(self, environment: str, **values: str) -> None:
        self.clock.now_ms += 1
        puts = tuple(Put(name, value) for name, value in values.items())
        await self.coordinator.write(WriteRequest(environment, puts), "tester")

    async def copy_to(self, other: Side, *, first: int | None = None) -> None:
        """Ship the whole log, or its beginning, as a stream would."""
        for _, row in (await self.store.rows(0, 1 << 30))[:first]:
            await other.intake.take(row, direct=True)
        await other.intake.settled(0)

    def equal_to(self, other: Side) -> bool:
        return self.store.roots().partitions == other.store.roots().partitions


async def test_equal_nodes_compare_by_a_few_kilobytes() -> None:
    one, two = Side(1), Side(2)
    for number in range(30):
        await one.put(f"team/app-{number}", A="1", B="2")
    await one.copy_to(two)

    pulled = await two.repairer.compare(1, one.ask)

    assert one.asked == ["repair.groups"]
    assert pulled.commits == 0
    assert pulled.received_bytes < 4096


async def test_what_was_lost_though_the_vectors_are_equal_is_found_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two = Side(1), Side(2)
    for number in range(30):
        await one.put(f"team/app-{number}", A="1")
    await one.copy_to(two, first=29)
    two.store.advance(one.store.vectors(), {})

    pulled = await two.repairer.compare(1, one.ask)

    assert (pulled.environments, pulled.commits) == (1, 1)
    assert two.equal_to(one)
    assert "repair.divergence" in caplog.text
    assert two.repairer.figures.divergences == 1


async def test_what_is_on_its_way_is_left_to_the_streams_until_nothing_moves() -> None:
    one, two = Side(1), Side(2)
    for number in range(5):
        await one.put(f"team/app-{number}", A="1")
    await one.copy_to(two, first=4)

    pulls = [(await two.repairer.compare(1, one.ask)).commits for _ in range(3)]

    assert pulls == [0, 0, 1]
    assert two.equal_to(one)


async def test_catching_up_takes_over_the_vectors_and_where_the_log_stood() -> None:
    one, two = Side(1), Side(2)
    for number in range(8):
        await one.put(f"team/app-{number % 3}", A=str(number))

    await two.repairer.catch_up(1, one.ask)

    assert two.equal_to(one)
    assert two.store.vectors() == one.store.vectors()
    assert two.store.cursor(1) == Cursor(8, 8)
    assert one.held == [(2, 8)]
    assert two.store.commit_rows("team/app-0") == one.store.commit_rows("team/app-0")


async def test_a_peer_walks_down_one_tree_whatever_comes_in_meanwhile() -> None:
    one = Side(1)
    await one.put("team/app", A="1")
    group = wire.pack(partition_of("team/app") // FAN_OUT)

    await one.ask("repair.groups", b"")
    first = await one.ask("repair.partitions", group)
    await one.put("team/app", A="2")
    meanwhile = await one.ask("repair.partitions", group)
    await one.ask("repair.groups", b"")
    anew = await one.ask("repair.partitions", group)

    assert meanwhile == first
    assert anew != first


async def test_a_partition_of_many_environments_is_searched_by_buckets() -> None:
    one, two = Side(1), Side(2)
    numbered = (f"crowd/{number}" for number in count())
    crowd = list(islice((name for name in numbered if partition_of(name) == 7), 40))
    for name in crowd:
        await one.put(name, A="1")
    await one.copy_to(two, first=39)

    pulled = await two.repairer.catch_up(1, one.ask)

    assert one.asked.count("repair.listed") == 1
    assert (pulled.environments, pulled.commits) == (1, 1)
    assert two.equal_to(one)


async def test_the_base_of_a_trimmed_history_is_pulled_too() -> None:
    retention = Retention(commits=2, days=0)
    one, two = Side(1, retention), Side(2, retention)
    for number in range(9):
        await one.put("web", **{f"V{number}": "x"})
        one.clock.now_ms += 2 * 86_400_000
    two.clock.now_ms = one.clock.now_ms

    pulled = await two.repairer.catch_up(1, one.ask)

    assert pulled.bases == 1
    assert two.equal_to(one)
    assert two.store.base("web") == one.store.base("web")
    visible = two.store.visible("web")
    assert visible is not None
    assert sorted(visible.environment.variables) == [f"V{number}" for number in range(9)]


async def test_a_history_larger_than_an_answer_comes_in_several() -> None:
    one, two = Side(1), Side(2)
    for number in range(12):
        await one.put("web", LARGE=chr(97 + number) * 600_000)

    pulled = await two.repairer.catch_up(1, one.ask)

    assert pulled.commits == 12
    assert one.asked.count("repair.missing") >= 2
    assert two.equal_to(one)


async def test_a_pulled_commit_from_the_future_is_held_back_until_its_time() -> None:
    one, two = Side(1), Side(2)
    one.clock.now_ms += 300_000
    await one.put("web", A="1")

    await two.repairer.catch_up(1, one.ask)
    early = two.store.visible("web")
    two.clock.now_ms += 299_000
    released = await two.intake.release()

    assert early is None
    assert released == 1
    assert two.intake.quarantined == 0
    assert two.equal_to(one)


async def test_no_vector_tells_of_what_only_waits_in_quarantine() -> None:
    one, two, three = Side(1), Side(2), Side(3)
    await one.put("api", A="1")
    one.clock.now_ms += 300_000
    await one.put("web", A="1")
    api, web = (partition_of("api"), 1), (partition_of("web"), 1)

    await two.repairer.catch_up(1, one.ask)
    await three.repairer.catch_up(2, two.ask)
    told = [dict(side.store.vectors()) for side in (two, three)]
    two.clock.now_ms += 299_000
    await two.intake.release()
    await two.repairer.catch_up(1, one.ask)

    assert two.store.cursor(1) == Cursor(2, 2)
    assert told == [{api: 1}, {api: 1}]
    assert two.equal_to(one)
    assert two.store.vectors() == {api: 1, web: 1}


async def test_looking_at_one_environment_pulls_that_one_alone() -> None:
    one, two = Side(1), Side(2)
    await one.put("web", A="1")
    await one.put("api", A="1")

    await two.repairer.look_at(["web"], one.uid, one.ask)

    assert two.store.visible("web") is not None
    assert two.store.visible("api") is None


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("repair.partitions", wire.pack(64)),
        ("repair.partitions", wire.pack(-1)),
        ("repair.partitions", b"rubbish"),
        ("repair.part", wire.pack(4096)),
        ("repair.listed", wire.pack((5000, 1))),
        ("repair.listed", wire.pack(7)),
        ("repair.missing", b"\xc1"),
    ],
)
async def test_nonsense_from_a_peer_is_refused(method: str, body: bytes) -> None:
    with pytest.raises(Corrupt):
        await Side(1).ask(method, body)


# -- taking in records -------------------------------------------------------------------------


async def rows_of(side: Side) -> list[bytes]:
    return [row for _, row in await side.store.rows(0, 1 << 30)]


async def test_records_are_taken_in_order_and_once() -> None:
    one, two = Side(1), Side(2)
    for number in range(3):
        await one.put("web", A=str(number))
    first, second, third = await rows_of(one)

    taken = [
        await two.intake.take(row, direct=True) for row in (first, third, first, second, third)
    ]

    assert taken == [Taken.NEW, Taken.GAP, Taken.KNOWN, Taken.NEW, Taken.NEW]
    await two.intake.settled(0)
    assert two.equal_to(one)


async def test_a_record_from_the_future_is_refused_from_its_origin_behind_a_hole_too() -> None:
    one, two = Side(1), Side(2)
    one.clock.now_ms += 300_000
    for number in range(2):
        await one.put("web", A=str(number))
    _, second = await rows_of(one)

    with pytest.raises(Unavailable, match="ahead of this node's clock"):
        await two.intake.take(second, direct=True)

    assert await two.intake.take(second, direct=False) is Taken.GAP


async def test_a_record_behind_a_hole_leaves_quarantine_without_its_name() -> None:
    one, two = Side(1), Side(2)
    one.clock.now_ms += 300_000
    for number in range(3):
        await one.put("web", A=str(number))
    first, _, third = await rows_of(one)
    taken = [await two.intake.take(row, direct=False) for row in (first, third)]
    two.clock.now_ms += 299_000

    await two.intake.release()

    assert taken == [Taken.EARLY, Taken.EARLY]
    assert two.intake.quarantined == 0
    assert two.store.last_seq(partition_of("web"), 1) == 1
    assert [stamp for stamp, _ in two.store.commit_rows("web")] == [
        stamp for stamp, _ in one.store.commit_rows("web")[::2]
    ]


async def test_what_comes_into_quarantine_while_others_go_is_released_in_its_time() -> None:
    one, two = Side(1), Side(2)
    one.clock.now_ms += 300_000
    await one.put("web", A="1")
    await two.repairer.look_at(["web"], one.uid, one.ask)
    one.clock.now_ms += 300_000
    await one.put("api", A="1")
    two.clock.now_ms += 299_000

    await asyncio.gather(two.intake.release(), two.repairer.look_at(["api"], one.uid, one.ask))
    left = two.intake.quarantined
    two.clock.now_ms += 300_000
    await two.intake.release()

    assert left == 1
    assert two.equal_to(one)


async def test_a_commit_of_a_chain_waits_for_the_one_that_it_follows() -> None:
    """Else readers, and who proposes next, would see a state that never was."""
    side = Side(2)
    first, second, third = (records.encode_commit(commit) for commit in (OPENING, FIRST, SECOND))

    early = await side.intake.repair(second)
    taken = [await side.intake.repair(encoded) for encoded in (first, third, second, third)]
    again = await side.intake.repair(second)

    assert early is Taken.BEHIND
    assert taken == [Taken.NEW, Taken.BEHIND, Taken.NEW, Taken.NEW]
    assert again is Taken.NEW
    await side.intake.settled(0)
    assert [stamp for stamp, _ in side.store.commit_rows(OPENING.environment)] == [
        OPENING.stamp,
        FIRST.stamp,
        SECOND.stamp,
    ]


async def test_no_vector_tells_of_a_commit_that_was_behind() -> None:
    one, two = Side(1), Side(2)
    partition = partition_of(OPENING.environment)
    for seq, commit in enumerate((OPENING, FIRST), 1):
        encoded = records.encode_commit(commit)
        row = records.encode_log_record(LogRecord(partition, 3, seq, commit), encoded)
        await two.intake.take(row, direct=True)
    await two.intake.settled(0)

    async def hiding_the_first(method: str, body: bytes) -> bytes:
        answer = await two.ask(method, body)
        if method != "repair.missing":
            return answer
        [missing] = wire.unpack(list[wire.Missing], answer)
        return wire.pack([wire.Missing(missing.environment, missing.commits[1:])])

    pulled = await one.repairer.catch_up(2, hiding_the_first)

    assert pulled.commits == 0
    assert one.store.last_seq(partition, 3) == 0
    assert one.store.cursor(2) != Cursor()


async def test_a_chain_leaves_quarantine_in_its_own_order() -> None:
    """Two nodes proposed in turn, and the records of each are in the order of its log."""
    side = Side(2)
    partition = partition_of(OPENING.environment)
    side.clock.now_ms -= 300_000
    for origin, seq, commit in ((3, 1, OPENING), (3, 2, SECOND), (4, 1, FIRST)):
        named = LogRecord(partition, origin, seq, commit)
        row = records.encode_log_record(named, records.encode_commit(commit))
        assert await side.intake.take(row, direct=False) is Taken.EARLY
    side.clock.now_ms += 300_000
    seen: list[Stamp] = []
    side.store.subscribe(lambda applied: seen.append(applied.record.commit.stamp))

    released = [await side.intake.release() for _ in range(3)]

    assert seen == [OPENING.stamp, FIRST.stamp, SECOND.stamp]
    assert released == [2, 1, 0]
    assert side.intake.quarantined == 0


async def test_the_bytes_of_a_peer_are_kept_as_they_came() -> None:
    """A newer version may write fields that this one does not know; histories agree anyway."""
    one, two = Side(1), Side(2)
    await one.put("web", A="1")
    [row] = await rows_of(one)
    partition, origin, seq, encoded = records.open_log_row(row)
    fields = msgspec.msgpack.decode(encoded[1:])
    newer = encoded[:1] + msgspec.msgpack.encode([*fields, [], b"", b"", "of a later version"])
    commit = records.decode_commit(newer)

    await two.intake.take(
        records.encode_log_record(LogRecord(partition, origin, seq, commit), newer), direct=True
    )
    await two.intake.settled(0)

    assert [raw for _, raw in two.store.commit_rows("web")] == [newer]


def record(
    environment: str, *, partition: int | None = None, origin: int = 9, seq: int = 1
) -> bytes:
    """A row as a peer that is mistaken, or worse, might send it."""
    stamp = Stamp(0, 1_700_000_000_000 << 16, 9)
    commit = Commit(environment, stamp, (Change(Kind.VARIABLE, "A", "1", False, ZERO),))
    named = LogRecord(
        partition_of(environment) if partition is None else partition, origin, seq, commit
    )
    return records.encode_log_record(named, records.encode_commit(commit))


@pytest.mark.parametrize(
    "row",
    [
        record(""),
        record("n" * 600),
        record("not a name"),
        record("web", partition=70_000),
        record("web", partition=5000),
        record("web", partition=partition_of("web") ^ 1),
        record("web", origin=-1),
        record("web", origin=0),
        record("web", origin=1 << 63, seq=0),
        record("web", seq=-5),
    ],
)
async def test_a_record_that_the_store_can_not_keep_is_refused(row: bytes) -> None:
    side = Side(2)

    with pytest.raises(Corrupt):
        await side.intake.take(row, direct=True)

    assert not side.store.vectors()


async def test_a_refused_record_is_told_though_a_later_one_was_taken() -> None:
    side = Side(2)
    refusing = RefusingStore(node_uid=2, digest_key=DIGEST_KEY)
    hlc = HybridClock(2, 0)
    intake = Intake(refusing, side.clock, hlc, DIGEST_KEY, 2)
    mark = intake.mark()
    refusing.refuses = True
    await intake.take(record("web"), direct=True)
    refusing.refuses = False
    await intake.take(record("api"), direct=True)

    with pytest.raises(Unavailable, match="refused"):
        await intake.settled(mark)

    await intake.settled(intake.mark())


class RefusingStore(MemoryStore):
    """Refuses records as a journal does that has no room for them."""

    refuses = False

    def append(
        self, record: LogRecord, after: StoredState, encoded: bytes = b""
    ) -> asyncio.Future[int]:
        if not self.refuses:
            return super().append(record, after, encoded)
        refused: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        refused.set_exception(Unavailable("the disk is full"))
        return refused


async def test_catching_up_tells_a_node_that_others_know_more_of_it() -> None:
    one, two = Side(1), Side(2)
    await two.put("web", A="1")
    await two.put("web", A="2")
    await two.copy_to(one)
    rolled_back = Side(2)

    with pytest.raises(IdentityLost):
        await rolled_back.repairer.catch_up(1, one.ask)
