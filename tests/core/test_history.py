"""History as a set of commits: what retention keeps, past states, and conflicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Environment
from envd.core.history import ConflictRecord, Retention, Side, conflicts, state_at
from envd.core.ring import partition_of
from envd.core.stamp import COUNTER_BITS, STAMP_BYTES, ZERO, Stamp

NAME = "team/app"
DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS


def stamp(number: int, uid: int = 1) -> Stamp:
    return Stamp(0, number, uid)


def put(number: int, value: str | None, saw: int = 0, *, name: str = "X") -> Commit:
    """A write (with None an unset) of X at stamp `number` by one who had seen stamp `saw`."""
    seen = stamp(saw) if saw else ZERO
    change = Change(Kind.VARIABLE, name, value, False, seen)
    return Commit(NAME, stamp(number), (change,), author=f"author-{number}")


def delete(number: int, **saw: int) -> Commit:
    """A deletion at stamp `number` that lists the given variables with what it saw of them."""
    unsets = tuple(
        Change(Kind.VARIABLE, name, None, False, stamp(seen)) for name, seen in saw.items()
    )
    return Commit(NAME, stamp(number), unsets, deletes=True)


def pairs(commits: Sequence[Commit]) -> list[tuple[str, int, int]]:
    """(name, stamp of the lost, stamp of the kept) for each conflict."""
    return [
        (record.name, record.lost.stamp.hlc, record.kept.stamp.hlc) for record in conflicts(commits)
    ]


# -- retention -------------------------------------------------------------------------


def made(days_ago: float, uid: int = 1) -> Commit:
    ms = int(NOW_MS - days_ago * DAY_MS)
    return Commit(NAME, Stamp(0, ms << COUNTER_BITS, uid), ())


retentions = st.builds(Retention, st.integers(1, 4), st.integers(0, 3))
commit_sets = st.lists(
    st.builds(made, st.sampled_from((0, 0.5, 1, 1.5, 2, 3, 4, 9)), st.integers(1, 2)),
    max_size=9,
    unique_by=lambda commit: commit.stamp,
).map(lambda commits: sorted(commits, key=lambda commit: commit.stamp))


@given(retentions, commit_sets)
def test_the_newest_and_the_recent_are_kept_whichever_is_more(
    retention: Retention, commits: list[Commit]
) -> None:
    folded, kept = retention.split(commits)

    newest = commits[-retention.commits :]
    recent = [
        commit
        for commit in commits
        if commits[-1].stamp.time_ms - commit.stamp.time_ms <= retention.days * DAY_MS
    ]
    assert list(kept) == max(newest, recent, key=len)
    assert [*folded, *kept] == commits


@given(retentions, commit_sets)
def test_trimming_twice_is_trimming_once(retention: Retention, commits: list[Commit]) -> None:
    _, once = retention.split(commits)

    folded, twice = retention.split(once)

    assert list(twice) == list(once)
    assert not folded


@given(retentions, commit_sets, st.data())
def test_trimming_at_each_arrival_keeps_the_same_in_any_order_of_arrival(
    retention: Retention, commits: list[Commit], data: st.DataObject
) -> None:
    kept: list[Commit] = []
    folded: set[Commit] = set()
    for commit in data.draw(st.permutations(commits)):
        now_folded, now_kept = retention.split(
            sorted([*kept, commit], key=lambda known: known.stamp)
        )
        kept = list(now_kept)
        folded |= set(now_folded)

    folded_at_once, kept_at_once = retention.split(commits)
    assert kept == list(kept_at_once)
    assert folded == set(folded_at_once)


@pytest.mark.parametrize(
    ("retention", "days_ago", "kept_count"),
    [
        pytest.param(Retention(2, 10), (30, 20, 9, 1, 0), 3, id="days-keep-more"),
        pytest.param(Retention(4, 10), (30, 20, 9, 1, 0), 4, id="commits-keep-more"),
        pytest.param(Retention(1, 1), (1, 0), 2, id="exactly-at-the-limit-of-days"),
        pytest.param(Retention(1, 1), (1 + 1 / DAY_MS, 0), 1, id="one-millisecond-too-old"),
        pytest.param(Retention(3, 0), (3, 2, 1), 3, id="exactly-the-limit-of-commits"),
        pytest.param(Retention(1, 0), (400, 300), 1, id="old-from-the-newest-commit-back"),
        pytest.param(Retention(), (), 0, id="nothing"),
    ],
)
def test_retention_of_known_histories(
    retention: Retention, days_ago: tuple[float, ...], kept_count: int
) -> None:
    commits = [made(days) for days in days_ago]

    folded, kept = retention.split(commits)

    assert list(kept) == commits[len(commits) - kept_count :]
    assert list(folded) == commits[: len(commits) - kept_count]


def test_by_default_a_hundred_commits_and_ninety_days_are_kept() -> None:
    old = [made(200 - number) for number in range(100)]
    recent = [made(90), made(0)]

    folded, kept = Retention().split([*old, *recent])

    assert (len(folded), len(kept)) == (2, 100)
    assert kept[0] is old[2]


@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ("team/app", Retention(20, 7)),
        ("sys/topology", Retention(20, 0)),
        ("sys/leases/backups", Retention(16, 0)),
        ("sys/sync/bindings/web", Retention(16, 0)),
        ("sys/sync", Retention(20, 7)),
        ("sys/leases", Retention(20, 7)),
        ("sys/topology/x", Retention(20, 7)),
        ("a/sys/topology", Retention(20, 7)),
    ],
)
def test_less_is_kept_of_what_the_system_writes_often_or_at_length(
    environment: str, kept: Retention
) -> None:
    assert Retention(20, 7).of(environment) == kept


# -- past states -----------------------------------------------------------------------


def test_the_state_at_a_commit_is_the_base_and_the_commits_up_to_it() -> None:
    base = Environment(NAME).apply(put(1, "base"))
    commits = [put(2, "two", 1), put(4, "four", 2), delete(5, X=4), put(6, "six", 5)]

    shown = [
        {
            name: entry.value
            for name, entry in state_at(base, commits, stamp(at)).live(Kind.VARIABLE)
        }
        for at in range(1, 8)
    ]

    assert [view.get("X") for view in shown] == ["base", "two", "two", "four", None, "six", "six"]


def test_a_deletion_is_in_the_state_at_its_own_stamp() -> None:
    state = state_at(Environment(NAME), [put(1, "v"), delete(2)], stamp(2))

    assert state.deleted_at == stamp(2)
    assert not state.exists


@given(st.permutations([put(1, "a"), put(2, None, 1), delete(3), put(4, "d"), put(5, "e")]))
def test_a_past_state_does_not_depend_on_the_order_of_the_commits(arrived: list[Commit]) -> None:
    state = state_at(Environment(NAME), arrived, stamp(4))

    assert [entry.value for entry in state.variables.values()] == ["d"]


# -- conflicts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commits", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([put(5, "a")], [], id="one-write"),
        pytest.param([put(5, "a"), put(6, "b", 5)], [], id="successor-had-seen-it"),
        pytest.param([put(5, "a", 3), put(6, "b", 3)], [("X", 5, 6)], id="successor-had-not"),
        pytest.param([put(5, "a"), put(6, "b", 7)], [], id="successor-claims-to-have-seen-more"),
        pytest.param([put(5, "a"), put(6, "a")], [], id="equal-contents"),
        pytest.param([put(5, ""), put(6, None)], [("X", 5, 6)], id="empty-is-not-unset"),
        pytest.param([put(5, "a"), put(6, None)], [("X", 5, 6)], id="unset-over-a-value"),
        pytest.param([put(5, None), put(6, "a")], [("X", 5, 6)], id="value-over-an-unset"),
        pytest.param([put(5, None), put(6, None)], [], id="unset-and-unset"),
        pytest.param(
            [put(5, "a"), put(6, "b"), put(7, "c", 5)],
            [("X", 5, 6), ("X", 6, 7)],
            id="each-with-its-direct-successor-only",
        ),
        pytest.param(
            [put(5, "a"), put(6, "b"), put(7, "a")], [("X", 5, 6), ("X", 6, 7)], id="there-and-back"
        ),
        pytest.param([put(5, "a"), put(6, "b", name="Y")], [], id="another-variable"),
        pytest.param([put(5, "a"), delete(6, X=5)], [], id="deletion-that-listed-it"),
        pytest.param([put(5, "a"), delete(6)], [("X", 5, 6)], id="deletion-that-did-not"),
        pytest.param(
            [put(4, "a"), put(5, "b", 4), delete(6, X=4)], [("X", 5, 6)], id="deletion-saw-an-older"
        ),
        pytest.param([put(5, None), delete(6)], [], id="deletion-of-an-unset-one"),
        pytest.param([put(5, "a"), delete(6), delete(7)], [("X", 5, 6)], id="deleted-twice"),
        pytest.param(
            [put(5, "a"), delete(6, X=5), put(7, "b", 6)], [], id="set-anew-after-the-deletion"
        ),
        pytest.param(
            [put(5, "a"), delete(6, X=5), put(7, "b", 5)],
            [("X", 6, 7)],
            id="set-without-having-seen-the-deletion",
        ),
        pytest.param([delete(6), put(7, "b")], [], id="deletion-of-nothing"),
    ],
)
def test_conflicts_of_known_histories(
    commits: list[Commit], expected: list[tuple[str, int, int]]
) -> None:
    assert pairs(commits) == expected


def test_a_commit_that_arrives_in_between_changes_the_pairs() -> None:
    first, late, last = put(5, "a"), put(6, "b", 5), put(7, "c", 5)

    before = pairs([first, last])
    after = pairs([first, late, last])

    assert before == []
    assert after == [("X", 6, 7)]


def test_a_commit_that_arrives_in_between_may_end_a_conflict() -> None:
    first, late, last = put(5, "a"), put(6, "a"), put(7, "b")

    assert pairs([first, last]) == [("X", 5, 7)]
    assert pairs([first, late, last]) == [("X", 6, 7)]


def begins_an_era(number: int, **values: tuple[str, int]) -> Commit:
    """The first commit of era 1: each name with what it says, and the stamp that it saw."""
    puts = tuple(
        Change(Kind.VARIABLE, name, value, False, stamp(saw) if saw else ZERO)
        for name, (value, saw) in values.items()
    )
    return Commit(NAME, Stamp(1, number, 1), puts, follows=Stamp(1, 0, 0))


@pytest.mark.parametrize(
    ("commits", "expected"),
    [
        pytest.param([put(5, "a"), begins_an_era(6, X=("a", 5))], [], id="all-was-seen"),
        pytest.param(
            [put(5, "a"), put(9, "late", 5), begins_an_era(6, X=("a", 5))],
            [("X", 9, 6)],
            id="late-and-differs",
        ),
        pytest.param(
            [put(5, "a"), put(9, "a", 5), begins_an_era(6, X=("a", 5))], [], id="late-and-equal"
        ),
        pytest.param([put(9, "late"), begins_an_era(6)], [("X", 9, 6)], id="late-and-new"),
        pytest.param([put(9, None), begins_an_era(6)], [], id="late-unset-of-nothing"),
        pytest.param(
            [put(5, "a"), put(9, None, 5), begins_an_era(6, X=("a", 5))],
            [("X", 9, 6)],
            id="late-unset",
        ),
    ],
)
def test_a_write_that_the_first_commit_of_an_era_had_not_seen_is_a_conflict_where_it_differs(
    commits: list[Commit], expected: list[tuple[str, int, int]]
) -> None:
    assert pairs(commits) == expected


def test_who_saw_what_the_first_commit_of_an_era_dropped_unseen_has_no_conflict_with_that() -> None:
    first = begins_an_era(6)
    upon_it = Change(Kind.VARIABLE, "X", "new", False, first.floor)
    second = replace(put(7, "new"), stamp=Stamp(1, 7, 1), changes=(upon_it,), follows=first.stamp)
    unaware = replace(second, changes=(upon_it._replace(overwrites=stamp(2)),))

    assert pairs([put(9, "late"), first, second]) == [("X", 9, 6)]
    assert pairs([put(9, "late"), first, unaware]) == [("X", 9, 6), ("X", 6, 7)]


def test_a_second_commit_of_an_era_drops_nothing_of_the_first() -> None:
    first = begins_an_era(6, X=("a", 0))
    second = replace(put(7, "b", name="Y"), stamp=Stamp(1, 7, 1), follows=first.stamp)
    again = replace(begins_an_era(8, Y=("b", 0)), changes=())

    assert pairs([first, second, again]) == []


def test_what_the_base_holds_from_later_on_does_not_lose_to_an_earlier_commit() -> None:
    """A peer's base that was merged in may be of after commits that are here still."""
    base = Environment(NAME).apply(put(8, "new", 5))

    found = conflicts([put(5, "old"), put(6, "older-too", 5), put(9, "newest", 8)], base)

    assert found == []


