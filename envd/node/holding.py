"""How much of the log stays for peers that lack it: three hours of it, and 256 MiB, at most."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from envd.node.peering import KnownPeer
from envd.node.tail import LogTail
from envd.ports import Store

HELD_S: Final = 3 * 3600.0
HELD_BYTES: Final = 256 << 20
_SAMPLE_S: Final = 10.0


class _Sample(NamedTuple):
    at_s: float
    lsn: int
    bytes: int


class LogHold:
    """Tells the store, now and then, up to where nobody needs its log any more."""

    def __init__(
        self, store: Store, tail: LogTail, peers: Callable[[], Iterable[KnownPeer]]
    ) -> None:
        self._store = store
        self._tail = tail
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        self._samples: deque[_Sample] = deque()

    async def run(self) -> None:
        """Look at it for ever."""
        while True:
            self._hold()
            await asyncio.sleep(_SAMPLE_S)

    def _hold(self) -> None:
        """Hold what peers lack, but no more than HELD_S and HELD_BYTES."""
        peers = list(self._peers())
        floor = self._floor()
        if not peers:
            self._store.hold(None)
            return
        for peer in peers:
            if peer.link.streaming:
                peer.held_lsn = min(peer.link.synced_lsn, peer.link.relay_lsn)
        self._store.hold(max(floor, min(peer.held_lsn for peer in peers)))

    def _floor(self) -> int:
        """The lsn up to which the log is too old, or too long, to be held."""
        now = self._loop.time()
        newest = _Sample(now, self._tail.last_lsn, self._tail.total_bytes)
        self._samples.append(newest)

        def expired(sample: _Sample) -> bool:
            return now - sample.at_s > HELD_S or newest.bytes - sample.bytes > HELD_BYTES

        while len(self._samples) > 1 and expired(self._samples[1]):
            self._samples.popleft()
        return self._samples[0].lsn if expired(self._samples[0]) else 0
