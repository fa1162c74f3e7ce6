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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from envd.core.answers import ListedEnvironment
from envd.core.commit import Commit, LogRecord
from envd.core.environment import Environment
from envd.core.errors import EnvdError, OutcomeUnknown, Unavailable
from envd.core.history import ConflictRecord
from envd.core.hlc import bound_for
from envd.core.stamp import Stamp
from envd.core.versions import Cursor, Roots
from envd.files import sync_directory
from envd.ports import Applied, Clock, Forgotten, OperationResult, Sealer, StoredState
from envd.storage.check import (
    JOURNAL_NAME,
    STATE_NAME,
    StateCheck,
    mark_clean,
    mark_unclean,
    start_check,
)
from envd.storage.collector import Collector
from envd.storage.copying import copy_durably
from envd.storage.disk import Disk, make_directory, unusable
from envd.storage.drops import Drops, Newest
from envd.storage.journal import Journal, stopping
from envd.storage.log_pages import LogPages
from envd.storage.logged import goes_to_peers, pending_again, pending_of, refused, told
from envd.storage.memtable import Memtable, Pending
from envd.storage.options import StoreOptions as StoreOptions
from envd.storage.progress import Progress
from envd.storage.recovery import DroppedTail
from envd.storage.seen import SeenKeys, learn
from envd.storage.state import StateDb, operation_key
from envd.storage.view import View
from envd.storage.write_behind import WriteBehind
from envd.threads import finish_in_thread
from envd.wire import records
from envd.wire.records import BaseRecord

