"""The write-behind of the durable store: what is durable in the journal follows into LMDB.

A while after there is something to write, and at once where memory fills, a task writes all of
it in one transaction. Where that fails, it stays in memory, and the task tries again. The thread
that writes takes the interpreter from the event loop, so it rests after each bit of work, for up to
20 ms, unless memory fills or somebody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from envd.core.errors import EnvdError, StorageError
from envd.ports import Clock
from envd.storage.flush import Batch, go_on
from envd.storage.journal import Journal
from envd.storage.memtable import Dirty, Memtable
from envd.storage.state import StateDb
from envd.threads import finish_in_thread

_log = logging.getLogger(__name__)
_RETRY_S = 1.0
_WORK_S = 0.001
_REST = 3
_LONGEST_REST_S = 0.02
_MOST_NAMES = 4_000


class Pace:
    """Rests after each bit of work, three times as long as that took, unless in a hurry."""

    def __init__(
        self,
        is_in_a_hurry: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock` tells how long the calling thread has worked, in seconds."""
        self._is_in_a_hurry = is_in_a_hurry
        self._clock = clock
        self._sleep = sleep
        self._since_s: float | None = None

    def __call__(self) -> None:
        if self._since_s is None:
            self._since_s = self._clock()
        worked_s = self._clock() - self._since_s
        if worked_s < _WORK_S:
            return
        if not self._is_in_a_hurry():
            self._sleep(min(_REST * worked_s, _LONGEST_REST_S))
        self._since_s = self._clock()


class WriteBehind:
    """The flushes of one store."""

    def __init__(
        self,
        state: StateDb,
        memtable: Memtable,
        journal: Journal,
        clock: Clock,
        *,
        visible_lsn: Callable[[], int],
        interval_ms: int,
        memtable_bytes: int,
    ) -> None:
        self._state = state
        self._memtable = memtable
        self._journal = journal
        self._clock = clock
        self._visible_lsn = visible_lsn
        self._interval_ms = interval_ms
        self._memtable_bytes = memtable_bytes
        self._lock = asyncio.Lock()
        self._waiting = 0
        self.ends = False
        """Set once the store is closed: what can wait for the next start does."""
        self.failure: EnvdError | None = None
        self.room = asyncio.Event()
        """Set whenever a flush ended, well or not."""
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()

    def want(self) -> None:
        """There is something to write."""
        self._wanted.set()
        if self._memory_fills():
            self._urgent.set()

    def _memory_fills(self) -> bool:
        many = self._memtable.dirty_names > _MOST_NAMES  # Each page of a list looks at them all.
        return many or self._memtable.unflushed_bytes > self._memtable_bytes // 2

    async def run(self) -> None:
        """Flush soon after there is something, at once where memory fills; for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self.failure is None:
                await self._gather()
            try:
                async with self._lock:
                    await self._flush(Pace(self._is_in_a_hurry))
                if self._state.has_dropped_rows:
                    await self.purge()
            except Exception as error:  # noqa: BLE001 - the task's outermost guard
                self._failed(error)
                await asyncio.sleep(_RETRY_S)
                self._wanted.set()

    async def _gather(self) -> None:
        """Let commits gather for the flush interval, or until memory fills."""
        self._urgent.clear()
        if not self._memory_fills():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_ms / 1000):
                    await self._urgent.wait()

    def _failed(self, error: Exception) -> None:
        if isinstance(error, EnvdError):
            self.failure = error
            _log.error("store.flush_failed", extra={"error": error.message})
        else:
            name = type(error).__name__
            self.failure = StorageError(f"the state could not be written ({name})")
            _log.critical("store.flush_failed", extra={"error": name}, exc_info=error)
        self.room.set()

    def _is_in_a_hurry(self) -> bool:
        return self.ends or self._waiting > 0 or self._memory_fills()

    async def flush(self) -> None:
        """Write all that is visible now; raises StorageError, and then nothing is lost."""
        async with self.alone():
            await self.write()

    async def write(self) -> None:
        """The same for one who is `alone` already."""
        await self._flush(go_on)

    async def purge(self) -> None:
        """Take away some rows of dropped partitions, at a pace; raises StorageError.

        Where some are left, the task goes on with them.
        """
        async with self._lock:
            if self.ends:
                return
            try:
                await finish_in_thread(self._state.purge, Pace(self._is_in_a_hurry))
            finally:
                self._state.refresh()
                if self._state.has_dropped_rows:
                    self._wanted.set()

    @asynccontextmanager
    async def in_turn(self) -> AsyncIterator[Pace]:
        """Have no flush meanwhile, for work that can wait, at this pace."""
        async with self._lock:
            yield Pace(self._is_in_a_hurry)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Have no flush meanwhile; one that is under way hurries."""
        self._waiting += 1
        try:
            async with self._lock:
                yield
        finally:
            self._waiting -= 1

    def hurry(self) -> None:
        """Take no rests any more: the store is closed."""
        self.ends = True

    async def _flush(self, pause: Callable[[], None]) -> None:
        dirty = self._memtable.take_dirty()
        if not dirty:
            return
        try:
            safe_lsn = await finish_in_thread(self._state.commit, self._batch(dirty), pause)
        except BaseException:
            self._memtable.not_flushed(dirty)
            self._wanted.set()
            raise
        self._flushed(dirty, safe_lsn)

    def _batch(self, dirty: Dirty) -> Batch:
        return Batch(
            now_ms=self._clock.wall_ms(),
            covered_lsn=self._visible_lsn(),
            hlc_bound=max(self._journal.hlc_bound, self._state.hlc_bound),
            states=dirty.states,
            commits=dirty.commits,
            operations=dirty.operations,
            bases={name: [base for base, _ in bases] for name, bases in dirty.bases.items()},
            contested=dirty.contested,
            moves=dirty.moves,
        )

    def _flushed(self, dirty: Dirty, safe_lsn: int) -> None:
        self._memtable.flushed(dirty)
        self._state.refresh()
        self._journal.cover(safe_lsn)
        self.failure = None
        self.room.set()
        if self._memtable.unflushed_bytes or self._memtable.progress.moved:
            self._wanted.set()
