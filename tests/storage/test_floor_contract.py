"""What the port promises of the floor, and of what is collected below it, of every Store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random

import pytest

from envd.core.commit import Commit
from envd.core.environment import Environment
from envd.core.history import DAY_MS, Retention
from envd.core.ring import partition_of
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp
from envd.ports import Forgotten, Store
from envd.storage.memory import MemoryStore
from tests.storage.kept import KINDS, Kept, make_kept
from tests.storage.others import PEER, at, commit_at, merged, repaired, shipped
from tests.storage.partitions import told_of, within
from tests.storage.world import DIGEST_KEY, NODE, START_MS, values_of

P = partition_of("a")
OF_P = ("a", *within(P, 2))
OTHERS = ("b", *within(P ^ 1, 1))
ALL = (*OF_P, *OTHERS)
TWO = Retention(2, 1)
DAY = DAY_MS


def hlc(n: int) -> int:
    """A floor at which the n-th stamps of all nodes are below it."""
    return (START_MS + n + 1) << COUNTER_BITS


LATE = 10 * DAY


@pytest.fixture(params=KINDS)
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    made = await make_kept(request.param, tmp_path, TWO)
    yield made
    await made.store.close()


def life(name: str) -> list[Commit]:
    """Sets X, unsets it, and goes on until retention has let go of both."""
    first = commit_at(at(1), name, {"X": "1", "KEPT": "k"})
    gone = commit_at(at(2), name, {"X": None}, saw=at(1))
    later = [commit_at(at(n * DAY), name, {"KEPT": str(n)}) for n in (3, 4, 5)]
    return [first, gone, *later]


def death(name: str) -> list[Commit]:
    return [
        commit_at(at(1), name, {"X": "1"}),
        commit_at(at(2), name, {"X": None}, saw=at(1), deletes=True),
    ]


async def take(kept: Kept, commits: Sequence[Commit]) -> None:
    for commit in commits:
        await kept.wait(shipped(kept.store, commit))


async def collect(kept: Kept, floor: int, partition: int = P) -> Forgotten:
    await kept.store.raise_floor(floor)
    await kept.step()
    await kept.store.flush()
    done = await kept.store.collect(partition)
    await kept.step()
    return done


def tombstones(store: Store, name: str) -> int:
    state = store.visible(name)
    assert state is not None
    return sum(entry.value is None for entry in state.environment.variables.values())


# -- the floor ---------------------------------------------------------------------------------


async def test_the_floor_only_grows_and_outlives_a_crash(kept: Kept) -> None:
    assert kept.store.floor() == 0

    await kept.store.raise_floor(hlc(5))
    await kept.store.raise_floor(hlc(3))
    await kept.crash()

    assert kept.store.floor() == hlc(5)
    assert kept.store.highest_hlc() >= hlc(5)


async def test_without_a_floor_nothing_is_collected(kept: Kept) -> None:
    await take(kept, life("a"))

    assert await kept.store.collect(P) == Forgotten()
    assert tombstones(kept.store, "a") == 1


async def test_a_partition_that_is_none_is_refused(kept: Kept) -> None:
    with pytest.raises(ValueError, match="4096"):
        await kept.store.collect(4096)


# -- what goes ---------------------------------------------------------------------------------


async def test_tombstones_go_and_all_else_stays(kept: Kept) -> None:
    for name in ALL:
        await take(kept, life(name))
    await kept.store.flush()
    others, vectors = told_of(kept.store, OTHERS), dict(kept.store.vectors())
    before = {name: kept.store.visible(name) for name in OF_P}
    rows = {name: kept.store.commit_rows(name) for name in OF_P}
    count, root = kept.store.environment_count(), kept.store.roots().partitions[P]

    assert await collect(kept, hlc(LATE)) == Forgotten(tombstones=len(OF_P))

    assert told_of(kept.store, OTHERS) == others
    assert dict(kept.store.vectors()) == vectors
    assert kept.store.environment_count() == count
    assert kept.store.roots().partitions[P] != root
    for name in OF_P:
        after, known = kept.store.visible(name), before[name]
        assert after is not None
        assert known is not None
        assert after.revision == known.revision
        assert kept.store.head(name) == after
        assert values_of(kept.store, name) == {"KEPT": "5"}
        assert "X" not in after.environment.variables
        assert "X" not in kept.store.base(name).variables
        assert kept.store.commit_rows(name) == rows[name]
    assert await kept.store.collect(P) == Forgotten()


async def test_it_stays_collected_whatever_comes(kept: Kept) -> None:
    await take(kept, life("a"))
    await collect(kept, hlc(LATE))
    await take(kept, [commit_at(at(11 * DAY), "a", {"KEPT": "6"})])
    await kept.store.flush()
    await kept.crash()

    assert tombstones(kept.store, "a") == 0
    assert values_of(kept.store, "a") == {"KEPT": "6"}


async def test_what_is_above_the_floor_waits_for_a_higher_one(kept: Kept) -> None:
    await take(kept, life("a"))

    assert await collect(kept, hlc(0)) == Forgotten()
    assert tombstones(kept.store, "a") == 1
    assert await collect(kept, hlc(2)) == Forgotten(tombstones=1)


async def test_what_a_retained_commit_states_stays(kept: Kept) -> None:
    await take(kept, [commit_at(at(1), "a", {"X": "1"}), commit_at(at(2 * DAY), "a", {"X": None})])

    assert await collect(kept, hlc(2 * DAY)) == Forgotten()
    assert tombstones(kept.store, "a") == 1


async def test_what_dropped_all_names_goes_where_it_is_all_there_is_to_collect(kept: Kept) -> None:
    again = [commit_at(at(n * DAY), "a", {"Y": str(n)}) for n in (3, 4, 5)]
    await take(kept, [*death("a"), *again])

    assert await collect(kept, hlc(LATE)) == Forgotten(tombstones=1)

    await kept.crash()
    left = kept.store.visible("a")
    assert left is not None
    assert left.environment.deleted_at == ZERO
    assert values_of(kept.store, "a") == {"Y": "5"}
    assert kept.store.base("a").deleted_at == ZERO


async def test_an_environment_that_was_deleted_long_ago_goes_whole(kept: Kept) -> None:
    await take(kept, life("b"))
    for name in OF_P:
        await take(kept, death(name))
    await kept.store.flush()
    others = told_of(kept.store, OTHERS)

    soon = await collect(kept, hlc(3))
    late = await collect(kept, hlc(LATE))

    assert soon == Forgotten()
    assert (late.commits, late.environments) == (2 * len(OF_P), len(OF_P))
    assert told_of(kept.store, OTHERS) == others
    assert kept.store.digests(P) == []
    assert kept.store.roots().partitions[P] == 0
    for name in OF_P:
        assert kept.store.visible(name) is None
        assert kept.store.head(name) is None
        assert kept.store.commit_rows(name) == []
        assert kept.store.base(name) == Environment(name)
    await kept.crash()
    assert kept.store.visible("a") is None
    await take(kept, [commit_at(at(LATE + DAY), "a", {"Y": "again"})])
    assert values_of(kept.store, "a") == {"Y": "again"}
    assert len(kept.store.commit_rows("a")) == 1


async def test_the_conflicts_of_a_life_that_ended_go_with_it(kept: Kept) -> None:
    rival = commit_at(Stamp(0, at(1).hlc, 8), "a", {"X": "rival"})
    await take(kept, [rival, *death("a")])
    await kept.store.flush()
    assert kept.store.conflicts("a", "", 9)

    await collect(kept, hlc(LATE))

    assert kept.store.conflicts("a", "", 9) == []
    assert kept.store.conflicts("", "", 9) == []


async def test_a_life_that_ended_long_ago_is_found_in_what_came_late(kept: Kept) -> None:
    late = [*death("a"), commit_at(at(9 * DAY), "a", {"Y": "new"})]
    for commit in late:
        await repaired(kept.store, commit)

    assert (await collect(kept, hlc(LATE))).commits == 1  # The other one was trimmed.
    assert len(kept.store.commit_rows("a")) == 1


async def test_an_environment_with_a_write_on_its_way_is_left_alone(kept: Kept) -> None:
    await take(kept, life("a"))
    await kept.store.raise_floor(hlc(LATE))
    await kept.store.flush()
    on_its_way = shipped(kept.store, commit_at(at(LATE + DAY), "a", {"Z": "z"}))
    collecting = kept.store.collect(P)

    done = await collecting
    await on_its_way
    assert done.tombstones + done.busy <= 1
    await kept.store.flush()
    await kept.store.collect(P)

    state = kept.store.visible("a")
    assert state is not None
    assert values_of(kept.store, "a") == {"KEPT": "5", "Z": "z"}
    assert "X" not in state.environment.variables
    assert kept.store.head("a") == state


# -- nodes among each other --------------------------------------------------------------------


async def test_stores_with_equal_commits_and_floors_have_equal_roots(kept: Kept) -> None:
    """One collects step by step while commits come, the other once and late."""
    other = MemoryStore(TWO, node_uid=8, digest_key=DIGEST_KEY)
    script = Random(5)
    commits: list[Commit] = []
    for n in range(1, 40):
        name = script.choice(ALL)
        values = {script.choice("XYZ"): script.choice((None, "v", "w"))}
        deletes = script.random() < 0.2
        values = dict.fromkeys(values, None) if deletes else values
        commits.append(commit_at(at(n * DAY // 2), name, values, deletes=deletes, saw=ZERO))
    for n, commit in enumerate(commits, 1):
        await shipped(other, commit)
        await kept.wait(shipped(kept.store, commit))
        if n % 7 == 0:
            for partition in sorted(set(map(partition_of, ALL))):
                await collect(kept, commit.stamp.hlc, partition)
    await kept.store.flush()
    unequal = other.roots().partitions != kept.store.roots().partitions

    await other.raise_floor(kept.store.floor())
    for partition in sorted(set(map(partition_of, ALL))):
        await other.collect(partition)
        await kept.store.collect(partition)

    assert unequal
    assert other.roots().partitions == kept.store.roots().partitions
    for name in ALL:
        assert other.visible(name) == kept.store.visible(name)
        assert other.conflicts(name, "", 99) == kept.store.conflicts(name, "", 99)


async def test_roots_of_what_is_left_are_those_of_a_store_that_only_ever_had_that(
    kept: Kept,
) -> None:
    again = commit_at(at(9 * DAY), "a", {"Y": "new"})
    fresh = MemoryStore(TWO, node_uid=NODE, digest_key=DIGEST_KEY)
    await repaired(fresh, again)
    await take(kept, [*death("a"), again])

    await collect(kept, hlc(LATE))

    assert kept.store.roots().partitions == fresh.roots().partitions
    assert kept.store.digests(P) == fresh.digests(P)


async def test_a_tombstone_of_a_base_that_hides_what_is_retained_stays(kept: Kept) -> None:
    base = Environment("a").apply(commit_at(at(2), "a", {"X": None}))
    await take(kept, [commit_at(at(1), "a", {"X": "1", "Y": "y"})])
    await kept.wait(merged(kept.store, base))

    assert await collect(kept, hlc(5)) == Forgotten()
    assert values_of(kept.store, "a") == {"Y": "y"}
    assert kept.store.last_seq(P, PEER) == 1
