"""An independent oracle: the `crdts` package's LWWMap sees the same history as the core.

Stamps are unique here; what the package does on equal ones is a test of its own. A deletion
is, to a map without `deleted_at`, the removal of every name.
"""

from __future__ import annotations

from collections.abc import Iterable

from crdts import LWWMap, ScalarClock, StateUpdate
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Environment
from envd.core.stamp import ZERO, Stamp

NAME = "team/app"
VARIABLES = ("A", "B", "C")
CLOCK_UUID = b"one shared clock"

values = st.sampled_from((None, "", "1", "2", "\u00fc"))
written = st.dictionaries(st.sampled_from(VARIABLES), values, min_size=1, max_size=3)
stamps = st.builds(Stamp, st.integers(0, 1), st.integers(1, 4), st.integers(1, 3))


@st.composite
def histories(draw: st.DrawFn) -> list[Commit]:
    """Up to eight commits under unique stamps; some delete the environment."""
    history = []
    for stamp in draw(st.lists(stamps, max_size=8, unique=True)):
        deletes = draw(st.sampled_from((False, False, False, True)))
        puts = {} if deletes else draw(written)
        changes = [Change(Kind.VARIABLE, name, puts[name], False, ZERO) for name in puts]
        history.append(Commit(NAME, stamp, tuple(changes), deletes))
    return history


def our_replica(commits: Iterable[Commit]) -> Environment:
    state = Environment(NAME)
    for commit in commits:
        state = state.apply(commit)
    return state


def our_view(state: Environment) -> dict[str, str | None]:
    return {name: entry.value for name, entry in state.live(Kind.VARIABLE)}


class OracleReplica:
    """One LWWMap, fed with commits; it merges with another by replaying its history."""

    def __init__(self, commits: Iterable[Commit]) -> None:
        self._map = LWWMap(clock=ScalarClock(uuid=CLOCK_UUID))
        for commit in commits:
            ts = int.from_bytes(commit.stamp.to_bytes())
            puts = {change.name: change.value for change in commit.changes}
            for name, value in (dict.fromkeys(VARIABLES) if commit.deletes else puts).items():
                operation = "r" if value is None else "o"
                writer = commit.stamp.node_uid
                self._map.update(StateUpdate(CLOCK_UUID, ts, (operation, name, writer, value)))

    def merge(self, other: OracleReplica) -> None:
        for update in other._map.history():
            self._map.update(update)

    def view(self) -> dict[str, str | None]:
        return dict(self._map.read())


@given(histories(), st.data())
@settings(max_examples=150)
def test_the_oracle_shows_the_same_after_merges_in_any_partition_and_order(
    history: list[Commit], data: st.DataObject
) -> None:
    parts: list[list[Commit]] = [[], [], []]
    for commit in history:
        for place in data.draw(st.sets(st.sampled_from((0, 1, 2)), min_size=1)):
            parts[place].append(commit)
    arrivals = [data.draw(st.permutations(part)) for part in parts]
    ours = [our_replica(arrival) for arrival in arrivals]
    oracles = [OracleReplica(arrival) for arrival in arrivals]
    first, *rest = data.draw(st.permutations((0, 1, 2)))

    assert [our_view(state) for state in ours] == [oracle.view() for oracle in oracles]

    for place in rest:
        ours[first] = ours[first].merge(ours[place])
        oracles[first].merge(oracles[place])

    assert our_view(ours[first]) == oracles[first].view() == our_view(our_replica(history))


def test_on_equal_timestamps_the_oracle_diverges_and_the_core_does_not() -> None:
    put = StateUpdate(CLOCK_UUID, 5, ("o", "A", 1, "1"))
    unset = StateUpdate(CLOCK_UUID, 5, ("r", "A", 2, None))
    set_a = Change(Kind.VARIABLE, "A", "1", False, ZERO)
    unset_a = set_a._replace(value=None)

    oracles = []
    for updates in ((put, unset), (unset, put)):
        oracle = LWWMap(clock=ScalarClock(uuid=CLOCK_UUID))
        for update in updates:
            oracle.update(update)
        oracles.append(dict(oracle.read()))
    ours = []
    for unsetting_node in (1, 2):
        writes = (
            Commit(NAME, Stamp(0, 5, 1), (set_a,)),
            Commit(NAME, Stamp(0, 5, unsetting_node), (unset_a,)),
        )
        ours += [our_view(our_replica(order)) for order in (writes, writes[::-1])]

    assert oracles == [{"A": None}, {"A": "1"}]
    assert ours == [{}, {}, {}, {}]
