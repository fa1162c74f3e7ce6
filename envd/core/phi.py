"""The phi-accrual failure detector: how sure it is that somebody is not just late.

phi = -log10(P(an interval between heartbeats is longer than the silence so far)), with intervals
taken to be normal with mean and deviation of the last ones seen (Hayashibara et al. 2004, "The phi
Accrual Failure Detector", section IV). At phi 1 a suspicion is wrong once in 10 times, at 8 once
in 10^8. It is one node's local opinion about one channel, to choose whom to ask; only SWIM
declares a node down.

A minimum deviation keeps a very regular channel from becoming suspect over one late heartbeat
(as in Akka's and Cassandra's detectors); a silence that was itself beyond the threshold is not
learnt from, or each outage would make the next one harder to see.
"""

from __future__ import annotations

from collections import deque
from math import erfc, log, log10, pi, sqrt
from typing import Final

THRESHOLD: Final = 8.0
HEARTBEAT_MS: Final = 200
WINDOW: Final = 200
MIN_DEVIATION_MS: Final = 100.0
_TAIL: Final = 20.0


class PhiDetector:
    """The intervals between the heartbeats of one peer; times are monotonic milliseconds.

    At first intervals are taken to be `first_interval_ms` long, and to vary by a quarter of that.
    Before the first heartbeat there is no silence: phi is 0.
    """

    __slots__ = (
        "_intervals",
        "_last_ms",
        "_min_deviation_ms",
        "_square_sum",
        "_sum",
        "threshold",
    )

    def __init__(
        self,
        *,
        first_interval_ms: float = HEARTBEAT_MS,
        threshold: float = THRESHOLD,
        window: int = WINDOW,
        min_deviation_ms: float = MIN_DEVIATION_MS,
    ) -> None:
        if window < 2 or min_deviation_ms <= 0:
            raise ValueError("phi needs a window of two intervals, and a deviation above zero")
        self.threshold = threshold
        self._min_deviation_ms = min_deviation_ms
        self._intervals: deque[float] = deque(maxlen=window)
        self._sum = 0.0
        self._square_sum = 0.0
        self._last_ms: float | None = None
        self._learn(first_interval_ms * 0.75)
        self._learn(first_interval_ms * 1.25)

    def heartbeat(self, now_ms: float) -> None:
        """The peer was heard from."""
        if self._last_ms is None:
            self._last_ms = now_ms
            return
        if not self.suspects(now_ms):
            self._learn(max(0.0, now_ms - self._last_ms))
        self._last_ms = max(now_ms, self._last_ms)

    def phi(self, now_ms: float) -> float:
        """How suspicious the silence is; grows without a bound, and is finite at any time."""
        if self._last_ms is None:
            return 0.0
        count = len(self._intervals)
        mean = self._sum / count
        variance = max(0.0, self._square_sum / count - mean * mean)
        deviation = max(self._min_deviation_ms, sqrt(variance))
        return phi(now_ms - self._last_ms, mean, deviation)

    def suspects(self, now_ms: float) -> bool:
        """Tell whether phi has reached the threshold."""
        return self.phi(now_ms) >= self.threshold

    def _learn(self, interval_ms: float) -> None:
        if len(self._intervals) == self._intervals.maxlen:
            oldest = self._intervals[0]
            self._sum -= oldest
            self._square_sum -= oldest * oldest
        self._intervals.append(interval_ms)
        self._sum += interval_ms
        self._square_sum += interval_ms * interval_ms


def phi(silence_ms: float, mean_ms: float, deviation_ms: float) -> float:
    """-log10 of the tail of the normal distribution from `silence_ms` on.

    Example: silence = mean gives -log10(1/2) = 0.301; mean + 5.612 deviations gives 8. Far out,
    where the tail is too small for a float, erfc(x) ~ exp(-x^2) / (x sqrt(pi)) is used.
    """
    x = (silence_ms - mean_ms) / (deviation_ms * sqrt(2))
    if x > _TAIL:
        return log10(2) + x * x / log(10) + log10(x * sqrt(pi))
    return max(0.0, -log10(erfc(x) / 2))
