"""How one row of the state's tables looks: sealed values, index values, keys.

    value    CRC-32, format u8, subkey header, counter u32, sealed bytes
    index    CRC-32, format u8, exists u8, revision, count of variables u32

The CRC covers key and value, since LMDB has no checksums; the AAD of a sealed value is table
and key. Shared by the state itself and by backups, which read and write whole tables.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import lmdb

from envd.core.answers import ListedEnvironment
from envd.core.errors import Corrupt, StorageError
from envd.core.ring import partition_of
from envd.ports import SUBKEY_HEADER_BYTES, Sealer, StoredState, Subkey
from envd.storage.disk import RESTORE_HINT
from envd.storage.pages import value_is_whole

STATE_FORMAT = 1
PURPOSE = b"state"
VECTOR_KEY = struct.Struct(">HQ")
NODE_KEY = struct.Struct(">Q")
CURSOR_VALUE = struct.Struct(">QQ")
PARTITION_BYTES = 2
_PREFIX = struct.Struct(f">IB{SUBKEY_HEADER_BYTES}sI")
_INDEX = struct.Struct(">IBB16sI")
_MAX_CACHED_SUBKEYS = 1024


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What the index says of one environment; `exists` is False for one that was deleted."""

    environment: str
    exists: bool
    revision: bytes
    variables: int

    def listed(self) -> ListedEnvironment:
        return ListedEnvironment(self.environment, self.revision.hex(), self.variables)


def environment_key(name: str) -> bytes:
    """The key of an environment in the tables that are ordered by partition."""
    return partition_of(name).to_bytes(PARTITION_BYTES) + name.encode()


def index_value(name: bytes, state: StoredState) -> bytes:
    """The index's value for an environment."""
    environment = state.environment
    fields = (STATE_FORMAT, environment.exists, state.revision, environment.live_count())
    return _INDEX.pack(crc32(_INDEX.pack(0, *fields)[4:], crc32(name)), *fields)


def index_entry(key: bytes, value: bytes) -> IndexEntry:
    """The inverse of `index_value`; raises Corrupt, or StorageError for a newer format."""
    if not value_is_whole(key, value):
        raise damaged("a record in table index is damaged")
    check_format(value)
    _, _, exists, revision, variables = _INDEX.unpack(value)
    return IndexEntry(key.decode(), bool(exists), revision, variables)


def check_format(value: bytes) -> None:
    """The format byte stands at the same place in every value."""
    if value[4] != STATE_FORMAT:
        raise StorageError(
            f"the state holds a record of format {value[4]}; "
            f"this version reads format {STATE_FORMAT}",
            hint="a newer envd wrote it: run that version or a later one",
            reason="NEWER_FORMAT",
        )


def damaged(message: str) -> Corrupt:
    """The error for a state that is not what was written."""
    return Corrupt(message, hint=RESTORE_HINT, reason="STATE_DAMAGED")


class RowOpener:
    """Opens sealed values; `path` is the state's file, for messages."""

    def __init__(self, sealer: Sealer, path: Path) -> None:
        self._sealer = sealer
        self._path = path
        self._subkeys: dict[bytes, Subkey] = {}

    def open(self, table: bytes, key: bytes, value: bytes) -> bytes:
        """The plaintext of one value; raises Corrupt, or StorageError for a newer format."""
        if not value_is_whole(key, value):
            raise damaged(f"a record in table {table.decode()} of {self._path} is damaged")
        check_format(value)
        _, _, header, counter = _PREFIX.unpack_from(value)
        subkey = self._subkeys.get(header)
        if subkey is None:
            if len(self._subkeys) >= _MAX_CACHED_SUBKEYS:
                self._subkeys.clear()
            subkey = self._subkeys[header] = self._sealer.subkey(PURPOSE, header)
        try:
            return subkey.open(counter, value[_PREFIX.size :], table + b"\0" + key)
        except Corrupt as error:
            raise Corrupt(
                f"a record in table {table.decode()} of {self._path} is whole but does not open "
                "under this node's keyring",
                hint="restore the keyring file that belongs to this data directory, or "
                "the whole directory from a backup",
                reason="STATE_SEALED_OTHERWISE",
            ) from error


class RowWriter:
    """One write transaction: seals each value under its subkey, counting; `opener` reads."""

    def __init__(
        self,
        transaction: lmdb.Transaction,
        tables: Mapping[bytes, lmdb._Database],
        subkey: Subkey,
        opener: RowOpener,
    ) -> None:
        self._transaction = transaction
        self._tables = tables
        self._subkey = subkey
        self._opener = opener
        self._count = 0

    def raw(self, table: bytes, key: bytes) -> bytes | None:
        """A value as it is stored."""
        value = self._transaction.get(key, db=self._tables[table])
        return None if value is None else bytes(value)

    def get(self, table: bytes, key: bytes) -> bytes | None:
        """The plaintext of a value; raises Corrupt."""
        value = self.raw(table, key)
        return None if value is None else self._opener.open(table, key, value)

    def open(self, table: bytes, key: bytes, value: bytes) -> bytes:
        """The plaintext of a value that was read; raises Corrupt."""
        return self._opener.open(table, key, value)

    def entries(self, table: bytes) -> int:
        """How many rows a table has."""
        return int(self._transaction.stat(self._tables[table])["entries"])

    def delete(self, table: bytes, key: bytes) -> None:
        self._transaction.delete(key, db=self._tables[table])

    def cursor(self, table: bytes) -> lmdb.Cursor:
        return self._transaction.cursor(db=self._tables[table])

    def put(self, table: bytes, key: bytes, plaintext: bytes, *, overwrite: bool = True) -> bool:
        """Seal and write one value; without `overwrite`, tell whether the key was new."""
        sealed = self._subkey.seal(self._count, plaintext, table + b"\0" + key)
        header = _PREFIX.pack(0, STATE_FORMAT, self._subkey.header, self._count)[4:]
        self._count += 1
        crc = crc32(sealed, crc32(header, crc32(key)))
        value = crc.to_bytes(4) + header + sealed
        return bool(self._transaction.put(key, value, db=self._tables[table], overwrite=overwrite))

    def put_clear(self, table: bytes, key: bytes, value: bytes) -> None:
        """Write a value that is stored as it is."""
        self._transaction.put(key, value, db=self._tables[table])
