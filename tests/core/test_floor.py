"""Collecting below a floor: what goes, what never comes back, and that no order matters."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Entry, Environment
from envd.core.floor import collected, due_after, guarded, is_empty, is_zombie, salvaged
from envd.core.history import Retention, conflicts, contests, state_at
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp
from tests.core.floor_world import (
    DAYS,
    KEPT,
    NAME,
    Replica,
    at_day,
    days,
    floors,
    histories,
    replica_of,
    retentions,
    revision,
    stamp,
    write,
)

OVERTAKEN = [
    write(0.5, {"a": None, "b": "x"}),
    write(2, {}),
    Commit(
        NAME,
        stamp(1, era=1),
        (Change(Kind.METADATA, "mode", "serial", False, ZERO),),
        follows=Stamp(1, 0, 0),
    ),
    Commit(NAME, stamp(1, 2, era=1), (), deletes=True),
]
"""The second is a straggler: who made it did not know of those of era 1, a day before."""

# -- what collecting keeps ---------------------------------------------------------------------


@given(histories(), retentions, floors)
@example(OVERTAKEN, Retention(1, 0), at_day(1.5))
@example(OVERTAKEN, Retention(1, 0), at_day(2))
def test_the_revision_and_those_of_all_retained_commits_stay(
    commits: list[Commit], retention: Retention, floor: int
) -> None:
    """But for a straggler: what goes of a later era, and of a time before it, counts as before it.

    Whoever collected that before the straggler came has nothing left of it but a base that drops
    the straggler. Who had the straggler already must come to the same, or replicas would differ:
    so what left counts at the straggler as well, though its stamps are higher.
    """
    before, after = replica_of(commits, retention), replica_of(commits, retention)
    after.floor = floor
    after.collect()
    left = [commit for commit in before.history if commit not in after.history]

    assert revision(after.state) == revision(before.state)
    for commit in after.history:
        was, shown = (state_at(each.base, each.history, commit.stamp) for each in (before, after))
        overtaking = [each for each in left if each.stamp > commit.stamp]
        assert revision(shown) == revision(reduce(Environment.apply, overtaking, was))
        for each in overtaking:
            assert each.stamp.era > commit.stamp.era
            assert each.stamp.hlc < commit.stamp.hlc


@given(histories(), retentions, floors)
def test_the_state_is_still_base_and_history(
    commits: list[Commit], retention: Retention, floor: int
) -> None:
    made = replica_of(commits, retention)
    made.floor = floor
    made.collect()

    assert reduce(Environment.apply, made.history, made.base) == made.state


@given(histories(stragglers=False), retentions, floors)
def test_conflicts_stay_but_for_those_whose_commits_left(
    commits: list[Commit], retention: Retention, floor: int
) -> None:
    made = replica_of(commits, retention)
    before = conflicts(made.history, made.base)
    unset = {
        (kind, name, entry.stamp)
        for kind in Kind
        for name, entry in made.base.entries(kind).items()
        if entry.value is None
    }
    history = {commit.stamp for commit in made.history}
    made.floor = floor
    made.collect()
    left = history - {commit.stamp for commit in made.history}

    after = conflicts(made.history, made.base)

    assert [each for each in before if each in after] == after
    for each in before:
        if each not in after:
            place = (each.kind, each.name, each.lost.stamp)
            assert (
                place in unset
                or {each.lost.stamp, each.kept.stamp} & left
                or (each.lost.stamp.hlc <= floor and each.lost.stamp not in history)
            )


@given(histories(), retentions, floors)
def test_collecting_again_changes_nothing(
    commits: list[Commit], retention: Retention, floor: int
) -> None:
    made = replica_of(commits, retention)
    made.floor = floor
    made.collect()
    once = made.held()

    assert not made.collect()
    assert made.held() == once


@given(histories(), retentions, floors, floors)
def test_nothing_is_to_be_had_before_it_is_due(
    commits: list[Commit], retention: Retention, floor: int, later: int
) -> None:
    made = replica_of(commits, retention)
    done = collected(made.state, made.base, made.history, floor, retention)
    kept = [each for each in made.history if each.stamp not in done.folded]

    again = collected(done.environment, done.base, kept, later, retention)

    if later >= floor and (done.due_hlc is None or later < done.due_hlc):
        assert not again.changes


# -- no order matters --------------------------------------------------------------------------


def both_ways(
    commits: list[Commit], retention: Retention, steps: list[int], data: st.DataObject
) -> tuple[Replica, Replica]:
    """One replica that collects once it has all, and one that commits and floors reach in turn."""
    steps = sorted(steps)
    plain = replica_of(commits, retention)
    plain.floor = steps[-1]
    plain.collect()
    other = Replica(retention)
    left = data.draw(st.permutations(commits))
    for floor in steps:
        due = [commit for commit in left if commit.stamp.hlc <= floor]
        early = [commit for commit in left if commit not in due and data.draw(st.booleans())]
        for commit in data.draw(st.permutations(due + early)):
            other.take(commit)
        left = [commit for commit in left if commit not in due and commit not in early]
        other.floor = floor
        if data.draw(st.booleans()):
            other.collect()
    for commit in left:
        other.take(commit)
    other.collect()
    return plain, other


@settings(max_examples=400)
@given(histories(stragglers=False), retentions, st.lists(floors, min_size=1, max_size=3), st.data())
def test_replicas_with_the_same_commits_and_floor_are_equal_whatever_their_way(
    commits: list[Commit], retention: Retention, steps: list[int], data: st.DataObject
) -> None:
    plain, other = both_ways(commits, retention, steps, data)

    assert other.held() == plain.held()


@settings(max_examples=400)
@given(histories(), st.integers(0, 2), st.lists(floors, min_size=1, max_size=3), st.data())
def test_stragglers_make_no_difference_to_that_where_retention_trims_nothing(
    commits: list[Commit], kept_days: int, steps: list[int], data: st.DataObject
) -> None:
    plain, other = both_ways(commits, Retention(len(commits) + 1, kept_days), steps, data)

    assert other.held() == plain.held()


@settings(max_examples=400)
@given(histories(stragglers=False), floors, st.data())
def test_a_peer_that_has_not_collected_yet_brings_nothing_back(
    commits: list[Commit], floor: int, data: st.DataObject
) -> None:
    below = [commit for commit in commits if commit.stamp.hlc <= floor]
    above = [commit for commit in commits if commit.stamp.hlc > floor]
    ours = data.draw(st.lists(st.sampled_from(above), unique_by=id)) if above else []
    one, two = replica_of(below), replica_of(commits)
    one.floor = floor
    two.floor = floor if data.draw(st.booleans()) else 0
    one.collect()
    for commit in ours:
        one.take(commit)
    one.collect()
    shown = revision(replica_of(commits).state)

    one.pull(two)
    one.collect()
    two.floor = floor
    two.pull(one)
    two.collect()

    assert revision(one.state) == shown
    assert one.held() == two.held()


# -- by example --------------------------------------------------------------------------------


def test_a_tombstone_goes_once_its_commit_was_trimmed_and_the_floor_passed_it() -> None:
    made = replica_of([write(1, {"a": "x", "b": "x"}), write(2, {"a": None})])
    made.floor = at_day(8)
    assert not made.collect()
    assert "a" in made.state.variables

    for day in (8.5, 9):
        made.take(write(day, {"b": str(day)}))
    assert made.base.variables["a"].value is None
    assert made.collect()

    assert "a" not in made.state.variables
    assert "a" not in made.base.variables


def test_a_tombstone_above_the_floor_stays() -> None:
    made = replica_of([write(1, {"a": None}), *(write(day, {"b": "x"}) for day in (5, 6))])
    made.floor = at_day(0.5)

    assert not made.collect()
    assert made.base.variables["a"].value is None


def test_a_tombstone_stays_as_long_as_the_history_has_what_it_hides() -> None:
    history = [write(1, {"a": "x"})]
    base = Environment(NAME, {"a": Entry(stamp(2), ZERO, None, False)})
    state = reduce(Environment.apply, history, base)

    done = collected(state, base, history, at_day(5), Retention(2, DAYS))

    assert not done.changes
    assert done.due_hlc == at_day(5) + 1
    assert collected(base, base, [], at_day(5), Retention(2, DAYS)).removed


def test_an_environment_goes_whole_when_it_was_deleted_long_before_the_floor() -> None:
    made = replica_of([write(1, {"a": "x"}), write(2, {"a": None}, deletes=True)])

    soon = collected(made.state, made.base, made.history, at_day(3), KEPT)
    made.floor = at_day(3) + (1 << COUNTER_BITS)
    made.collect()

    assert not soon.changes
    assert soon.due_hlc == made.floor
    assert is_empty(made.state)
    assert is_empty(made.base)
    assert not made.history


def test_an_environment_that_was_created_again_loses_only_its_earlier_life() -> None:
    again = write(8, {"b": "y"})
    made = replica_of([write(1, {"a": "x"}), write(2, {"a": None}, deletes=True), again])
    made.floor = at_day(9)
    made.collect()

    assert made.history == [again]
    assert is_empty(made.base)
    assert made.state == Environment(NAME).apply(again)


def test_of_a_later_era_the_deletion_stays_on_record() -> None:
    ended = Commit(NAME, stamp(2, era=3), (), deletes=True)
    made = replica_of([write(1, {"a": "x"}), ended])
    made.floor = at_day(9)
    made.collect()
    made.take(write(9.5, {"a": "late"}))

    assert made.state.deleted_at == ended.stamp
    assert not made.state.exists


def test_a_tombstone_of_an_era_that_nothing_keeps_earlier_writes_out_of_stays() -> None:
    entry = Entry(stamp(2, era=1), ZERO, None, False)
    base = Environment(NAME, {"a": entry})

    assert not collected(base, base, [], at_day(5), KEPT).changes
    begun = replace(base, deleted_at=Stamp(1, 0, 0))
    done = collected(begun, begun, [], at_day(5), KEPT)
    assert [each.stamp for each in done.removed.tombstones] == [entry.stamp]
    assert done.base == Environment(NAME, deleted_at=begun.deleted_at)


# -- stragglers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "straggler", [OVERTAKEN[1], replace(write(2, {"b": "late"}), author="bob")]
)
@pytest.mark.parametrize("floor", [at_day(1.5), at_day(2)])
def test_a_straggler_may_come_before_or_after_what_overtakes_it_is_collected(
    straggler: Commit, floor: int
) -> None:
    first, _, begins, ends = OVERTAKEN
    kept = Retention(9, 0)
    early = replica_of([first, begins, ends, straggler], kept)
    late = replica_of([first, begins, ends], kept)
    late.floor = at_day(1.5)
    late.collect()
    late.take(straggler)

    early.floor = late.floor = floor
    early.collect()
    late.collect()

    assert early.held() == late.held()
    assert early.history == [straggler]
    assert early.state == Environment(NAME, deleted_at=ends.stamp)


def test_the_commits_up_to_a_straggler_go_once_the_floor_has_passed_it_too() -> None:
    made = replica_of(OVERTAKEN, Retention(9, 0))
    done = collected(made.state, made.base, made.history, at_day(1.5), made.retention)
    assert done.due_hlc is not None

    made.floor = done.due_hlc
    made.collect()

    assert done.due_hlc == at_day(2) + (1 << COUNTER_BITS)
    assert not made.history


def test_a_late_deletion_is_looked_at_though_a_straggler_comes_with_it() -> None:
    ended, straggler = stamp(1, era=1), stamp(9)
    state = Environment(NAME, {"a": Entry(stamp(8, era=1), ZERO, "v", False)})

    assert due_after(state, None, [straggler, ended], KEPT) == 0
    assert due_after(state, None, [straggler], KEPT) is None


# -- zombies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commit", "zombie"),
    [
        (write(4, {"b": "new"}), True),
        (write(2, {"a": "x"}), False),
        (write(1, {"b": "old"}), False),
        (write(1, {"b": "old", "c": "x"}), True),
        (write(6, {"c": "x"}), False),
        (write(4, {"b": "z"}, deletes=True), True),
        (write(1, {}), False),
        (replace(write(1, {}), salvages=write(0.5, {"q": "x"})), True),
    ],
)
def test_a_zombie_is_at_or_below_the_floor_and_neither_known_nor_covered(
    commit: Commit, zombie: bool
) -> None:
    base = Environment(NAME, {"b": Entry(stamp(3), ZERO, "v", False)})

    assert is_zombie(commit, base, {stamp(2)}, at_day(5)) is zombie
    assert not is_zombie(commit, base, {stamp(2)}, 0)


def test_of_a_base_what_is_below_the_floor_and_not_here_is_left_out() -> None:
    theirs = Environment(
        NAME,
        {
            "gone": Entry(stamp(1), ZERO, "v", False),
            "held": Entry(stamp(2), ZERO, "v", False),
            "new": Entry(stamp(6), ZERO, "v", False),
        },
        deleted_at=stamp(0.5),
    )

    left = guarded(theirs, Environment(NAME), {stamp(2)}, at_day(5))

    assert left == Environment(NAME, {name: theirs.variables[name] for name in ("held", "new")})


def test_the_bottom_of_an_era_is_taken_with_what_is_of_that_era() -> None:
    bottom = Stamp(2, 0, 0)
    entry = Entry(stamp(6, era=2), ZERO, "v", False)
    theirs = Environment(NAME, {"a": entry}, deleted_at=bottom)
    own = Environment(NAME)

    assert guarded(theirs, own, set(), at_day(5)).deleted_at == bottom
    assert guarded(theirs, own, set(), at_day(7)) == own


# -- salvage -----------------------------------------------------------------------------------


def salvaging(day: float, zombie: Commit) -> Commit:
    return Commit(NAME, stamp(day), (), author="node", salvages=salvaged(zombie))


def test_what_is_salvaged_conflicts_with_what_stands_there() -> None:
    zombie = replace(write(3, {"a": "late", "b": "late", "c": None}, uid=9), author="bob")
    history = [write(2, {"a": "kept"}), salvaging(8, zombie), write(9, {"a": "newer"})]

    found = {each.name: each for each in conflicts(history)}

    assert set(found) == {"a", "b"}
    assert (found["a"].kept.value, found["a"].kept.stamp) == ("kept", stamp(2))
    assert (found["b"].kept.value, found["b"].kept.stamp) == (None, stamp(8))
    assert {(each.lost.value, each.lost.author, each.lost.stamp) for each in found.values()} == {
        ("late", "bob", stamp(3, 9))
    }


def test_what_is_salvaged_changes_no_state() -> None:
    before = Environment(NAME).apply(write(2, {"a": "kept"}))

    assert before.apply(salvaging(8, write(3, {"a": "late"}))) == before


def test_a_conflict_of_what_is_salvaged_is_settled_for_good() -> None:
    zombie = write(3, {"b": "late"}, uid=9)
    history = [salvaging(8, zombie), salvaging(8.5, zombie)]
    found = conflicts(history)
    assert len(found) == 1

    settled = Commit(NAME, stamp(9), (), resolves=(found[0].id,))

    assert conflicts([*history, settled]) == []
    assert conflicts([salvaging(7, zombie), *history, settled]) == []


def test_who_had_seen_what_is_salvaged_has_no_conflict_with_it() -> None:
    zombie = write(3, {"a": "late"}, uid=9)
    seen = Commit(NAME, stamp(4), (Change(Kind.VARIABLE, "a", "v", False, stamp(3, 9)),))

    assert conflicts([seen, salvaging(8, zombie)]) == []
    assert conflicts([write(4, {"a": "late"}), salvaging(8, zombie)]) == []


def test_of_a_zombie_that_salvaged_another_that_one_is_salvaged() -> None:
    inner = write(1, {"a": "x"})

    assert salvaged(salvaging(3, inner)) == inner
    assert salvaged(write(3, {})) is None


def test_no_value_shows_in_a_repr() -> None:
    made = salvaging(8, write(3, {"a": "hunter2"}))
    done = collected(
        Environment(NAME).apply(write(1, {"a": "hunter2"})), Environment(NAME), [made], 0, KEPT
    )

    assert "hunter2" not in repr((made, conflicts([made]), done))


def test_what_lost_in_the_history_is_not_salvaged_besides() -> None:
    lost, kept = write(3, {"a": "lost"}), write(4, {"a": "kept"})
    history = [lost, kept, write(5, {"a": "newer"}), salvaging(8, replace(lost, author="store"))]
    found = conflicts(history)
    settled = Commit(NAME, stamp(9), (), resolves=tuple(each.id for each in found))

    assert [(each.lost.value, each.kept.value) for each in found] == [
        ("lost", "kept"),
        ("kept", "newer"),
    ]
    assert conflicts([*history, settled]) == []


def test_what_the_reconciler_notes_for_itself_has_no_conflicts() -> None:
    noted = [replace(write(day, {"a": str(day)}), environment="sys/sync/web") for day in (1, 2)]

    assert conflicts(noted) == []
    assert len(conflicts([replace(each, environment="sys/syncs/web") for each in noted])) == 1


@given(histories(), histories(), days)
def test_what_a_salvaging_commit_makes_a_conflict_of_can_be_told_before(
    commits: list[Commit], others: list[Commit], day: float
) -> None:
    late = replace(others[0] if others else write(day, {"a": "late"}), stamp=stamp(day, 7))
    end = stamp(99, era=1)
    state = state_at(Environment(NAME), commits, end)

    found = conflicts([*commits, Commit(NAME, end, (), salvages=late)])

    contested = {
        (late.stamp, change.kind, change.name)
        for change in late.changes
        if contests(late, change, state)
    }
    assert {each.place for each in found if each.lost.stamp == late.stamp} == contested
