"""Stored records: msgpack behind one format byte, pinned by golden bytes.

A record is laid out in columns (all names, then all values, ...): msgspec reads and writes a
list of strings several times faster than a list of rows. Stamps repeat, so they stand once
in a table of 20-byte stamps, and entries name their place in it.

The journal's records, the history rows and what peers send each other hold the same bytes of
a commit, so a commit is encoded once in its life.

Fields are only ever added at the end, with a default; what a reader of an older version
could misread gets a new format byte, and the old one stays readable.

A node's own log holds two kinds of rows: records of commits (format 1), which also go to peers,
and what only this node needs (format 2: a kind, and its payload), today the bases that were
merged in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Annotated, NamedTuple, TypeVar, cast

import msgspec

from envd.core.commit import Change, ChangeColumns, Commit, Kind, LogRecord
from envd.core.entries import Entry, EntryColumns, columns_of, same_for_all
from envd.core.environment import Environment
from envd.core.errors import Corrupt, StorageError
from envd.core.history import ConflictRecord, Side
from envd.core.ring import partition_of
from envd.core.stamp import STAMP_BYTES, ZERO, Stamp
from envd.ports import OperationResult, StoredState

FORMAT = 1
LOCAL_FORMAT = 2
CHAINED_FORMAT = 2
"""Of commits of a serial environment: who knows no chains must not take one for a plain commit."""
SALVAGING_FORMAT = 3
"""Of commits that salvage another: who does not know that would show nothing of what was lost."""
_FORMAT_BYTE = bytes([FORMAT])
_LOCAL_BYTE = bytes([LOCAL_FORMAT])
_CHAINED_BYTE = bytes([CHAINED_FORMAT])
_SALVAGING_BYTE = bytes([SALVAGING_FORMAT])
_BASE_KIND = 1
_HISTORY_SUM_BYTES = 16
_METADATA = 1
_SECRET = 2
_FLAG_OF_SECRET = bytes([0, *[_SECRET] * 255])
_PUT_FLAGS = bytes([0, _SECRET])
"""Those of a put of a variable, plain and secret."""
_SECRET_OF_FLAG = bytes([*[0] * _SECRET, *[1] * (256 - _SECRET)])
_KINDS = (Kind.VARIABLE, Kind.METADATA)
_IN_COLUMNS = 4
"""From so many puts on columns are shorter work than rows."""
_Row = TypeVar("_Row")
_Place = Annotated[int, msgspec.Meta(ge=0)]


class _CommitRow(msgspec.Struct, array_like=True, frozen=True):
    environment: str
    stamp: bytes
    flags: bytes
    names: Sequence[str]
    values: Sequence[str | None]
    stamps: bytes
    overwrites: Sequence[_Place]
    deletes: bool
    author: str
    time_ms: int
    message: str
    operation: str
    blind: bool
    node: str
    region: str
    revision: bytes
    request_digest: bytes


class _ResolvingCommitRow(_CommitRow, array_like=True, frozen=True):
    """What a commit that settles conflicts is stored as; the others keep their shorter row."""

    resolves: tuple[str, ...] = ()


class _ChainedCommitRow(_ResolvingCommitRow, array_like=True, frozen=True):
    """What a commit of a serial environment is stored as."""

    follows: bytes = b""


class _SalvagingCommitRow(_ChainedCommitRow, array_like=True, frozen=True):
    """What a commit that salvages another is stored as; that one is there in its own bytes."""

    salvages: bytes = b""


class _LogRow(msgspec.Struct, array_like=True, frozen=True):
    partition: int
    origin: int
    seq: int
    commit: bytes


class _NameRow(msgspec.Struct, array_like=True, frozen=True):
    """The first fields of _LogRow; a decoder skips the rest unread."""

    partition: int
    origin: int
    seq: int


class _LocalRow(msgspec.Struct, array_like=True, frozen=True):
    kind: int
    payload: bytes


class _Columns(msgspec.Struct, array_like=True, frozen=True):
    names: Sequence[str]
    values: Sequence[str | None]
    secrets: bytes
    stamps: Sequence[_Place]
    overwrites: Sequence[_Place]


class _EnvironmentRow(msgspec.Struct, array_like=True, frozen=True):
    name: str
    deleted_at: bytes
    revision: bytes
    digest: bytes
    history_sum: bytes
    history_count: int
    stamps: bytes
    variables: _Columns
    metadata: _Columns


class _HeaderRow(msgspec.Struct, array_like=True, frozen=True):
    """The first fields of _EnvironmentRow; a decoder skips the rest unread."""

    name: str
    deleted_at: bytes
    revision: bytes
    digest: bytes
    history_sum: bytes
    history_count: int


class _SideRow(msgspec.Struct, array_like=True, frozen=True):
    stamp: bytes
    value: str | None
    secret: bool
    author: str
    node: str
    region: str


class _ConflictRow(msgspec.Struct, array_like=True, frozen=True):
    environment: str
    kind: int
    name: str
    kept: _SideRow
    lost: _SideRow


class _OperationRow(msgspec.Struct, array_like=True, frozen=True):
    environment: str
    stamp: bytes
    revision: bytes
    time_ms: int
    request_digest: bytes


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """A record of one node's log: `base` was merged into the base snapshot of its history."""

    base: Environment

    @property
    def name(self) -> str:
        """The environment whose base it is."""
        return self.base.name

    def as_log_record(self) -> LogRecord:
        """What watchers are told of it: a commit of no name that sets what the base holds."""
        base = self.base
        changes = [
            Change(kind, name, entry.value, entry.secret, entry.overwrites)
            for kind in Kind
            for name, entry in base.entries(kind).items()
        ]
        stamp = base.highest_stamp
        commit = Commit(base.name, stamp, tuple(changes), time_ms=stamp.time_ms)
        return LogRecord(partition_of(base.name), 0, 0, commit)