def test_what_the_base_holds_of_an_older_era_is_dropped_by_the_first_commit_of_the_next() -> None:
    base = Environment(NAME).apply(put(5, "seen")).apply(put(9, "unseen", name="Y"))

    found = conflicts([begins_an_era(6, X=("seen", 5))], base)

    assert [(record.name, record.lost.value, record.kept.value) for record in found] == [
        ("Y", "unseen", None)
    ]


def test_a_changed_secret_flag_is_a_conflict_of_contents() -> None:
    plain = put(5, "a")
    hidden = replace(put(6, "a"), changes=(plain.changes[0]._replace(secret=True),))

    assert pairs([plain, hidden]) == [("X", 5, 6)]


def test_two_unsets_do_not_conflict_over_their_secret_flags() -> None:
    plain = put(5, None)
    hidden = replace(put(6, None), changes=(plain.changes[0]._replace(secret=True),))

    assert pairs([plain, hidden]) == []


def test_a_variable_and_a_setting_of_one_name_do_not_conflict() -> None:
    variable = put(5, "a")
    setting = replace(put(6, "b"), changes=(variable.changes[0]._replace(kind=Kind.METADATA),))

    assert pairs([variable, setting]) == []


def test_a_record_tells_both_sides() -> None:
    lost = replace(put(5, "a"), node="node-a", region="eu")
    kept = replace(put(6, "b"), node="node-b", region="us")

    [record] = conflicts([lost, kept])

    assert record == ConflictRecord(
        NAME,
        Kind.VARIABLE,
        "X",
        kept=Side(stamp(6), "b", False, "author-6", "node-b", "us"),
        lost=Side(stamp(5), "a", False, "author-5", "node-a", "eu"),
    )


