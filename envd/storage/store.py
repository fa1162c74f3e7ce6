"""The durable Store: journal for durability, LMDB for the view, a memtable in between.

A commit is acknowledged when the journal has synced it. LMDB follows behind, in batches, and
records the journal position that it covers; at a start the tail after that position is
applied again, which is safe because merging is idempotent.

Where LMDB takes no more (its map or the disk is full), commits stay in the journal and in
memory, the flush is tried again, and once memory is full too, writers are refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from envd.core import digest
from envd.core.answers import ListedEnvironment
from envd.core.commit import Commit, LogRecord
from envd.core.environment import Environment
from envd.core.errors import EnvdError, OutcomeUnknown, StorageError, Unavailable
from envd.core.history import Retention
from envd.core.hlc import bound_for
from envd.core.names import has_prefix
from envd.core.stamp import Stamp
from envd.files import sync_directory
from envd.ports import Applied, Clock, OperationResult, Sealer, StoredState
from envd.storage.check import STATE_NAME, StateCheck, mark_clean, mark_unclean, start_check
from envd.storage.disk import Disk, make_directory, sync_file, unusable
from envd.storage.finish import finish_in_thread
from envd.storage.journal import DEFAULT_SEGMENT_BYTES, Journal, stopping
from envd.storage.memtable import Dirty, Memtable, Pending
from envd.storage.recovery import DroppedTail
from envd.storage.rows import IndexEntry
from envd.storage.seen import SeenKeys, learn
from envd.storage.state import HISTORY_PAGE_BYTES, Batch, StateDb, operation_key
from envd.wire import records

_log = logging.getLogger(__name__)
JOURNAL_NAME = "journal"
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
        disk: Disk,
    ) -> None:
        self._directory = directory
        self._options = options
        self._clock = clock
        self._digest_key = digest_key
        self._node_uid = node_uid
        self._state = StateDb(
            directory / STATE_NAME,
            sealer,
            digest_key,
            map_size_bytes=options.map_size_bytes,
            retention=options.retention,
        )
        self._journal = Journal(
            directory / JOURNAL_NAME,
            sealer,
            node_uid,
            segment_bytes=options.segment_bytes,
            keep_segments=options.keep_segments,
            bound_for=bound_for,
            disk=disk,
        )
        self._memtable = Memtable(options.memtable_bytes)
        self._seen = SeenKeys(clock.monotonic_ms())
        self._listeners: list[Callable[[Applied], None]] = []
        self._failure_listeners: list[Callable[[EnvdError], None]] = []
        self._visible_lsn = 0
        self._flush_lock = asyncio.Lock()
        self._flush_wanted = asyncio.Event()
        self._flush_urgent = asyncio.Event()
        self._flush_failure: EnvdError | None = None
        self._room = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None
        self._learner: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        directory: Path,
        sealer: Sealer,
        digest_key: bytes,
        node_uid: int,
        clock: Clock,
        options: StoreOptions | None = None,
        *,
        check: StateCheck | None = None,
        disk: Disk | None = None,
    ) -> DurableStore:
        """Open or create the store in `directory` and read back the journal's tail.

        `check` is one that `start_check` began earlier. Raises StorageError (Corrupt, ...) or,
        for want of room, Unavailable where that can't be done; nothing is changed then.
        """
        make_directory(directory / STATE_NAME)
        make_directory(directory / JOURNAL_NAME)
        try:
            sync_directory(directory)
        except OSError as error:
            raise unusable(directory, error) from error
        await finish_in_thread((check or start_check(directory)).finish)
        was_clean = mark_unclean(directory)
        store: DurableStore | None = None
        try:
            store = cls(
                directory,
                sealer,
                digest_key,
                node_uid,
                clock,
                options or StoreOptions(),
                disk or Disk(),
            )
            await store._recover()
        except BaseException:
            if store is not None:
                await store._journal.close()
                store._state.close()
            if was_clean:
                mark_clean(directory)
            raise
        return store

    async def _recover(self) -> None:
        covered = self._state.covered_lsn
        self._memtable.load_seqs(self._state.vectors())
        self._visible_lsn = covered
        applied = 0
        for frame in self._journal.recover(covered):
            for lsn, raw in enumerate(frame.records, frame.first_lsn):
                if lsn > covered:
                    self._reapply(records.decode_log_record(raw))
                    self._visible_lsn = lsn
                    applied += 1
            if self._memtable.unflushed_bytes > _REPLAY_FLUSH_BYTES:
                await self._flush_once()
        loop = asyncio.get_running_loop()
        self._journal.start(loop, covered_lsn=covered, hlc_bound=self._state.hlc_bound)
        dropped = self._journal.dropped_tail
        if dropped is not None:
            where = {"path": str(dropped.path), "position": dropped.position}
            _log.error("journal.tail_dropped", extra=where)
        if applied:
            _log.info("store.replayed", extra={"commits": applied})
            await self.flush()
        self._flusher = loop.create_task(self._flush_behind(), name="store-flush")
        self._learner = loop.create_task(
            learn(self._seen, self._state.operation_keys, self._clock.monotonic_ms()),
            name="store-operations",
        )

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
        known = self._memtable.operation(key)
        if known is None and self._seen.may_hold(key):
            known = self._state.operation(key)
        return known

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
            state = self._memtable.visible(name)
            if has_prefix(name, prefix) and name > after and state is not None:
                environment = state.environment
                newer[name] = IndexEntry(
                    name, environment.exists, state.revision, environment.live_count()
                )
        return newer

    def commits(self, environment: str, before: Stamp | None, limit: int) -> list[Commit]:
        """As the port says; retention is enforced by the flush, so until then there may be
        more commits, and less in `base`: together they make the same states."""
        newer = {
            stamp: encoded
            for stamp, encoded in self._memtable.unflushed(environment)
            if before is None or stamp < before
        }
        page = self._state.commits(environment, before, limit)
        found = {commit.stamp: commit for commit in map(records.decode_commit, page)}
        if len(page) < limit and sum(map(len, page)) >= HISTORY_PAGE_BYTES:
            oldest = min(found)  # the page was cut by size: what is older comes with the next
            newer = {stamp: encoded for stamp, encoded in newer.items() if stamp > oldest}
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

    def variable_count(self) -> int:
        """How many variables all environments have together, as of the last flush."""
        return self._state.variables

    def flushed_lsn(self) -> int:
        """The last record that the view covers; those after it are in the journal and memory."""
        return self._state.covered_lsn

    def unflushed_bytes(self) -> int:
        """Memory held by what is durable and not in the view yet."""
        return self._memtable.unflushed_bytes

    def queued_bytes(self) -> int:
        """Bytes of records that wait for the journal."""
        return self._journal.queued_bytes

    def storage_bytes(self) -> int:
        return self._state.storage_bytes() + self._journal.storage_bytes()

    # -- writing -------------------------------------------------------------------

    def admits(self) -> bool:
        options = self._options
        return (
            self._journal.queued_bytes <= options.journal_queue_bytes
            and self._memtable.unflushed_bytes <= options.memtable_bytes
        )

    async def admit(self) -> None:
        if self._journal.queued_bytes > self._options.journal_queue_bytes:
            raise Unavailable(
                "the node has more writes waiting than it takes; nothing was done",
                hint="try again a little later, or with fewer writers",
                reason="OVERLOADED",
                retry_after_ms=100,
            )
        while self._memtable.unflushed_bytes > self._options.memtable_bytes:
            if self._closing is not None:
                raise stopping()
            if self._flush_failure is not None:
                raise Unavailable(
                    "the node has no memory left for writes that its state does not take; "
                    f"nothing was done ({self._flush_failure.message})",
                    hint=self._flush_failure.hint,
                    reason=self._flush_failure.reason,
                    retry_after_ms=1000,
                )
            self._room.clear()
            await self._room.wait()  # What is unflushed has the flusher on its way already.

    def append(self, record: LogRecord, after: StoredState) -> asyncio.Future[int]:
        durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._closing is not None:
            durable.set_exception(stopping())
            return durable
        encoded = records.encode_commit(record.commit)
        operation = _operation_of(record.commit)
        if operation is not None:
            self._seen.add(operation, self._clock.monotonic_ms())
        pending: Pending | None = None

        def done(lsn: int, error: EnvdError | None) -> None:
            assert pending is not None
            if error is None:
                self._became_durable(lsn, pending, operation)
            elif self._memtable.refused(pending):
                _log.error("store.write_refused", extra={"reason": error.reason})
                self._journal.resume()
                if isinstance(error, OutcomeUnknown):
                    for tell in self._failure_listeners:
                        tell(error)
            if durable.done():
                return
            if error is None:
                durable.set_result(lsn)
            else:
                durable.set_exception(error)

        own = record.commit.stamp.node_uid == self._node_uid
        row = records.encode_log_record(record, encoded)
        self._ensure_loaded(record.commit.environment)
        self._journal.append(row, record.commit.stamp.hlc if own else 0, done)
        pending = self._memtable.append(record, after, encoded, operation)
        return durable

    def _became_durable(self, lsn: int, pending: Pending, operation: bytes | None) -> None:
        self._memtable.synced(pending, operation)
        self._visible_lsn = lsn
        self._flush_wanted.set()
        if self._memory_fills():
            self._flush_urgent.set()
        applied = Applied(lsn, pending.record, pending.after, len(pending.encoded))
        for listener in self._listeners:
            try:
                listener(applied)
            except Exception as error:  # noqa: BLE001 - the rest of the group must be answered
                _log.critical(
                    "store.listener_failed", extra={"error": type(error).__name__}, exc_info=True
                )

    def _memory_fills(self) -> bool:
        return self._memtable.unflushed_bytes > self._options.memtable_bytes // 2

    def subscribe(self, listener: Callable[[Applied], None]) -> None:
        self._listeners.append(listener)

    def on_failure(self, listener: Callable[[EnvdError], None]) -> None:
        """Call `listener` once the disk failed and the store takes no writes until a restart."""
        self._failure_listeners.append(listener)

    # -- write-behind --------------------------------------------------------------

    async def _flush_behind(self) -> None:
        """Flush soon after there is something, at once where memory fills; for ever."""
        while True:
            await self._flush_wanted.wait()
            self._flush_wanted.clear()
            await self._gather()
            try:
                await self._flush_once()
            except Exception as error:  # noqa: BLE001 - the task's outermost guard
                self._flush_failed(error)
                await asyncio.sleep(_FLUSH_RETRY_S)
                self._flush_wanted.set()

    async def _gather(self) -> None:
        """Let commits gather for the flush interval, or until memory fills."""
        self._flush_urgent.clear()
        if not self._memory_fills():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._options.flush_interval_ms / 1000):
                    await self._flush_urgent.wait()

    def _flush_failed(self, error: Exception) -> None:
        if isinstance(error, EnvdError):
            self._flush_failure = error
            _log.error("store.flush_failed", extra={"error": error.message})
        else:
            name = type(error).__name__
            self._flush_failure = StorageError(f"the state could not be written ({name})")
            _log.critical("store.flush_failed", extra={"error": name}, exc_info=error)
        self._room.set()

    async def _flush_once(self) -> None:
        async with self._flush_lock:
            dirty = self._memtable.take_dirty()
            if not dirty.states and not dirty.operations:
                return
            batch = Batch(
                now_ms=self._clock.wall_ms(),
                covered_lsn=self._visible_lsn,
                hlc_bound=max(self._journal.hlc_bound, self._state.hlc_bound),
                states=dirty.states,
                commits=dirty.commits,
                operations=dirty.operations,
                vectors=dirty.vectors,
            )
            try:
                safe_lsn = await finish_in_thread(self._state.commit, batch)
            except BaseException:
                self._memtable.not_flushed(dirty)
                self._flush_wanted.set()
                raise
            self._after_flush(dirty, safe_lsn)

    def _after_flush(self, dirty: Dirty, safe_lsn: int) -> None:
        self._memtable.flushed(dirty)
        self._state.refresh()
        self._journal.cover(safe_lsn)
        self._flush_failure = None
        self._room.set()
        if self._memtable.unflushed_bytes:
            self._flush_wanted.set()

    async def flush(self) -> None:
        await self._flush_once()

    async def copy_to(self, directory: Path) -> int:
        await self.flush()
        async with self._flush_lock:
            covered = self._state.covered_lsn
            await finish_in_thread(self._copy, directory, covered)
        return covered

    def forget_dead_readers(self) -> None:
        """Let the state reuse what another process held on to that read it and was killed."""
        if self._closing is None:
            self._state.forget_dead_readers()

    def _copy(self, directory: Path, covered_lsn: int) -> None:
        """Copy the view, and of the journal what the view does not cover, durably.

        No flush runs meanwhile, so those segments are not recycled.
        """
        try:
            directory.mkdir(mode=0o700)
            self._state.copy_to(directory / STATE_NAME)
            self._journal.copy_files(directory / JOURNAL_NAME, covered_lsn)
            for path in (*directory.glob("*/*"), *directory.glob("*"), directory, directory.parent):
                sync_file(path)
        except OSError as error:
            raise unusable(directory, error) from error

    async def close(self) -> None:
        """Write what waits, flush, and let go; the view then covers the whole journal.

        It goes on to the end where its caller is cancelled; again, it waits for the same end.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._room.set()
        try:
            for task in (self._learner, self._flusher):
                if task is not None:
                    task.cancel()
                    await asyncio.wait((task,))
            await self._journal.close()
            await self.flush()
        finally:
            async with self._flush_lock:
                self._state.close()
            mark_clean(self._directory)


def _operation_of(commit: Commit) -> bytes | None:
    return operation_key(commit.author, commit.operation) if commit.operation else None