class RecordName(NamedTuple):
    """What a record of a commit is called in the whole cluster; a repaired one has origin 0."""

    partition: int
    origin: int
    seq: int


class EnvironmentHeader(NamedTuple):
    """What stands before the entries in an environment's blob."""

    digest: bytes
    history_sum: int
    history_count: int


@dataclass(frozen=True, slots=True)
class StoredEnvironment:
    """An environment's blob: its state, and what the header says of digest and history."""

    state: StoredState
    digest: bytes = b""
    history_sum: int = 0
    history_count: int = 0


_encoder = msgspec.msgpack.Encoder()
_commit_decoder = msgspec.msgpack.Decoder(_SalvagingCommitRow)
_log_decoder = msgspec.msgpack.Decoder(_LogRow)
_name_decoder = msgspec.msgpack.Decoder(_NameRow)
_local_decoder = msgspec.msgpack.Decoder(_LocalRow)
_environment_decoder = msgspec.msgpack.Decoder(_EnvironmentRow)
_header_decoder = msgspec.msgpack.Decoder(_HeaderRow)
_conflict_decoder = msgspec.msgpack.Decoder(_ConflictRow)
_operation_decoder = msgspec.msgpack.Decoder(_OperationRow)


def encode_commit(commit: Commit) -> bytes:
    """The bytes of a commit, the same in the journal, in history and between peers."""
    fields = (
        commit.environment,
        commit.stamp.to_bytes(),
        *_change_columns(commit.changes),
        commit.deletes,
        commit.author,
        commit.time_ms,
        commit.message,
        commit.operation,
        commit.blind,
        commit.node,
        commit.region,
        commit.revision,
        commit.request_digest,
    )
    if commit.salvages is not None:
        follows = commit.follows.to_bytes() if commit.follows != ZERO else b""
        late = encode_commit(commit.salvages)
        salvaging = _SalvagingCommitRow(*fields, commit.resolves, follows, late)
        return _SALVAGING_BYTE + _encoder.encode(salvaging)
    if commit.follows != ZERO:
        chained = _ChainedCommitRow(*fields, commit.resolves, commit.follows.to_bytes())
        return _CHAINED_BYTE + _encoder.encode(chained)
    if commit.resolves:
        return _FORMAT_BYTE + _encoder.encode(_ResolvingCommitRow(*fields, commit.resolves))
    return _FORMAT_BYTE + _encoder.encode(_CommitRow(*fields))


