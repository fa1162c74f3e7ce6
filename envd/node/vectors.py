"""What this node holds of each origin, told to peers as changes.

A stream tells its peer the whole once, then with each heartbeat what changed since the last
one: so it costs what is written, not what is there. A read that needs a record waits for it here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

from envd.core.errors import Corrupt
from envd.core.ring import PARTITIONS
from envd.ports import Applied, Store

Vectors = Sequence[tuple[int, Sequence[int], Sequence[int]]]
"""One item (origin, partitions, seqs) for each origin, as it is sent."""
Ahead = tuple[tuple[tuple[int, int], int, int], ...]
"""((partition, origin), the peer's seq, ours), some of them."""
_AHEAD_SHOWN: Final = 64
_MAX_ORIGINS: Final = 1 << 14
_MAX_UID: Final = (1 << 64) - 1
_MAX_SEQ: Final = (1 << 63) - 1


def as_sent(vectors: Mapping[tuple[int, int], int]) -> Vectors:
    """(partition, origin) -> seq, in the shape in which it is sent, in order."""
    by_origin: dict[int, tuple[list[int], list[int]]] = {}
    for (partition, origin), seq in sorted(vectors.items()):
        partitions, seqs = by_origin.setdefault(origin, ([], []))
        partitions.append(partition)
        seqs.append(seq)
    return [(origin, *columns) for origin, columns in sorted(by_origin.items())]


def as_map(vectors: Vectors) -> dict[tuple[int, int], int]:
    """The inverse of `as_sent`; raises Corrupt."""
    found: dict[tuple[int, int], int] = {}
    for origin, partitions, seqs in vectors:
        if not 0 < origin <= _MAX_UID or len(partitions) != len(seqs):
            raise Corrupt("a peer's vectors are none")
        for partition, seq in zip(partitions, seqs, strict=True):
            if not 0 <= partition < PARTITIONS or not 0 <= seq <= _MAX_SEQ:
                raise Corrupt("a peer's vectors are none")
            found[partition, origin] = seq
    return found


class VectorFeed:
    """The changes of a node's vectors, for any number of listeners."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: dict[VectorChanges, None] = {}
        self._waiting: dict[tuple[int, int], dict[asyncio.Future[None], int]] = {}
        store.subscribe(self._applied)

    def _applied(self, applied: Applied) -> None:
        record = applied.record
        if record.origin:
            self._tell(record.partition, record.origin, record.seq)

    def advanced(self, vectors: Mapping[tuple[int, int], int]) -> None:
        """Tell of vectors that repair raised."""
        for (partition, origin), seq in vectors.items():
            self._tell(partition, origin, seq)

    def _tell(self, partition: int, origin: int, seq: int) -> None:
        for listener in self._listeners:
            listener.note(partition, origin, seq)
        if self._waiting:
            for waiting, wanted in self._waiting.get((partition, origin), {}).items():
                if seq >= wanted and not waiting.done():
                    waiting.set_result(None)

    async def reaches(self, partition: int, origin: int, seq: int, *, within_s: float) -> bool:
        """Wait until this node holds a record; False where that takes longer than `within_s`."""
        key = (partition, origin)
        if self._store.vectors().get(key, 0) >= seq:
            return True
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, {})[waiting] = seq
        try:
            async with asyncio.timeout(within_s):
                await waiting
        except TimeoutError:
            return False
        finally:
            others = self._waiting[key]
            del others[waiting]
            if not others:
                del self._waiting[key]
        return True

    def join(self) -> VectorChanges:
        """Listen from now on, until `leave`; what was before is `whole`."""
        listener = VectorChanges()
        self._listeners[listener] = None
        return listener

    def leave(self, listener: VectorChanges) -> None:
        self._listeners.pop(listener, None)

    def whole(self) -> Vectors:
        """The vectors of all origins as they are."""
        return as_sent(self._store.vectors())


class VectorChanges:
    """What changed since it was last taken."""

    def __init__(self) -> None:
        self._changed: dict[tuple[int, int], int] = {}

    def note(self, partition: int, origin: int, seq: int) -> None:
        key = (partition, origin)
        if seq > self._changed.get(key, 0):
            self._changed[key] = seq

    def take(self) -> Vectors:
        changed, self._changed = self._changed, {}
        return as_sent(changed)


class PeerVectors:
    """What a peer said it holds, and when each origin last made progress there."""

    def __init__(self) -> None:
        self._seqs: dict[tuple[int, int], int] = {}
        self._moved_s: dict[int, float] = {}

    def learn(self, vectors: Vectors, now_s: float) -> None:
        """Take what the peer said at the loop's time `now_s`; raises Corrupt."""
        if len({*self._moved_s, *(origin for origin, _, _ in vectors)}) > _MAX_ORIGINS:
            raise Corrupt("a peer tells of more origins than a cluster has")
        for key, seq in as_map(vectors).items():
            if seq > self._seqs.get(key, 0):
                self._seqs[key] = seq
                self._moved_s[key[1]] = now_s

    def holds(self, partition: int, origin: int, seq: int) -> bool:
        return self._seqs.get((partition, origin), 0) >= seq

    def moved_s(self, origin: int) -> float:
        """When the origin's records last made progress there, 0 for never."""
        return self._moved_s.get(origin, 0.0)

    def ahead_of(
        self, ours: Mapping[tuple[int, int], int], of: Callable[[int], bool] = lambda _: True
    ) -> Ahead:
        """What the peer holds `of` some partitions and `ours` does not say, for a later look."""
        found = (
            (key, seq, ours.get(key, 0))
            for key, seq in self._seqs.items()
            if seq > ours.get(key, 0) and of(key[0])
        )
        return tuple(islice(found, _AHEAD_SHOWN))
