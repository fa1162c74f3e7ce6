"""Partitions that this node lets go of, in the tables: dropped at once, taken away bit by bit.

    system    "dropped"    -> the partitions of which rows are left, u16 each

One transaction drops a partition: its root becomes 0, its vectors go, and so do its rows, as many
as may go in one transaction. Where some are left, the partition is under `dropped` from then on:
readers, backups too, see nothing of it, while later transactions take the rest. So a drop is as
atomic and as durable as one small transaction, however large the partition, and none of them holds
up flushes for long or fills memory with changed pages. After a crash `dropped` says what is left.

What is new must not stand among what is old: a flush that writes to a partition under `dropped`
takes away all that is left of it first, in its own transaction.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

from envd.storage.flush import Figures
from envd.storage.rows import PARTITION_BYTES, VECTOR_KEY, RowWriter, index_entry

ROWS = 4096
"""So many rows go in one transaction: a hundredth of a second of a thread's work."""
ALL_ROWS = sys.maxsize
DROPPED = b"dropped"
_ROWS_A_PAUSE = 64
_PARTITION = struct.Struct(">H")


def marks_in(raw: bytes | None) -> frozenset[int]:
    """The partitions under `dropped`."""
    return frozenset() if raw is None else frozenset(at for (at,) in _PARTITION.iter_unpack(raw))


def drop_vectors(writer: RowWriter, partition: int, keep_origin: int) -> None:
    """Take away the vectors of a partition but for that of one origin."""
    prefix = partition.to_bytes(PARTITION_BYTES)
    with writer.cursor(b"vectors") as cursor:
        more = cursor.set_range(prefix)
        while more and (key := bytes(cursor.key())).startswith(prefix):
            if VECTOR_KEY.unpack(key)[1] == keep_origin:
                more = cursor.next()
            else:
                cursor.delete()
                more = bool(cursor.key())


class Purge:
    """What one transaction takes away, of at most `rows` rows; `pause` is called now and then."""

    def __init__(
        self, writer: RowWriter, known: Figures, *, rows: int, pause: Callable[[], None]
    ) -> None:
        self._writer = writer
        self._known = known
        self._left = rows
        self._pause = pause
        self._environments, self._variables = known.environments, known.variables
        self._any_conflicts = bool(writer.entries(b"conflicts"))

    def take(self, partition: int) -> bool:
        """Take away what is there of a partition; tell whether that was all."""
        prefix = partition.to_bytes(PARTITION_BYTES)
        return (
            self._take_below(b"history", prefix)
            and self._take_below(b"bases", prefix)
            and self._take_below(b"collectable", prefix)
            and self._take_environments(prefix)
        )

    def _take_below(self, table: bytes, prefix: bytes) -> bool:
        with self._writer.cursor(table) as cursor:
            more = cursor.set_range(prefix)
            while more and bytes(cursor.key()).startswith(prefix):
                if self._left <= 0:
                    return False
                cursor.delete()
                more = bool(cursor.key())
                self._count()
        return True

    def _take_environments(self, prefix: bytes) -> bool:
        """An environment goes after its conflicts and its index row, which its name leads to."""
        with self._writer.cursor(b"environments") as cursor:
            more = cursor.set_range(prefix)
            while more and (key := bytes(cursor.key())).startswith(prefix):
                name = key[PARTITION_BYTES:]
                if self._any_conflicts and not self._take_below(b"conflicts", name + b"\0"):
                    return False
                if self._left <= 0:
                    return False
                self._take_index(name)
                cursor.delete()
                more = bool(cursor.key())
                self._count()
        return True

    def _take_index(self, name: bytes) -> None:
        value = self._writer.raw(b"index", name)
        if value is not None:
            entry = index_entry(name, value)
            self._environments -= entry.exists
            self._variables -= entry.variables
            self._writer.delete(b"index", name)
            self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left % _ROWS_A_PAUSE == 0:
            self._pause()

    def end(self, marks: Iterable[int]) -> Figures:
        """Write the counters, and of which partitions something is left; return the figures."""
        packed = b"".join(map(_PARTITION.pack, sorted(marks)))
        if packed:
            self._writer.put(b"system", DROPPED, packed)
        else:
            self._writer.delete(b"system", DROPPED)
        for counter, value in (
            (b"environments", self._environments),
            (b"variables", self._variables),
        ):
            self._writer.put(b"system", counter, value.to_bytes(8))
        return replace(
            self._known,
            environments=self._environments,
            variables=self._variables,
            conflicts=self._writer.entries(b"conflicts"),
        )
