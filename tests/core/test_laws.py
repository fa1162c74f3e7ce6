"""The laws by which states merge, with ties: stamps come from a pool of six."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Entry, Environment
from envd.core.stamp import ZERO, Stamp

POOL = (
    Stamp(0, 1, 1),
    Stamp(0, 1, 2),
    Stamp(0, 2, 1),
    Stamp(0, 3, 1),
    Stamp(1, 1, 1),
    Stamp(1, 2, 2),
)
NAME = "team/app"


def applied(history: list[Commit]) -> Environment:
    state = Environment(NAME)
    for commit in history:
        state = state.apply(commit)
    return state


stamps = st.sampled_from(POOL)
overwrites = st.sampled_from((ZERO, *POOL[:3]))
values = st.sampled_from((None, "", "a", "b", "\uffff", "\U00010000"))
entries = st.builds(Entry, stamps, overwrites, values, st.booleans())
changes = st.builds(
    Change, st.sampled_from(Kind), st.sampled_from(("a", "b")), values, st.booleans(), overwrites
)
change_sets = st.lists(changes, max_size=3, unique_by=lambda change: (change.kind, change.name))
commits = st.builds(
    Commit,
    environment=st.just(NAME),
    stamp=stamps,
    changes=change_sets.map(tuple),
    deletes=st.sampled_from((False, False, False, True)),
    follows=st.sampled_from((ZERO, ZERO, Stamp(0, 1, 1), Stamp(1, 0, 0), Stamp(1, 1, 1))),
)
histories = st.lists(commits, max_size=6)
states = histories.map(applied)


def winners(history: list[Commit], kind: Kind) -> dict[str, Entry]:
    """What must be left of a set of commits, said without merging."""
    deleted_at = max((commit.floor for commit in history), default=ZERO)
    candidates: dict[str, list[Entry]] = {}
    for commit in history:
        for change in commit.changes:
            if change.kind is kind and commit.stamp > deleted_at:
                entry = Entry(commit.stamp, change.overwrites, change.value, change.secret)
                candidates.setdefault(change.name, []).append(entry)
    return {
        name: max(
            found,
            key=lambda entry: (
                entry.stamp,
                entry.value is None,
                (entry.value or "").encode(),
                entry.secret,
                entry.overwrites,
            ),
        )
        for name, found in candidates.items()
    }


@given(states, states)
def test_merge_is_commutative(ours: Environment, theirs: Environment) -> None:
    assert ours.merge(theirs) == theirs.merge(ours)


@given(states, states, states)
def test_merge_is_associative(one: Environment, two: Environment, three: Environment) -> None:
    assert one.merge(two).merge(three) == one.merge(two.merge(three))


@given(states, states)
def test_merge_is_idempotent(ours: Environment, theirs: Environment) -> None:
    merged = ours.merge(theirs)

    assert ours.merge(ours) == ours
    assert merged.merge(ours) == merged
    assert merged.merge(theirs) == merged


@given(histories, st.data())
def test_commits_give_the_same_state_in_any_order_and_with_repeats(
    history: list[Commit], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(history), max_size=3)) if history else []
    shuffled = data.draw(st.permutations(history + again))

    assert applied(shuffled) == applied(history)


@given(histories, st.data())
def test_replicas_with_parts_of_a_history_merge_to_the_whole(
    history: list[Commit], data: st.DataObject
) -> None:
    parts: list[list[Commit]] = [[], [], []]
    for commit in history:
        for place in data.draw(st.sets(st.sampled_from((0, 1, 2)), min_size=1)):
            parts[place].append(commit)

    merged = Environment(NAME)
    for replica in data.draw(st.permutations([applied(part) for part in parts])):
        merged = merged.merge(replica)

    assert merged == applied(history)


@given(histories)
def test_what_is_left_is_what_the_rules_say_of_the_set_of_commits(history: list[Commit]) -> None:
    state = applied(history)

    assert dict(state.variables) == winners(history, Kind.VARIABLE)
    assert dict(state.metadata) == winners(history, Kind.METADATA)
    assert state.deleted_at == max((c.floor for c in history), default=ZERO)


@given(histories)
def test_the_highest_stamp_is_that_of_the_newest_entry_or_deletion(history: list[Commit]) -> None:
    state = applied(history)

    shown = [entry.stamp for kind in Kind for entry in state.entries(kind).values()]
    assert state.highest_stamp == max([*shown, state.deleted_at])


@given(states, st.data())
def test_no_state_changes_under_its_holder(state: Environment, data: st.DataObject) -> None:
    before = (dict(state.variables), dict(state.metadata), state.deleted_at)

    state.merge(data.draw(states))
    state.apply(data.draw(commits))

    assert (dict(state.variables), dict(state.metadata), state.deleted_at) == before


@given(st.lists(entries, min_size=3, max_size=3))
@settings(max_examples=300)
def test_supersedes_is_a_strict_total_order_on_distinct_entries(drawn: list[Entry]) -> None:
    one, two, three = drawn

    assert not one.supersedes(one)
    assert (one == two) != (one.supersedes(two) or two.supersedes(one))
    assert not (one.supersedes(two) and two.supersedes(one))
    if one.supersedes(two) and two.supersedes(three):
        assert one.supersedes(three)


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        pytest.param((2, "a", False, ZERO), (1, "b", True, POOL[0]), id="higher-stamp"),
        pytest.param((1, None, False, ZERO), (1, "z", True, POOL[0]), id="tombstone-on-a-tie"),
        pytest.param((2, "", False, ZERO), (1, None, False, ZERO), id="later-value-over-tombstone"),
        pytest.param((1, "b", False, ZERO), (1, "a", True, POOL[0]), id="larger-value"),
        pytest.param((1, "a", False, ZERO), (1, "", False, ZERO), id="empty-is-smallest"),
        pytest.param(
            (1, "\U00010000", False, ZERO), (1, "\uffff", False, ZERO), id="order-of-utf-8-bytes"
        ),
        pytest.param((1, "a", True, ZERO), (1, "a", False, POOL[0]), id="secret-on-equal-values"),
    ],
)
def test_ties_are_broken_by_effect(
    winner: tuple[int, str | None, bool, Stamp], loser: tuple[int, str | None, bool, Stamp]
) -> None:
    won, lost = (
        Entry(Stamp(0, hlc, 1), seen, value, secret) for hlc, value, secret, seen in (winner, loser)
    )

    assert won.supersedes(lost)
    assert not lost.supersedes(won)


def test_a_deletion_drops_what_lies_at_or_below_it_and_nothing_above() -> None:
    below, at, above = POOL[:3]
    state = Environment(
        NAME,
        {name: Entry(stamp, ZERO, "v", False) for name, stamp in zip("abc", POOL[:3], strict=True)},
    )

    deleted = state.apply(Commit(NAME, at, (), deletes=True))

    assert below < at < above
    assert list(deleted.variables) == ["c"]
    assert deleted.overwritten_by(Kind.VARIABLE, "a") == at


def test_an_environment_exists_by_its_metadata_alone_but_not_by_tombstones() -> None:
    put = Change(Kind.METADATA, "owner", "me", False, ZERO)
    owned = Environment(NAME).apply(Commit(NAME, POOL[0], (put,)))
    unset = owned.apply(Commit(NAME, POOL[1], (put._replace(value=None),)))

    assert owned.exists
    assert owned.live_count() == 0
    assert not unset.exists
    assert unset.metadata["owner"].value is None


def test_states_and_commits_of_another_environment_are_refused() -> None:
    state = Environment(NAME)

    with pytest.raises(ValueError, match="different environments"):
        state.merge(Environment("other"))
    with pytest.raises(ValueError, match="another environment"):
        state.apply(Commit("other", POOL[0], ()))


def _has_tie(history: list[Commit]) -> bool:
    written: dict[tuple[Stamp, Kind, str], set[tuple[str | None, bool]]] = {}
    for commit in history:
        for change in commit.changes:
            key = (commit.stamp, change.kind, change.name)
            written.setdefault(key, set()).add((change.value, change.secret))
    return any(len(contents) > 1 for contents in written.values())


def _has_deletion_at_the_stamp_of_a_put(history: list[Commit]) -> bool:
    deletions = {commit.stamp for commit in history if commit.deletes}
    return any(c.stamp in deletions and c.changes for c in history if not c.deletes)


def _has_deletion_between_entries(history: list[Commit]) -> bool:
    deletions = {commit.stamp for commit in history if commit.deletes}
    put = {commit.stamp for commit in history if commit.changes}
    return any(min(put) < deletion < max(put) for deletion in deletions if put)


@pytest.mark.parametrize(
    "case", [_has_tie, _has_deletion_at_the_stamp_of_a_put, _has_deletion_between_entries]
)
def test_the_laws_are_tried_on_ties_and_on_deletions_among_puts(
    case: Callable[[list[Commit]], bool],
) -> None:
    found = find(
        histories, case, settings=settings(phases=[Phase.generate], database=None), random=Random(7)
    )

    assert case(found)


_PROGRAM = """
from envd.core import digest
from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Environment
from envd.core.history import conflicts
from envd.core.stamp import ZERO, Stamp

names = {f"N{number}" for number in range(40)}
puts = tuple(Change(kind, name, name, True, ZERO) for name in names for kind in Kind)
unsets = tuple(put._replace(value=None) for put in puts if put.name < "N3")
put = Commit("e", Stamp(0, 1, 1), puts)
unset = Commit("e", Stamp(0, 2, 1), unsets)
delete = Commit("e", Stamp(0, 3, 1), (), deletes=True)
state = Environment("e").apply(put).apply(unset)
revision = digest.revision(state, b"k" * 32)
print(*state.variables)
print(revision.hex(), digest.state_digest(state, revision, 7, b"k" * 32).hex())
print(*[record.key(b'k').hex() for record in conflicts([put, delete])])
"""


def test_fingerprints_and_conflicts_do_not_depend_on_the_hash_seed() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for seed in ("1", "2")
    ]

    (order_1, *results_1), (order_2, *results_2) = outputs
    assert order_1 != order_2
    assert results_1 == results_2