_names = st.sampled_from(("X", "Y"))
_changes = st.builds(
    Change,
    st.sampled_from(Kind),
    _names,
    st.sampled_from((None, "", "a")),
    st.booleans(),
    st.builds(Stamp, st.just(0), st.integers(0, 6), st.just(1)),
)
_histories = st.lists(
    st.builds(
        Commit,
        environment=st.just(NAME),
        stamp=st.builds(Stamp, st.integers(0, 1), st.integers(1, 7), st.just(1)),
        changes=st.lists(_changes, max_size=3, unique_by=lambda c: (c.kind, c.name)).map(tuple),
        deletes=st.booleans(),
        follows=st.sampled_from((ZERO, stamp(3), Stamp(1, 0, 0), Stamp(1, 2, 1))),
    ),
    max_size=6,
    unique_by=lambda commit: commit.stamp,
)


def _by_definition(commits: list[Commit], kind: Kind, name: str) -> set[tuple[Stamp, Stamp]]:
    """(lost, kept) for one name, straight from the sentence in the architecture."""
    writes: list[Change] = []
    stamps: list[Stamp] = []
    seen_from: list[Stamp] = []
    for commit in commits:
        listed = [c for c in commit.changes if (c.kind, c.name) == (kind, name)]
        is_dropped = bool(stamps) and stamps[-1] <= commit.floor
        replaced = commit.stamp
        if not listed and is_dropped and writes[-1].value is not None:
            listed, replaced = [Change(kind, name, None, False, ZERO)], commit.floor
        writes += listed
        stamps += [commit.stamp] * len(listed)
        seen_from += [replaced] * len(listed)
    found = set()
    for place in range(1, len(writes)):
        lost, kept = writes[place - 1], writes[place]
        contents = [None if w.value is None else (w.value, w.secret) for w in (lost, kept)]
        if kept.overwrites < seen_from[place - 1] and contents[0] != contents[1]:
            found.add((stamps[place - 1], stamps[place]))
    return found


