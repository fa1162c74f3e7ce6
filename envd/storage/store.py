"""The durable Store: journal for durability, LMDB for the view, a memtable in between.

A commit is acknowledged when the journal has synced it. LMDB follows behind, in batches, and
records the journal position that it covers; at a start the tail after that position is
applied again, which is safe because merging is idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from envd.core import digest
from envd.core.answers import ListedEnvironment
from envd.core.commit import Commit, LogRecord
from envd.core.environment import Environment
from envd.core.errors import EnvdError, Unavailable
from envd.core.history import Retention
from envd.core.hlc import bound_for
from envd.core.stamp import Stamp
from envd.ports import Applied, Clock, OperationResult, Sealer, StoredState
from envd.storage.journal import DEFAULT_SEGMENT_BYTES, DroppedTail, Journal
from envd.storage.memtable import Dirty, Memtable, Pending
from envd.storage.state import Batch, IndexEntry, StateDb, operation_key
from envd.wire import records

_log = logging.getLogger(__name__)
_OPERATIONS_SWEEP_MS = 3_600_000
_FLUSH_RETRY_S = 1.0
_REPLAY_FLUSH_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Sizes and times of the store; the settings of `[storage]`."""

    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    keep_segments: int = 4
    map_size_bytes: int = 256 << 30
    memtable_bytes: int = 64 << 20
    journal_queue_bytes: int = 64 << 20
    flush_interval_ms: int = 500
    retention: Retention = field(default_factory=Retention)


