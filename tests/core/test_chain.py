"""Chains: positions that only grow, eras that nothing older gets into, and the same state for all.

A history is made as nodes make it: main writes follow each other, plain ones and those of chains,
and late plain writes are made upon a state that was main earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core.chain import MODE, PLAIN, SERIAL, bottom, is_behind, is_serial, position
from envd.core.commit import Change, Commit, Kind, floor_of
from envd.core.environment import Environment
from envd.core.history import conflicts
from envd.core.stamp import ZERO, Stamp

NAME = "web/prod"
EMPTY = Environment(NAME)


def put(state: Environment, name: str, value: str | None, kind: Kind = Kind.VARIABLE) -> Change:
    return Change(kind, name, value, False, state.overwritten_by(kind, name))


def mode(state: Environment, value: str) -> Change:
    return put(state, MODE, value, Kind.METADATA)


def plain(state: Environment, hlc: int, uid: int, *changes: Change) -> Commit:
    """A write without anybody's consent."""
    return Commit(NAME, Stamp(state.highest_stamp.era, hlc, uid), changes)


def chained(state: Environment, hlc: int, *changes: Change) -> Commit:
    """The next commit of a chain."""
    stamp = Stamp(state.highest_stamp.era, hlc, 1)
    return Commit(NAME, stamp, changes, follows=position(state))


def next_era(state: Environment, hlc: int, *changes: Change, deletes: bool = False) -> Commit:
    """The commit that begins or ends a chain: it says all that goes on."""
    named = {(change.kind, change.name) for change in changes}
    again = [
        Change(kind, name, None if deletes else entry.value, entry.secret, entry.stamp)
        for kind in Kind
        for name, entry in state.live(kind)
        if (kind, name) not in named
    ]
    stamp = Stamp(state.highest_stamp.era + 1, hlc, 1)
    return Commit(NAME, stamp, (*changes, *again), deletes=deletes, follows=position(state))


def opening(state: Environment, hlc: int) -> Commit:
    return next_era(state, hlc, mode(state, SERIAL))


def closing(state: Environment, hlc: int) -> Commit:
    return next_era(state, hlc, mode(state, PLAIN))


def applied(commits: Iterable[Commit]) -> Environment:
    state = EMPTY
    for commit in commits:
        state = state.apply(commit)
    return state


# -- known positions ---------------------------------------------------------------------------


def test_the_positions_of_an_environment_from_plain_to_serial_and_back() -> None:
    written = EMPTY.apply(plain(EMPTY, 1, 1, put(EMPTY, "A", "1")))
    opened = written.apply(opening(written, 2))
    more = opened.apply(chained(opened, 3, put(opened, "A", "2")))
    closed = more.apply(closing(more, 4))

    assert [is_serial(each) for each in (EMPTY, written, opened, more, closed)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert [position(each) for each in (EMPTY, written, opened, more, closed)] == [
        bottom(1),
        bottom(1),
        Stamp(1, 2, 1),
        Stamp(1, 3, 1),
        bottom(3),
    ]
    assert closed.variables["A"].value == "2"


def test_a_deleted_chain_is_plain_and_of_the_next_era() -> None:
    opened = EMPTY.apply(opening(EMPTY, 1))

    deleted = opened.apply(next_era(opened, 2, deletes=True))

    assert not deleted.exists
    assert not is_serial(deleted)
    assert deleted.deleted_at == Stamp(2, 2, 1)
    assert position(deleted) == bottom(3)


def test_the_setting_of_an_older_era_makes_nothing_serial() -> None:
    """The chain was ended by a commit that is not here yet."""
    opened = EMPTY.apply(opening(EMPTY, 1))
    closed = opened.apply(closing(opened, 2))
    newer = plain(closed, 3, 2, put(closed, "A", "1"))

    assert not is_serial(opened.apply(newer))
    assert position(opened.apply(newer)) == bottom(3)


def test_any_other_mode_is_plain() -> None:
    named = EMPTY.apply(plain(EMPTY, 1, 1, mode(EMPTY, "other")))
    unset = EMPTY.apply(plain(EMPTY, 1, 1, put(EMPTY, MODE, None, Kind.METADATA)))

    assert not is_serial(named)
    assert not is_serial(unset)


@pytest.mark.parametrize(
    ("follows", "waits"),
    [
        pytest.param(Stamp(1, 2, 1), True, id="a-commit-that-is-not-here"),
        pytest.param(Stamp(1, 1, 1), False, id="the-last-one-here"),
        pytest.param(Stamp(1, 0, 5), False, id="below"),
        pytest.param(Stamp(2, 9, 1), True, id="a-chain-of-a-later-era"),
        pytest.param(bottom(2), False, id="an-opening-of-the-next-era"),
        pytest.param(bottom(7), False, id="an-opening-of-any-later-era"),
    ],
)
def test_a_commit_waits_for_the_one_that_it_follows_and_an_opening_for_nothing(
    follows: Stamp, waits: bool
) -> None:
    opened = EMPTY.apply(opening(EMPTY, 1))

    assert is_behind(opened, follows) is waits


@pytest.mark.parametrize(
    ("stamp", "follows", "deletes", "floor"),
    [
        pytest.param(Stamp(0, 5, 1), ZERO, False, ZERO, id="plain"),
        pytest.param(Stamp(0, 5, 1), ZERO, True, Stamp(0, 5, 1), id="plain-deletion"),
        pytest.param(Stamp(1, 5, 1), bottom(1), False, bottom(1), id="opening"),
        pytest.param(Stamp(1, 5, 1), Stamp(1, 4, 1), False, ZERO, id="in-a-chain"),
        pytest.param(Stamp(2, 5, 1), Stamp(1, 4, 1), False, bottom(2), id="closing"),
        pytest.param(Stamp(2, 5, 1), Stamp(1, 4, 1), True, Stamp(2, 5, 1), id="chain-deleted"),
    ],
)
def test_what_a_commit_drops(stamp: Stamp, follows: Stamp, deletes: bool, floor: Stamp) -> None:
    assert floor_of(stamp, follows, deletes=deletes) == floor
    assert Commit(NAME, stamp, (), deletes=deletes, follows=follows).floor == floor


# -- histories ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """Main commits in order, and late ones, each made upon what main was at some time."""

    main: tuple[Commit, ...]
    late: tuple[Commit, ...]

    @property
    def all(self) -> list[Commit]:
        return [*self.main, *self.late]


names = st.sampled_from(("A", "B"))
values = st.sampled_from(("", "x", "y", None))


@st.composite
def histories(draw: st.DrawFn) -> History:
    states, main, late = [EMPTY], list[Commit](), list[Commit]()
    for hlc in range(1, draw(st.integers(1, 9)) + 1):
        state = states[-1]
        change = put(state, draw(names), draw(values))
        if draw(st.integers(0, 3)) == 0:
            seen = draw(st.sampled_from(states))
            if not is_serial(seen):
                by_name = put(seen, draw(names), draw(values))
                late.append(plain(seen, hlc, 2, by_name))
                continue
        what = draw(st.sampled_from(("write", "write", "switch", "delete")))
        if what == "write":
            commit = (
                chained(state, hlc, change) if is_serial(state) else plain(state, hlc, 1, change)
            )
        elif what == "switch":
            commit = closing(state, hlc) if is_serial(state) else opening(state, hlc)
        elif is_serial(state):
            commit = next_era(state, hlc, deletes=True)
        else:
            stamp = Stamp(state.highest_stamp.era, hlc, 1)
            commit = Commit(NAME, stamp, (), deletes=True)
        main.append(commit)
        states.append(state.apply(commit))
    return History(tuple(main), tuple(late))


@given(histories(), st.data())
def test_all_who_saw_the_same_commits_hold_the_same_state(
    history: History, data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(history.all), max_size=4))
    arrived = data.draw(st.permutations([*history.all, *again]))

    assert applied(arrived) == applied(history.all)