@given(_histories, st.data())
def test_conflicts_are_a_function_of_the_set_of_commits(
    arrived: list[Commit], data: st.DataObject
) -> None:
    again = data.draw(st.permutations(arrived))
    commits = sorted(arrived, key=lambda commit: commit.stamp)

    found = conflicts(commits)

    assert found == conflicts(sorted(again, key=lambda commit: commit.stamp))
    for kind in Kind:
        for name in ("X", "Y"):
            told = {
                (record.lost.stamp, record.kept.stamp)
                for record in found
                if (record.kind, record.name) == (kind, name)
            }
            assert told == _by_definition(commits, kind, name)


# -- keys ------------------------------------------------------------------------------

KEY = b"k" * 32
RECORD = ConflictRecord(
    NAME, Kind.VARIABLE, "X", Side(stamp(6), "b", False), Side(stamp(5), "a", False)
)


def test_the_key_of_a_known_conflict_never_changes() -> None:
    assert len(RECORD.key(KEY)) == 58
    assert RECORD.key(KEY)[:2] == partition_of(NAME).to_bytes(2)
    assert RECORD.key(KEY)[18:] == stamp(6).to_bytes() + stamp(5).to_bytes()
    assert RECORD.key(KEY)[2 : -2 * STAMP_BYTES].hex() == "fafab2c32917eb91dad5756a98024547"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(RECORD, environment="team/app2"), id="environment"),
        pytest.param(replace(RECORD, kind=Kind.METADATA), id="kind"),
        pytest.param(replace(RECORD, name="Y"), id="name"),
        pytest.param(replace(RECORD, kept=Side(stamp(7), "b", False)), id="kept"),
        pytest.param(replace(RECORD, lost=Side(stamp(4), "a", False)), id="lost"),
        pytest.param(replace(RECORD, kept=RECORD.lost, lost=RECORD.kept), id="sides-swapped"),
    ],
)
def test_another_conflict_has_another_key(other: ConflictRecord) -> None:
    assert other.key(KEY) != RECORD.key(KEY)


def test_the_key_does_not_depend_on_the_contents() -> None:
    other = replace(RECORD, kept=Side(stamp(6), "c", True, "someone"))

    assert other.key(KEY) == RECORD.key(KEY)


def test_the_key_tells_nothing_of_the_names_without_the_clusters_key() -> None:
    assert RECORD.key(b"other") != RECORD.key(KEY)
