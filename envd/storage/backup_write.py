"""Writing a backup: the rows of a snapshot of the state, as the bytes of a file.

The snapshot is one read transaction of LMDB, so it is consistent and work goes on beside it;
whoever makes it flushes the state before, and then it holds all that was acknowledged by then.
It belongs in a process of its own (`backup_process`): reading and sealing a million variables
takes seconds of a whole core, and LMDB must not be opened twice in one process.

Until the transaction ends LMDB reuses no page that was given up meanwhile, so its file grows by
what is written during a backup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Self

import lmdb

from envd.core.errors import Corrupt, StorageError
from envd.core.ring import partition_of
from envd.ports import Sealer
from envd.storage.backup_check import RowCheck
from envd.storage.backup_format import (
    DATA,
    END_MAGIC,
    FIGURES,
    HASH_BYTES,
    LAST,
    TAIL,
    ChunkCipher,
    encode_json,
    frame,
)
from envd.storage.backup_rows import NodeRow, Row, RowKind, encode_node, encode_row
from envd.storage.check import DATA_NAME, STATE_NAME
from envd.storage.disk import RESTORE_HINT
from envd.storage.pages import FIRST_TABLES, TABLES
from envd.storage.purge import DROPPED, marks_in
from envd.storage.rows import PARTITION_BYTES, RowOpener, damaged


class Snapshot:
    """The tables of a data directory as they are now, read only; a context manager.

    The directory may be that of a running node, of another process. Raises Corrupt for damage,
    StorageError where it can't be read.
    """

    def __init__(
        self, data_dir: Path, sealer: Sealer, digest_key: bytes, *, map_size_bytes: int
    ) -> None:
        directory = data_dir / STATE_NAME
        self._path = directory / DATA_NAME
        self._rows = RowOpener(sealer, self._path)
        self._digest_key = digest_key
        self._hidden: frozenset[int] = frozenset()
        try:
            self._env = lmdb.open(
                str(directory),
                map_size=map_size_bytes,
                max_dbs=len(TABLES),
                readonly=True,
                create=False,
                max_readers=512,
            )
            self._tables = {name: self._env.open_db(name, create=False) for name in FIRST_TABLES}
            self._reader = self._env.begin()
        except lmdb.Error as error:
            raise StorageError(
                f"the state in {self._path} can't be read: {error}",
                hint=f"see that envd runs well; otherwise {RESTORE_HINT}",
                reason="STATE_UNUSABLE",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.abort()
        self._env.close()

    @property
    def covered_lsn(self) -> int:
        """The last record of the journal that is in it."""
        return self._counter(b"covered_lsn")

    def rows(self) -> Iterator[Row]:
        """All of it, in the order of a backup; raises Corrupt for a damaged record."""
        try:
            self._hidden = marks_in(self._value(b"system", DROPPED))
            node = NodeRow(digest_key=self._digest_key, hlc_bound=self._counter(b"hlc_bound"))
            yield Row(RowKind.NODE, b"", encode_node(node))
            yield from self._table(b"vectors", RowKind.VECTOR)
            yield from self._table(b"operations", RowKind.OPERATION)
            yield from self._environments()
            for row in self._table(b"conflicts", RowKind.CONFLICT):
                if not self._hidden or self._partition_of_conflict(row) not in self._hidden:
                    yield row
        except lmdb.Error as error:
            raise damaged(f"the state in {self._path} is damaged: {error}") from error

    def _table(self, table: bytes, kind: RowKind) -> Iterator[Row]:
        with self._reader.cursor(db=self._tables[table]) as cursor:
            for raw_key, raw_value in cursor:
                key, value = bytes(raw_key), bytes(raw_value)
                yield Row(kind, key, self._rows.open(table, key, value))

    def _environments(self) -> Iterator[Row]:
        """Each environment with its base and its commits; both tables are in the same order."""
        history = self._reader.cursor(db=self._tables[b"history"])
        with history, self._reader.cursor(db=self._tables[b"environments"]) as cursor:
            more = self._seen(history, history.first())
            for raw_key, raw_value in cursor:
                key, value = bytes(raw_key), bytes(raw_value)
                if _partition_in(key) in self._hidden:
                    continue
                name = key[PARTITION_BYTES:]
                opened = self._rows.open(b"environments", key, value)
                yield Row(RowKind.ENVIRONMENT, name, opened)
                base = self._value(b"bases", key)
                if base is not None:
                    yield Row(RowKind.BASE, name, base)
                prefix = key + b"\0"
                while more and (row := bytes(history.key())).startswith(prefix):
                    commit = self._rows.open(b"history", row, bytes(history.value()))
                    yield Row(RowKind.COMMIT, row[len(prefix) :], commit)
                    more = self._seen(history, history.next())
            if more:
                raise damaged(f"the state in {self._path} has history without an environment")

    def _seen(self, history: lmdb.Cursor, more: bool) -> bool:
        """Go on to a commit that readers see: one of no dropped partition."""
        while more and (partition := _partition_in(bytes(history.key()))) in self._hidden:
            more = history.set_range((partition + 1).to_bytes(PARTITION_BYTES))
        return more

    @staticmethod
    def _partition_of_conflict(row: Row) -> int:
        return partition_of(row.key[: row.key.index(0)].decode())

    def _value(self, table: bytes, key: bytes) -> bytes | None:
        value = self._reader.get(key, db=self._tables[table])
        return None if value is None else self._rows.open(table, key, bytes(value))

    def _counter(self, name: bytes) -> int:
        value = self._value(b"system", name)
        return 0 if value is None else int.from_bytes(value)


def _partition_in(key: bytes) -> int:
    return int.from_bytes(key[:PARTITION_BYTES])


def encoded(
    preamble: bytes, cipher: ChunkCipher, rows: Iterable[Row], chunk_bytes: int
) -> Iterator[bytes]:
    """The bytes of a whole backup file, in pieces; raises Corrupt where rows don't fit."""
    out, check = _Out(), RowCheck()
    yield out.note(preamble)
    buffer, number = bytearray(), 0
    for row in rows:
        try:
            check.see(row)
        except Corrupt as error:
            raise damaged(f"the node's state can't be backed up: {error.message}") from error
        buffer += encode_row(*row)
        while len(buffer) > chunk_bytes:
            chunk = bytes(buffer[:chunk_bytes])
            del buffer[:chunk_bytes]
            yield out.note(frame(DATA, number, cipher.seal(DATA, number, chunk)))
            number += 1
    check.end(check.figures)
    figures = encode_json(check.figures)
    yield out.note(frame(LAST, number, cipher.seal(LAST, number, bytes(buffer), figures)))
    yield out.tail(figures, number + 1)


class _Out:
    """Counts and hashes what is written."""

    def __init__(self) -> None:
        self._size = 0
        self._hash = blake2b(digest_size=HASH_BYTES)

    def note(self, data: bytes) -> bytes:
        self._size += len(data)
        self._hash.update(data)
        return data

    def tail(self, figures: bytes, number: int) -> bytes:
        """Frame F and the tail."""
        position = self._size
        last = frame(FIGURES, number, figures)
        self.note(last + TAIL.pack(position, b"", b"")[: -HASH_BYTES - len(END_MAGIC)])
        return last + TAIL.pack(position, self._hash.digest(), END_MAGIC)
