"""Log records that must not be taken in yet, because they are from the future, kept until then.

    quarantine    partition u16, origin u64, seq u64, hash of the row    -> the row

They are outside of everything: the state, the vectors, the fingerprints. A record whose name
can't be read stands last.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from struct import error as StructError  # noqa: N812

from envd.core.errors import StorageError, Unavailable
from envd.storage.rows import PARTITION_BYTES
from envd.storage.tables import Tables
from envd.wire import records

MAX_BYTES = 64 << 20
_TABLE = b"quarantine"
_NAME = Struct(">HQQ")
_HASH_BYTES = 8
_NAMELESS = b"\xff" * _NAME.size


def quarantine_key(row: bytes) -> bytes:
    """Where a record stands: in order of its name, each one once."""
    try:
        name = records.record_name(row)
        place = _NAMELESS if name is None else _NAME.pack(*name)
    except (StorageError, StructError):
        place = _NAMELESS
    return place + blake2b(row, digest_size=_HASH_BYTES).digest()


def full() -> Unavailable:
    """The refusal of a record that finds no room."""
    return Unavailable(
        f"the node holds back {MAX_BYTES >> 20} MiB of records from the future, and takes no more",
        hint="set the clocks of the nodes right (NTP): envctl doctor shows how far they are apart",
        reason="QUARANTINE_FULL",
    )


class Quarantine:
    """The table; changes are durable when they return."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        with tables.cursor(_TABLE) as cursor:
            self._bytes = sum(len(value) for _, value in cursor)

    def rows(self) -> list[bytes]:
        """All of them, in order of their names; raises Corrupt."""
        return [row for _, row in self._tables.rows(_TABLE)]

    def holds(self, partition: int) -> bool:
        """Tell whether a record of a partition is in it; of some newer ones it can't be told."""
        prefix = partition.to_bytes(PARTITION_BYTES)
        with self._tables.cursor(_TABLE) as cursor:
            return bool(cursor.set_range(prefix)) and bytes(cursor.key()).startswith(prefix)

    def put(self, row: bytes) -> None:
        """Keep a record; raises Unavailable where there is no room for it."""
        key = quarantine_key(row)
        with self._tables.write() as writer:
            if writer.raw(_TABLE, key) is not None:
                return
            if self._bytes + len(row) > MAX_BYTES:
                raise full()
            writer.put(_TABLE, key, row)
        self._tables.sync()
        self._bytes += len(row)  # As good as the bytes that it takes.

    def release(self, row: bytes) -> None:
        """Let a record go; one that is not there is no error."""
        key = quarantine_key(row)
        with self._tables.write() as writer:
            if writer.raw(_TABLE, key) is None:
                return
            writer.delete(_TABLE, key)
        self._tables.sync()
        self._bytes -= len(row)
