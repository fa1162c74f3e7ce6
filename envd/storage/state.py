"""The materialised view in LMDB: one blob per environment, and what belongs to it.

    environments   partition u16, name            -> blob (state, revision, digest)
    index          name                           -> what a listing shows, in order of name
    history        partition u16, name, NUL, stamp -> commit
    bases          partition u16, name            -> snapshot of what was trimmed from history
    conflicts      conflict key                   -> conflict record
    operations     hash of author and operation   -> what became of it
    vectors        partition u16, origin u64      -> last seq
    system         name                           -> counters of the node

A value is `CRC-32, format u8, subkey header, counter u32, sealed bytes`; the CRC covers key
and value, since LMDB has no checksums, and the AAD is table and key. Each write transaction
has a subkey of its own and counts its values. Index values are not sealed: they hold a
revision and a count next to a name that the key shows anyway; the names of environments are
the one thing that LMDB needs in clear.

`metasync` is off: a transaction is sure to survive a power cut once the next one has been
written. `commit` therefore answers with the position that is safe already; opening makes
safe what a killed process left.

Reads see one snapshot, until `refresh`: what a caller reads in several steps (commits, then
the base they follow) fits together whatever the flushing thread does meanwhile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

import lmdb

from envd.core import digest
from envd.core.answers import ListedEnvironment
from envd.core.environment import Environment
from envd.core.errors import Corrupt, StorageError
from envd.core.history import Retention
from envd.core.ring import partition_of
from envd.core.stamp import STAMP_BYTES, Stamp
from envd.files import sync_directory
from envd.ports import SUBKEY_HEADER_BYTES, OperationResult, Sealer, StoredState, Subkey
from envd.storage.check import DATA_NAME
from envd.storage.disk import RESTORE_HINT, make_directory, unusable
from envd.storage.pages import TABLES, value_is_whole
from envd.wire import records
from envd.wire.records import StoredEnvironment

STATE_FORMAT = 1
PURPOSE = b"state"
OPERATION_KEPT_MS = 24 * 3_600_000
_SWEPT_ROWS = 64
_PREFIX = struct.Struct(f">IB{SUBKEY_HEADER_BYTES}sI")
_INDEX = struct.Struct(">IBB16sI")
_VECTOR_KEY = struct.Struct(">HQ")
HISTORY_PAGE_BYTES = 8 << 20
_MAX_CACHED_SUBKEYS = 1024


@dataclass(slots=True)
class Batch:
    """What one flush writes at `now_ms`, and the journal position that it then covers."""

    now_ms: int
    covered_lsn: int
    hlc_bound: int
    states: Mapping[str, StoredState] = field(repr=False)
    commits: Mapping[str, Sequence[tuple[Stamp, bytes]]] = field(repr=False)
    operations: Mapping[bytes, OperationResult] = field(repr=False)
    vectors: Mapping[tuple[int, int], int] = field(repr=False)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What the index says of one environment; `exists` is False for one that was deleted."""

    environment: str
    exists: bool
    revision: bytes
    variables: int

    def listed(self) -> ListedEnvironment:
        return ListedEnvironment(self.environment, self.revision.hex(), self.variables)


def operation_key(author: str, operation: str) -> bytes:
    """The key of an operation id; one identity's ids say nothing of another's."""
    return blake2b(f"{author}\0{operation}".encode(), digest_size=16).digest()