def _change_columns(
    changes: Sequence[Change],
) -> tuple[bytes, Sequence[str], Sequence[str | None], bytes, Sequence[int]]:
    """Flags, names, values, the table of stamps, and the place of `overwrites` in it."""
    table = _StampTable()
    if type(changes) is ChangeColumns:
        flags = changes.secrets.translate(_FLAG_OF_SECRET)
        places = _places(changes.overwrites, table)
        return flags, changes.names, changes.values, table.to_bytes(), places
    marks = bytearray()
    names, values, overwrites = [], [], []
    for kind, name, value, secret, overwritten in changes:
        marks.append((_METADATA if kind else 0) | (_SECRET if secret else 0))
        names.append(name)
        values.append(value)
        overwrites.append(table.place(overwritten))
    return bytes(marks), names, values, table.to_bytes(), overwrites


def decode_commit(raw: bytes) -> Commit:
    """The inverse of `encode_commit`; raises Corrupt, or StorageError for a newer format."""
    row = _decode(_commit_decoder, raw, "commit", SALVAGING_FORMAT)
    if row.salvages[:1] == _SALVAGING_BYTE:
        raise Corrupt("a commit salvages one that salvages another")
    changes = _changes(row, _stamps(row.stamps))
    return Commit(
        environment=row.environment,
        stamp=_stamp(row.stamp),
        changes=changes,
        deletes=row.deletes,
        author=row.author,
        time_ms=row.time_ms,
        message=row.message,
        operation=row.operation,
        blind=row.blind,
        node=row.node,
        region=row.region,
        revision=row.revision,
        request_digest=row.request_digest,
        resolves=row.resolves,
        follows=_stamp(row.follows) if row.follows else ZERO,
        salvages=decode_commit(row.salvages) if row.salvages else None,
    )


def _changes(row: _CommitRow, stamps: list[Stamp]) -> Sequence[Change]:
    """The changes of a commit; those of a whole environment stay the columns they are."""
    flags, names, values = row.flags, row.names, row.values
    if not len(flags) == len(names) == len(values) == len(row.overwrites):
        raise Corrupt("a commit's columns differ in length")
    try:
        overwrites = [stamps[place] for place in row.overwrites]
    except IndexError as error:
        raise Corrupt("a commit names a stamp that it does not hold") from error
    if len(names) >= _IN_COLUMNS and not flags.translate(None, _PUT_FLAGS):
        names = list(map(intern, names))
        if len(set(names)) == len(names) and None not in values:
            secrets = flags.translate(_SECRET_OF_FLAG)
            return ChangeColumns(names, cast("Sequence[str]", values), secrets, overwrites)
    return tuple(
        Change(_KINDS[flag & _METADATA], name, value, bool(flag & _SECRET), overwritten)
        for flag, name, value, overwritten in zip(flags, names, values, overwrites, strict=True)
    )


def encode_log_record(record: LogRecord, encoded_commit: bytes) -> bytes:
    """The bytes of a journal record around the bytes of its commit."""
    return _FORMAT_BYTE + _encoder.encode(
        _LogRow(record.partition, record.origin, record.seq, encoded_commit)
    )


def decode_log_record(raw: bytes) -> LogRecord:
    """The inverse of `encode_log_record`."""
    row = _decode(_log_decoder, raw, "journal record")
    return LogRecord(row.partition, row.origin, row.seq, decode_commit(row.commit))


def open_log_row(raw: bytes) -> tuple[int, int, int, bytes]:
    """(partition, origin, seq, stored bytes of the commit) of a log record, the commit unread.

    Raises Corrupt, or StorageError for a newer format.
    """
    row = _decode(_log_decoder, raw, "journal record")
    return row.partition, row.origin, row.seq, row.commit


