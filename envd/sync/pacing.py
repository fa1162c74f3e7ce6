"""How fast a place in a store may be used, and when a call that failed is tried again.

A *token bucket* holds at most `burst` tokens and is refilled at `rate` a second; each call takes
one (Tanenbaum, "Computer Networks", section 5.4; RFC 2697 meters so). However long nothing was
asked, after an outage too, no more than a burst goes out at once.

What a store publishes as its rate is not always what it grants: others use the same account. So a
throttled call empties the bucket and halves the rate, and each success gives a hundredth of the
full rate back: additive increase, multiplicative decrease (Chiu and Jain 1989), which shares a
quota fairly with whoever else does so. Calls that are throttled together are one event.

Retries wait exponentially longer, with full jitter (Brooker, "Exponential Backoff and Jitter",
2015), never less than the store asked for, and end: what is then still undone is the next run's.

Pure: the time comes in as seconds of any steady clock, chance as a function. Nothing here waits:
a `take` that can't be granted takes nothing and returns how long to wait before asking again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from envd.backends.contract import Limits
from envd.backends.errors import AuthExpired, BackendError, Throttled

SLACK: Final = 1e-6
"""So much of a token may be missing: else rounding would make a wait of nothing, for ever."""

LEAST_WAIT_S: Final = 0.001
"""No shorter wait is answered, so that a loop of asking and waiting always gets on."""

_FLOOR: Final = 1 / 64
"""Of the full rate: lower it never goes, or one bad minute would cost an hour."""

_STEPS: Final = 100
"""So many successes lead from nothing back to the full rate."""

_ONE_EVENT_S: Final = 1.0
MAX_ITEMS: Final = 65_536


class TokenBucket:
    """At most `burst` tokens at once and `rate_per_s` a second; a rate of 0 is no limit.

    For all takes between two times that are t seconds apart, their sum is at most
    rate * t + max(burst, the largest of them). Example: rate 2, burst 3: three at once, then one
    every half second.
    """

    __slots__ = ("_burst", "_filled_s", "_full_rate", "_halved_s", "_rate", "_tokens")

    def __init__(self, rate_per_s: float, burst: int = 1) -> None:
        self._full_rate = rate_per_s
        self._rate = rate_per_s
        self._burst = max(1, burst)
        self._tokens = float(self._burst)
        self._filled_s = float("-inf")
        self._halved_s = float("-inf")

    @property
    def rate_per_s(self) -> float:
        """The rate as it is now, at most the full one; 0 is no limit."""
        return self._rate

    def wait_s(self, now_s: float, tokens: int = 1) -> float:
        """How long until so many may be taken, 0 where they may be now; takes nothing."""
        self._fill(now_s)
        paused_s = max(0.0, self._filled_s - now_s)
        lacking = min(tokens, self._burst) - self._tokens if self._full_rate else 0.0
        if lacking > SLACK:
            return max(LEAST_WAIT_S, paused_s + lacking / self._rate)
        return max(LEAST_WAIT_S, paused_s) if paused_s else 0.0

    def take(self, now_s: float, tokens: int = 1) -> float:
        """Take so many and return 0, or take none and return how long to wait before asking again.

        More than a burst are taken from a full bucket, and owed: the debt is never more than what
        that one take had above the burst.
        """
        wait_s = self.wait_s(now_s, tokens)
        if not wait_s and self._full_rate:
            self._tokens -= tokens
        return wait_s

    def throttled(self, now_s: float, retry_after_s: float = 0.0) -> None:
        """The store refused for haste: nothing until it said, and then at half the rate."""
        self._fill(now_s)
        self._tokens = min(0.0, self._tokens)
        self._filled_s = max(self._filled_s, now_s + max(0.0, retry_after_s))
        if now_s - self._halved_s >= _ONE_EVENT_S:
            self._halved_s = now_s
            self._rate = max(self._full_rate * _FLOOR, self._rate / 2)

    def succeeded(self) -> None:
        """A call went well: a step back towards the full rate."""
        self._rate = min(self._full_rate, self._rate + self._full_rate / _STEPS)

    def _fill(self, now_s: float) -> None:
        # `_filled_s` lies ahead while the store wants a pause: nothing is filled in meanwhile.
        if now_s <= self._filled_s:
            return
        if self._full_rate and self._filled_s != float("-inf"):
            more = (now_s - self._filled_s) * self._rate
            self._tokens = min(float(self._burst), self._tokens + more)
        self._filled_s = now_s


class ItemPace:
    """At most `rate_per_s` writes a second to each item, evenly spaced; a rate of 0 is no limit.

    An item is remembered only while it makes somebody wait. Where `max_items` are, the next new
    one waits until the first of them is forgotten: the bound never costs the promise.
    """

    __slots__ = ("_free_at", "_interval_s", "_max_items")

    def __init__(self, rate_per_s: float, *, max_items: int = MAX_ITEMS) -> None:
        self._interval_s = 1 / rate_per_s if rate_per_s else 0.0
        self._max_items = max_items
        # In order of writing, and so of becoming free.
        self._free_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._free_at)

    def wait_s(self, now_s: float, item: str) -> float:
        """How long until this item may be written, 0 where it may be now; takes nothing."""
        self._forget(now_s)
        free_s = self._free_at.get(item)
        if free_s is None and len(self._free_at) >= self._max_items:
            free_s = next(iter(self._free_at.values()))
        return 0.0 if free_s is None else max(LEAST_WAIT_S, free_s - now_s)

    def take(self, now_s: float, item: str) -> float:
        """Have one write of this item and return 0, or return how long to wait before asking."""
        wait_s = self.wait_s(now_s, item)
        if not wait_s and self._interval_s:
            self._free_at[item] = now_s + self._interval_s
        return wait_s

    def _forget(self, now_s: float) -> None:
        while self._free_at:
            oldest = next(iter(self._free_at))
            if self._free_at[oldest] > now_s:
                return
            del self._free_at[oldest]


class Pace:
    """How fast one place is used: reads, writes, and writes of one item, as its limits say.

    `concurrency` is how many calls may be under way at once; who calls keeps to it.
    """

    __slots__ = ("_items", "_reads", "_writes", "concurrency")

    def __init__(self, limits: Limits) -> None:
        self._reads = TokenBucket(limits.reads_per_s, limits.burst)
        self._writes = TokenBucket(limits.writes_per_s, limits.burst)
        self._items = ItemPace(limits.writes_per_item_per_s)
        self.concurrency = max(1, limits.concurrency)

    @property
    def reads_per_s(self) -> float:
        """The rate of reads as it is now; 0 is no limit."""
        return self._reads.rate_per_s

    @property
    def writes_per_s(self) -> float:
        """The rate of writes as it is now; 0 is no limit."""
        return self._writes.rate_per_s

    def read(self, now_s: float, calls: int = 1) -> float:
        """Have so many calls that read: 0, or how long to wait before asking again (s)."""
        return self._reads.take(now_s, calls)

    def write(self, now_s: float, items: Sequence[str] = (), calls: int = 1) -> float:
        """Have so many calls that write these items (native names): 0, or how long to wait (s).

        All of it, or nothing is taken: a write that waits for its item holds up no other.
        """
        waits_s = [self._items.wait_s(now_s, item) for item in items]
        wait_s = max(self._writes.wait_s(now_s, calls), *waits_s, 0.0)
        if not wait_s:
            self._writes.take(now_s, calls)
            for item in items:
                self._items.take(now_s, item)
        return wait_s

    def answered(self, now_s: float, error: BackendError | None = None, *, write: bool) -> None:
        """Learn from an answer. Only a success and a throttled call tell about haste."""
        bucket = self._writes if write else self._reads
        if error is None:
            bucket.succeeded()
        elif isinstance(error, Throttled):
            bucket.throttled(now_s, error.retry_after_s)


class Step(Enum):
    """What to do about a call that failed."""

    AGAIN = "again"
    REOPEN = "reopen"
    """Open the backend once more, so that it renews its credentials, and then try again."""
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Retry:
    """What to do, and after how long (s)."""

    step: Step
    wait_s: float = 0.0


def full_jitter_s(
    failures: int, *, base_s: float, cap_s: float, draw: Callable[[], float]
) -> float:
    """A wait after so many failures (from 1 on), drawn from 0 up to base, 2 base, 4 base ... cap.

    `draw` gives a number from 0.0 up to 1.0. Example: base 0.5: before the fourth attempt it is
    at most 2 s.
    """
    return draw() * min(cap_s, base_s * 2.0 ** min(failures - 1, 32))


@dataclass(frozen=True, slots=True)
class Retries:
    """How a call is tried again: `attempts` counts the first one too.

    `patience_s`: a store that wants a longer pause is left alone until the next run.
    """

    attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 30.0
    patience_s: float = 120.0

    def after(
        self,
        error: BackendError,
        *,
        failures: int,
        draw: Callable[[], float],
        reopened: bool = False,
    ) -> Retry:
        """What to do after this many failures in a row (from 1 on), of which `error` is the last.

        A refusal is final. AuthExpired is tried again at once after opening the backend anew, but
        only if that was not done yet for this call (`reopened`): what was just renewed and does
        not hold will not hold either.
        """
        if error.is_refusal or failures >= self.attempts:
            return Retry(Step.GIVE_UP)
        if isinstance(error, AuthExpired):
            return Retry(Step.GIVE_UP if reopened else Step.REOPEN)
        wait_s = full_jitter_s(failures, base_s=self.base_s, cap_s=self.cap_s, draw=draw)
        if isinstance(error, Throttled) and error.retry_after_s > 0:
            if error.retry_after_s > self.patience_s:
                return Retry(Step.GIVE_UP)
            # Up to a quarter more, so that those who were told the same don't return together.
            wait_s = max(wait_s, error.retry_after_s * (1 + draw() / 4))
        return Retry(Step.AGAIN, wait_s)