class StateDb:
    """The tables in one directory, which is there; `check` must have passed its file.

    Reads belong to one thread, `commit` to one at a time, the same or another.
    """

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        digest_key: bytes,
        *,
        map_size_bytes: int,
        retention: Retention,
    ) -> None:
        self._sealer = sealer
        self._digest_key = digest_key
        self._retention = retention
        self._subkeys: dict[bytes, Subkey] = {}
        self._path = directory / DATA_NAME
        self._sweep_from = b""
        with self._faults():
            self._env = lmdb.open(
                str(directory),
                map_size=map_size_bytes,
                max_dbs=len(TABLES),
                metasync=False,
                mode=0o600,
                max_readers=512,
            )
        try:
            with self._faults():
                with self._env.begin(write=True) as transaction:
                    self._tables = {
                        name: self._env.open_db(name, txn=transaction) for name in TABLES
                    }
                self._env.sync(True)
                sync_directory(directory)
                self._reader = self._env.begin()
            self.covered_lsn = self._counter(b"covered_lsn")
            self.hlc_bound = self._counter(b"hlc_bound")
            self.environments = self._counter(b"environments")
        except BaseException:
            self._env.close()
            raise

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Tell LMDB's errors as ours."""
        try:
            yield
        except lmdb.MapFullError as error:
            raise StorageError(
                f"the state in {self._path} has reached the size that its map may have; what "
                "was acknowledged stays in the journal",
                hint="raise `storage.map_size_bytes` and restart envd",
                reason="STATE_FULL",
            ) from error
        except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError) as error:
            raise _damaged(f"the state in {self._path} is damaged: {error}") from error
        except lmdb.Error as error:
            raise StorageError(
                f"the state in {self._path} can't be used: {error}",
                hint="check the disk (space, permissions)",
                reason="STATE_UNUSABLE",
            ) from error
        except OSError as error:
            raise unusable(self._path, error) from error

    # -- reading -------------------------------------------------------------------

    def environment(self, name: str) -> StoredEnvironment | None:
        """The blob of one environment; raises Corrupt."""
        raw = self._get(b"environments", _environment_key(name))
        return None if raw is None else records.decode_environment(raw)

    def base(self, name: str) -> Environment:
        """The snapshot that the history of `name` starts from."""
        raw = self._get(b"bases", _environment_key(name))
        return Environment(name) if raw is None else _base(raw)

    def commits(self, name: str, before: Stamp | None, limit: int) -> list[bytes]:
        """Encoded commits, newest first, below the stamp `before`.

        Fewer than `limit` where they reach HISTORY_PAGE_BYTES, but at least one if there is.
        """
        prefix = _environment_key(name) + b"\0"
        above = prefix + (before.to_bytes() if before else b"\xff" * STAMP_BYTES)
        found: list[bytes] = []
        with self._cursor(b"history") as cursor:
            more = cursor.prev() if cursor.set_range(above) else cursor.last()
            size = 0
            while more and len(found) < limit and size < HISTORY_PAGE_BYTES:
                key, value = _row(cursor)
                if not key.startswith(prefix):
                    break
                found.append(self._open(b"history", key, value))
                size += len(found[-1])
                more = cursor.prev()
        return found

    def index(self, prefix: str, after: str, limit: int) -> list[IndexEntry]:
        """Index entries below `prefix` after the name `after`, in order, at most `limit`."""
        found: list[IndexEntry] = []
        below = prefix + "/" if prefix else ""
        if limit > 0 and prefix > after:
            value = self._raw(b"index", prefix.encode())
            if value is not None:
                found.append(_index_entry(prefix.encode(), value))
        with self._cursor(b"index") as cursor:
            # Names like `a/b-2` stand between `a/b` and `a/b/c`, so the search begins anew.
            more = cursor.set_range(max(below, after).encode())
            while more and len(found) < limit:
                key, value = _row(cursor)
                if not key.startswith(below.encode()):
                    break
                if key > after.encode():
                    found.append(_index_entry(key, value))
                more = cursor.next()
        return found

    def operation(self, key: bytes) -> OperationResult | None:
        """What became of an operation id, if it is still known."""
        raw = self._get(b"operations", key)
        return None if raw is None else records.decode_operation(raw)

    def vectors(self) -> dict[tuple[int, int], int]:
        """Last seq by (partition, origin)."""
        with self._cursor(b"vectors") as cursor:
            return {
                _VECTOR_KEY.unpack(key): int.from_bytes(self._open(b"vectors", key, value))
                for key, value in ((bytes(key), bytes(value)) for key, value in cursor)
            }

    def refresh(self) -> None:
        """Let reads see what was committed since the last time."""
        with self._faults():
            self._reader.abort()
            self._reader = self._env.begin()

    def storage_bytes(self) -> int:
        """Bytes on disk."""
        return self._path.stat().st_size

    def _counter(self, name: bytes) -> int:
        raw = self._get(b"system", name)
        return 0 if raw is None else int.from_bytes(raw)

    @contextmanager
    def _cursor(self, table: bytes) -> Iterator[lmdb.Cursor]:
        with self._faults(), self._reader.cursor(db=self._tables[table]) as cursor:
            yield cursor

    def _raw(self, table: bytes, key: bytes) -> bytes | None:
        with self._faults():
            value: bytes | None = self._reader.get(key, db=self._tables[table])
            return value

    def _get(self, table: bytes, key: bytes) -> bytes | None:
        value = self._raw(table, key)
        return None if value is None else self._open(table, key, value)

    def _open(self, table: bytes, key: bytes, value: bytes) -> bytes:
        if not value_is_whole(key, value):
            raise _damaged(f"a record in table {table.decode()} of {self._path} is damaged")
        _check_format(value)
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

    # -- writing -------------------------------------------------------------------

    def commit(self, batch: Batch) -> int:
        """Write a batch in one transaction; return the lsn that a power cut can't take back.

        Raises StorageError where it could not be written; then nothing of it was.
        """
        safe_lsn = self.covered_lsn
        subkey = self._sealer.new_subkey(PURPOSE)
        environments = self.environments
        with self._faults(), self._env.begin(write=True) as transaction:
            writer = _Writer(transaction, self._tables, subkey)
            for name, state in batch.states.items():
                commits = batch.commits.get(name, ())
                environments += self._put_environment(writer, name, state, commits)
            swept = self._forget_operations(writer, batch.now_ms, len(batch.operations))
            for key, result in batch.operations.items():
                writer.put(b"operations", key, records.encode_operation(result))
            for (partition, origin), seq in batch.vectors.items():
                writer.put(b"vectors", _VECTOR_KEY.pack(partition, origin), seq.to_bytes(8))
            counters = {
                b"covered_lsn": batch.covered_lsn,
                b"hlc_bound": batch.hlc_bound,
                b"environments": environments,
            }
            for counter, value in counters.items():
                writer.put(b"system", counter, value.to_bytes(8))
        self._sweep_from = swept
        self.covered_lsn, self.hlc_bound = batch.covered_lsn, batch.hlc_bound
        self.environments = environments
        return safe_lsn

    def _forget_operations(self, writer: _Writer, now_ms: int, added: int) -> bytes:
        """Look at some operation ids and drop those older than 24 hours; return where it ended.

        Each transaction looks at twice as many as it adds, round and round, so the table never
        holds more than twice what 24 hours brought, and no sweep has to stop the flushes.
        """
        with writer.cursor(b"operations") as cursor:
            more = cursor.set_range(self._sweep_from) if self._sweep_from else cursor.first()
            for _ in range(_SWEPT_ROWS + 2 * added):
                if not more:
                    return b""
                key, value = _row(cursor)
                result = records.decode_operation(self._open(b"operations", key, value))
                if result.time_ms < now_ms - OPERATION_KEPT_MS:
                    cursor.delete()
                    more = bool(cursor.key())
                else:
                    more = cursor.next()
            return bytes(cursor.key())

    def _put_environment(
        self,
        writer: _Writer,
        name: str,
        state: StoredState,
        commits: Sequence[tuple[Stamp, bytes]],
    ) -> int:
        """Write one environment with its new commits; return the change in how many exist."""
        key = _environment_key(name)
        known = writer.get(b"environments", key)
        history_sum = history_count = 0
        if known is not None:
            blob = self._open(b"environments", key, known)
            history_sum, history_count = records.decode_environment_header(blob)
        for stamp, encoded in commits:
            row = key + b"\0" + stamp.to_bytes()
            if writer.put(b"history", row, encoded, overwrite=False):
                share = digest.commit_hash(encoded, self._digest_key)
                history_sum = digest.history_sum([share], history_sum)
                history_count += 1
        if history_count > self._retention.commits:
            history_sum, history_count = self._trim(writer, name, history_sum, history_count)
        full = digest.state_digest(state.environment, state.revision, history_sum, self._digest_key)
        stored = StoredEnvironment(state, full, history_sum, history_count)
        writer.put(b"environments", key, records.encode_environment(stored))
        return self._put_index(writer, name, state)

    def _put_index(self, writer: _Writer, name: str, state: StoredState) -> int:
        key = name.encode()
        known = writer.get(b"index", key)
        existed = known is not None and _index_entry(key, known).exists
        exists = state.environment.exists
        fields = (STATE_FORMAT, exists, state.revision, state.environment.live_count())
        crc = crc32(_INDEX.pack(0, *fields)[4:], crc32(key))
        writer.put_clear(b"index", key, _INDEX.pack(crc, *fields))
        return exists - existed

    def _trim(
        self, writer: _Writer, name: str, history_sum: int, history_count: int
    ) -> tuple[int, int]:
        """Fold the commits that retention lets go into the base snapshot."""
        key = _environment_key(name)
        prefix = key + b"\0"
        base: Environment | None = None
        with writer.cursor(b"history") as cursor:
            above = cursor.set_range(prefix + b"\xff" * STAMP_BYTES)
            newest = cursor.prev() if above else cursor.last()
            assert newest, "the commits of this batch are in the table"
            newest_stamp = Stamp.from_bytes(bytes(cursor.key())[-STAMP_BYTES:])
            oldest_ms = self._retention.oldest_kept_ms(newest_stamp)
            cursor.set_range(prefix)
            while history_count > self._retention.commits:
                row, value = _row(cursor)
                if not row.startswith(prefix):
                    raise _damaged(f"table history of {self._path} lacks commits that it counts")
                if Stamp.from_bytes(row[-STAMP_BYTES:]).time_ms >= oldest_ms:
                    break
                encoded = self._open(b"history", row, value)
                if base is None:
                    raw = writer.get(b"bases", key)
                    base = _base(self._open(b"bases", key, raw)) if raw else Environment(name)
                base = base.apply(records.decode_commit(encoded))
                share = digest.commit_hash(encoded, self._digest_key)
                history_sum = digest.history_sum([share], history_sum, -1)
                history_count -= 1
                cursor.delete()
        if base is not None:
            stored = StoredEnvironment(StoredState(base, b""))
            writer.put(b"bases", key, records.encode_environment(stored))
        return history_sum, history_count

    # -- the whole -----------------------------------------------------------------

    def copy_to(self, directory: Path) -> None:
        """Write a compact, consistent copy into `directory` while work goes on."""
        make_directory(directory)
        with self._faults():
            self._env.copy(str(directory), compact=True)

    def close(self) -> None:
        """Make everything durable and let go."""
        with self._faults():
            self._reader.abort()
            try:
                self._env.sync(True)
            finally:
                self._env.close()