def encode_base_record(record: BaseRecord) -> bytes:
    """The bytes of a log row that merges a base in."""
    stored = StoredEnvironment(StoredState(record.base, b""))
    return _LOCAL_BYTE + _encoder.encode(_LocalRow(_BASE_KIND, encode_environment(stored)))


def decode_own_row(raw: bytes) -> tuple[LogRecord, bytes] | tuple[BaseRecord, bytes]:
    """A row of a node's own log: the record, and the stored bytes of its commit, or of its base.

    Raises Corrupt, or StorageError for a newer format or kind.
    """
    if raw[:1] != _LOCAL_BYTE:
        row = _decode(_log_decoder, raw, "journal record")
        return LogRecord(row.partition, row.origin, row.seq, decode_commit(row.commit)), row.commit
    local = _decode(_local_decoder, raw, "journal record", LOCAL_FORMAT)
    if local.kind != _BASE_KIND:
        raise StorageError(
            f"a stored journal record is of kind {local.kind}, which this version does not know",
            hint="a newer envd wrote it: run that version or a later one",
            reason="NEWER_FORMAT",
        )
    return BaseRecord(decode_environment(local.payload).state.environment), local.payload


def record_name(raw: bytes) -> RecordName | None:
    """The name of a log row without reading its commit; None for what only its node needs.

    Raises Corrupt, or StorageError for a newer format.
    """
    if raw[:1] == _LOCAL_BYTE:
        return None
    row = _decode(_name_decoder, raw, "journal record")
    return RecordName(row.partition, row.origin, row.seq)


def encode_environment(stored: StoredEnvironment) -> bytes:
    """The blob of one environment; also used for the base snapshot of its history."""
    environment = stored.state.environment
    table = _StampTable()
    variables = _columns(environment.variables, table)
    metadata = _columns(environment.metadata, table)
    return _FORMAT_BYTE + _encoder.encode(
        _EnvironmentRow(
            environment.name,
            environment.deleted_at.to_bytes(),
            stored.state.revision,
            stored.digest,
            stored.history_sum.to_bytes(_HISTORY_SUM_BYTES),
            stored.history_count,
            table.to_bytes(),
            variables,
            metadata,
        )
    )


def decode_environment(raw: bytes) -> StoredEnvironment:
    """The inverse of `encode_environment`."""
    row = _decode(_environment_decoder, raw, "environment")
    stamps = _stamps(row.stamps)
    environment = Environment(
        row.name,
        _entries(row.variables, stamps),
        _entries(row.metadata, stamps),
        _stamp(row.deleted_at),
    )
    return StoredEnvironment(
        StoredState(environment, row.revision),
        row.digest,
        _history_sum(row.history_sum),
        row.history_count,
    )


def decode_environment_header(raw: bytes) -> EnvironmentHeader:
    """What stands before the entries in an environment's blob, without reading those."""
    row = _decode(_header_decoder, raw, "environment")
    return EnvironmentHeader(row.digest, _history_sum(row.history_sum), row.history_count)


def encode_conflict(record: ConflictRecord) -> bytes:
    """The bytes of one conflict record."""
    sides = [
        _SideRow(
            side.stamp.to_bytes(), side.value, side.secret, side.author, side.node, side.region
        )
        for side in (record.kept, record.lost)
    ]
    return _FORMAT_BYTE + _encoder.encode(
        _ConflictRow(record.environment, int(record.kind), record.name, *sides)
    )


def decode_conflict(raw: bytes) -> ConflictRecord:
    """The inverse of `encode_conflict`."""
    row = _decode(_conflict_decoder, raw, "conflict")
    kept, lost = (
        Side(
            _stamp(side.stamp),
            side.value,
            side.secret,
            side.author,
            side.node,
            side.region,
        )
        for side in (row.kept, row.lost)
    )
    try:
        kind = Kind(row.kind)
    except ValueError:
        raise Corrupt("a stored conflict is about an unknown kind") from None
    return ConflictRecord(row.environment, kind, row.name, kept, lost)


