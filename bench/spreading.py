"""Changes at a fixed rate, and when watchers on every node have seen each of them.

The rate does not wait for anybody: a change is sent when it is due, whatever became of those
before it, as independent programs would. What is due in one turn of the event loop goes out in one
message. A watcher may be shown a newer state of an environment instead of one after the other;
what that state replaces counts as seen with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from bench.payload import SETS

WARM_UP_S: Final = 0.5
PATIENCE_S: Final = 10.0
Send = Callable[[range], None]


class Sightings:
    """When each of `count` changes was sent, and when the last of the watchers saw it."""

    def __init__(self, count: int, watchers: int) -> None:
        self.complete = asyncio.Event()
        self._sent_s = [0.0] * count
        self._last_s = [0.0] * count
        self._missing = [watchers] * count
        self._seen = [bytearray(count) for _ in range(watchers)]
        self._left = count

    def sent(self, numbers: range, at_s: float) -> None:
        """These changes are on their way since then."""
        for n in numbers:
            self._sent_s[n] = at_s

    def saw(self, watcher: int, n: int, at_s: float) -> None:
        """A watcher has the state of change `n`, so what it replaced is past too."""
        seen = self._seen[watcher]
        while n >= 0 and not seen[n]:
            seen[n] = 1
            self._last_s[n] = at_s
            self._missing[n] -= 1
            if not self._missing[n]:
                self._left -= 1
            n -= SETS
        if not self._left:
            self.complete.set()

    @property
    def unseen(self) -> int:
        """How many changes some watcher has not seen."""
        return self._left

    def delays_s(self, first: int, now_s: float) -> list[float]:
        """Of the changes from `first` on, in order of size; till now where one was not seen."""
        return sorted(
            (now_s if self._missing[n] else self._last_s[n]) - self._sent_s[n]
            for n in range(first, len(self._sent_s))
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds from a change's sending to its last sighting, sorted; `rate` is what was sent."""

    delays_s: Sequence[float]
    rate: float
    unseen: int

    def share_s(self, share: float) -> float:
        """The delay that this share of the changes does not exceed."""
        return self.delays_s[min(len(self.delays_s) - 1, int(len(self.delays_s) * share))]


async def spread(rate: int, seconds: float, sightings: Sightings, send: Send) -> Spread:
    """Send for so long after a warm-up, then wait for the last sighting."""
    total = count_of(rate, seconds)
    begun, sent = time.perf_counter(), 0
    while sent < total:
        now = time.perf_counter()
        due = min(total, int((now - begun) * rate) + 1)
        sightings.sent(range(sent, due), now)
        send(range(sent, due))
        sent = due
        await asyncio.sleep(max(0.0, begun + sent / rate - time.perf_counter()))
    took_s = time.perf_counter() - begun
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            await sightings.complete.wait()
    delays_s = sightings.delays_s(int(rate * WARM_UP_S), time.perf_counter())
    return Spread(delays_s, total / took_s, sightings.unseen)


def count_of(rate: int, seconds: float) -> int:
    """How many changes `spread` sends."""
    return int(rate * (WARM_UP_S + seconds))
