"""The store of a simulated node: envd's store in memory, on a disk that takes time and fails.

Records are synced in groups, one sync at a time; what was appended meanwhile shares the next
one. Where the disk is full a group is refused whole: the heads go back to what is durable, as in
the durable store. Roots and digests are those of the last flush, which takes time too, and fails
on a full disk. A crash keeps a random number of the oldest records that no sync covered.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Self

from chaos.sim.held import Commits, Held, held_back
from chaos.sim.loop import Process, SimFuture, SimLoop
from envd.core.commit import LogRecord
from envd.core.errors import Unavailable
from envd.core.history import Retention
from envd.core.ring import partition_of
from envd.core.versions import Roots
from envd.ports import Forgotten, StoredState
from envd.storage.memory import Durable, MemoryStore

SYNC_S: Final = (0.000_15, 0.004)
FLUSH_S: Final = (0.002, 0.05)
SLOW: Final = 60.0


@dataclass
class Platter:
    """The disk below: it outlives the store. `full` refuses writes, `slow` makes them slow."""

    full: bool = False
    slow: bool = False


@dataclass
class _Write:
    row: bytes
    after: StoredState
    durable: SimFuture[int]
    operation: tuple[str, str] | None = None


class SimStore(MemoryStore):
    """Open it with `opened`; after `attach` it works, and ends with its process.

    `on_drop` hears of each partition that is let go of, with the commits to its environments.
    """

    _platter: Platter
    _chance: Random
    _process: Process
    _loop: SimLoop
    on_drop: Callable[[int, Commits], None] | None = None

    def held(self) -> Held:
        """What there is now."""
        commits = {
            name: frozenset(stamp for stamp, *_ in rows) for name, rows in self._history.items()
        }
        for commit in held_back(self.quarantined()):
            name = commit.environment
            commits[name] = commits.get(name, frozenset()) | {commit.stamp}
        bases = {name: base.highest_stamp for name, base in self._bases.items()}
        return Held(self.vectors(), commits, bases, floor=self.floor())

    @classmethod
    def opened(
        cls, durable: Durable, retention: Retention, node_uid: int, digest_key: bytes, kept: int
    ) -> Self:
        """The store on what a disk holds; it keeps the newest `kept` records for peers."""
        store = cls.recovered(
            durable, retention, node_uid=node_uid, digest_key=digest_key, kept_records=kept
        )
        assert isinstance(store, cls)
        return store

    def attach(self, platter: Platter, chance: Random, process: Process, loop: SimLoop) -> None:
        """Write to this disk, as part of this process."""
        self._platter = platter
        self._chance = chance
        self._process = process
        self._loop = loop
        self._queue: list[_Write] = []
        self._group: list[_Write] = []
        self._unsettled: dict[int, None] = {}
        self._settling: dict[int, None] = {}
        self._flushing = asyncio.Lock()
        self.flushes_now = False
        self.synced_at: list[float] = [loop.time()] * len(self._log)
        self._told_roots = super().roots()
        self._told_digests: dict[int, list[tuple[str, bytes]]] = {}
        for partition in sorted({partition_of(name) for name in self._visible}):
            self._told_digests[partition] = super().digests(partition)

    # -- syncs -------------------------------------------------------------------------

    def append(self, record: LogRecord, after: StoredState, encoded: bytes = b"") -> SimFuture[int]:
        commit = record.commit
        key = (commit.author, commit.operation)
        known = self._operations.get(key)
        durable = super().append(record, after, encoded)
        assert isinstance(durable, SimFuture)
        if commit.operation and known is None:
            self._queue[-1].operation = key
        return durable

    def _log_row(self, row: bytes, after: StoredState) -> SimFuture[int]:
        self._heads[after.environment.name] = after
        durable: SimFuture[int] = self._loop.create_future()
        self._queue.append(_Write(row, after, durable))
        if not self._group:
            # As the journal's queue does, it takes what this turn of the loop brings.
            self._loop.call_soon(self._begin_sync, context=self._process.context)
        return durable

    def _takes_s(self, least_and_most: tuple[float, float]) -> float:
        took = self._chance.uniform(*least_and_most)
        return took * SLOW if self._platter.slow else took

    def _begin_sync(self) -> None:
        if self._group or not self._queue:
            return
        self._group, self._queue = self._queue, []
        if self._platter.full:
            self._refuse()
            return
        # The disk works on while the process stands still; its answer waits for it.
        self._loop.call_later(
            self._takes_s(SYNC_S), self._process.call_soon, self._end_sync, self._group
        )

    def _end_sync(self, group: list[_Write]) -> None:
        if group is not self._group:
            return
        self._group = []
        for write in group:
            self.synced_at.append(self._loop.time())
            self._unsettled[partition_of(write.after.environment.name)] = None
            self._sync(write.row, write.after, write.durable)
        self._begin_sync()

    def _refuse(self) -> None:
        """No room: nothing of what is on its way is written."""
        refused, self._group, self._queue = [*self._group, *self._queue], [], []
        self._heads = dict(self._visible)
        self._progress.refused()
        for write in refused:
            if write.operation is not None:
                self._operations.pop(write.operation, None)
            if not write.durable.done():
                write.durable.set_exception(
                    Unavailable("the disk is full; nothing was written", reason="DISK_FULL")
                )

    # -- flushes -----------------------------------------------------------------------

    def roots(self) -> Roots:
        return replace(self._told_roots, unsettled=frozenset((*self._unsettled, *self._settling)))

    def digests(self, partition: int) -> list[tuple[str, bytes]]:
        return list(self._told_digests.get(partition, ()))

    async def flush(self) -> None:
        """As the port says; raises Unavailable on a full disk."""
        async with self._flushing:
            settled, self._unsettled = self._unsettled, {}
            self._settling = settled
            roots = super().roots()
            digests = {partition: super(SimStore, self).digests(partition) for partition in settled}
            flushed = Durable(
                flushed_lsn=self.last_lsn(),
                vectors=dict(self._progress.vectors),
                cursors=dict(self._progress.cursors),
            )
            self.flushes_now = True
            try:
                await asyncio.sleep(self._takes_s(FLUSH_S))
            finally:
                self.flushes_now = False
            if self._platter.full:
                self._unsettled, self._settling = {**settled, **self._unsettled}, {}
                raise Unavailable("the disk is full; nothing was flushed", reason="DISK_FULL")
            self._flushed = flushed
            self._told_roots = roots
            self._told_digests.update(digests)
            self._settling = {}

    def _clear(self, partition: int) -> None:
        if self.on_drop is not None:
            held = self.held().commits
            self.on_drop(
                partition,
                {name: held[name] for name in sorted(held) if partition_of(name) == partition},
            )
        super()._clear(partition)

    async def drop(self, partition: int, last_lsn: int, keep_origin: int) -> bool:
        """As the port says; it takes the time of a flush, and raises as one does."""
        if not await super().drop(partition, last_lsn, keep_origin):
            return False
        roots = list(self._told_roots.partitions)
        roots[partition] = 0
        self._told_roots = replace(self._told_roots, partitions=tuple(roots))
        self._told_digests.pop(partition, None)
        return True

    async def collect(self, partition: int) -> Forgotten:
        """As the port says; what it did shows in roots and digests with the next flush."""
        done = await super().collect(partition)
        if done != Forgotten(busy=done.busy):
            self._unsettled[partition] = None
        return done

    async def raise_floor(self, hlc: int) -> None:
        await self._written()
        await super().raise_floor(hlc)

    async def note_gathered(self, round_: int) -> None:
        await self._written()
        await super().note_gathered(round_)

    async def quarantine(self, row: bytes) -> None:
        await self._written()
        await super().quarantine(row)

    async def _written(self) -> None:
        """Wait for a write of something small; raises Unavailable on a full disk."""
        await asyncio.sleep(self._takes_s(SYNC_S))
        if self._platter.full:
            raise Unavailable("the disk is full; nothing was written", reason="DISK_FULL")

    async def rows(self, after_lsn: int, max_bytes: int) -> list[tuple[int, bytes]]:
        await asyncio.sleep(0)
        return await super().rows(after_lsn, max_bytes)

    async def close(self) -> None:
        on_its_way = [write.durable for write in (*self._group, *self._queue)]
        if on_its_way:
            await asyncio.wait(on_its_way)
        await self.flush()

    # -- what a crash leaves -------------------------------------------------------------

    def lose_power(self, lied_s: float = 0.0) -> Durable:
        """End at once: of what no sync covered a random number of the oldest records is there.

        Where the disk lied, what it called synced within the last `lied_s` is gone too.
        """
        self._listeners = []
        on_its_way = [*self._group, *self._queue]
        survivors = self._chance.randrange(len(on_its_way) + 1)
        for write in on_its_way[:survivors]:
            self._sync(write.row, write.after, write.durable)
            self.synced_at.append(self._loop.time())
        durable = self.crash()
        if not lied_s:
            return durable
        kept = bisect_left(self.synced_at, self._loop.time() - lied_s)
        return replace(durable, rows=durable.rows[: max(kept, durable.flushed_lsn)])


def damaged(durable: Durable, synced_at: Sequence[float], rows: int) -> tuple[Durable, float]:
    """What a start makes of a damaged last group of so many rows: they are gone.

    Rows that a flush covered are in the view too. Returns also since when (virtual seconds)
    something is missing.
    """
    kept = max(durable.flushed_lsn, len(durable.rows) - rows)
    since_s = synced_at[kept] if kept < len(durable.rows) else synced_at[-1] if synced_at else 0.0
    return replace(durable, rows=durable.rows[:kept]), since_s