def encode_operation(result: OperationResult) -> bytes:
    """The bytes under an operation id."""
    return _FORMAT_BYTE + _encoder.encode(
        _OperationRow(
            result.environment,
            result.stamp.to_bytes(),
            result.revision,
            result.time_ms,
            result.request_digest,
        )
    )


def decode_operation(raw: bytes) -> OperationResult:
    """The inverse of `encode_operation`."""
    row = _decode(_operation_decoder, raw, "operation")
    return OperationResult(
        row.environment, _stamp(row.stamp), row.revision, row.time_ms, row.request_digest
    )


class _StampTable:
    """Stamps in the order of their first use, each once."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[Stamp, int] = {}

    def place(self, stamp: Stamp) -> int:
        return self._places.setdefault(stamp, len(self._places))

    def to_bytes(self) -> bytes:
        return b"".join([stamp.to_bytes() for stamp in self._places])


def _stamp(raw: bytes) -> Stamp:
    if len(raw) != STAMP_BYTES:
        raise Corrupt("a stored stamp has a wrong length")
    return Stamp.from_bytes(raw)


def _history_sum(raw: bytes) -> int:
    if len(raw) != _HISTORY_SUM_BYTES:
        raise Corrupt("a stored history sum has a wrong length")
    return int.from_bytes(raw)


def _stamps(raw: bytes) -> list[Stamp]:
    if len(raw) % STAMP_BYTES:
        raise Corrupt("a table of stamps ends within a stamp")
    return [
        Stamp.from_bytes(raw[start : start + STAMP_BYTES])
        for start in range(0, len(raw), STAMP_BYTES)
    ]


def _columns(entries: Mapping[str, Entry], table: _StampTable) -> _Columns:
    columns = columns_of(entries)
    return _Columns(
        columns.names,
        columns.values_or_none,
        columns.secrets,
        _places(columns.stamps, table),
        _places(columns.overwrites, table),
    )


def _places(stamps: Sequence[Stamp], table: _StampTable) -> list[int]:
    """The place of each stamp in the table, which learns the new ones."""
    if stamps and same_for_all(stamps):
        return [table.place(stamps[0])] * len(stamps)
    return [table.place(stamp) for stamp in stamps]


def _entries(columns: _Columns, stamps: list[Stamp]) -> EntryColumns:
    names, values, secrets = list(map(intern, columns.names)), columns.values, columns.secrets
    try:
        stamp_column = [stamps[place] for place in columns.stamps]
        overwrites = [stamps[place] for place in columns.overwrites]
    except IndexError:
        raise _misfit() from None
    lengths = {len(names), len(values), len(secrets), len(stamp_column), len(overwrites)}
    if len(lengths) != 1 or len(set(names)) != len(names):
        raise _misfit()
    return EntryColumns(names, values, secrets, stamp_column, overwrites)


def _misfit() -> Corrupt:
    return Corrupt("an environment's columns do not fit each other")


def _decode(
    decoder: msgspec.msgpack.Decoder[_Row], raw: bytes, what: str, newest: int = FORMAT
) -> _Row:
    if not raw or raw[0] < FORMAT:
        raise Corrupt(f"a stored {what} is of no known format")
    if raw[0] > newest:
        raise StorageError(
            f"a stored {what} has format {raw[0]}; this version reads format {newest}",
            hint="a newer envd wrote it: run that version or a later one",
            reason="NEWER_FORMAT",
        )
    try:
        return decoder.decode(memoryview(raw)[1:])
    except msgspec.DecodeError as error:
        raise Corrupt(f"a stored {what} does not decode") from error
    except (UnicodeDecodeError, RecursionError):
        # A UnicodeDecodeError carries the bytes, which may be those of a value.
        raise Corrupt(f"a stored {what} does not decode") from None
