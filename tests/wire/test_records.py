"""Stored records: round trips, golden bytes, and damage that never gets past as another error."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Entry, Environment
from envd.core.errors import Corrupt, StorageError
from envd.core.history import ConflictRecord, Side
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp
from envd.ports import OperationResult, StoredState
from envd.wire import records
from envd.wire.records import BaseRecord, EnvironmentHeader, RecordName, StoredEnvironment

Golden = Callable[[str, bytes], bytes]
CANARY = "canary-7f3a"
U64 = (1 << 64) - 1

# -- one known record of each kind -----------------------------------------------------

FIRST = Stamp(0, 1_700_000_000_000 << 16, 0xA1)
SECOND = Stamp(0, (1_700_000_000_000 << 16) + 1, 0xB2)
THIRD = Stamp(1, 1_700_000_001_000 << 16, U64)

PLAIN = Commit(
    environment="team/app/prod",
    stamp=FIRST,
    changes=(Change(Kind.VARIABLE, "PORT", "8080", False, ZERO),),
    author="admin",
    time_ms=1_700_000_000_000,
    node="n1",
    revision=bytes(range(16)),
)
RICH = Commit(
    environment="team/app/prod",
    stamp=THIRD,
    changes=(
        Change(Kind.VARIABLE, "TOKEN", "p\u00e4ss\U0001f511\n", True, FIRST),
        Change(Kind.VARIABLE, "EMPTY", "", False, ZERO),
        Change(Kind.VARIABLE, "PORT", None, False, SECOND),
        Change(Kind.VARIABLE, "OLD_TOKEN", None, True, FIRST),
        Change(Kind.METADATA, "owner", "payments", False, ZERO),
        Change(Kind.METADATA, "labels", None, False, SECOND),
    ),
    author="uid:1000",
    time_ms=1_700_000_001_000,
    message="rotate \u2192 new",
    operation="op-1",
    blind=True,
    node="n2",
    region="eu-west",
    request_digest=bytes(range(32, 48)),
)
DELETION = Commit(
    environment="team/app/prod",
    stamp=THIRD,
    changes=(Change(Kind.VARIABLE, "PORT", None, False, SECOND),),
    deletes=True,
    author="admin",
    time_ms=1_700_000_001_000,
    revision=bytes(16),
)
RESOLVING = replace(PLAIN, stamp=THIRD, resolves=("ab" * 16, "cd" * 16))
CHAINED = replace(PLAIN, stamp=THIRD, follows=Stamp(1, 0, 0))
CHAINED_RESOLVING = replace(RESOLVING, follows=SECOND)
SALVAGING = replace(
    PLAIN, stamp=THIRD, changes=(), author="", operation="salvage", salvages=CHAINED_RESOLVING
)
LOG_RECORD = LogRecord(4095, U64, 1 << 40, PLAIN)
STORED = StoredEnvironment(
    StoredState(
        Environment(
            "team/app/prod",
            {
                "TOKEN": Entry(THIRD, FIRST, "p\u00e4ss\U0001f511", True),
                "PORT": Entry(SECOND, ZERO, "8080", False),
                "GONE": Entry(THIRD, SECOND, None, False),
                "GONE_TOKEN": Entry(THIRD, FIRST, None, True),
            },
            {"owner": Entry(SECOND, ZERO, "payments", False)},
            FIRST,
        ),
        bytes(range(16)),
    ),
    bytes(range(16, 32)),
    (1 << 128) - 2,
    100,
)
EMPTY = StoredEnvironment(StoredState(Environment("a"), b""))
CONFLICT = ConflictRecord(
    "team/app/prod",
    Kind.METADATA,
    "owner",
    kept=Side(SECOND, None, False, "admin", "n1", "eu"),
    lost=Side(FIRST, "payments \u20ac", True, "uid:1000", "n2", ""),
)
OPERATION = OperationResult(
    "team/app/prod", FIRST, bytes(range(16)), 1_700_000_000_000, bytes(range(16, 32))
)


BASE = BaseRecord(STORED.state.environment)


def own_row_record(raw: bytes) -> object:
    return records.decode_own_row(raw)[0]


def encode_log_record(record: LogRecord) -> bytes:
    return records.encode_log_record(record, records.encode_commit(record.commit))


Codec = tuple[str, object, Callable[..., bytes], Callable[[bytes], object]]
CODECS: tuple[Codec, ...] = (
    ("commit-plain", PLAIN, records.encode_commit, records.decode_commit),
    ("commit-rich", RICH, records.encode_commit, records.decode_commit),
    ("commit-resolving", RESOLVING, records.encode_commit, records.decode_commit),
    ("commit-chained", CHAINED, records.encode_commit, records.decode_commit),
    (
        "commit-chained-resolving",
        CHAINED_RESOLVING,
        records.encode_commit,
        records.decode_commit,
    ),
    ("commit-salvaging", SALVAGING, records.encode_commit, records.decode_commit),
    ("commit-deletion", DELETION, records.encode_commit, records.decode_commit),
    ("log-record", LOG_RECORD, encode_log_record, records.decode_log_record),
    ("log-base", BASE, records.encode_base_record, own_row_record),
    ("environment", STORED, records.encode_environment, records.decode_environment),
    ("environment-empty", EMPTY, records.encode_environment, records.decode_environment),
    ("conflict", CONFLICT, records.encode_conflict, records.decode_conflict),
    ("operation", OPERATION, records.encode_operation, records.decode_operation),
)
DECODERS = (
    records.decode_commit,
    records.decode_log_record,
    records.decode_environment,
    records.decode_environment_header,
    records.decode_conflict,
    records.decode_operation,
)
OWN_DECODERS = (*DECODERS, records.decode_own_row, records.record_name)
each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec[0])


@each_codec
def test_the_bytes_of_a_known_record_never_change(codec: Codec, golden: Golden) -> None:
    name, record, encode, decode = codec

    kept = golden(name, encode(record))

    assert encode(record) == kept
    assert decode(kept) == record


def test_the_header_of_a_known_environment_is_read_without_its_entries(golden: Golden) -> None:
    kept = golden("environment", records.encode_environment(STORED))

    header = records.decode_environment_header(kept)
    assert header == (bytes(range(16, 32)), (1 << 128) - 2, 100)


# -- round trips -----------------------------------------------------------------------

texts = st.text(max_size=8)
hashes = st.binary(min_size=16, max_size=16)
times = st.integers(-(1 << 63), U64)
stamps = st.sampled_from((ZERO, FIRST, SECOND)) | st.builds(
    Stamp, st.integers(0, (1 << 32) - 1), st.integers(0, U64), st.integers(0, U64)
)
changes = st.builds(
    Change, st.sampled_from(Kind), texts, st.none() | texts, st.booleans(), overwrites=stamps
)
plain_commits = st.builds(
    Commit,
    environment=texts,
    stamp=stamps,
    changes=st.lists(changes, max_size=4).map(tuple),
    deletes=st.booleans(),
    author=texts,
    time_ms=times,
    message=texts,
    operation=texts,
    blind=st.booleans(),
    node=texts,
    region=texts,
    revision=hashes | st.just(b""),
    resolves=st.lists(texts, max_size=3).map(tuple),
    follows=st.just(ZERO) | stamps,
)
commits = plain_commits | st.builds(
    lambda commit, late: replace(commit, salvages=late), plain_commits, plain_commits
)
log_records = st.builds(
    LogRecord, st.integers(0, 4095), st.integers(0, U64), st.integers(1, U64), commits
)
entries = st.builds(Entry, stamps, stamps, st.none() | texts, st.booleans())
sides = st.dictionaries(texts, entries, max_size=4)
stored_environments = st.builds(
    StoredEnvironment,
    st.builds(StoredState, st.builds(Environment, texts, sides, sides, stamps), hashes),
    hashes,
    st.integers(0, (1 << 128) - 1),
    st.integers(0, 1000),
)
conflict_sides = st.builds(Side, stamps, st.none() | texts, st.booleans(), texts, texts, texts)
conflict_records = st.builds(
    ConflictRecord, texts, st.sampled_from(Kind), texts, conflict_sides, conflict_sides
)
operation_results = st.builds(OperationResult, texts, stamps, hashes, times)


@given(commits)
def test_a_commit_comes_back_whole_and_encodes_to_the_same_bytes(commit: Commit) -> None:
    encoded = records.encode_commit(commit)

    decoded = records.decode_commit(encoded)

    assert decoded == commit
    assert all(type(change) is Change for change in decoded.changes)
    assert records.encode_commit(decoded) == encoded


@given(log_records)
def test_a_log_record_comes_back_whole_around_the_very_bytes_of_its_commit(
    record: LogRecord,
) -> None:
    encoded = encode_log_record(record)

    assert records.decode_log_record(encoded) == record
    assert records.encode_commit(record.commit) in encoded


@given(log_records)
def test_a_row_of_the_log_gives_the_record_the_bytes_of_its_commit_and_its_name(
    record: LogRecord,
) -> None:
    row = encode_log_record(record)

    assert records.decode_own_row(row) == (record, records.encode_commit(record.commit))
    assert records.record_name(row) == (record.partition, record.origin, record.seq)


def test_the_bytes_of_a_commit_stay_as_a_peer_sent_them() -> None:
    later = bytearray(records.encode_commit(SALVAGING))
    later[2:4] = (int.from_bytes(later[2:4]) + 1).to_bytes(2)  # one more field
    encoded = bytes(later) + b"\xa5later"
    record = replace(LOG_RECORD, commit=SALVAGING)

    row = records.encode_log_record(record, encoded)

    assert records.decode_own_row(row) == (record, encoded)
    assert records.encode_commit(SALVAGING) not in row


@given(stored_environments.map(lambda stored: stored.state.environment))
def test_a_base_comes_back_whole_and_has_no_name(base: Environment) -> None:
    row = records.encode_base_record(BaseRecord(base))

    record, payload = records.decode_own_row(row)

    assert record == BaseRecord(base)
    assert records.decode_environment(payload).state.environment == base
    assert records.record_name(row) is None


def test_a_base_is_told_as_a_commit_without_a_name_that_sets_what_it_holds() -> None:
    told = BASE.as_log_record()

    assert (told.origin, told.seq, told.partition) == (0, 0, partition_of("team/app/prod"))
    assert told.commit.stamp == BASE.base.highest_stamp
    assert {(change.kind, change.name, change.value) for change in told.commit.changes} == {
        (kind, name, entry.value)
        for kind in Kind
        for name, entry in BASE.base.entries(kind).items()
    }


def test_a_row_that_only_its_node_needs_is_of_a_newer_format_to_who_reads_peers_rows() -> None:
    with pytest.raises(StorageError) as caught:
        records.decode_log_record(records.encode_base_record(BASE))

    assert caught.value.reason == "NEWER_FORMAT"


def test_a_row_of_a_kind_that_is_not_known_is_newer_and_not_damage() -> None:
    with pytest.raises(StorageError) as caught:
        records.decode_own_row(b"\x02" + msgspec.msgpack.encode([2, b"what a later version keeps"]))

    assert caught.value.reason == "NEWER_FORMAT"
    assert not isinstance(caught.value, Corrupt)


@pytest.mark.parametrize("decode", [records.decode_own_row, records.record_name])
def test_a_row_of_the_log_of_a_newer_format_is_told_apart_from_damage(
    decode: Callable[[bytes], object],
) -> None:
    with pytest.raises(StorageError) as caught:
        decode(b"\x03" + b"whatever a later version writes")

    assert caught.value.reason == "NEWER_FORMAT"
    assert not isinstance(caught.value, Corrupt)


@given(stored_environments)
def test_an_environment_comes_back_whole(stored: StoredEnvironment) -> None:
    encoded = records.encode_environment(stored)

    assert records.decode_environment(encoded) == stored
    header = records.decode_environment_header(encoded)
    assert header == (stored.digest, stored.history_sum, stored.history_count)


@given(conflict_records)
def test_a_conflict_comes_back_whole(record: ConflictRecord) -> None:
    assert records.decode_conflict(records.encode_conflict(record)) == record


@given(operation_results)
def test_an_operation_comes_back_whole(result: OperationResult) -> None:
    assert records.decode_operation(records.encode_operation(result)) == result


@pytest.mark.parametrize("commit", [PLAIN, RICH, CHAINED, CHAINED_RESOLVING])
def test_only_what_salvages_has_the_format_that_earlier_versions_refuse(commit: Commit) -> None:
    assert records.encode_commit(commit)[0] < 3
    assert records.decode_commit(records.encode_commit(commit)).salvages is None
    assert records.encode_commit(replace(commit, salvages=PLAIN))[0] == 3


def test_a_commit_that_salvages_one_that_salvages_is_damage() -> None:
    with pytest.raises(Corrupt):
        records.decode_commit(records.encode_commit(replace(PLAIN, salvages=SALVAGING)))


@pytest.mark.parametrize("commit", [PLAIN, RICH, DELETION, RESOLVING])
def test_a_commit_of_a_version_that_knew_of_no_chains_follows_nothing(commit: Commit) -> None:
    assert records.decode_commit(records.encode_commit(commit)).follows == ZERO


def test_a_commit_without_a_chain_keeps_its_shorter_row() -> None:
    fields = [
        len(msgspec.msgpack.decode(records.encode_commit(commit)[1:]))
        for commit in (PLAIN, RESOLVING, CHAINED, CHAINED_RESOLVING)
    ]

    assert fields == [17, 18, 19, 19]


@pytest.mark.parametrize("follows", [b"f", b"f" * 19, b"f" * 21])
def test_a_commit_that_follows_what_is_no_stamp_is_corrupt(follows: bytes) -> None:
    fields = msgspec.msgpack.decode(records.encode_commit(CHAINED)[1:])

    with pytest.raises(Corrupt):
        records.decode_commit(b"\x01" + msgspec.msgpack.encode([*fields[:-1], follows]))


def test_a_stamp_that_stands_often_is_stored_once() -> None:
    change = PLAIN.changes[0]
    few = replace(PLAIN, changes=(change,) * 2)
    many = replace(PLAIN, changes=(change,) * 3)

    grown = len(records.encode_commit(many)) - len(records.encode_commit(few))

    assert grown < 20


# -- damage ----------------------------------------------------------------------------


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("format_byte", [4, 5, 255])
def test_a_newer_format_is_told_apart_from_damage(
    decode: Callable[[bytes], object], format_byte: int
) -> None:
    with pytest.raises(StorageError, match=f"format {format_byte}") as caught:
        decode(bytes([format_byte]) + b"whatever a later version writes")

    assert caught.value.reason == "NEWER_FORMAT"
    assert "newer envd" in caught.value.hint


@pytest.mark.parametrize("decode", OWN_DECODERS)
@pytest.mark.parametrize("raw", [b"", b"\0", b"\0" * 64])
def test_nothing_and_zeros_are_damage_not_a_newer_format(
    decode: Callable[[bytes], object], raw: bytes
) -> None:
    with pytest.raises(Corrupt):
        decode(raw)


@each_codec
def test_a_format_that_never_was_is_corrupt(codec: Codec) -> None:
    _, record, encode, decode = codec

    with pytest.raises(Corrupt):
        decode(b"\0" + encode(record)[1:])


@each_codec
def test_a_record_cut_short_anywhere_is_corrupt(codec: Codec) -> None:
    _, record, encode, decode = codec
    encoded = encode(record)

    for length in range(len(encoded)):
        with pytest.raises(Corrupt):
            decode(encoded[:length])


@each_codec
def test_a_record_with_something_behind_it_is_corrupt(codec: Codec) -> None:
    _, record, encode, decode = codec

    with pytest.raises(Corrupt):
        decode(encode(record) + b"\0")


@each_codec
def test_a_flipped_bit_gives_a_storage_error_or_a_record_never_another_error(codec: Codec) -> None:
    _, record, encode, decode = codec
    encoded = encode(record)
    refused = 0

    for position in range(len(encoded)):
        for bit in range(8):
            flipped = bytearray(encoded)
            flipped[position] ^= 1 << bit
            try:
                decoded = decode(bytes(flipped))
            except StorageError:
                refused += 1
            else:
                assert type(decoded) is type(record)

    assert refused > len(encoded)


@given(st.sampled_from(OWN_DECODERS), st.sampled_from(CODECS), st.data())
@settings(max_examples=300)
def test_a_mangled_record_gives_a_storage_error_or_a_record_never_another_error(
    decode: Callable[[bytes], object], codec: Codec, data: st.DataObject
) -> None:
    _, record, encode, _ = codec
    encoded = encode(record)
    start = data.draw(st.integers(1, len(encoded)))
    end = data.draw(st.integers(start, min(start + 8, len(encoded))))
    mangled = encoded[:start] + data.draw(st.binary(max_size=9)) + encoded[end:]

    try:
        decoded = decode(mangled)
    except StorageError:
        decoded = None

    assert type(decoded) in {
        Commit,
        LogRecord,
        StoredEnvironment,
        ConflictRecord,
        OperationResult,
        EnvironmentHeader,
        RecordName,
        tuple,  # a row of one's own log
        type(None),  # the name of a base
    }


@given(st.sampled_from(DECODERS), st.binary(max_size=64))
def test_noise_behind_the_format_byte_is_a_storage_error(
    decode: Callable[[bytes], object], noise: bytes
) -> None:
    with pytest.raises(StorageError):
        decode(b"\x01" + noise)


Row = dict[str, object]
STAMP_COLUMN = ZERO.to_bytes() + FIRST.to_bytes()
SIDE = [FIRST.to_bytes(), None, False, "", "", ""]
COLUMNS = [["A"], ["v"], b"\0", [1], [0]]


def _columns(**wrong: object) -> list[object]:
    names = ("names", "values", "secrets", "stamps", "overwrites")
    return [wrong.get(name, right) for name, right in zip(names, COLUMNS, strict=True)]


def _raw(row: Row) -> bytes:
    return b"\x01" + msgspec.msgpack.encode(list(row.values()))


def _commit(**wrong: object) -> bytes:
    row: Row = {
        "environment": "e",
        "stamp": FIRST.to_bytes(),
        "flags": b"\0",
        "names": ["A"],
        "values": ["v"],
        "stamps": STAMP_COLUMN,
        "overwrites": [1],
        "deletes": False,
        "author": "",
        "time_ms": 0,
        "message": "",
        "operation": "",
        "blind": False,
        "node": "",
        "region": "",
        "revision": b"",
        "request_digest": b"",
    }
    return _raw(row | wrong)


def _environment(**wrong: object) -> bytes:
    row: Row = {
        "name": "e",
        "deleted_at": ZERO.to_bytes(),
        "revision": b"",
        "digest": b"",
        "history_sum": bytes(16),
        "history_count": 0,
        "stamps": STAMP_COLUMN,
        "variables": COLUMNS,
        "metadata": COLUMNS,
    }
    return _raw(row | wrong)


def _conflict(**wrong: object) -> bytes:
    row: Row = {"environment": "e", "kind": 0, "name": "A", "kept": SIDE, "lost": SIDE}
    return _raw(row | wrong)


def _operation(**wrong: object) -> bytes:
    row: Row = {
        "environment": "e",
        "stamp": FIRST.to_bytes(),
        "revision": b"",
        "time_ms": 0,
        "request_digest": b"",
    }
    return _raw(row | wrong)


def test_the_rows_that_the_damage_is_done_to_are_sound() -> None:
    commit = records.decode_commit(_commit())
    stored = records.decode_environment(_environment())

    assert commit.changes == (Change(Kind.VARIABLE, "A", "v", False, FIRST),)
    assert stored.state.environment.metadata == {"A": Entry(FIRST, ZERO, "v", False)}
    assert records.decode_conflict(_conflict()).lost == Side(FIRST, None, False)
    assert records.decode_operation(_operation()).stamp == FIRST


@pytest.mark.parametrize(
    ("decode", "raw"),
    [
        pytest.param(records.decode_commit, _commit(stamp=b""), id="commit-no-stamp"),
        pytest.param(records.decode_commit, _commit(stamp=bytes(21)), id="commit-long-stamp"),
        pytest.param(records.decode_commit, _commit(flags=b""), id="commit-flags"),
        pytest.param(records.decode_commit, _commit(names=["A", "B"]), id="commit-names"),
        pytest.param(records.decode_commit, _commit(values=[]), id="commit-values"),
        pytest.param(records.decode_commit, _commit(values=[7]), id="commit-value-type"),
        pytest.param(records.decode_commit, _commit(overwrites=[]), id="commit-places"),
        pytest.param(records.decode_commit, _commit(overwrites=[2]), id="commit-place-beyond"),
        pytest.param(records.decode_commit, _commit(overwrites=[-1]), id="commit-place-negative"),
        pytest.param(records.decode_commit, _commit(overwrites=[U64]), id="commit-place-huge"),
        pytest.param(records.decode_commit, _commit(stamps=bytes(39)), id="commit-stamps"),
        pytest.param(records.decode_commit, _commit(time_ms=None), id="commit-time"),
        pytest.param(
            records.decode_environment, _environment(deleted_at=bytes(3)), id="environment-deleted"
        ),
        pytest.param(
            records.decode_environment, _environment(history_sum=bytes(17)), id="environment-sum"
        ),
        pytest.param(
            records.decode_environment_header, _environment(history_sum=b""), id="header-sum"
        ),
        pytest.param(
            records.decode_environment, _environment(stamps=bytes(30)), id="environment-stamps"
        ),
        pytest.param(
            records.decode_environment,
            _environment(variables=_columns(stamps=[2])),
            id="environment-place-beyond",
        ),
        pytest.param(
            records.decode_environment,
            _environment(variables=_columns(stamps=[-1])),
            id="environment-place-negative",
        ),
        pytest.param(
            records.decode_environment,
            _environment(metadata=_columns(overwrites=[-2])),
            id="environment-overwrites-negative",
        ),
        pytest.param(
            records.decode_environment,
            _environment(metadata=_columns(secrets=b"")),
            id="environment-secrets",
        ),
        pytest.param(
            records.decode_environment,
            _environment(variables=_columns(names=[])),
            id="environment-names",
        ),
        pytest.param(records.decode_conflict, _conflict(kind=2), id="conflict-kind"),
        pytest.param(records.decode_conflict, _conflict(kind=-1), id="conflict-kind-negative"),
        pytest.param(records.decode_conflict, _conflict(kept=[b"", *SIDE[1:]]), id="conflict-kept"),
        pytest.param(records.decode_conflict, _conflict(lost=SIDE[:3]), id="conflict-lost"),
        pytest.param(records.decode_operation, _operation(stamp=bytes(19)), id="operation-stamp"),
    ],
)
def test_a_row_whose_columns_do_not_fit_is_corrupt(
    decode: Callable[[bytes], object], raw: bytes
) -> None:
    with pytest.raises(Corrupt):
        decode(raw)


def test_a_damaged_secret_flag_still_masks() -> None:
    raw = _environment(variables=_columns(secrets=b"\x02"))

    assert records.decode_environment(raw).state.environment.variables["A"].secret


def test_nested_rows_without_end_are_corrupt() -> None:
    raw = bytearray(_operation())
    raw[1] += 1

    with pytest.raises(Corrupt):
        records.decode_operation(bytes(raw) + b"\x91" * 100_000 + b"\xc0")


def test_a_column_that_claims_billions_of_rows_is_corrupt_at_once() -> None:
    raw = _commit(names=[]).partition(b"\xc4\x01\0")[0] + b"\xc4\x01\0" + b"\xdd\xff\xff\xff\xff"

    with pytest.raises(Corrupt):
        records.decode_commit(raw)


def test_a_value_that_is_no_text_is_corrupt_and_not_shown() -> None:
    raw = _commit(values=[CANARY + "...."]).replace(b"....", b"\xff\xfe\xed\xa0")

    with pytest.raises(Corrupt) as caught:
        records.decode_commit(raw)

    shown = "".join(traceback.format_exception(caught.value))
    assert CANARY not in f"{caught.value!r}{caught.value.__cause__!r}{shown}"


def test_fields_that_a_later_version_added_are_passed_over() -> None:
    raw = bytearray(_operation())
    raw[1] += 2

    result = records.decode_operation(bytes(raw) + b"\x07\xa3new")

    assert result == OperationResult("e", FIRST, b"", 0)
