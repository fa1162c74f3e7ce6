"""The Store in memory: the same contract without a disk, for tests and the simulator."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

from envd.core.answers import ListedEnvironment
from envd.core.commit import Commit, LogRecord
from envd.core.environment import Environment
from envd.core.errors import Unsupported
from envd.core.history import Retention
from envd.core.hlc import bound_for
from envd.core.names import has_prefix
from envd.core.stamp import Stamp
from envd.ports import Applied, OperationResult, StoredState
from envd.storage.memtable import result_of
from envd.wire import records

_log = logging.getLogger(__name__)


class MemoryStore:
    """Holds everything; a commit is "synced" one turn of the event loop after its append.

    Commits pass through their stored bytes, so that what can't be stored fails here too.
    """

    def __init__(self, retention: Retention | None = None, *, node_uid: int | None = None) -> None:
        """`node_uid` tells whose stamps the durable bound is about; None: everybody's."""
        self._retention = retention or Retention()
        self._node_uid = node_uid
        self._heads: dict[str, StoredState] = {}
        self._visible: dict[str, StoredState] = {}
        self._commits: dict[str, list[Commit]] = {}
        self._bases: dict[str, Environment] = {}
        self._seqs: dict[tuple[int, int], int] = {}
        self._operations: dict[tuple[str, str], OperationResult] = {}
        self._log: list[LogRecord] = []
        self._hlc_bound = 0
        self._listeners: list[Callable[[Applied], None]] = []

    def visible(self, environment: str) -> StoredState | None:
        return self._visible.get(environment)

    def head(self, environment: str) -> StoredState | None:
        return self._heads.get(environment)

    def last_seq(self, partition: int, origin: int) -> int:
        return self._seqs.get((partition, origin), 0)

    def last_lsn(self) -> int:
        return len(self._log)

    def highest_hlc(self) -> int:
        return self._hlc_bound

    def admits(self) -> bool:
        return True

    async def admit(self) -> None:
        return

    def append(self, record: LogRecord, after: StoredState) -> asyncio.Future[int]:
        commit = record.commit
        encoded = records.encode_commit(commit)
        self._heads[commit.environment] = after
        self._seqs[record.partition, record.origin] = record.seq
        if commit.operation:
            self._operations[commit.author, commit.operation] = result_of(record, after)
        loop = asyncio.get_running_loop()
        durable: asyncio.Future[int] = loop.create_future()
        read = records.decode_log_record(records.encode_log_record(record, encoded))
        loop.call_soon(self._sync, read, after, len(encoded), durable)
        return durable

    def _sync(
        self,
        record: LogRecord,
        after: StoredState,
        size_bytes: int,
        durable: asyncio.Future[int],
    ) -> None:
        commit = record.commit
        name = commit.environment
        self._log.append(record)
        self._visible[name] = after
        own = self._node_uid is None or self._node_uid == commit.stamp.node_uid
        if own and commit.stamp.hlc > self._hlc_bound:
            self._hlc_bound = bound_for(commit.stamp.hlc)
        commits = sorted([*self._commits.get(name, ()), commit], key=lambda known: known.stamp)
        folded, kept = self._retention.split(commits)
        for old in folded:
            self._bases[name] = self.base(name).apply(old)
        self._commits[name] = list(kept)
        for listener in self._listeners:
            try:
                listener(Applied(len(self._log), record, after, size_bytes))
            except Exception as error:  # noqa: BLE001 - as in the durable store
                _log.critical(
                    "store.listener_failed", extra={"error": type(error).__name__}, exc_info=True
                )
        if not durable.done():
            durable.set_result(len(self._log))

    def find_operation(self, author: str, operation: str) -> OperationResult | None:
        return self._operations.get((author, operation))

    def environments(self, prefix: str, after: str, limit: int) -> list[ListedEnvironment]:
        names = sorted(name for name, state in self._visible.items() if state.environment.exists)
        found: list[ListedEnvironment] = []
        for name in names[bisect_left(names, after) :]:
            if name > after and has_prefix(name, prefix) and len(found) < limit:
                state = self._visible[name]
                count = state.environment.live_count()
                found.append(ListedEnvironment(name, state.revision.hex(), count))
        return found

    def commits(self, environment: str, before: Stamp | None, limit: int) -> list[Commit]:
        newest_first = reversed(self._commits.get(environment, []))
        below = [commit for commit in newest_first if before is None or commit.stamp < before]
        return below[:limit]

    def base(self, environment: str) -> Environment:
        return self._bases.get(environment) or Environment(environment)

    def replay(self, after_lsn: int) -> Iterator[tuple[int, LogRecord]]:
        return iter(list(enumerate(self._log, 1))[after_lsn:])

    def subscribe(self, listener: Callable[[Applied], None]) -> None:
        self._listeners.append(listener)

    async def flush(self) -> None:
        return

    async def copy_to(self, directory: Path) -> int:
        raise Unsupported("a store in memory has nothing to copy")

    def environment_count(self) -> int:
        return sum(state.environment.exists for state in self._visible.values())

    def storage_bytes(self) -> int:
        return 0

    async def close(self) -> None:
        return
