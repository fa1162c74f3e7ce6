"""Fingerprints: the revision follows what is visible, the digest what a replica holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from envd.core import digest
from envd.core.commit import Kind
from envd.core.environment import Entry, Environment
from envd.core.stamp import ZERO, Stamp

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
FIRST, SECOND, THIRD = (Stamp(0, hlc, 1) for hlc in (1, 2, 3))

entries = st.builds(
    Entry,
    st.sampled_from((FIRST, SECOND)),
    st.just(ZERO),
    st.none() | st.text("01a\n", max_size=2),
    st.booleans(),
)
sides = st.dictionaries(st.sampled_from(("a", "aa", "1")), entries, max_size=2)
states = st.builds(Environment, st.just("e"), sides, sides)

STATE = Environment(
    "team/app",
    {
        "PORT": Entry(FIRST, ZERO, "8080", False),
        "TOKEN": Entry(SECOND, FIRST, "p\u00e4ss\U0001f511", True),
        "EMPTY": Entry(SECOND, ZERO, "", False),
        "GONE": Entry(SECOND, FIRST, None, False),
    },
    {"owner": Entry(FIRST, ZERO, "payments", False)},
    ZERO,
)


def live_content(state: Environment) -> set[tuple[Kind, str, Stamp, bool, str | None]]:
    return {
        (kind, name, entry.stamp, entry.secret, entry.value)
        for kind in Kind
        for name, entry in state.live(kind)
    }


def full_digest(state: Environment, history_sum: int = 0, key: bytes = KEY) -> bytes:
    return digest.state_digest(state, digest.revision(state, key), history_sum, key)


def without_tombstones(state: Environment) -> Environment:
    return replace(
        state,
        variables=dict(state.live(Kind.VARIABLE)),
        metadata=dict(state.live(Kind.METADATA)),
    )


@given(states, states)
def test_revisions_are_equal_exactly_when_the_live_contents_are(
    one: Environment, two: Environment
) -> None:
    same_content = live_content(one) == live_content(two)
    event(f"equal content: {same_content}")

    same_revision = digest.revision(one, KEY) == digest.revision(two, KEY)

    assert same_revision == same_content


@given(states, st.data())
def test_a_revision_sees_neither_tombstones_nor_order_nor_what_was_overwritten(
    state: Environment, data: st.DataObject
) -> None:
    live = without_tombstones(state)
    items = data.draw(st.permutations(list(live.variables.items())))
    variables = {name: entry._replace(overwrites=FIRST) for name, entry in items}
    other = replace(live, name="other", variables=variables, deleted_at=FIRST)

    assert digest.revision(other, KEY) == digest.revision(state, KEY)


@given(states)
def test_a_digest_sees_that_a_tombstone_was_collected(state: Environment) -> None:
    collected = without_tombstones(state)
    assume(collected != state)

    assert full_digest(collected) != full_digest(state)


def _with(name: str, entry: Entry) -> Callable[[Environment], Environment]:
    return lambda state: replace(state, variables={**state.variables, name: entry})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_with("GONE", Entry(THIRD, FIRST, None, False)), id="stamp-of-a-tombstone"),
        pytest.param(_with("LOST", Entry(SECOND, FIRST, None, False)), id="another-tombstone"),
        pytest.param(lambda state: replace(state, deleted_at=Stamp(0, 0, 1)), id="deleted-at"),
    ],
)
def test_a_digest_sees_what_the_revision_does_not(
    change: Callable[[Environment], Environment],
) -> None:
    changed = change(STATE)

    assert digest.revision(changed, KEY) == digest.revision(STATE, KEY)
    assert full_digest(changed) != full_digest(STATE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_with("PORT", Entry(FIRST, ZERO, "8081", False)), id="value"),
        pytest.param(_with("PORT", Entry(SECOND, ZERO, "8080", False)), id="stamp"),
        pytest.param(_with("PORT", Entry(FIRST, ZERO, "8080", True)), id="secret"),
        pytest.param(_with("PORT", Entry(SECOND, FIRST, None, False)), id="unset"),
        pytest.param(_with("PORT2", Entry(FIRST, ZERO, "8080", False)), id="name"),
        pytest.param(lambda state: replace(state, metadata={}), id="metadata"),
        pytest.param(
            lambda state: replace(state, variables=state.metadata, metadata=state.variables),
            id="kinds-swapped",
        ),
    ],
)
def test_revision_and_digest_see_every_visible_change(
    change: Callable[[Environment], Environment],
) -> None:
    changed = change(STATE)

    assert digest.revision(changed, KEY) != digest.revision(STATE, KEY)
    assert full_digest(changed) != full_digest(STATE)


def test_a_digest_sees_the_history() -> None:
    assert full_digest(STATE, history_sum=1) != full_digest(STATE, history_sum=0)


def test_fingerprints_under_another_key_differ() -> None:
    assert digest.revision(STATE, OTHER_KEY) != digest.revision(STATE, KEY)
    assert full_digest(STATE, key=OTHER_KEY) != full_digest(STATE)
    assert digest.commit_hash(b"commit", OTHER_KEY) != digest.commit_hash(b"commit", KEY)


def test_the_fingerprints_of_a_known_state_never_change() -> None:
    empty = Environment("team/app")

    assert digest.revision(empty, KEY).hex() == "5ec5467954c787fbd35b2e045edf39a5"
    assert digest.revision(STATE, KEY).hex() == "6ccfa7c78f0de40126393ae6931a9f3a"
    assert full_digest(STATE, history_sum=7).hex() == "c3303a5d2013c2fc230bee6f09ce56fe"
    assert digest.commit_hash(b"commit", KEY) == 0x471253AB60AF24F978A661E6F92C9A6C


@given(st.lists(st.integers(0, (1 << 128) - 1), max_size=6), st.data())
def test_a_history_sum_forgets_the_order_and_gives_back_what_is_taken_away(
    hashes: list[int], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(hashes)))
    shuffled = data.draw(st.permutations(hashes))

    whole = digest.history_sum(hashes)

    assert 0 <= whole < 1 << 128
    assert digest.history_sum(shuffled[cut:], digest.history_sum(shuffled[:cut])) == whole
    assert digest.history_sum(hashes[:cut], whole, -1) == digest.history_sum(hashes[cut:])


def test_a_history_sum_stays_within_128_bits() -> None:
    highest = (1 << 128) - 1

    assert digest.history_sum([highest, 3]) == 2
    assert digest.history_sum([3], 2, -1) == highest
