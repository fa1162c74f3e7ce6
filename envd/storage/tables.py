"""The LMDB file behind the state: its tables, one snapshot that reads see, write transactions.

How a value looks is told in `rows`. Each write transaction has a subkey of its own and counts
its values.

`metasync` is off: a transaction is sure to survive a power cut once the next one has been
written, or once `sync` returned. Opening makes safe what a killed process left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from envd.core.errors import EnvdError, StorageError
from envd.files import sync_directory
from envd.ports import Sealer
from envd.storage.check import DATA_NAME
from envd.storage.disk import make_directory, unusable
from envd.storage.pages import TABLES
from envd.storage.rows import PURPOSE, RowOpener, RowWriter, damaged


class Tables:
    """The tables in one directory, which is there; `check` must have passed its file.

    Reads belong to one thread, writing to one at a time, the same or another.
    """

    def __init__(self, directory: Path, sealer: Sealer, *, map_size_bytes: int) -> None:
        self._sealer = sealer
        self.path = directory / DATA_NAME
        self._rows = RowOpener(sealer, self.path)
        with self.faults():
            self._env = lmdb.open(
                str(directory),
                map_size=map_size_bytes,
                max_dbs=len(TABLES),
                metasync=False,
                mode=0o600,
                max_readers=512,
                # A read is of a few pages anywhere. The system would bring up to megabytes around
                # each, and once the file is larger than memory, drop as much that is wanted.
                readahead=False,
            )
        try:
            with self.faults():
                with self._env.begin(write=True) as transaction:
                    self._tables = {
                        name: self._env.open_db(name, txn=transaction) for name in TABLES
                    }
                self._env.sync(True)
                sync_directory(directory)
                self._reader = self._env.begin()
        except BaseException:
            self._env.close()
            raise

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Tell LMDB's errors as ours."""
        try:
            yield
        except (lmdb.Error, OSError) as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> EnvdError:
        match error:
            case lmdb.MapFullError():
                return StorageError(
                    f"the state in {self.path} has reached the size that its map may have; what "
                    "was acknowledged stays in the journal",
                    hint="raise `storage.map_size_bytes` and restart envd",
                    reason="STATE_FULL",
                )
            case lmdb.CorruptedError() | lmdb.PageNotFoundError() | lmdb.InvalidError():
                return damaged(f"the state in {self.path} is damaged: {error}")
            case OSError():
                return unusable(self.path, error)
            case _:
                return StorageError(
                    f"the state in {self.path} can't be used: {error}",
                    hint="check the disk (space, permissions)",
                    reason="STATE_UNUSABLE",
                )

    # -- reading -------------------------------------------------------------------

    def refresh(self) -> None:
        """Let reads see what was committed since the last time."""
        with self.faults():
            self._reader.abort()
            self._reader = self._env.begin()

    @contextmanager
    def cursor(self, table: bytes) -> Iterator[lmdb.Cursor]:
        """A cursor over the snapshot."""
        with self.faults(), self._reader.cursor(db=self._tables[table]) as cursor:
            yield cursor

    def raw(self, table: bytes, key: bytes) -> bytes | None:
        """A value as it is stored."""
        try:
            value: bytes | None = self._reader.get(key, db=self._tables[table])
        except (lmdb.Error, OSError) as error:
            raise self._told(error) from error
        return value

    def get(self, table: bytes, key: bytes) -> bytes | None:
        """The plaintext of a value; raises Corrupt."""
        value = self.raw(table, key)
        return None if value is None else self.open(table, key, value)

    def open(self, table: bytes, key: bytes, value: bytes) -> bytes:
        """The plaintext of a value that was read; raises Corrupt."""
        return self._rows.open(table, key, value)

    def rows(self, table: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All (key, plaintext) of one table, in order; raises Corrupt."""
        with self.cursor(table) as cursor:
            for raw_key, raw_value in cursor:
                key = bytes(raw_key)
                yield key, self.open(table, key, bytes(raw_value))

    def rows_from(self, table: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(key, plaintext) from the key `start` on, in order; raises Corrupt."""
        with self.cursor(table) as cursor:
            more = cursor.set_range(start)
            while more:
                key, value = row_at(cursor)
                yield key, self.open(table, key, value)
                more = cursor.next()

    def entries(self, table: bytes) -> int:
        """How many rows a table has."""
        with self.faults():
            return int(self._reader.stat(self._tables[table])["entries"])

    # -- writing -------------------------------------------------------------------

    @contextmanager
    def write(self) -> Iterator[RowWriter]:
        """One write transaction; raises StorageError where it failed, and then left nothing."""
        subkey = self._sealer.new_subkey(PURPOSE)
        with self.faults(), self._env.begin(write=True) as transaction:
            yield RowWriter(transaction, self._tables, subkey, self._rows)

    def sync(self) -> None:
        """Make all that was written sure to survive a power cut."""
        with self.faults():
            self._env.sync(True)

    # -- the whole -----------------------------------------------------------------

    def copy_to(self, directory: Path) -> None:
        """Write a compact, consistent copy into `directory` while work goes on."""
        make_directory(directory)
        with self.faults():
            self._env.copy(str(directory), compact=True)

    def forget_dead_readers(self) -> None:
        """Free what a killed process that read the state still holds on to."""
        with self.faults():
            self._env.reader_check()

    def close(self) -> None:
        """Make everything durable and let go."""
        with self.faults():
            self._reader.abort()
            try:
                self._env.sync(True)
            finally:
                self._env.close()


def row_at(cursor: lmdb.Cursor) -> tuple[bytes, bytes]:
    """The (key, stored value) under a cursor."""
    return bytes(cursor.key()), bytes(cursor.value())
