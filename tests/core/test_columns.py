"""Columns are only another form: whatever is made of them is what is made of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core import digest
from envd.core.commit import Change, ChangeColumns, Commit, Kind
from envd.core.entries import Entry, EntryColumns, columns_of, rows_of, same_for_all
from envd.core.environment import Environment
from envd.core.errors import Denied, EnvdError
from envd.core.requests import Put, PutColumns, WriteRequest
from envd.core.stamp import ZERO, Stamp
from envd.node.changes import changes_of
from envd.node.checks import check_write
from envd.node.operations import request_digest
from envd.node.views import exported_view
from envd.ports import StoredState
from envd.wire import records
from envd.wire.records import StoredEnvironment

KEY = b"k" * 32
NAME = "team/app"
LATEST = Stamp(2, 9, 9)

stamps = st.sampled_from((Stamp(0, 1, 1), Stamp(0, 2, 1), Stamp(1, 1, 2)))
values = st.sampled_from((None, "", "a", "ä\n", "\U00010000"))
entries = st.builds(Entry, stamps, st.sampled_from((ZERO, Stamp(0, 1, 1))), values, st.booleans())
sides = st.dictionaries(st.sampled_from("abcdef"), entries, max_size=5)
environments = st.builds(Environment, st.just(NAME), sides, sides)
texts = st.sampled_from(("", "x", "é", "long" * 20))
puts = st.lists(
    st.builds(Put, st.sampled_from("abcdef"), texts, st.sampled_from((None, True, False))),
    max_size=6,
    unique_by=lambda put: put.name,
)


def in_columns(environment: Environment) -> Environment:
    return replace(
        environment,
        variables=columns_of(environment.variables),
        metadata=columns_of(environment.metadata),
    )


def columns_from(listed: list[Put]) -> PutColumns:
    flags = {at: put.secret for at, put in enumerate(listed) if put.secret is not None}
    return PutColumns([put.name for put in listed], [put.value for put in listed], flags)


@given(sides)
def test_columns_are_the_same_mapping_as_rows(side: Mapping[str, Entry]) -> None:
    columns = columns_of(side)

    assert columns == side
    assert side == columns
    assert list(columns) == list(side)
    assert rows_of(columns) == side
    assert all(columns[name] == side[name] and name in columns for name in side)
    assert "absent" not in columns


@given(environments)
def test_fingerprints_and_bytes_do_not_depend_on_the_form(rows: Environment) -> None:
    columns = in_columns(rows)
    revision = digest.revision(rows, KEY)

    assert columns == rows
    assert digest.revision(columns, KEY) == revision
    assert digest.state_digest(columns, revision, 7, KEY) == digest.state_digest(
        rows, revision, 7, KEY
    )
    assert columns.summary == rows.summary
    stored = StoredEnvironment(StoredState(rows, revision), b"d" * 16, 7, 1)
    raw = records.encode_environment(stored)
    assert records.encode_environment(replace(stored, state=StoredState(columns, revision))) == raw
    assert records.decode_environment(raw) == stored


@given(environments, puts, st.booleans())
def test_a_write_in_columns_is_the_same_write(
    before: Environment, listed: list[Put], may_reveal: bool
) -> None:
    rows = WriteRequest(NAME, tuple(listed), operation="op")
    columns = replace(rows, puts=columns_from(listed))

    assert columns.puts == rows.puts
    assert request_digest(columns, KEY) == request_digest(rows, KEY)
    made: list[tuple[object, ...]] = []
    for state in (before, in_columns(before)):
        for request in (rows, columns):
            try:
                made.append(tuple(changes_of(state, request, may_reveal)))
            except Denied as error:
                made.append((error.message,))
    assert made == [made[0]] * 4


@given(environments, puts)
def test_a_commit_in_columns_has_the_same_bytes_and_effect(
    before: Environment, listed: list[Put]
) -> None:
    columns = changes_of(before, WriteRequest(NAME, columns_from(listed)), True)
    rows = tuple(columns)
    assert type(columns) is ChangeColumns

    commits = [Commit(NAME, LATEST, changes, revision=b"r") for changes in (columns, rows)]
    states = [
        state.apply_changes(LATEST, changes)
        for state in (before, in_columns(before))
        for changes in (columns, rows)
    ]

    assert records.encode_commit(commits[0]) == records.encode_commit(commits[1])
    assert records.decode_commit(records.encode_commit(commits[0])) == commits[0]
    merged = {name: Entry(LATEST, c.overwrites, c.value, c.secret) for _, name, *_ in rows
              for c in rows if c.name == name}  # fmt: skip
    assert states == [replace(before, variables={**before.variables, **merged})] * 4
    summaries = [Environment(NAME, s.variables, s.metadata).summary for s in states]
    assert [state.summary for state in states] == summaries


@given(environments, st.lists(st.tuples(st.sampled_from(Kind), st.sampled_from("abcd"), values),
                              max_size=4, unique_by=lambda row: row[:2]))  # fmt: skip
def test_the_summary_kept_along_is_the_one_computed_anew(
    before: Environment, rows: list[tuple[Kind, str, str | None]]
) -> None:
    changes = tuple(Change(kind, name, value, False, ZERO) for kind, name, value in rows)

    after = before.apply_changes(LATEST, changes)

    anew = Environment(NAME, after.variables, after.metadata, after.deleted_at)
    assert after.summary == anew.summary
    assert after == before.merge(
        Environment(
            NAME,
            {c.name: Entry(LATEST, ZERO, c.value, False) for c in changes if not c.kind},
            {c.name: Entry(LATEST, ZERO, c.value, False) for c in changes if c.kind},
        )
    )


changes_listed = st.lists(
    st.builds(
        Change,
        st.sampled_from((Kind.VARIABLE, Kind.VARIABLE, Kind.VARIABLE, Kind.METADATA)),
        st.sampled_from("abcdef"),
        st.sampled_from(("", "x", "é", "long" * 20, "", "x", None)),
        st.booleans(),
        st.sampled_from((ZERO, Stamp(0, 1, 1))),
    ),
    max_size=8,
)


@given(environments, changes_listed)
def test_a_commit_that_was_stored_is_the_same_commit_in_either_form(
    before: Environment, listed: list[Change]
) -> None:
    commit = Commit(NAME, LATEST, tuple(listed), revision=b"r")

    stored = records.decode_commit(records.encode_commit(commit))

    assert stored == commit
    assert [tuple(change) for change in stored.changes] == [tuple(change) for change in listed]
    assert before.apply(stored) == before.apply(commit)
    assert records.encode_commit(stored) == records.encode_commit(commit)


def test_a_stored_commit_of_puts_alone_is_in_columns_and_any_other_in_rows() -> None:
    listed = [Change(Kind.VARIABLE, name, "x", name == "b", ZERO) for name in "abcd"]
    others = (
        listed[:3],
        [*listed, Change(Kind.METADATA, "owner", "x", False, ZERO)],
        [*listed, Change(Kind.VARIABLE, "e", None, False, ZERO)],
        [*listed, listed[0]],
    )

    def stored(changes: list[Change]) -> Sequence[Change]:
        return records.decode_commit(
            records.encode_commit(Commit(NAME, LATEST, tuple(changes)))
        ).changes

    assert type(stored(listed)) is ChangeColumns
    assert [type(stored(changes)) for changes in others] == [tuple] * len(others)


def test_a_summary_counts_live_names_and_characters() -> None:
    live, dead = Entry(Stamp(0, 5, 1), ZERO, "1234", False), Entry(LATEST, ZERO, None, False)

    summary = Environment(NAME, {"AB": live, "C": dead}, {"owner": live}).summary

    assert summary == (LATEST, 1, 1, 3, len("AB" + "C" + "owner" + "1234" * 2))


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (["A", "1B"], "x"),
        (["A", "B\0C"], "x"),
        (["A", ""], "x"),
        (["A" * 256, "B"], "x"),
        (["A", "B"], "x\0"),
        (["A", "B"], "x" * ((1 << 20) + 1)),
        (["A", "B"], "\ud800"),
        (["A", "A"], "x"),
        (["A", "B\n"], "x"),
    ],
)
def test_columns_are_refused_for_what_rows_are_refused_for(names: list[str], value: str) -> None:
    listed = [Put(name, value) for name in names]
    refusals = []

    for request in (WriteRequest(NAME, tuple(listed)), WriteRequest(NAME, columns_from(listed))):
        with pytest.raises(EnvdError) as refused:
            check_write(request)
        refusals.append((type(refused.value), refused.value.message))

    assert refusals[0] == refusals[1]


def test_large_columns_within_the_limits_pass() -> None:
    names = [f"N{number}" for number in range(300)]

    check_write(WriteRequest(NAME, PutColumns(names, ["ä" * 2000] * 300, {})))


@given(environments, st.booleans())
def test_an_export_shows_what_is_live_in_order_and_masks_secrets(
    environment: Environment, reveal: bool
) -> None:
    exported = exported_view(StoredState(in_columns(environment), b"r"), reveal=reveal)

    live = {name: entry for name, entry in sorted(environment.live(Kind.VARIABLE))}  # noqa: C416
    assert list(exported.names) == list(live)
    hidden = [at for at, entry in enumerate(live.values()) if entry.secret]
    assert list(exported.secret) == hidden
    assert exported.masked == (bool(hidden) and not reveal)
    for at, (value, entry) in enumerate(zip(exported.values, live.values(), strict=True)):
        assert value == ("" if at in hidden and not reveal else entry.value)


def test_one_stamp_throughout_is_told() -> None:
    assert same_for_all([])
    assert same_for_all([ZERO, ZERO])
    assert not same_for_all([ZERO, LATEST])


def test_a_slice_of_columns_is_one_of_rows() -> None:
    changes = ChangeColumns(["A", "B"], ["1", "2"], b"\0\1", [ZERO, LATEST])
    puts = PutColumns(["A", "B"], ["1", "2"], {1: True})

    assert changes[1] == Change(Kind.VARIABLE, "B", "2", True, LATEST)
    assert changes[:1] == (Change(Kind.VARIABLE, "A", "1", False, ZERO),)
    assert puts[1:] == (Put("B", "2", True),)
    assert puts[0] == Put("A", "1")
    assert hash(changes) == hash(tuple(changes))
    assert hash(puts) == hash(tuple(puts))
    assert EntryColumns([], [], b"", [], []) == {}