class DurableStore:
    """The Store of a real node. Make it with `open`; it belongs to that event loop."""

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        digest_key: bytes,
        node_uid: int,
        clock: Clock,
        options: StoreOptions,
    ) -> None:
        self._options = options
        self._clock = clock
        self._digest_key = digest_key
        self._state = StateDb(
            directory / "state",
            sealer,
            digest_key,
            map_size_bytes=options.map_size_bytes,
            retention=options.retention,
        )
        self._journal = Journal(
            directory / "journal",
            sealer,
            node_uid,
            segment_bytes=options.segment_bytes,
            keep_segments=options.keep_segments,
            bound_for=bound_for,
        )
        self._memtable = Memtable(options.memtable_bytes)
        self._listeners: list[Callable[[Applied], None]] = []
        self._visible_lsn = 0
        self._swept_ms = clock.monotonic_ms()
        self._flush_lock = asyncio.Lock()
        self._flush_wanted = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._flusher: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        directory: Path,
        sealer: Sealer,
        digest_key: bytes,
        node_uid: int,
        clock: Clock,
        options: StoreOptions | None = None,
    ) -> DurableStore:
        """Open or create the store in `directory` and read back the journal's tail.

        Raises StorageError (Corrupt, ...) where that can't be done; nothing is changed then.
        """
        store = cls(directory, sealer, digest_key, node_uid, clock, options or StoreOptions())
        try:
            await store._recover()
        except BaseException:
            store._state.close()
            raise
        return store

    async def _recover(self) -> None:
        covered = self._state.covered_lsn
        self._memtable.load_seqs(self._state.vectors())
        self._visible_lsn = covered
        applied = 0
        for frame in self._journal.recover():
            for lsn, raw in enumerate(frame.records, frame.first_lsn):
                if lsn > covered:
                    self._reapply(records.decode_log_record(raw))
                    self._visible_lsn = lsn
                    applied += 1
            if self._memtable.unflushed_bytes > _REPLAY_FLUSH_BYTES:
                await self._flush_once()
        loop = asyncio.get_running_loop()
        self._journal.start(loop, covered_lsn=covered, hlc_bound=self._state.hlc_bound)
        if applied:
            _log.info("store.replayed", extra={"commits": applied})
            await self.flush()
        self._flusher = loop.create_task(self._flush_behind(), name="store-flush")

    def _reapply(self, record: LogRecord) -> None:
        commit = record.commit
        before = self.visible(commit.environment)
        environment = (before.environment if before else Environment(commit.environment)).apply(
            commit
        )
        after = StoredState(environment, digest.revision(environment, self._digest_key))
        operation = _operation_of(commit)
        encoded = records.encode_commit(commit)
        pending = self._memtable.append(record, after, encoded, operation)
        self._memtable.synced(pending, operation)

    @property
    def dropped_tail(self) -> DroppedTail | None:
        """The damaged last group that the start left out, to be reported."""
        return self._journal.dropped_tail

    # -- reading -------------------------------------------------------------------

    def visible(self, environment: str) -> StoredState | None:
        self._ensure_loaded(environment)
        return self._memtable.visible(environment)

    def head(self, environment: str) -> StoredState | None:
        self._ensure_loaded(environment)
        return self._memtable.head(environment)

    def _ensure_loaded(self, name: str) -> None:
        if not self._memtable.knows(name):
            stored = self._state.environment(name)
            self._memtable.load(name, stored.state if stored else None)

    def last_seq(self, partition: int, origin: int) -> int:
        return self._memtable.last_seq(partition, origin)

    def last_lsn(self) -> int:
        return self._visible_lsn

    def highest_hlc(self) -> int:
        return max(self._journal.hlc_bound, self._state.hlc_bound)

    def find_operation(self, author: str, operation: str) -> OperationResult | None:
        key = operation_key(author, operation)
        return self._memtable.operation(key) or self._state.operation(key)

    def environments(self, prefix: str, after: str, limit: int) -> list[ListedEnvironment]:
        newer = self._newer_entries(prefix, after)
        listed: list[ListedEnvironment] = []
        while len(listed) < limit:
            page = self._state.index(prefix, after, limit)
            last = page[-1].environment if len(page) == limit else None
            merged = {entry.environment: entry for entry in page}
            merged.update(
                {name: entry for name, entry in newer.items() if last is None or name <= last}
            )
            listed += [
                merged[name].listed()
                for name in sorted(merged)
                if name > after and merged[name].exists
            ]
            if last is None:
                break
            after = last
        return listed[:limit]

    def _newer_entries(self, prefix: str, after: str) -> dict[str, IndexEntry]:
        """Index entries of environments whose commits LMDB may lack."""
        newer = {}
        for name in self._memtable.unflushed_names():
            below = not prefix or name == prefix or name.startswith(prefix + "/")
            state = self._memtable.visible(name)
            if below and name > after and state is not None:
                environment = state.environment
                newer[name] = IndexEntry(
                    name, environment.exists, state.revision, environment.live_count()
                )
        return newer

    def commits(self, environment: str, before: Stamp | None, limit: int) -> list[Commit]:
        newer = {
            stamp: encoded
            for stamp, encoded in self._memtable.unflushed(environment)
            if before is None or stamp < before
        }
        found = {
            commit.stamp: commit
            for raw in self._state.commits(environment, before, limit)
            for commit in [records.decode_commit(raw)]
        }
        for stamp in sorted(newer, reverse=True)[:limit]:
            found.setdefault(stamp, records.decode_commit(newer[stamp]))
        return [found[stamp] for stamp in sorted(found, reverse=True)[:limit]]

    def base(self, environment: str) -> Environment:
        return self._state.base(environment)

    def replay(self, after_lsn: int) -> Iterator[tuple[int, LogRecord]]:
        for lsn, raw in self._journal.read_after(after_lsn):
            if lsn > self._visible_lsn:
                return
            yield lsn, records.decode_log_record(raw)

    def environment_count(self) -> int:
        """How many environments exist, as of the last flush."""
        return self._state.environments

    def storage_bytes(self) -> int:
        return self._state.storage_bytes() + self._journal.storage_bytes()

    # -- writing -------------------------------------------------------------------

    async def admit(self) -> None:
        if self._journal.queued_bytes > self._options.journal_queue_bytes:
            raise Unavailable(
                "the node has more writes waiting than it takes; nothing was done",
                hint="try again a little later, or with fewer writers",
                reason="OVERLOADED",
                retry_after_ms=100,
            )
        if self._memtable.unflushed_bytes > self._options.memtable_bytes:
            self._room.clear()
            self._flush_wanted.set()
            await self._room.wait()

    def append(self, record: LogRecord, after: StoredState) -> Awaitable[int]:
        encoded = records.encode_commit(record.commit)
        operation = _operation_of(record.commit)
        durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        pending: Pending | None = None

        def done(lsn: int, error: EnvdError | None) -> None:
            assert pending is not None
            if error is None:
                self._became_durable(lsn, pending, operation)
            elif self._memtable.refused(pending):
                _log.error("store.write_refused", extra={"reason": error.reason})
                self._journal.resume()
            if durable.done():
                return
            if error is None:
                durable.set_result(lsn)
            else:
                durable.set_exception(error)

        own = record.origin == record.commit.stamp.node_uid
        row = records.encode_log_record(record, encoded)
        self._journal.append(row, record.commit.stamp.hlc if own else 0, done)
        pending = self._memtable.append(record, after, encoded, operation)
        return durable

    def _became_durable(self, lsn: int, pending: Pending, operation: bytes | None) -> None:
        self._memtable.synced(pending, operation)
        self._visible_lsn = lsn
        self._flush_wanted.set()
        applied = Applied(lsn, pending.record, pending.after)
        for listener in self._listeners:
            listener(applied)

    def subscribe(self, listener: Callable[[Applied], None]) -> None:
        self._listeners.append(listener)

    # -- write-behind --------------------------------------------------------------

    async def _flush_behind(self) -> None:
        """Flush soon after there is something, at once where memory fills; for ever."""
        while True:
            await self._flush_wanted.wait()
            self._flush_wanted.clear()
            if self._memtable.unflushed_bytes <= self._options.memtable_bytes // 2:
                await asyncio.sleep(self._options.flush_interval_ms / 1000)
            try:
                await self._flush_once()
                await self._sweep_operations()
            except EnvdError as error:
                _log.error("store.flush_failed", extra={"error": error.message})
                await asyncio.sleep(_FLUSH_RETRY_S)
                self._flush_wanted.set()

    async def _flush_once(self) -> None:
        async with self._flush_lock:
            dirty = self._memtable.take_dirty()
            if not dirty.states and not dirty.operations:
                return
            batch = Batch(
                covered_lsn=self._visible_lsn,
                hlc_bound=max(self._journal.hlc_bound, self._state.hlc_bound),
                states=dirty.states,
                commits=dirty.commits,
                operations=dirty.operations,
                vectors=dirty.vectors,
            )
            try:
                safe_lsn = await asyncio.to_thread(self._state.commit, batch)
            except BaseException:
                self._memtable.not_flushed(dirty)
                raise
            self._after_flush(dirty, safe_lsn)

    def _after_flush(self, dirty: Dirty, safe_lsn: int) -> None:
        self._memtable.flushed(dirty)
        self._journal.cover(safe_lsn)
        if self._memtable.unflushed_bytes <= self._options.memtable_bytes:
            self._room.set()
        if self._memtable.unflushed_bytes:
            self._flush_wanted.set()

    async def _sweep_operations(self) -> None:
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._swept_ms >= _OPERATIONS_SWEEP_MS:
            self._swept_ms = now_ms
            async with self._flush_lock:
                await asyncio.to_thread(self._state.forget_operations, self._clock.wall_ms())

    async def flush(self) -> None:
        await self._flush_once()

    async def copy_to(self, directory: Path) -> int:
        await self.flush()
        async with self._flush_lock:
            covered = self._state.covered_lsn
            await asyncio.to_thread(self._copy, directory, covered)
        return covered

    def _copy(self, directory: Path, covered_lsn: int) -> None:
        """Copy the view, and of the journal what the view does not cover.

        No flush runs meanwhile, so those segments are not recycled.
        """
        directory.mkdir(mode=0o700)
        self._state.copy_to(directory / "state")
        self._journal.copy_files(directory / "journal", covered_lsn)

    async def close(self) -> None:
        """Write what waits, flush, and let go; the view then covers the whole journal."""
        if self._flusher is not None:
            async with self._flush_lock:  # not in the middle of a flush
                self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        await self._journal.close()
        await asyncio.sleep(0)
        try:
            await self.flush()
        finally:
            self._state.close()


def _operation_of(commit: Commit) -> bytes | None:
    return operation_key(commit.author, commit.operation) if commit.operation else None
