"""The Store in memory: the same contract without a disk, for tests and the simulator.

It has no threads, no clock and no chance of its own, and what it tells in an order it tells in
the same one for the same calls. A record is "synced" one turn of the event loop after its append;
roots and conflicts are always up to date, as if a flush followed at once. Only what the port makes
durable "with the next flush" waits for one.

What a crash leaves is plain data (`durable`), from which `recovered` makes the store that would
be there after the restart.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

from envd.core import digest
from envd.core.answers import ListedEnvironment
from envd.core.commit import Commit, LogRecord
from envd.core.environment import Environment
from envd.core.errors import Unsupported
from envd.core.floor import collected, is_empty
from envd.core.history import ConflictRecord, Retention, conflicts
from envd.core.hlc import bound_for
from envd.core.names import has_prefix, is_system
from envd.core.ring import PARTITIONS, partition_of
from envd.core.stamp import Stamp
from envd.core.versions import Cursor, Roots
from envd.ports import Applied, Forgotten, OperationResult, StoredState
from envd.storage import quarantine
from envd.storage.conflict_rows import ordered
from envd.storage.drops import Newest, check_droppable
from envd.storage.journal import compacted
from envd.storage.memory_parts import Durable as Durable
from envd.storage.memory_parts import Fingerprints
from envd.storage.memtable import result_of
from envd.storage.progress import Progress
from envd.wire import records
from envd.wire.records import BaseRecord

_log = logging.getLogger(__name__)
_STAMP = itemgetter(0)


class MemoryStore:
    """Holds everything. Records pass through their stored bytes, so that what can't be stored
    fails here too."""

    def __init__(
        self,
        retention: Retention | None = None,
        *,
        node_uid: int | None = None,
        digest_key: bytes = bytes(digest.DIGEST_KEY_BYTES),
        kept_records: int | None = None,
    ) -> None:
        """`node_uid` tells whose stamps the durable bound is about; None: everybody's.
        `kept_records` is how many of the newest records `rows` and `replay` have at least, None:
        all."""
        self._retention = retention or Retention()
        self._node_uid = node_uid
        self._digest_key = digest_key
        self._kept_records = kept_records
        self._heads: dict[str, StoredState] = {}
        self._visible: dict[str, StoredState] = {}
        self._history: dict[str, list[tuple[Stamp, bytes, Commit]]] = {}
        self._bases: dict[str, Environment] = {}
        self._operations: dict[tuple[str, str], OperationResult] = {}
        self._progress = Progress()
        self._log: list[tuple[bytes, LogRecord]] = []
        self._oldest_lsn = 1
        self._held_lsn: int | None = None
        self._quarantine: dict[bytes, bytes] = {}
        self._fingerprints = Fingerprints()
        self._hlc_bound = 0
        self._flushed = Durable()
        self._dropped: dict[int, int] = {}
        self._newest = Newest()
        self._floor = 0
        self._gathered = 0
        self._collected: list[tuple[int, int, int]] = []
        self._crashed = False
        self._listeners: list[Callable[[Applied], None]] = []

    # -- crash and recovery --------------------------------------------------------

    def durable(self) -> Durable:
        """What would be there after a crash now."""
        flushed = self._flushed
        return Durable(
            tuple(row for row, _ in self._log),
            self._oldest_lsn,
            flushed.flushed_lsn,
            flushed.vectors,
            flushed.cursors,
            tuple(self.quarantined()),
            self._hlc_bound,
            dict(self._dropped),
            self._floor,
            tuple(self._collected),
            self._gathered,
        )

    def crash(self) -> Durable:
        """Stop for good, whatever is on its way; return what is there afterwards."""
        self._crashed = True
        return self.durable()

    @classmethod
    def recovered(
        cls,
        durable: Durable,
        retention: Retention | None = None,
        *,
        node_uid: int | None = None,
        digest_key: bytes = bytes(digest.DIGEST_KEY_BYTES),
        kept_records: int | None = None,
    ) -> MemoryStore:
        """The store of a node that starts again on what a crash left."""
        store = cls(retention, node_uid=node_uid, digest_key=digest_key, kept_records=kept_records)
        store._progress = Progress(durable.vectors, durable.cursors)
        dropped = sorted((lsn, partition) for partition, lsn in durable.dropped.items() if lsn)
        dropped.reverse()
        forgotten = list(reversed(durable.collected))
        for lsn, row in enumerate(durable.rows, 1):
            record, encoded = records.decode_own_row(row)
            store._take(row, record, encoded, store._after(record))
            if lsn > durable.flushed_lsn and isinstance(record, LogRecord):
                store._progress.synced((record.partition, record.origin), record.seq)
            while dropped and dropped[-1][0] == lsn:
                store._clear(dropped.pop()[1])
            while forgotten and forgotten[-1][0] == lsn:
                store._collect(*forgotten.pop()[1:], busy=())
        store._heads = dict(store._visible)
        store._oldest_lsn = durable.oldest_lsn
        store._quarantine = {quarantine.quarantine_key(row): row for row in durable.quarantine}
        store._hlc_bound = durable.hlc_bound
        store._flushed = durable
        store._dropped = dict(durable.dropped)
        store._floor, store._collected = durable.floor, list(durable.collected)
        store._gathered = durable.gathered
        store._newest = Newest(len(durable.rows))
        return store

    def _after(self, record: LogRecord | BaseRecord) -> StoredState:
        """The state that a record makes of the visible one."""
        name = record.name if isinstance(record, BaseRecord) else record.commit.environment
        known = self._visible.get(name)
        before = known.environment if known else Environment(name)
        if isinstance(record, BaseRecord):
            environment = before.merge(record.base)
        else:
            environment = before.apply(record.commit)
        return StoredState(environment, digest.revision(environment, self._digest_key))

    # -- reading -------------------------------------------------------------------

    def visible(self, environment: str) -> StoredState | None:
        return self._visible.get(environment)

    def head(self, environment: str) -> StoredState | None:
        return self._heads.get(environment)

    def last_seq(self, partition: int, origin: int) -> int:
        return self._progress.last_seq(partition, origin)

    def vectors(self) -> Mapping[tuple[int, int], int]:
        return self._progress.vectors

    def last_lsn(self) -> int:
        return len(self._log)

    def highest_hlc(self) -> int:
        return max(self._hlc_bound, self._floor)

    def find_operation(self, author: str, operation: str) -> OperationResult | None:
        return self._operations.get((author, operation))

    def environments(
        self, prefix: str, after: str, limit: int, partitions: Collection[int] | None = None
    ) -> list[ListedEnvironment]:
        wanted = None if partitions is None else frozenset(partitions)
        names = sorted(name for name, state in self._visible.items() if state.environment.exists)
        found: list[ListedEnvironment] = []
        for name in names[bisect_left(names, after) :]:
            if len(found) >= limit:
                break
            of_wanted = wanted is None or partition_of(name) in wanted
            if name > after and has_prefix(name, prefix) and of_wanted:
                state = self._visible[name]
                count = state.environment.live_count()
                found.append(ListedEnvironment(name, state.revision.hex(), count))
        return found

    def commits(self, environment: str, before: Stamp | None, limit: int) -> list[Commit]:
        newest_first = reversed(self._history.get(environment, ()))
        below = [commit for stamp, _, commit in newest_first if before is None or stamp < before]
        return below[:limit]

    def commit_rows(self, environment: str) -> list[tuple[Stamp, bytes]]:
        return [(stamp, encoded) for stamp, encoded, _ in self._history.get(environment, ())]

    def base(self, environment: str) -> Environment:
        return self._bases.get(environment) or Environment(environment)

    def conflicts(self, prefix: str, after: str, limit: int) -> list[ConflictRecord]:
        found: list[ConflictRecord] = []
        for name in sorted(self._visible):
            if name > after and has_prefix(name, prefix) and len(found) < limit:
                commits = [commit for _, _, commit in self._history.get(name, ())]
                found += ordered(conflicts(commits, self.base(name)), self._digest_key)
        return found

    def replay(self, after_lsn: int) -> Iterator[tuple[int, LogRecord]]:
        self._check_kept(after_lsn)
        told = (record for _, record in self._log[after_lsn:])
        return iter(list(enumerate(told, after_lsn + 1)))

    async def rows(self, after_lsn: int, max_bytes: int) -> list[tuple[int, bytes]]:
        self._check_kept(after_lsn)
        found: list[tuple[int, bytes]] = []
        size = 0
        for lsn, (row, record) in enumerate(self._log[after_lsn:], after_lsn + 1):
            if record.origin:
                size += len(row)
                if found and size > max_bytes:
                    break
                found.append((lsn, row))
        return found

    def _check_kept(self, after_lsn: int) -> None:
        if after_lsn + 1 < self._oldest_lsn:
            raise compacted()

    def oldest_lsn(self) -> int:
        return self._oldest_lsn

    def hold(self, after_lsn: int | None) -> None:
        self._held_lsn = after_lsn

    # -- writing -------------------------------------------------------------------

    def admits(self) -> bool:
        return True

    async def admit(self) -> None:
        return

    def append(
        self, record: LogRecord, after: StoredState, encoded: bytes = b""
    ) -> asyncio.Future[int]:
        commit = record.commit
        self._progress.appended((record.partition, record.origin), record.seq)
        if commit.operation:
            self._operations[commit.author, commit.operation] = result_of(record, after)
        row = records.encode_log_record(record, encoded or records.encode_commit(commit))
        return self._log_row(row, after)

    def append_base(self, base: Environment, after: StoredState) -> asyncio.Future[int]:
        return self._log_row(records.encode_base_record(BaseRecord(base)), after)

    def _log_row(self, row: bytes, after: StoredState) -> asyncio.Future[int]:
        self._heads[after.environment.name] = after
        loop = asyncio.get_running_loop()
        durable: asyncio.Future[int] = loop.create_future()
        loop.call_soon(self._sync, row, after, durable)
        return durable

    def _sync(self, row: bytes, after: StoredState, durable: asyncio.Future[int]) -> None:
        if self._crashed:
            return
        record, encoded = records.decode_own_row(row)
        told = self._take(row, record, encoded, after)
        if isinstance(record, LogRecord):
            self._progress.synced((record.partition, record.origin), record.seq)
            self._raise_bound(record.commit.stamp)
        goes_out = row if isinstance(record, LogRecord) else b""
        lsn = len(self._log)
        self._newest.note(partition_of(after.environment.name), lsn)
        for listener in self._listeners:
            try:
                listener(Applied(lsn, told, after, len(encoded), goes_out))
            except Exception as error:  # noqa: BLE001 - as in the durable store
                _log.critical(
                    "store.listener_failed", extra={"error": type(error).__name__}, exc_info=True
                )
        if not durable.done():
            durable.set_result(lsn)

    def _raise_bound(self, stamp: Stamp) -> None:
        own = self._node_uid is None or self._node_uid == stamp.node_uid
        if own and stamp.hlc > self._hlc_bound:
            self._hlc_bound = bound_for(stamp.hlc)

    def _take(
        self, row: bytes, record: LogRecord | BaseRecord, encoded: bytes, after: StoredState
    ) -> LogRecord:
        """Put a record into the log and into what is made of it; return it as it is told."""
        name = after.environment.name
        if isinstance(record, BaseRecord):
            told = record.as_log_record()
            self._bases[name] = self.base(name).merge(record.base)
        else:
            told = record
            self._remember(encoded, record.commit)
            if record.commit.operation:
                key = (record.commit.author, record.commit.operation)
                self._operations[key] = result_of(record, after)
        self._log.append((row, told))
        self._visible[name] = after
        self._fingerprints.changed(name)
        self._recycle()
        return told

    def _remember(self, encoded: bytes, commit: Commit) -> None:
        """Put a commit into its history, and what retention lets go into the base."""
        name = commit.environment
        history = self._history.setdefault(name, [])
        at = bisect_left(history, commit.stamp, key=_STAMP)
        if at == len(history) or history[at][0] != commit.stamp:
            insort(history, (commit.stamp, encoded, commit), key=_STAMP)
        folded, _ = self._retention.of(name).split([known for _, _, known in history])
        for old in folded:
            self._bases[name] = self.base(name).apply(old)
        del history[: len(folded)]

    def _recycle(self) -> None:
        """Let go of the oldest records beyond `kept_records`, up to those that are held."""
        kept, held = self._kept_records, self._held_lsn
        if kept is not None:
            oldest = len(self._log) - kept + 1
            allowed = oldest if held is None else min(oldest, held + 1)
            self._oldest_lsn = max(self._oldest_lsn, allowed)

    def subscribe(self, listener: Callable[[Applied], None]) -> None:
        """As the durable store's."""
        self._listeners.append(listener)

    # -- what peers know -----------------------------------------------------------

    def advance(
        self, vectors: Mapping[tuple[int, int], int], cursors: Mapping[int, Cursor]
    ) -> None:
        self._progress.advance(vectors, cursors)

    def cursor(self, uid: int) -> Cursor:
        return self._progress.cursor(uid)

    def forget_origin(self, origin: int) -> None:
        self._progress.forget(origin)

    def roots(self) -> Roots:
        self._settle()
        return Roots(tuple(self._fingerprints.roots))

    def digests(self, partition: int) -> list[tuple[str, bytes]]:
        self._settle()
        return sorted(self._fingerprints.digests[partition].items())

    def _settle(self) -> None:
        """Compute the digests of what changed since the last time."""
        key = self._digest_key
        for name in self._fingerprints.take_changed():
            state = self._visible[name]
            shares = [digest.commit_hash(row, key) for _, row in self.commit_rows(name)]
            history_sum = digest.history_sum(shares)
            own = digest.state_digest(state.environment, state.revision, history_sum, key)
            base = digest.base_digest(self.base(name), key)
            self._fingerprints.put(name, digest.whole_digest(own, base, key), key)

    async def quarantine(self, row: bytes) -> None:
        kept = sum(map(len, self._quarantine.values()))
        key = quarantine.quarantine_key(row)
        if key not in self._quarantine and kept + len(row) > quarantine.MAX_BYTES:
            raise quarantine.full()
        self._quarantine[key] = row

    def quarantined(self) -> Sequence[bytes]:
        return [row for _, row in sorted(self._quarantine.items())]

    async def release(self, row: bytes) -> None:
        self._quarantine.pop(quarantine.quarantine_key(row), None)

    # -- the whole -----------------------------------------------------------------

    async def drop(self, partition: int, last_lsn: int, keep_origin: int) -> bool:
        check_droppable(partition)
        if self._is_wanted(partition, last_lsn):
            return False
        await self.flush()
        if self._is_wanted(partition, min(last_lsn, self._flushed.flushed_lsn)):
            return False
        self._clear(partition)
        self._progress.drop(partition, keep_origin)
        flushed = {
            place: seq
            for place, seq in self._flushed.vectors.items()
            if place[0] != partition or place[1] == keep_origin
        }
        self._flushed = replace(self._flushed, vectors=flushed)
        self._dropped[partition] = self._flushed.flushed_lsn
        return True

    def _is_wanted(self, partition: int, last_lsn: int) -> bool:
        on_its_way = (
            name for name, head in self._heads.items() if head is not self._visible.get(name)
        )
        return (
            self._newest.may_be_above(partition, last_lsn)
            or partition in map(partition_of, on_its_way)
            or any(key.startswith(partition.to_bytes(2)) for key in self._quarantine)
        )

    def _clear(self, partition: int) -> None:
        """Forget the environments of a partition."""
        for name in [name for name in self._visible if partition_of(name) == partition]:
            del self._visible[name]
            self._heads.pop(name, None)
            self._history.pop(name, None)
            self._bases.pop(name, None)
        self._fingerprints.clear(partition)

    def floor(self) -> int:
        return self._floor

    async def raise_floor(self, hlc: int) -> None:
        self._floor = max(self._floor, hlc)

    def gathered(self) -> int:
        return self._gathered

    async def note_gathered(self, round_: int) -> None:
        self._gathered = round_

    async def collect(self, partition: int) -> Forgotten:
        if not 0 <= partition < PARTITIONS:
            raise ValueError(f"there is no partition {partition}")
        if not self._floor:
            return Forgotten()
        busy = {name for name, head in self._heads.items() if head is not self._visible.get(name)}
        done = self._collect(partition, self._floor, busy)
        if done != Forgotten(busy=done.busy):
            self._collected.append((len(self._log), partition, self._floor))
        return done

    def _collect(self, partition: int, floor: int, busy: Collection[str]) -> Forgotten:
        done = Forgotten()
        for name in [name for name in self._visible if partition_of(name) == partition]:
            if name in busy:
                done += Forgotten(busy=1)
            else:
                done += self._collect_in(name, floor)
        return done

    def _collect_in(self, name: str, floor: int) -> Forgotten:
        """Collect in one environment."""
        known, history = self._visible[name], self._history.get(name, [])
        commits = [commit for _, _, commit in history]
        retention = self._retention.of(name)
        left = collected(known.environment, self.base(name), commits, floor, retention)
        folded = set(left.folded)
        history = [row for row in history if row[0] not in folded]
        tombstones = len(left.removed)
        if is_empty(left.environment) and is_empty(left.base) and not history:
            del self._visible[name]
            self._heads.pop(name, None)
            self._history.pop(name, None)
            self._bases.pop(name, None)
            self._fingerprints.forget(name, self._digest_key)
            return Forgotten(tombstones, len(folded), 1)
        if left.changes:
            self._visible[name] = self._heads[name] = StoredState(left.environment, known.revision)
            self._bases[name], self._history[name] = left.base, history
            self._fingerprints.changed(name)
        return Forgotten(tombstones, len(folded))

    async def sync(self) -> None:
        return

    async def flush(self) -> None:
        """Make vectors and cursors durable; all else is in the view already."""
        self._flushed = Durable(
            flushed_lsn=len(self._log),
            vectors=dict(self._progress.vectors),
            cursors=dict(self._progress.cursors),
        )

    async def copy_to(self, directory: Path) -> int:
        raise Unsupported("a store in memory has nothing to copy")

    def environment_count(self) -> int:
        return sum(
            state.environment.exists and not is_system(name)
            for name, state in self._visible.items()
        )

    def storage_bytes(self) -> int:
        return 0

    async def close(self) -> None:
        await self.flush()
