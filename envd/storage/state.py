"""The materialised view in LMDB: one blob per environment, and what belongs to it.

    environments   partition u16, name            -> blob (state, revision, digest)
    index          name                           -> what a listing shows, in order of name
    history        partition u16, name, NUL, stamp -> commit
    bases          partition u16, name            -> snapshot of what was trimmed from history
    conflicts      conflict key                   -> conflict record
    operations     hash of author and operation   -> what became of it
    vectors        partition u16, origin u64      -> last seq
    system         name                           -> counters of the node

How a value looks is told in `rows`. Each write transaction has a subkey of its own and counts
its values. Index values are not sealed: they hold a revision and a count next to a name that the
key shows anyway; the names of environments are the one thing that LMDB needs in clear.

`metasync` is off: a transaction is sure to survive a power cut once the next one has been
written. `commit` therefore answers with the position that is safe already; opening makes
safe what a killed process left.

Reads see one snapshot, until `refresh`: what a caller reads in several steps (commits, then
the base they follow) fits together whatever the flushing thread does meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import lmdb

from envd.core import digest
from envd.core.environment import Environment
from envd.core.errors import EnvdError, StorageError
from envd.core.history import Retention
from envd.core.stamp import STAMP_BYTES, Stamp
from envd.files import sync_directory
from envd.ports import OperationResult, Sealer, StoredState
from envd.storage.check import DATA_NAME
from envd.storage.disk import make_directory, unusable
from envd.storage.pages import TABLES
from envd.storage.rows import (
    PURPOSE,
    VECTOR_KEY,
    IndexEntry,
    RowOpener,
    RowWriter,
    damaged,
    environment_key,
    index_entry,
    index_value,
)
from envd.wire import records
from envd.wire.records import StoredEnvironment

OPERATION_KEPT_MS = 24 * 3_600_000
_SWEPT_ROWS = 64
HISTORY_PAGE_BYTES = 8 << 20


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
class _Sweep:
    """Where a round through the operation ids stands, the oldest time that it kept so far, and
    before when none begins."""

    next_key: bytes = b""
    oldest_ms: int = 1 << 62
    due_ms: int = 0


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
        self._path = directory / DATA_NAME
        self._rows = RowOpener(sealer, self._path)
        self._sweep = _Sweep()
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
            self.variables = self._known_variables()
        except BaseException:
            self._env.close()
            raise

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Tell LMDB's errors as ours."""
        try:
            yield
        except (lmdb.Error, OSError) as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> EnvdError:
        match error:
            case lmdb.MapFullError():
                return StorageError(
                    f"the state in {self._path} has reached the size that its map may have; what "
                    "was acknowledged stays in the journal",
                    hint="raise `storage.map_size_bytes` and restart envd",
                    reason="STATE_FULL",
                )
            case lmdb.CorruptedError() | lmdb.PageNotFoundError() | lmdb.InvalidError():
                return damaged(f"the state in {self._path} is damaged: {error}")
            case OSError():
                return unusable(self._path, error)
            case _:
                return StorageError(
                    f"the state in {self._path} can't be used: {error}",
                    hint="check the disk (space, permissions)",
                    reason="STATE_UNUSABLE",
                )

    # -- reading -------------------------------------------------------------------

    def environment(self, name: str) -> StoredEnvironment | None:
        """The blob of one environment; raises Corrupt."""
        raw = self._get(b"environments", environment_key(name))
        return None if raw is None else records.decode_environment(raw)

    def base(self, name: str) -> Environment:
        """The snapshot that the history of `name` starts from."""
        raw = self._get(b"bases", environment_key(name))
        return Environment(name) if raw is None else _base(raw)

    def commits(self, name: str, before: Stamp | None, limit: int) -> list[bytes]:
        """Encoded commits, newest first, below the stamp `before`.

        Fewer than `limit` where they reach HISTORY_PAGE_BYTES, but at least one if there is.
        """
        prefix = environment_key(name) + b"\0"
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
                found.append(index_entry(prefix.encode(), value))
        with self._cursor(b"index") as cursor:
            # Names like `a/b-2` stand between `a/b` and `a/b/c`, so the search begins anew.
            more = cursor.set_range(max(below, after).encode())
            while more and len(found) < limit:
                key, value = _row(cursor)
                if not key.startswith(below.encode()):
                    break
                if key > after.encode():
                    found.append(index_entry(key, value))
                more = cursor.next()
        return found

    def operation(self, key: bytes) -> OperationResult | None:
        """What became of an operation id, if it is still known."""
        raw = self._get(b"operations", key)
        return None if raw is None else records.decode_operation(raw)

    def operation_keys(self, after: bytes, limit: int) -> list[bytes]:
        """Keys of known operation ids after the key `after`, in order, at most `limit`."""
        with self._cursor(b"operations") as cursor:
            if not cursor.set_range(after + b"\0" if after else b""):
                return []
            return [bytes(key) for key in islice(cursor.iternext(values=False), limit)]

    def vectors(self) -> dict[tuple[int, int], int]:
        """Last seq by (partition, origin)."""
        with self._cursor(b"vectors") as cursor:
            return {
                VECTOR_KEY.unpack(key): int.from_bytes(self._open(b"vectors", key, value))
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

    def _known_variables(self) -> int:
        """How many variables there are; counted anew where the counter was never written."""
        if self._raw(b"system", b"variables") is not None:
            return self._counter(b"variables")
        with self._cursor(b"index") as cursor:
            return sum(index_entry(bytes(key), bytes(value)).variables for key, value in cursor)

    def _counter(self, name: bytes) -> int:
        raw = self._get(b"system", name)
        return 0 if raw is None else int.from_bytes(raw)

    @contextmanager
    def _cursor(self, table: bytes) -> Iterator[lmdb.Cursor]:
        with self._faults(), self._reader.cursor(db=self._tables[table]) as cursor:
            yield cursor

    def _raw(self, table: bytes, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._reader.get(key, db=self._tables[table])
        except (lmdb.Error, OSError) as error:
            raise self._told(error) from error
        return value

    def _get(self, table: bytes, key: bytes) -> bytes | None:
        value = self._raw(table, key)
        return None if value is None else self._open(table, key, value)

    def _open(self, table: bytes, key: bytes, value: bytes) -> bytes:
        return self._rows.open(table, key, value)

    # -- writing -------------------------------------------------------------------

    def commit(self, batch: Batch) -> int:
        """Write a batch in one transaction; return the lsn that a power cut can't take back.

        Raises StorageError where it could not be written; then nothing of it was.
        """
        safe_lsn = self.covered_lsn
        subkey = self._sealer.new_subkey(PURPOSE)
        environments = self.environments
        self._variables_then = self.variables
        with self._faults(), self._env.begin(write=True) as transaction:
            writer = RowWriter(transaction, self._tables, subkey)
            keys = {environment_key(name): name for name in batch.states}
            for key in sorted(keys):  # neighbours share pages: each is copied once
                name = keys[key]
                commits = batch.commits.get(name, ())
                environments += self._put_environment(writer, key, batch.states[name], commits)
            swept = self._forget_operations(writer, batch.now_ms, len(batch.operations))
            for key, result in batch.operations.items():
                writer.put(b"operations", key, records.encode_operation(result))
            for (partition, origin), seq in batch.vectors.items():
                writer.put(b"vectors", VECTOR_KEY.pack(partition, origin), seq.to_bytes(8))
            counters = {
                b"covered_lsn": batch.covered_lsn,
                b"hlc_bound": batch.hlc_bound,
                b"environments": environments,
                b"variables": self._variables_then,
            }
            for counter, value in counters.items():
                writer.put(b"system", counter, value.to_bytes(8))
        self._sweep = swept
        self.covered_lsn, self.hlc_bound = batch.covered_lsn, batch.hlc_bound
        self.environments, self.variables = environments, self._variables_then
        return safe_lsn

    def _forget_operations(self, writer: RowWriter, now_ms: int, added: int) -> _Sweep:
        """Look at some operation ids and drop those older than 24 hours; return how it stands.

        Each transaction looks at twice as many as it adds, round and round, so the table never
        holds more than twice what 24 hours brought, and no sweep has to stop the flushes. After
        a round, nothing is due before the oldest that it kept: until then it rests.
        """
        sweep = self._sweep
        if now_ms < sweep.due_ms <= now_ms + OPERATION_KEPT_MS:  # else the clock was set back
            return sweep
        oldest_ms = min(sweep.oldest_ms, now_ms)
        with writer.cursor(b"operations") as cursor:
            more = cursor.set_range(sweep.next_key) if sweep.next_key else cursor.first()
            for _ in range(_SWEPT_ROWS + 2 * added):
                if not more:
                    return _Sweep(due_ms=oldest_ms + OPERATION_KEPT_MS)
                key, value = _row(cursor)
                result = records.decode_operation(self._open(b"operations", key, value))
                if result.time_ms < now_ms - OPERATION_KEPT_MS:
                    cursor.delete()
                    more = bool(cursor.key())
                else:
                    oldest_ms = min(oldest_ms, result.time_ms)
                    more = cursor.next()
            return _Sweep(bytes(cursor.key()), oldest_ms)

    def _put_environment(
        self,
        writer: RowWriter,
        key: bytes,
        state: StoredState,
        commits: Sequence[tuple[Stamp, bytes]],
    ) -> int:
        """Write one environment with its new commits; return the change in how many exist."""
        name = state.environment.name
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

    def _put_index(self, writer: RowWriter, name: str, state: StoredState) -> int:
        key = name.encode()
        known = writer.get(b"index", key)
        before = None if known is None else index_entry(key, known)
        existed = before is not None and before.exists
        exists = state.environment.exists
        self._variables_then += state.environment.live_count() - (before.variables if before else 0)
        writer.put_clear(b"index", key, index_value(key, state))
        return exists - existed

    def _trim(
        self, writer: RowWriter, name: str, history_sum: int, history_count: int
    ) -> tuple[int, int]:
        """Fold the commits that retention lets go into the base snapshot."""
        key = environment_key(name)
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
                    raise damaged(f"table history of {self._path} lacks commits that it counts")
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

    def forget_dead_readers(self) -> None:
        """Free what a killed process that read the state still holds on to."""
        with self._faults():
            self._env.reader_check()

    def close(self) -> None:
        """Make everything durable and let go."""
        with self._faults():
            self._reader.abort()
            try:
                self._env.sync(True)
            finally:
                self._env.close()


def _row(cursor: lmdb.Cursor) -> tuple[bytes, bytes]:
    return bytes(cursor.key()), bytes(cursor.value())


def _base(raw: bytes) -> Environment:
    return records.decode_environment(raw).state.environment
