"""What the port promises, of every Store, with a flush or a restart between any two steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random

import pytest

from envd.core.commit import Kind
from envd.core.history import Retention, state_at
from envd.core.stamp import MAX_HLC, Stamp
from envd.ports import Applied, Store
from tests.storage.kept import KINDS, Kept, make_kept
from tests.storage.world import NODE, StillClock, Writer, open_store, values_of


@pytest.fixture(params=KINDS)
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    made = await make_kept(request.param, tmp_path)
    yield made
    await made.store.close()


@pytest.fixture(params=KINDS)
async def short(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    """A store that keeps three commits of an environment."""
    made = await make_kept(request.param, tmp_path, Retention(3, 0))
    yield made
    await made.store.close()


# -- reading and writing ----------------------------------------------------------------------


async def test_readers_see_a_commit_once_it_is_durable_and_writers_at_once(kept: Kept) -> None:
    await kept.put("a/b", X="old")

    durable = kept.writer.commit("a/b", {"X": "new"})
    seen_before = values_of(kept.store, "a/b")
    head = kept.store.head("a/b")
    lsn = await durable

    assert seen_before == {"X": "old"}
    assert head is not None
    assert head.environment.variables["X"].value == "new"
    assert (lsn, kept.store.last_lsn()) == (2, 2)
    assert values_of(kept.store, "a/b") == {"X": "new"}


async def test_commits_on_their_way_build_on_each_other(kept: Kept) -> None:
    durable = [kept.writer.commit("a/b", {f"K{n}": str(n)}) for n in range(20)]

    lsns = [await one for one in durable]

    assert lsns == list(range(1, 21))
    assert values_of(kept.store, "a/b") == {f"K{n}": str(n) for n in range(20)}


async def test_what_was_never_written_is_absent_and_not_empty(kept: Kept) -> None:
    await kept.put("a/b", X="1")

    assert kept.store.visible("a/c") is None
    assert kept.store.head("a/c") is None
    assert kept.store.commits("a/c", None, 10) == []
    assert kept.store.base("a/c").variables == {}


async def test_a_deleted_environment_is_known_and_does_not_exist(kept: Kept) -> None:
    await kept.put("a/b", X="1")

    await kept.delete("a/b")

    state = kept.store.visible("a/b")
    assert state is not None
    assert not state.environment.exists
    assert state.environment.deleted_at == kept.writer.stamps[-1]


async def test_metadata_and_variables_come_back_apart(kept: Kept) -> None:
    await kept.wait(kept.writer.commit("a/b", {"owner": "team"}, kind=Kind.METADATA))
    await kept.put("a/b", owner="variable")

    state = kept.store.visible("a/b")

    assert state is not None
    assert state.environment.metadata["owner"].value == "team"
    assert state.environment.variables["owner"].value == "variable"


async def test_seqs_count_each_origin_and_partition_by_itself(kept: Kept) -> None:
    await kept.put("a/b", X="1")
    await kept.wait(kept.writer.commit("a/b", {"X": "2"}, origin=9))
    on_its_way = kept.writer.commit("a/b", {"X": "3"})

    record = kept.store.replay(0)
    partition = next(record)[1].partition

    assert kept.store.last_seq(partition, NODE) == 2
    assert kept.store.last_seq(partition, 9) == 1
    assert kept.store.last_seq(partition, 10) == 0
    assert kept.store.last_seq(partition ^ 1, NODE) == 0
    await on_its_way


async def test_the_durable_bound_is_above_own_stamps_and_ignores_those_of_others(
    kept: Kept,
) -> None:
    own = (await kept.put("a/b", X="1"), kept.writer.stamps[-1])[1]
    bound = kept.store.highest_hlc()
    far_ahead = Stamp(0, MAX_HLC >> 1, 9)
    kept.writer.hlc = far_ahead.hlc
    await kept.wait(kept.writer.commit("a/b", {"X": "2"}, origin=9))

    assert bound >= own.hlc
    assert kept.store.highest_hlc() == bound


async def test_a_listener_hears_each_commit_in_order_once_readers_see_it(kept: Kept) -> None:
    heard: list[tuple[int, str, dict[str, str | None]]] = []

    def listen(applied: Applied) -> None:
        name = applied.record.commit.environment
        heard.append((applied.lsn, name, values_of(kept.store, name)))

    kept.store.subscribe(listen)
    durable = [kept.writer.commit(name, {"X": name}) for name in ("a", "b", "c")]
    for one in durable:
        await one

    assert heard == [(1, "a", {"X": "a"}), (2, "b", {"X": "b"}), (3, "c", {"X": "c"})]


async def test_a_listener_that_fails_harms_neither_the_writer_nor_other_listeners(
    kept: Kept,
) -> None:
    heard: list[int] = []

    def fail(_: Applied) -> None:
        raise RuntimeError("a listener's own fault")

    kept.store.subscribe(fail)
    kept.store.subscribe(lambda applied: heard.append(applied.lsn))
    durable = [kept.writer.commit("a", {"X": str(n)}) for n in range(3)]
    lsns = [await one for one in durable]

    assert lsns == heard == [1, 2, 3]
    assert values_of(kept.store, "a") == {"X": "2"}


# -- listing ----------------------------------------------------------------------------------


async def test_a_prefix_matches_whole_segments(kept: Kept) -> None:
    names = ["a", "a/b", "a/b-2", "a/b.x/c", "a/b/c", "a/b/c/d", "a/b0", "b"]
    for name in reversed(names):
        await kept.put(name, X="1")

    def listed(prefix: str, after: str = "") -> list[str]:
        return [found.environment for found in kept.store.environments(prefix, after, 100)]

    assert listed("") == names
    assert listed("a/b") == ["a/b", "a/b/c", "a/b/c/d"]
    assert listed("a/b", after="a/b") == ["a/b/c", "a/b/c/d"]
    assert listed("a/b", after="a/b-2") == ["a/b/c", "a/b/c/d"]
    assert listed("a/b", after="a/b/c") == ["a/b/c/d"]
    assert listed("a/b", after="a/c") == []
    assert listed("a/b/c/d/e") == []
    assert listed("", after="a/b0") == ["b"]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_make_up_the_list_without_the_deleted(kept: Kept, limit: int) -> None:
    names = [f"p/e{n:02d}" for n in range(8)]
    for name in names:
        await kept.put(name, X="1")
    for name in ("p/e00", "p/e03", "p/e04", "p/e07"):
        await kept.delete(name)
    await kept.put("p/e04", X="again")

    found: list[str] = []
    while page := kept.store.environments("p", found[-1] if found else "", limit):
        assert len(page) <= limit
        found += [listed.environment for listed in page]

    assert found == ["p/e01", "p/e02", "p/e04", "p/e05", "p/e06"]
    assert kept.store.environments("p", "", 0) == []


async def test_a_listing_tells_revision_and_count_of_variables(kept: Kept) -> None:
    await kept.put("a/b", X="1", Y="2", Z="3")
    await kept.put("a/b", Y=None)

    (listed,) = kept.store.environments("", "", 10)

    state = kept.store.visible("a/b")
    assert state is not None
    assert (listed.revision, listed.variables) == (state.revision.hex(), 2)


async def test_the_count_of_environments_follows_once_flushed(kept: Kept) -> None:
    for name in ("a", "b", "c"):
        await kept.put(name, X="1")
    await kept.delete("b")
    await kept.put("c", X="2")

    await kept.store.flush()

    assert kept.store.environment_count() == 2


# -- history ----------------------------------------------------------------------------------


async def test_history_comes_newest_first_in_pages(kept: Kept) -> None:
    for n in range(7):
        await kept.put("a/b", X=str(n))
        await kept.put("a/b/c", X=str(n))

    pages: list[list[str | None]] = []
    before: Stamp | None = None
    while page := kept.store.commits("a/b", before, 3):
        pages.append([commit.changes[0].value for commit in page])
        before = page[-1].stamp

    assert pages == [["6", "5", "4"], ["3", "2", "1"], ["0"]]


async def test_history_outlives_a_deletion(kept: Kept) -> None:
    await kept.put("a/b", X="1")
    await kept.delete("a/b")

    newest, oldest = kept.store.commits("a/b", None, 10)

    assert (newest.deletes, oldest.deletes) == (True, False)
    assert newest.changes[0].name == "X"


async def test_trimmed_commits_live_on_in_the_base(short: Kept) -> None:
    for n in range(6):
        await short.put("a/b", **{f"K{n}": str(n), "X": str(n)})
    await short.store.flush()

    commits = short.store.commits("a/b", None, 100)
    base = short.store.base("a/b")

    assert [commit.changes[1].value for commit in commits] == ["5", "4", "3"]
    assert {name: entry.value for name, entry in base.variables.items()} == {
        "K0": "0",
        "K1": "1",
        "K2": "2",
        "X": "2",
    }


async def test_base_and_commits_make_the_visible_state_at_every_moment(short: Kept) -> None:
    for n in range(9):
        await short.put("a/b", **{f"K{n % 4}": str(n)})

        state = short.store.visible("a/b")
        commits = short.store.commits("a/b", None, 100)
        rebuilt = state_at(short.store.base("a/b"), reversed(commits), Stamp(9, 0, 0))

        assert state is not None
        assert rebuilt == state.environment


async def test_a_late_commit_below_the_base_joins_it(short: Kept) -> None:
    for n in range(5):
        await short.put("a/b", X=str(n))
    newest = short.writer.hlc
    short.writer.hlc = short.writer.stamps[0].hlc - (5 << 16)

    await short.wait(short.writer.commit("a/b", {"LATE": "1"}, origin=9))
    await short.store.flush()

    commits = short.store.commits("a/b", None, 9)
    assert (commits[0].stamp.hlc, len(commits)) == (newest, 3)
    assert short.store.base("a/b").variables["LATE"].value == "1"
    assert values_of(short.store, "a/b") == {"X": "4", "LATE": "1"}


# -- operations and replay --------------------------------------------------------------------


async def test_an_operation_is_found_on_its_way_and_later_by_its_author_alone(
    kept: Kept,
) -> None:
    durable = kept.writer.commit("a/b", {"X": "1"}, author="ann", operation="op-1")
    on_its_way = kept.store.find_operation("ann", "op-1")
    await kept.wait(durable)

    found = kept.store.find_operation("ann", "op-1")

    assert found is not None
    assert found == on_its_way
    assert (found.environment, found.stamp) == ("a/b", kept.writer.stamps[0])
    assert kept.store.find_operation("bob", "op-1") is None
    assert kept.store.find_operation("ann", "op-2") is None


async def test_replay_gives_the_records_after_an_lsn_as_they_were(kept: Kept) -> None:
    for n in range(6):
        await kept.put(f"e{n % 2}", X=str(n), **{f"NEW{n}": ""})

    tail = list(kept.store.replay(3))

    assert [lsn for lsn, _ in tail] == [4, 5, 6]
    assert [record.commit.changes[0].value for _, record in tail] == ["3", "4", "5"]
    assert [record.commit.stamp for _, record in tail] == kept.writer.stamps[3:]
    assert [record.seq for _, record in tail] == [2, 3, 3]
    assert list(kept.store.replay(6)) == []


async def test_a_commit_keeps_every_field(kept: Kept) -> None:
    durable = kept.writer.commit(
        "a/b", {"X": "ä\n", "Y": ""}, author="ann", operation="op", message="why"
    )
    await kept.wait(durable)
    await kept.put("a/b", X=None)

    newest, oldest = kept.store.commits("a/b", None, 10)
    replayed = [record.commit for _, record in kept.store.replay(0)]

    assert replayed == [oldest, newest]
    assert (oldest.author, oldest.operation, oldest.message) == ("ann", "op", "why")
    assert [change.value for change in oldest.changes] == ["ä\n", ""]
    assert newest.changes[0].overwrites == oldest.stamp


# -- both stores, any script ------------------------------------------------------------------


def answers(store: Store, names: list[str]) -> Mapping[str, object]:
    """Everything that a store tells of these environments."""
    return {
        "visible": {name: store.visible(name) for name in names},
        "head": {name: store.head(name) for name in names},
        "list": store.environments("", "", 100),
        "below": store.environments("t/a", "", 2),
        "commits": {name: store.commits(name, None, 100) for name in names},
        "base": {name: store.base(name) for name in names},
        "operations": [store.find_operation("ann", f"op-{n}") for n in range(40)],
        "replay": list(store.replay(0)),
        "lsn": store.last_lsn(),
        "count": store.environment_count(),
    }


async def play(script: Random, kept: Kept, names: list[str], steps: int) -> None:
    """A random script; the same for the same seed, whatever the store."""
    for n in range(steps):
        name = script.choice(names)
        durable = []
        for _ in range(script.randrange(1, 4)):
            if script.random() < 0.15:
                durable.append(kept.writer.commit(name, deletes=True))
            else:
                put = {
                    f"K{script.randrange(5)}": script.choice([None, "", "v" * script.randrange(99)])
                }
                operation = f"op-{n}" if script.random() < 0.3 else ""
                durable.append(kept.writer.commit(name, put, operation=operation))
        for one in durable:
            await one
        flush, reopen = script.random() < 0.2, script.random() < 0.1
        if flush:
            await kept.store.flush()
        if reopen:
            await kept.reopen()
    await kept.store.flush()


@pytest.mark.parametrize("seed", range(8))
async def test_both_stores_give_the_same_answers_after_any_script(
    seed: int, tmp_path: Path
) -> None:
    names = ["t", "t/a", "t/a-b", "t/a/b", "u"]
    retention = Retention(seed + 1, 0)
    (tmp_path / "memory").mkdir()
    memory = await make_kept("memory", tmp_path / "memory", retention)
    durable = await make_kept("durable", tmp_path, retention)

    for kept in (memory, durable):
        await play(Random(seed), kept, names, steps=25)

    assert answers(durable.store, names) == answers(memory.store, names)
    await durable.reopen()
    assert answers(durable.store, names) == answers(memory.store, names)
    await durable.store.close()


async def test_operation_ids_are_kept_for_24_hours_and_swept_afterwards(tmp_path: Path) -> None:
    clock = StillClock()
    store = await open_store(tmp_path, clock=clock)
    writer = Writer(store)
    for n in range(100):
        await writer.commit("a", {"X": str(n)}, operation=f"old-{n}")
    await store.flush()

    clock.now_ms += 23 * 3_600_000
    writer.hlc += 23 * 3_600_000 << 16
    await writer.commit("a", {"X": "kept"}, operation="kept")
    await store.flush()
    kept = [store.find_operation("ann", f"old-{n}") for n in range(100)]
    clock.now_ms += 2 * 3_600_000
    for n in range(3):  # Each flush looks at some dozens of them.
        await writer.commit("a", {"X": f"later {n}"})
        await store.flush()

    assert None not in kept
    assert [store.find_operation("ann", f"old-{n}") for n in range(100)] == [None] * 100
    assert store.find_operation("ann", "kept") is not None
    await store.close()