@given(histories(), st.data())
def test_what_was_merged_by_states_is_what_was_applied(
    history: History, data: st.DataObject
) -> None:
    commits = data.draw(st.permutations(history.all))
    cut = data.draw(st.integers(0, len(commits)))

    merged = applied(commits[:cut]).merge(applied(commits[cut:]))

    assert merged == applied(history.all)


def taken_in(commits: Sequence[Commit]) -> list[Environment]:
    """The states of a node where they arrive so, each again and again until it may be applied."""
    states, left = [EMPTY], list(commits)
    while left:
        taken = next(
            commit
            for commit in left
            if commit.follows == ZERO or not is_behind(states[-1], commit.follows)
        )
        left.remove(taken)
        states.append(states[-1].apply(taken))
    return states


@given(histories(), st.data())
@settings(max_examples=200)
def test_positions_grow_under_every_commit_and_nothing_waits_for_ever(
    history: History, data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(history.all), max_size=3))
    arrived = data.draw(st.permutations([*history.all, *again]))

    states = taken_in(arrived)

    assert all(position(before) <= position(after) for before, after in pairwise(states))
    assert states[-1] == applied(history.all)


@given(histories())
def test_each_commit_of_a_chain_moves_the_position_to_itself_or_past_its_era(
    history: History,
) -> None:
    for before, after in pairwise(history.main):
        if after.follows.hlc:
            assert after.follows == before.stamp
    state = EMPTY
    for commit in history.main:
        moved = state.apply(commit)
        if commit.follows != ZERO:
            assert position(state) == commit.follows
            assert position(moved) > commit.follows
        state = moved


@given(histories(), st.data())
def test_nothing_of_an_older_era_shows_once_the_next_one_began(
    history: History, data: st.DataObject
) -> None:
    state = applied(data.draw(st.permutations(history.all)))

    floor = max(commit.floor for commit in history.all)
    shown = [entry.stamp for kind in Kind for entry in state.entries(kind).values()]
    assert state.deleted_at == floor
    assert all(stamp > floor for stamp in shown)


@given(histories())
@settings(max_examples=300)
def test_a_late_write_of_an_older_era_is_on_record_exactly_where_it_differs(
    history: History,
) -> None:
    commits = sorted(history.all, key=lambda commit: commit.stamp)

    found = {(record.name, record.lost.stamp): record.kept for record in conflicts(commits)}

    for late in history.late:
        [change] = late.changes
        later = [commit for commit in commits if commit.stamp > late.stamp]
        successor = next(
            (
                commit
                for commit in later
                if commit.floor >= late.stamp or _says(commit, change.name) is not None
            ),
            None,
        )
        if successor is None or successor.stamp.era == late.stamp.era:
            continue  # It lost, or won, to a write of its own era: that is no matter of chains.
        said = _says(successor, change.name)
        kept = found.get((change.name, late.stamp))
        assert (kept is not None) == ((said.value if said else None) != change.value)
        assert kept is None or kept.stamp == successor.stamp


def _says(commit: Commit, name: str) -> Change | None:
    found = [each for each in commit.changes if (each.kind, each.name) == (Kind.VARIABLE, name)]
    return found[0] if found else None
