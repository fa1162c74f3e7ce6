"""The newest records of the log, in memory, for the streams to peers.

Each stream holds a position (an lsn) and reads on from there: from here, or, where the tail
no longer reaches back, from the journal. So a peer that is slow or away costs no memory. A
node's own records stand apart from those of others, because nearly always only the own ones
are shipped: what came from elsewhere is relayed only where its origin can't reach the peer.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from typing import Final, NamedTuple

from envd.ports import Applied, Store

TAIL_BYTES: Final = 4 << 20
_OVERHEAD_BYTES: Final = 150


class Tailed(NamedTuple):
    """One record: `at_s` is the loop's time at which it became durable here."""

    lsn: int
    partition: int
    origin: int
    seq: int
    row: bytes
    at_s: float


class _Side:
    """Records in order of lsn, of at most about `max_bytes`; `floor` is the last one let go."""

    def __init__(self, floor: int, max_bytes: int) -> None:
        self.floor = floor
        self._max_bytes = max_bytes
        self._lsns: list[int] = []
        self._records: list[Tailed] = []
        self._bytes = 0

    def add(self, record: Tailed) -> None:
        self._lsns.append(record.lsn)
        self._records.append(record)
        self._bytes += len(record.row) + _OVERHEAD_BYTES
        if self._bytes > 2 * self._max_bytes:
            self._shorten()

    def _shorten(self) -> None:
        dropped = 0
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._records[dropped].row) + _OVERHEAD_BYTES
            dropped += 1
        self.floor = self._lsns[dropped - 1]
        del self._lsns[:dropped], self._records[:dropped]

    def skip(self, lsn: int) -> None:
        """Let go of everything up to `lsn`, the last one that there was."""
        self.floor = lsn
        self._lsns.clear()
        self._records.clear()
        self._bytes = 0

    def after(self, lsn: int, max_bytes: int) -> list[Tailed]:
        at = bisect_right(self._lsns, lsn)
        found: list[Tailed] = []
        while at < len(self._records) and max_bytes > 0:
            found.append(self._records[at])
            max_bytes -= len(found[-1].row)
            at += 1
        return found

    def count_after(self, lsn: int) -> int:
        return len(self._lsns) - bisect_right(self._lsns, lsn)

    @property
    def last_lsn(self) -> int:
        return self._lsns[-1] if self._lsns else self.floor


class LogTail:
    """The tail of one store's log. `total_bytes` counts all commits since the start.

    While it is not `kept`, because there is nobody to ship to, it costs nothing.
    """

    def __init__(self, store: Store, node_uid: int, *, max_bytes: int = TAIL_BYTES) -> None:
        self._node_uid = node_uid
        last = store.last_lsn()
        self._own = _Side(last, max_bytes)
        self._others = _Side(last, max_bytes)
        self._waiting: dict[asyncio.Event, bool] = {}
        self.last_lsn = last
        self.total_bytes = 0
        self.kept = False
        store.subscribe(self._applied)

    def _applied(self, applied: Applied) -> None:
        record = applied.record
        self.last_lsn = applied.lsn
        self.total_bytes += applied.size_bytes
        if not record.origin:
            return
        if not self.kept and not self._waiting:
            self._own.skip(applied.lsn)
            self._others.skip(applied.lsn)
            return
        now = asyncio.get_running_loop().time()
        tailed = Tailed(applied.lsn, record.partition, record.origin, record.seq, applied.row, now)
        own = record.origin == self._node_uid
        (self._own if own else self._others).add(tailed)
        for event, everything in self._waiting.items():
            if own or everything:
                event.set()

    def own_after(self, lsn: int, max_bytes: int) -> list[Tailed] | None:
        """Own records after `lsn`, in order; None where the tail does not reach back so far."""
        return None if lsn < self._own.floor else self._own.after(lsn, max_bytes)

    def others_after(self, lsn: int, max_bytes: int) -> list[Tailed] | None:
        """Records of other origins after `lsn`; None where the tail does not reach so far."""
        return None if lsn < self._others.floor else self._others.after(lsn, max_bytes)

    def all_after(self, lsn: int, max_bytes: int) -> list[Tailed] | None:
        """Records of all origins after `lsn`; None where the tail does not reach so far."""
        sides = (self.own_after(lsn, max_bytes), self.others_after(lsn, max_bytes))
        if sides[0] is None or sides[1] is None:
            return None
        merged = sorted((*sides[0], *sides[1]))
        left = max_bytes
        for at, record in enumerate(merged):
            left -= len(record.row)
            if left <= 0:
                return merged[: at + 1]
        return merged

    @property
    def last_own_lsn(self) -> int:
        """The lsn of the last own record in the tail, or one that is at least as high."""
        return self._own.last_lsn

    def own_count_after(self, lsn: int) -> int:
        """How many own records there are after `lsn`; more than the tail holds by their lsns."""
        older = max(0, self._own.floor - lsn)
        return older + self._own.count_after(lsn)

    def join(self, *, everything: bool) -> asyncio.Event:
        """An event that is set at each own record, or at each of all, until `leave`."""
        event = asyncio.Event()
        self._waiting[event] = everything
        return event

    def leave(self, event: asyncio.Event) -> None:
        del self._waiting[event]
