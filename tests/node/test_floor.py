"""What comes too late: not applied, put on record once, and settled like any conflict."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.errors import Unavailable
from envd.core.history import Retention
from envd.core.requests import ConflictsRequest, HistoryRequest, ResolveRequest
from envd.core.ring import partition_of
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp
from envd.node.intake import Taken
from envd.wire import records
from tests.node.test_repair import Side
from tests.storage.world import values_of

AWAY = 9
CANARY = "canary-51c2"


def side(uid: int = 1, retention: Retention | None = None) -> Side:
    made = Side(uid, retention or Retention())
    made.intake.salvage = made.coordinator.salvage
    return made


def early(one: Side, n: int = 1) -> Stamp:
    """A stamp of the node that was away, an hour before what the others' clocks show."""
    return Stamp(0, (one.clock.now_ms - 3_600_000 + n) << COUNTER_BITS, AWAY)


def wrote(stamp: Stamp, environment: str = "web", **values: str | None) -> Commit:
    changes = tuple(
        Change(Kind.VARIABLE, name, value, False, ZERO) for name, value in values.items()
    )
    return Commit(environment, stamp, changes, author="bob", time_ms=stamp.time_ms, node="n9")


def row(commit: Commit, seq: int = 1) -> bytes:
    record = LogRecord(partition_of(commit.environment), AWAY, seq, commit)
    return records.encode_log_record(record, records.encode_commit(commit))


async def floored(one: Side) -> None:
    """The floor is what this node's clock shows."""
    await one.store.raise_floor(one.clock.now_ms << COUNTER_BITS)
    one.clock.now_ms += 1000


def salvages(one: Side, name: str = "web") -> list[Commit]:
    commits = one.store.commits(name, None, 100)
    return [commit for commit in commits if commit.salvages is not None]


async def test_a_zombie_changes_nothing_and_is_on_record_once() -> None:
    one = side()
    await one.put("web", A="kept")
    await floored(one)
    before = one.store.visible("web")
    zombie = wrote(early(one), A="late", B="late")

    taken = [await one.intake.take(row(zombie), direct=direct) for direct in (True, False)]
    again = [await one.intake.repair(records.encode_commit(zombie)) for _ in range(2)]

    assert taken == [Taken.ZOMBIE, Taken.KNOWN]
    assert again == [Taken.ZOMBIE] * 2
    after = one.store.visible("web")
    assert after is not None
    assert after == before
    (salvage,) = salvages(one)
    assert salvage.salvages == zombie
    assert salvage.stamp.hlc > one.store.floor()
    assert one.store.last_seq(partition_of("web"), AWAY) == 1
    found = one.coordinator.conflicts(ConflictsRequest("web", reveal=True)).conflicts
    assert [(each.variable, each.kept.value, each.lost.value) for each in found] == [
        ("A", "kept", "late"),
        ("B", None, "late"),
    ]
    assert {(each.lost.actor, each.lost.node, each.lost.stamp) for each in found} == {
        ("bob", "n9", zombie.stamp.hex())
    }


async def test_what_was_lost_can_be_taken_after_all() -> None:
    one = side()
    await floored(one)
    await one.intake.take(row(wrote(early(one), B="late")), direct=True)

    await one.coordinator.resolve(ResolveRequest("web", "B", "lost"), "ann")

    assert values_of(one.store, "web") == {"B": "late"}
    assert one.coordinator.conflicts(ConflictsRequest("web")).conflicts == ()


async def test_a_history_tells_what_was_salvaged_and_no_value() -> None:
    one = side()
    await floored(one)
    await one.intake.take(row(wrote(early(one), B=CANARY)), direct=True)

    (view,) = one.coordinator.history(HistoryRequest("web")).commits

    assert view.changes == ()
    assert view.salvages is not None
    assert (view.salvages.actor, view.salvages.node) == ("bob", "n9")
    assert [(change.variable, change.kind) for change in view.salvages.changes] == [("B", "set")]
    assert CANARY not in repr(view)
    assert CANARY not in repr(salvages(one))


async def test_what_follows_a_zombie_in_its_log_is_taken() -> None:
    one = side()
    await floored(one)
    new = Stamp(0, one.clock.now_ms << COUNTER_BITS, AWAY)

    taken = [
        await one.intake.take(row(commit, seq), direct=True)
        for seq, commit in enumerate((wrote(early(one), A="late"), wrote(new, A="new")), 1)
    ]
    await one.intake.settled(0)

    assert taken == [Taken.ZOMBIE, Taken.NEW]
    assert values_of(one.store, "web") == {"A": "new"}
    assert one.store.last_seq(partition_of("web"), AWAY) == 2


