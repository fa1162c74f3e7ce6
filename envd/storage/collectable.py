"""Where there may be something to collect below a floor, so that nobody looks anywhere else.

    collectable    partition u16, name    -> the lowest floor (hlc u64) at which it is worth a look
    collectable    partition u16          -> 0, and the name up to which its environments are noted

A flush notes what it writes; who looks and finds nothing notes when to look again. A row of the
second kind says that nobody noted anything yet: an older version wrote the state, or a restore.
A system counter tells, as the one of the roots does, up to which lsn all is noted.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from envd.storage.rows import PARTITION_BYTES, RowWriter
from envd.storage.tables import Tables, row_at

COLLECTABLE_LSN = b"collectable_lsn"
_TABLE = b"collectable"
_HLC_BYTES = 8


class Due(NamedTuple):
    """An environment, by its key, and the floor at which to look at it."""

    key: bytes
    hlc: int


def note(writer: RowWriter, key: bytes, hlc: int) -> None:
    """An environment is worth a look at this floor, or an earlier one that was noted."""
    known = writer.get(_TABLE, key)
    if known is None or hlc < _hlc(known):
        writer.put(_TABLE, key, hlc.to_bytes(_HLC_BYTES))


def settle(writer: RowWriter, key: bytes, hlc: int | None) -> None:
    """It was looked at: the next time at this floor, None: once a flush notes it."""
    if hlc is None:
        writer.delete(_TABLE, key)
    else:
        writer.put(_TABLE, key, hlc.to_bytes(_HLC_BYTES))


def is_due(tables: Tables, partition: int, floor: int) -> bool:
    """Tell whether anything of a partition is worth a look at this floor."""
    prefix = partition.to_bytes(PARTITION_BYTES)
    for key, value in tables.rows_from(_TABLE, prefix):
        if not key.startswith(prefix):
            return False
        if _hlc(value) <= floor:
            return True
    return False


def due(writer: RowWriter, partition: int, after: bytes, limit: int) -> list[Due]:
    """Rows of a partition after the key `after`, in order, at most `limit`, due or not."""
    prefix = partition.to_bytes(PARTITION_BYTES)
    found: list[Due] = []
    with writer.cursor(_TABLE) as cursor:
        more = cursor.set_range((after or prefix) + b"\0")
        while more and len(found) < limit:
            key, value = row_at(cursor)
            if not key.startswith(prefix):
                break
            found.append(Due(key, _hlc(writer.open(_TABLE, key, value))))
            more = cursor.next()
    return found


def note_some(writer: RowWriter, partition: int, limit: int) -> int:
    """Note environments of a partition of which nobody noted anything; return how many."""
    prefix = partition.to_bytes(PARTITION_BYTES)
    mark = writer.get(_TABLE, prefix)
    if mark is None:
        return 0
    start = prefix + mark[_HLC_BYTES:] + b"\0"
    with writer.cursor(b"environments") as cursor:
        first = bool(cursor.set_range(start))
        keys = islice(cursor.iternext(values=False), limit) if first else ()
        found = [key for key in map(bytes, keys) if key.startswith(prefix)]
    for key in found:
        note(writer, key, 0)
    if len(found) < limit:
        writer.delete(_TABLE, prefix)
    else:
        writer.put(_TABLE, prefix, bytes(_HLC_BYTES) + found[-1][PARTITION_BYTES:])
    return len(found)


def mark_all(writer: RowWriter, lsn: int) -> None:
    """Of no partition all is noted."""
    with writer.cursor(b"environments") as cursor:
        more, prefixes = cursor.first(), []
        while more:
            prefixes.append(bytes(cursor.key())[:PARTITION_BYTES])
            following = int.from_bytes(prefixes[-1]) + 1
            more = cursor.set_range(following.to_bytes(PARTITION_BYTES))
    for prefix in prefixes:
        writer.put(_TABLE, prefix, bytes(_HLC_BYTES))
    writer.put(b"system", COLLECTABLE_LSN, lsn.to_bytes(8))


def _hlc(value: bytes) -> int:
    return int.from_bytes(value[:_HLC_BYTES])