_log = logging.getLogger(__name__)
_REPLAY_FLUSH_BYTES = 32 << 20


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
            purged_rows=options.purged_rows,
            collected_rows=options.collected_rows,
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
        self._view = View(self._state, self._memtable, digest_key, options.retention)
        self._pages = LogPages(self._journal, sealer, goes_to_peers)
        self._all_pages = LogPages(self._journal, sealer)
        self._seen = SeenKeys(clock.monotonic_ms())
        self._listeners: list[Callable[[Applied], None]] = []
        self._failure_listeners: list[Callable[[EnvdError], None]] = []
        self._visible_lsn = 0
        self._behind = WriteBehind(
            self._state,
            self._memtable,
            self._journal,
            clock,
            visible_lsn=self.last_lsn,
            interval_ms=options.flush_interval_ms,
            memtable_bytes=options.memtable_bytes,
        )
        self._drops = Drops(self._state, self._memtable, self._behind)
        self._collector = Collector(self._state, self._memtable, self._behind)
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
        self._memtable.progress = Progress(self._state.vectors(), self._state.cursors())
        self._visible_lsn = covered
        applied = 0
        for frame in self._journal.recover(covered):
            for lsn, raw in enumerate(frame.records, frame.first_lsn):
                if lsn > covered:
                    pending = pending_again(raw, self.head, self._digest_key)
                    self._memtable.append(pending)
                    self._memtable.synced(pending)
                    self._visible_lsn = lsn
                    applied += 1
            if self._memtable.unflushed_bytes > _REPLAY_FLUSH_BYTES:
                await self.flush()
        loop = asyncio.get_running_loop()
        self._journal.start(loop, covered_lsn=covered, hlc_bound=self._state.hlc_bound)
        dropped = self._journal.dropped_tail
        if dropped is not None:
            where = {"path": str(dropped.path), "position": dropped.position}
            _log.error("journal.tail_dropped", extra=where)
        if applied:
            _log.info("store.replayed", extra={"commits": applied})
            await self.flush()
        self._drops.newest = Newest(self._visible_lsn)
        if self._state.has_dropped_rows:
            self._behind.want()
        self._flusher = loop.create_task(self._behind.run(), name="store-flush")
        self._learner = loop.create_task(
            learn(self._seen, self._state.operation_keys, self._clock.monotonic_ms()),
            name="store-operations",
        )

    @property
    def dropped_tail(self) -> DroppedTail | None:
        """The damaged last group that the start left out, to be reported."""
        return self._journal.dropped_tail

    # -- reading -------------------------------------------------------------------

    def visible(self, environment: str) -> StoredState | None:
        return self._view.visible(environment)

    def head(self, environment: str) -> StoredState | None:
        return self._view.head(environment)

    def last_seq(self, partition: int, origin: int) -> int:
        return self._memtable.progress.last_seq(partition, origin)

    def vectors(self) -> Mapping[tuple[int, int], int]:
        """As the port says; it follows what happens, so copy what is to stay."""
        return self._memtable.progress.vectors

    def last_lsn(self) -> int:
        return self._visible_lsn

    def highest_hlc(self) -> int:
        return max(self._journal.hlc_bound, self._state.hlc_bound, self._state.floor)

    def find_operation(self, author: str, operation: str) -> OperationResult | None:
        key = operation_key(author, operation)
        known = self._memtable.operation(key)
        if known is None and self._seen.may_hold(key):
            known = self._state.operation(key)
        return known

    def environments(
        self, prefix: str, after: str, limit: int, partitions: Collection[int] | None = None
    ) -> list[ListedEnvironment]:
        wanted = None if partitions is None else frozenset(partitions)
        return self._view.environments(prefix, after, limit, wanted)

    def commits(self, environment: str, before: Stamp | None, limit: int) -> list[Commit]:
        return self._view.commits(environment, before, limit)

    def commit_rows(self, environment: str) -> list[tuple[Stamp, bytes]]:
        return self._view.commit_rows(environment)

    def base(self, environment: str) -> Environment:
        return self._view.base(environment)

    def conflicts(self, prefix: str, after: str, limit: int) -> list[ConflictRecord]:
        return self._view.conflicts(prefix, after, limit)

    def replay(self, after_lsn: int) -> Iterator[tuple[int, LogRecord]]:
        """As the port says: all that `subscribe` tells of, told the same way."""
        for lsn, row in self._all_pages.all_after(after_lsn, self._visible_lsn):
            record, _ = records.decode_own_row(row)
            yield lsn, told(record)

    async def rows(self, after_lsn: int, max_bytes: int) -> list[tuple[int, bytes]]:
        return await finish_in_thread(self._pages.read, after_lsn, self._visible_lsn, max_bytes)

    def oldest_lsn(self) -> int:
        return min(self._journal.oldest_lsn, self._visible_lsn + 1)

    def hold(self, after_lsn: int | None) -> None:
        self._journal.hold(after_lsn)

    def environment_count(self) -> int:
        """How many environments exist, as of the last flush."""
        return self._state.environments

    def variable_count(self) -> int:
        """How many variables all environments have together, as of the last flush."""
        return self._state.variables

    def conflict_count(self) -> int:
        """How many conflicts nobody has settled yet, as of the last flush."""
        return self._state.open_conflicts

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
            if self._behind.failure is not None:
                raise Unavailable(
                    "the node has no memory left for writes that its state does not take; "
                    f"nothing was done ({self._behind.failure.message})",
                    hint=self._behind.failure.hint,
                    reason=self._behind.failure.reason,
                    retry_after_ms=1000,
                )
            self._behind.room.clear()
            await self._behind.room.wait()  # What is unflushed has the flusher on its way already.

    def append(
        self, record: LogRecord, after: StoredState, encoded: bytes = b""
    ) -> asyncio.Future[int]:
        refusal = self._refusal(record.commit.environment)
        if refusal is not None:
            return refused(refusal)
        made_here = not encoded and record.origin == self._node_uid
        encoded = encoded or records.encode_commit(record.commit)
        row = records.encode_log_record(record, encoded)
        head = self.head(record.commit.environment)
        stamp = record.commit.stamp
        hlc = stamp.hlc if stamp.node_uid == self._node_uid else 0
        pending = pending_of(record, after, encoded, head, made_here=made_here)
        return self._log_row(row, hlc, pending)

    def append_base(self, base: Environment, after: StoredState) -> asyncio.Future[int]:
        refusal = self._refusal(base.name)
        if refusal is not None:
            return refused(refusal)
        record = BaseRecord(base)
        row = records.encode_base_record(record)
        pending = pending_of(record, after, row, self.head(base.name), made_here=False)
        return self._log_row(row, 0, pending)

    def _refusal(self, environment: str) -> EnvdError | None:
        return self._drops.refusal(environment) if self._closing is None else stopping()

    def _log_row(self, row: bytes, hlc: int, pending: Pending) -> asyncio.Future[int]:
        """Queue a row of the journal; `hlc` is 0 for stamps that others gave."""
        durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def done(lsn: int, error: EnvdError | None) -> None:
            if error is None:
                self._became_durable(lsn, pending, row)
            elif self._memtable.refused(pending):
                self._was_refused(error)
            if durable.done():
                return
            if error is None:
                durable.set_result(lsn)
            else:
                durable.set_exception(error)

        self._journal.append(row, hlc, done)
        if pending.operation is not None:
            self._seen.add(pending.operation, self._clock.monotonic_ms())
        self._memtable.append(pending)
        return durable

    def _was_refused(self, error: EnvdError) -> None:
        """The first of those that were built on each other was refused: none of them is there."""
        _log.error("store.write_refused", extra={"reason": error.reason})
        self._journal.resume()
        if isinstance(error, OutcomeUnknown):
            for tell in self._failure_listeners:
                tell(error)

    def _became_durable(self, lsn: int, pending: Pending, row: bytes) -> None:
        self._memtable.synced(pending)
        self._visible_lsn = lsn
        self._drops.newest.note(self._memtable.partition(pending.name), lsn)
        self._behind.want()
        record = pending.record
        goes_out = row if isinstance(record, LogRecord) else b""
        applied = Applied(lsn, told(record), pending.after, len(pending.encoded), goes_out)
        for listener in self._listeners:
            try:
                listener(applied)
            except Exception as error:  # noqa: BLE001 - the rest of the group must be answered
                _log.critical(
                    "store.listener_failed", extra={"error": type(error).__name__}, exc_info=True
                )

    def subscribe(self, listener: Callable[[Applied], None]) -> None:
        """As the port says. A base that was merged in is told as a record of no name, whose
        commit sets what the base holds; its `row` is empty."""
        self._listeners.append(listener)

    def on_failure(self, listener: Callable[[EnvdError], None]) -> None:
        """Call `listener` once the disk failed and the store takes no writes until a restart."""
        self._failure_listeners.append(listener)

    # -- what peers know ---------------------------------------------------------------

    def advance(
        self, vectors: Mapping[tuple[int, int], int], cursors: Mapping[int, Cursor]
    ) -> None:
        self._memtable.progress.advance(vectors, cursors)
        self._behind.want()

    def cursor(self, uid: int) -> Cursor:
        return self._memtable.progress.cursor(uid)

    def forget_origin(self, origin: int) -> None:
        self._memtable.progress.forget(origin)
        self._behind.want()

    def roots(self) -> Roots:
        return self._view.roots()

    def digests(self, partition: int) -> list[tuple[str, bytes]]:
        return self._state.digests(partition)

    async def quarantine(self, row: bytes) -> None:
        """As the port says; raises Unavailable where it is full, StorageError for the disk."""
        async with self._behind.alone():
            await finish_in_thread(self._state.quarantine.put, row)
            self._state.refresh()

    def quarantined(self) -> Sequence[bytes]:
        return self._state.quarantine.rows()

    async def release(self, row: bytes) -> None:
        async with self._behind.alone():
            await finish_in_thread(self._state.quarantine.release, row)
            self._state.refresh()

    # -- the whole ---------------------------------------------------------------------

    async def drop(self, partition: int, last_lsn: int, keep_origin: int) -> bool:
        """As the port says; raises StorageError where the state could not be written."""
        return await self._drops.drop(partition, last_lsn, keep_origin)

    def floor(self) -> int:
        return self._state.floor

    async def raise_floor(self, hlc: int) -> None:
        """As the port says; raises StorageError where it could not be written."""
        await self._collector.raise_floor(hlc)

    def gathered(self) -> int:
        return self._state.gathered

    async def note_gathered(self, round_: int) -> None:
        """As the port says; raises StorageError where it could not be written."""
        await self._collector.note_gathered(round_)

    async def collect(self, partition: int) -> Forgotten:
        """As the port says; raises StorageError where the state could not be written."""
        return await self._collector.collect(partition)

    async def flush(self) -> None:
        await self._behind.flush()

    async def sync(self) -> None:
        await finish_in_thread(self._state.sync)

    async def copy_to(self, directory: Path) -> int:
        await self.flush()
        async with self._behind.alone():
            covered = self._state.covered_lsn
            await finish_in_thread(copy_durably, self._state, self._journal, directory, covered)
        return covered

    def forget_dead_readers(self) -> None:
        """Let the state reuse what another process held on to that read it and was killed."""
        if self._closing is None:
            self._state.forget_dead_readers()

    async def close(self) -> None:
        """Write what waits, flush, and let go; the view then covers the whole journal.

        It goes on to the end where its caller is cancelled; again, it waits for the same end.
        """
        if self._closing is None:
            self._behind.hurry()
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._behind.room.set()
        try:
            for task in (self._learner, self._flusher):
                if task is not None:
                    task.cancel()
                    await asyncio.wait((task,))
            await self._journal.close()
            await self.flush()
        finally:
            async with self._behind.alone():
                self._state.close()
            mark_clean(self._directory)