class _Writer:
    """One write transaction: seals each value under its subkey, counting."""

    def __init__(
        self, transaction: lmdb.Transaction, tables: Mapping[bytes, lmdb._Database], subkey: Subkey
    ) -> None:
        self._transaction = transaction
        self._tables = tables
        self._subkey = subkey
        self._count = 0

    def get(self, table: bytes, key: bytes) -> bytes | None:
        value = self._transaction.get(key, db=self._tables[table])
        return None if value is None else bytes(value)

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
        self._transaction.put(key, value, db=self._tables[table])


def _row(cursor: lmdb.Cursor) -> tuple[bytes, bytes]:
    return bytes(cursor.key()), bytes(cursor.value())


def _environment_key(name: str) -> bytes:
    return partition_of(name).to_bytes(2) + name.encode()


def _base(raw: bytes) -> Environment:
    return records.decode_environment(raw).state.environment


def _index_entry(key: bytes, value: bytes) -> IndexEntry:
    if not value_is_whole(key, value):
        raise _damaged("a record in table index is damaged")
    _check_format(value)
    _, _, exists, revision, variables = _INDEX.unpack(value)
    return IndexEntry(key.decode(), bool(exists), revision, variables)


def _check_format(value: bytes) -> None:
    """The format byte stands at the same place in every value."""
    if value[4] != STATE_FORMAT:
        raise StorageError(
            f"the state holds a record of format {value[4]}; "
            f"this version reads format {STATE_FORMAT}",
            hint="a newer envd wrote it: run that version or a later one",
            reason="NEWER_FORMAT",
        )


def _damaged(message: str) -> Corrupt:
    return Corrupt(message, hint=RESTORE_HINT, reason="STATE_DAMAGED")
