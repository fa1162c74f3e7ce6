"""The table of conflicts: for each environment exactly what its history says, when flushed.

    conflicts    name, NUL, conflict key (58 bytes)    -> conflict record

A name has no byte below "-", so the rows of one environment stand together, before those of
every longer name, and environments stand in order of their names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from envd.core.environment import Environment
from envd.core.history import ConflictRecord, conflicts
from envd.core.names import is_system
from envd.core.ring import partition_of
from envd.storage.rows import RowWriter
from envd.storage.tables import Tables
from envd.wire import records

_TABLE = b"conflicts"
_BEHIND = b"\1"
"""Behind an environment's name: after all its rows, before those of every other name."""


def ordered(found: Iterable[ConflictRecord], digest_key: bytes) -> list[ConflictRecord]:
    """The conflicts of one environment in the order in which they are stored."""
    return sorted(found, key=lambda record: record.key(digest_key))


def listed(
    tables: Tables, prefix: str, after: str, limit: int, hidden: Collection[int] = ()
) -> list[ConflictRecord]:
    """Conflicts below `prefix` after the name `after`; whole environments, until `limit`.

    None of partitions that are hidden.
    """
    found: list[ConflictRecord] = []
    if limit > 0 and prefix > after:
        _collect(tables, _first_key(prefix), _first_key(prefix), limit, hidden, found)
    if len(found) < limit:
        below = prefix.encode() + b"/" if prefix else b""
        start = max(below, after.encode() + _BEHIND if after else b"")
        _collect(tables, start, below, limit, hidden, found)
    return found


def _collect(
    tables: Tables,
    start: bytes,
    below: bytes,
    limit: int,
    hidden: Collection[int],
    found: list[ConflictRecord],
) -> None:
    """Add the conflicts from `start` on while keys begin with `below`."""
    for key, value in tables.rows_from(_TABLE, start):
        if not key.startswith(below):
            return
        record = records.decode_conflict(value)
        if not below and is_system(record.environment):
            continue  # Below "" is all that callers see.
        if hidden and partition_of(record.environment) in hidden:
            continue
        if len(found) >= limit and record.environment != found[-1].environment:
            return
        found.append(record)


def has_rows(writer: RowWriter, name: str) -> bool:
    """Tell whether any conflict of an environment is in the table."""
    first = _first_key(name)
    with writer.cursor(_TABLE) as cursor:
        return bool(cursor.set_range(first)) and bytes(cursor.key()).startswith(first)


def rewrite(
    writer: RowWriter,
    name: str,
    commits: Iterable[bytes],
    base: Environment,
    digest_key: bytes,
) -> None:
    """Make the rows of one environment those of its history, oldest first, after `base`."""
    found = conflicts([records.decode_commit(encoded) for encoded in commits], base)
    first = _first_key(name)
    wanted = {first + record.key(digest_key): records.encode_conflict(record) for record in found}
    with writer.cursor(_TABLE) as cursor:
        more = cursor.set_range(first)
        while more and (key := bytes(cursor.key())).startswith(first):
            if wanted.get(key) == writer.open(_TABLE, key, bytes(cursor.value())):
                del wanted[key]
                more = cursor.next()
            else:  # It is over, or its lost side is known from the base alone by now.
                cursor.delete()
                more = bool(cursor.key())
    for key, encoded in sorted(wanted.items()):
        writer.put(_TABLE, key, encoded)


def _first_key(name: str) -> bytes:
    return name.encode() + b"\0"
