"""The conflicts that a store tells are those of its histories, whenever and however it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import reduce
from pathlib import Path
from random import Random

import pytest

from envd.core.commit import ChangeColumns, Commit
from envd.core.environment import Environment
from envd.core.history import ConflictRecord, Retention, conflicts
from envd.core.stamp import ZERO
from envd.ports import Store
from envd.storage.contested import contests
from tests.storage.kept import KINDS, Kept, make_kept
from tests.storage.others import PEER, at, base_of, commit_at, merged, repaired, shipped

NAMES = ("t", "t/a", "t/a-b", "t/a/b", "u")


@pytest.fixture(params=KINDS)
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    made = await make_kept(request.param, tmp_path)
    yield made
    await made.store.close()


def told(store: Store, prefix: str = "") -> list[ConflictRecord]:
    return store.conflicts(prefix, "", 1000)


def expected(store: Store, name: str, retention: Retention) -> set[ConflictRecord]:
    """What the history of one environment says, as it will be once it is trimmed."""
    commits = list(reversed(store.commits(name, None, 1000)))
    folded, left = retention.split(commits)
    base = reduce(Environment.apply, folded, store.base(name))
    return set(conflicts(left, base))


async def fork(kept: Kept, name: str, n: int) -> tuple[Commit, Commit]:
    """Two nodes set X without having seen each other."""
    both = [commit_at(at(n, node), name, {"X": f"{node}", f"K{n}": "v"}) for node in (8, PEER)]
    for commit in both:
        await kept.wait(shipped(kept.store, commit))
    return both[0], both[1]


async def test_a_write_that_had_not_seen_another_is_in_conflict_with_it(kept: Kept) -> None:
    lost, won = await fork(kept, "a", 1)

    await kept.wait(shipped(kept.store, commit_at(at(2), "a", {"Y": "apart"})))

    found = told(kept.store)
    assert [(one.environment, one.name) for one in found] == [("a", "X")]
    assert (found[0].lost.stamp, found[0].kept.stamp) == (lost.stamp, won.stamp)


async def test_conflicts_of_the_system_s_own_environments_are_shown_to_nobody(kept: Kept) -> None:
    for name in ("sys/topology", "sys/other", "sysadmin", "zone"):
        await fork(kept, name, 1)

    pages = [kept.store.conflicts("", after, 1) for after in ("", "sysadmin", "zone")]

    assert [one.environment for one in told(kept.store)] == ["sysadmin", "zone"]
    assert [[one.environment for one in page] for page in pages] == [["sysadmin"], ["zone"], []]


async def test_a_late_commit_makes_a_conflict_with_what_is_there(kept: Kept) -> None:
    await kept.wait(shipped(kept.store, commit_at(at(5), "a", {"X": "five"})))
    before = told(kept.store)

    await kept.wait(repaired(kept.store, commit_at(at(3, 8), "a", {"X": "three"})))

    assert before == []
    assert [(one.lost.value, one.kept.value) for one in told(kept.store)] == [("three", "five")]


async def test_a_write_that_comes_between_two_ends_their_conflict(kept: Kept) -> None:
    await fork(kept, "a", 1)
    seen = commit_at(at(2, 8), "a", {"X": "joined"}, saw=at(1, PEER))
    await kept.wait(shipped(kept.store, commit_at(at(3), "a", {"X": "last"}, saw=at(1, PEER))))
    before = {(one.lost.stamp, one.kept.stamp) for one in told(kept.store)}

    await kept.wait(shipped(kept.store, seen))

    after = {(one.lost.stamp, one.kept.stamp) for one in told(kept.store)}
    assert before == {(at(1, 8), at(1, PEER))}
    assert after == {(at(1, 8), at(1, PEER)), (at(2, 8), at(3))}


async def test_a_commit_that_resolves_a_conflict_takes_it_off_the_list(kept: Kept) -> None:
    await fork(kept, "a", 1)
    await fork(kept, "b", 1)
    [first, second] = told(kept.store)

    resolving = commit_at(at(2), "a", {"X": "so"}, saw=at(1, PEER), resolves=(first.id,))
    await kept.wait(shipped(kept.store, resolving))

    assert told(kept.store) == [second]


async def test_a_deletion_that_had_not_seen_a_write_is_in_conflict_with_it(kept: Kept) -> None:
    await kept.wait(shipped(kept.store, commit_at(at(1), "a", {"X": "1", "Y": "1"})))

    deletion = commit_at(at(2, 8), "a", {"X": None}, saw=at(1), deletes=True)
    await kept.wait(shipped(kept.store, deletion))

    assert [(one.name, one.kept.value, one.lost.value) for one in told(kept.store)] == [
        ("Y", None, "1")
    ]


async def test_a_base_that_is_merged_in_can_be_in_conflict(kept: Kept) -> None:
    await kept.wait(shipped(kept.store, commit_at(at(5), "a", {"X": "five"})))

    await kept.wait(merged(kept.store, base_of("a", [commit_at(at(3, 8), "a", {"X": "three"})])))

    assert [(one.lost.value, one.kept.value) for one in told(kept.store)] == [("three", "five")]


async def test_conflicts_that_nobody_contests_any_more_leave_with_their_history(
    tmp_path: Path,
) -> None:
    kept = await make_kept("durable", tmp_path, Retention(3, 0))
    _, won = await fork(kept, "a", 1)
    await kept.store.flush()
    before = len(told(kept.store))

    saw = won.stamp
    for n in range(2, 6):
        await kept.wait(shipped(kept.store, commit_at(at(n), "a", {"X": str(n)}, saw=saw)))
        saw = at(n)
    at_once = told(kept.store)
    await kept.store.flush()

    assert (before, at_once, told(kept.store)) == (1, [], [])
    await kept.store.close()


async def test_conflicts_come_by_prefix_in_pages_of_whole_environments(kept: Kept) -> None:
    for name in reversed(NAMES):
        await fork(kept, name, 1)
        await fork(kept, name, 2)
        await kept.step()
    whole = {name: told(kept.store, name) for name in ("", *NAMES, "x", "t/a/b/c")}

    by_name = [record.environment for record in whole[""]]
    assert by_name == sorted(by_name)
    assert {name: len(found) for name, found in whole.items()} == {
        "": 15,
        "t": 12,
        "t/a": 6,
        "t/a-b": 3,
        "t/a/b": 3,
        "u": 3,
        "x": 0,
        "t/a/b/c": 0,
    }
    for prefix in ("", "t", "t/a"):
        for limit in (1, 3, 4, 100):
            found: list[ConflictRecord] = []
            while page := kept.store.conflicts(
                prefix, found[-1].environment if found else "", limit
            ):
                assert len(page) < limit + 3
                found += page
            assert found == whole[prefix]
    assert kept.store.conflicts("", "", 0) == []


class Nodes:
    """Some nodes that write with what they have seen so far, which is not all."""

    def __init__(self, script: Random) -> None:
        self._script = script
        self._views = [{name: Environment(name) for name in NAMES} for _ in range(3)]
        self._made: list[Commit] = []
        self._clock = 0

    def commit(self, known: list[ConflictRecord]) -> Commit:
        """The next commit of one of them; now and then it resolves a conflict."""
        script = self._script
        self._clock += 1
        number = script.randrange(3)
        name = script.choice(NAMES)
        view = self._views[number][name]
        names = script.sample(["A", "B", "C"], script.randrange(1, 3))
        deletes = script.random() < 0.1
        values = dict.fromkeys(view.variables) if deletes else {}
        values |= {} if deletes else {each: script.choice([None, "1", "2"]) for each in names}
        saw = {each: view.overwritten_by(0, each) for each in values}  # type: ignore[arg-type]
        mine = [record.id for record in known if record.environment == name]
        resolves = (script.choice(mine),) if mine and script.random() < 0.3 else ()
        stamp = at(self._clock + script.randrange(-3, 4), number + 20)
        while any(stamp == one.stamp for one in self._made) or stamp <= view.highest_stamp:
            self._clock += 1
            stamp = at(self._clock, number + 20)
        commit = commit_at(stamp, name, values, saw=saw, deletes=deletes, resolves=resolves)
        self._views[number][name] = view.apply(commit)
        self._made.append(commit)
        for seen in script.sample(self._made, script.randrange(min(4, len(self._made)))):
            self._views[number][seen.environment] = self._views[number][seen.environment].apply(
                seen
            )
        return commit


@pytest.mark.parametrize("seed", range(8))
async def test_the_table_is_what_the_histories_say_after_any_script(
    seed: int, tmp_path: Path
) -> None:
    script = Random(seed)
    retention = Retention(script.choice([2, 5, 100]), 0)
    kept = await make_kept("durable", tmp_path, retention)
    nodes, waiting, seen = Nodes(script), [], 0
    for n in range(60):
        waiting.append(nodes.commit(told(kept.store)))
        while waiting and script.random() < 0.6:
            commit = waiting.pop(script.randrange(len(waiting)))
            append = shipped if script.random() < 0.8 else repaired
            await append(kept.store, commit)
        if script.random() < 0.05:
            name = script.choice(NAMES)
            old = commit_at(at(-n - 1, 30), name, {"A": "old", "B": None})
            await merged(kept.store, base_of(name, [old]))
        what = script.random()
        if what < 0.2:
            await kept.store.flush()
        elif what < 0.25:
            await kept.reopen()
        elif what < 0.3:
            await kept.crash()
        for name in NAMES:
            assert set(told_of(kept.store, name)) == expected(kept.store, name, retention)
        seen += len(told(kept.store))
    await kept.store.flush()
    as_flushed = told(kept.store)
    await kept.reopen()

    assert seen > 0
    assert told(kept.store) == as_flushed
    assert len(set(as_flushed)) == len(as_flushed)
    for name in NAMES:
        assert set(told_of(kept.store, name)) == expected(kept.store, name, retention)
    await kept.store.close()


def told_of(store: Store, name: str) -> list[ConflictRecord]:
    return [record for record in told(store, name) if record.environment == name]


# -- which commits make a flush compute -------------------------------------------------------

BEFORE = base_of("a", [commit_at(at(1), "a", {"X": "1"}), commit_at(at(2), "a", {"Y": "2"})])


@pytest.mark.parametrize(
    ("commit", "contested"),
    [
        (commit_at(at(3), "a", {"X": "n"}, saw=at(1)), False),
        (commit_at(at(3), "a", {"X": "n"}, saw=at(2)), False),
        (commit_at(at(3), "a", {"NEW": "n"}), False),
        (commit_at(at(3), "a", {"X": None, "Y": None}, saw=at(2), deletes=True), False),
        (commit_at(at(3), "a", {"X": "n"}, saw=ZERO), True),
        (commit_at(at(3), "a", {"NEW": "n", "Y": "n"}, saw=at(1)), True),
        (commit_at(at(3), "a", {"X": None}, saw=at(1), deletes=True), True),
        (commit_at(at(2), "a", {"NEW": "n"}), True),
        (commit_at(at(1, 8), "a", {"NEW": "n"}), True),
        (commit_at(at(3), "a", {}, resolves=("id",)), True),
    ],
)
def test_only_who_had_not_seen_all_can_be_part_of_a_conflict(
    commit: Commit, contested: bool
) -> None:
    assert contests(BEFORE, commit, made_here=False) == contested


def test_columns_made_here_on_the_head_need_no_look_at_each() -> None:
    columns = ChangeColumns(["X"], ["n"], b"\0", [ZERO])
    whole = Commit("a", at(3), columns)

    assert not contests(BEFORE, whole, made_here=True)
    assert contests(BEFORE, Commit("a", at(1), columns), made_here=True)
    assert not contests(None, whole, made_here=False)


def test_what_was_made_here_by_who_had_not_seen_all_is_part_of_a_conflict() -> None:
    unseen = commit_at(at(3), "a", {"X": "n"}, saw=ZERO)

    assert contests(BEFORE, unseen, made_here=True)
    assert not contests(BEFORE, commit_at(at(3), "a", {"X": "n"}, saw=at(1)), made_here=True)