async def test_the_same_zombie_twice_at_once_is_on_record_once() -> None:
    one = side()
    await floored(one)
    late = row(wrote(early(one), A="late"))

    await asyncio.gather(*(one.intake.take(late, direct=direct) for direct in (True, False)))

    assert len(salvages(one)) == 1


async def test_a_commit_that_is_here_is_none_whichever_way_it_comes() -> None:
    one = side()
    known = wrote(early(one), A="1")
    await one.intake.repair(records.encode_commit(known))
    await one.intake.settled(0)
    await floored(one)

    assert await one.intake.repair(records.encode_commit(known)) is Taken.KNOWN
    assert await one.intake.take(row(known), direct=True) is Taken.KNOWN
    assert one.store.last_seq(partition_of("web"), AWAY) == 1
    assert salvages(one) == []
    assert values_of(one.store, "web") == {"A": "1"}


async def test_what_a_base_covers_is_none() -> None:
    one = side(retention=Retention(1, 0))
    commits = [wrote(early(one, n), A=str(n)) for n in (1, 2, 3)]
    for commit in commits:
        await one.intake.repair(records.encode_commit(commit))
    await one.intake.settled(0)
    await floored(one)

    assert await one.intake.repair(records.encode_commit(commits[0])) is Taken.KNOWN
    assert salvages(one) == []


async def test_what_a_node_of_the_same_floor_has_was_collected_here() -> None:
    one = side()
    await floored(one)
    late = wrote(early(one), A="late")

    assert await one.intake.repair(records.encode_commit(late), floor=MAX) is Taken.KNOWN
    assert salvages(one) == []
    assert values_of(one.store, "web") == {}


MAX = (1 << 64) - 1


async def test_of_a_peers_base_nothing_that_was_collected_comes_back() -> None:
    one = side()
    await one.put("web", A="kept")
    await floored(one)
    before = one.store.last_lsn()
    base = Environment("web").apply(wrote(early(one), B="late"))

    await one.intake.repair_base(base)
    await one.intake.settled(0)

    assert values_of(one.store, "web") == {"A": "kept"}
    assert one.store.last_lsn() == before
    new = Stamp(0, one.clock.now_ms << COUNTER_BITS, AWAY)
    await one.intake.repair_base(base.apply(wrote(new, C="new")))
    await one.intake.settled(0)
    assert values_of(one.store, "web") == {"A": "kept", "C": "new"}


async def test_where_it_can_not_be_put_on_record_it_is_not_passed_over() -> None:
    one = side()
    await floored(one)
    late = row(wrote(early(one), A="late"))
    one.coordinator.refuse_writes = Unavailable("leaving")

    with pytest.raises(Unavailable):
        await one.intake.take(late, direct=True)
    assert one.store.last_seq(partition_of("web"), AWAY) == 0
    one.coordinator.refuse_writes = None

    assert await one.intake.take(late, direct=True) is Taken.ZOMBIE
    assert len(salvages(one)) == 1


async def test_one_line_is_logged_for_each_origin(caplog: pytest.LogCaptureFixture) -> None:
    one = side()
    await floored(one)
    for seq in (1, 2, 3):
        await one.intake.take(row(wrote(early(one, seq), A="late"), seq), direct=True)

    assert one.intake.zombies == 3
    assert caplog.text.count("replication.zombie") == 1


async def test_of_a_zombie_that_wrote_nothing_nothing_is_on_record() -> None:
    one = side()
    await floored(one)

    assert await one.intake.take(row(wrote(early(one))), direct=True) is Taken.KNOWN
    assert salvages(one) == []


async def test_without_a_floor_whatever_comes_is_taken() -> None:
    one = side()

    assert await one.intake.take(row(wrote(early(one), A="1")), direct=True) is Taken.NEW
    await one.intake.settled(0)
    assert values_of(one.store, "web") == {"A": "1"}


async def test_what_another_node_salvaged_is_on_record_here_too_and_not_again() -> None:
    one, two = side(1), side(2)
    late = wrote(early(one), A="late")
    for each in (one, two):
        await floored(each)
    await one.intake.take(row(late), direct=True)
    await one.copy_to(two)

    await two.intake.take(row(late), direct=True)

    assert salvages(two) == salvages(one)
    assert two.equal_to(one)
    assert replace(salvages(two)[0], salvages=None).changes == ()
