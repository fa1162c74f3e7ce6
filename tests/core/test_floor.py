"""Collecting below a floor: what goes, what never comes back, and that no order matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core import digest
from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Entry, Environment
from envd.core.floor import collected, guarded, is_empty, is_zombie, salvaged
from envd.core.history import DAY_MS, Retention, conflicts, contests, state_at
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp

NAME = "team/app"
KEY = b"k" * 32
DAYS = 9
KEPT = Retention(2, 1)


def at_day(day: float) -> int:
    return int(day * DAY_MS) << COUNTER_BITS


def stamp(day: float, uid: int = 1, era: int = 0) -> Stamp:
    return Stamp(era, at_day(day), uid)


def write(
    day: float, values: dict[str, str | None], *, deletes: bool = False, uid: int = 1
) -> Commit:
    changes = tuple(
        Change(Kind.VARIABLE, name, value, False, ZERO) for name, value in values.items()
    )
    return Commit(NAME, stamp(day, uid), changes, deletes, author="ann")


@dataclass
class Replica:
    """What one node holds, which trims at once, and collects when it is told to."""

    retention: Retention = KEPT
    state: Environment = field(default_factory=lambda: Environment(NAME))
    base: Environment = field(default_factory=lambda: Environment(NAME))
    history: list[Commit] = field(default_factory=list)
    floor: int = 0

    def take(self, commit: Commit) -> None:
        known = {each.stamp for each in self.history}
        if commit.stamp.hlc <= self.floor or commit.stamp in known:
            return  # Held before, or a zombie.
        self.state = self.state.apply(commit)
        self.history = sorted([*self.history, commit], key=lambda each: each.stamp)
        folded, kept = self.retention.split(self.history)
        self.base = reduce(Environment.apply, folded, self.base)
        self.history = list(kept)

    def collect(self) -> bool:
        done = collected(self.state, self.base, self.history, self.floor, self.retention)
        self.state, self.base = done.environment, done.base
        self.history = [each for each in self.history if each.stamp not in set(done.folded)]
        return done.changes

    def pull(self, peer: Replica) -> None:
        known = {each.stamp for each in self.history}
        theirs = peer.base
        if self.floor:
            theirs = guarded(theirs, self.base, known, self.floor)
        self.base, self.state = self.base.merge(theirs), self.state.merge(theirs)
        for commit in peer.history:
            self.take(commit)

    def held(self) -> object:
        return (self.state, self.base, self.history)


names = st.sampled_from(("a", "b"))
values = st.sampled_from((None, None, "x", "y"))
days = st.integers(1, DAYS).map(lambda n: n / 2) | st.integers(1, DAYS)


@st.composite
def histories(draw: st.DrawFn, *, stragglers: bool = True) -> list[Commit]:
    """Commits of era 0, and of era 1 from some day on, where one began it; each stamp once.

    `stragglers` are of era 0 after that day: by who did not know. Retention goes by time as well as
    by stamps, so with those it depends on the order in which commits came.
    """
    begins = draw(st.integers(1, 2 * DAYS))
    found: dict[Stamp, Commit] = {}
    for _ in range(draw(st.integers(0, 8))):
        day, uid = draw(days), draw(st.integers(1, 2))
        written = draw(st.dictionaries(names, values, max_size=2))
        changes = tuple(
            Change(Kind.VARIABLE, name, value, False, draw(st.sampled_from((ZERO, stamp(1)))))
            for name, value in written.items()
        )
        straggles = stragglers and draw(st.integers(0, 3)) == 0
        era = int(day >= begins and not straggles)
        deletes = draw(st.sampled_from((False, False, True)))
        if deletes:
            changes = tuple(each._replace(value=None) for each in changes)
        made = Commit(NAME, stamp(day, uid, era), changes, deletes)
        found[made.stamp] = made
    later = [made for made in found.values() if made.stamp.era]
    if later:
        first = min(later, key=lambda made: made.stamp)
        mode = Change(Kind.METADATA, "mode", "serial", False, ZERO)
        found[first.stamp] = replace(
            first, changes=(*first.changes, mode), deletes=False, follows=Stamp(1, 0, 0)
        )
    return sorted(found.values(), key=lambda made: made.stamp)


retentions = st.builds(Retention, st.integers(1, 3), st.integers(0, 2))
floors = days.map(at_day)


def replica_of(commits: Sequence[Commit], retention: Retention = KEPT) -> Replica:
    made = Replica(retention)
    for commit in commits:
        made.take(commit)
    return made


def revision(environment: Environment) -> bytes:
    return digest.revision(environment, KEY)


# -- what collecting keeps ---------------------------------------------------------------------


@given(histories(), retentions, floors)
def test_the_revision_and_those_of_all_retained_commits_stay(
    commits: list[Commit], retention: Retention, floor: int
) -> None:
    before, after = replica_of(commits, retention), replica_of(commits, retention)
    after.floor = floor
    after.collect()

    assert revision(after.state) == revision(before.state)
    for commit in after.history:
        then = [state_at(each.base, each.history, commit.stamp) for each in (before, after)]
        assert revision(then[0]) == revision(then[1])


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


@settings(max_examples=400)
@given(histories(stragglers=False), retentions, st.lists(floors, min_size=1, max_size=3), st.data())
def test_replicas_with_the_same_commits_and_floor_are_equal_whatever_their_way(
    commits: list[Commit], retention: Retention, steps: list[int], data: st.DataObject
) -> None:
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
