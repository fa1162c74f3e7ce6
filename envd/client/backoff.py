"""How long to wait before a call is tried again: exponential, with full jitter.

Full jitter (Brooker, "Exponential Backoff and Jitter", 2015) draws from the whole interval, so
that callers that failed together do not come back together.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Backoff:
    """`draw` gives a number in [0, 1); `attempts` counts the first one too.

    Example: with base_s 0.05 the wait before the second attempt is drawn from 0 to 50 ms, the
    next one from 0 to 100 ms, at most from 0 to cap_s.
    """

    base_s: float = 0.05
    cap_s: float = 2.0
    attempts: int = 8
    draw: Callable[[], float] = field(default_factory=lambda: random.Random().random, repr=False)  # noqa: S311

    def delay_s(self, failures: int, retry_after_ms: int = 0) -> float:
        """The wait after so many failures (from 1 on).

        Never less than what the node asked for, and then up to a quarter more.
        """
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 32))
        asked_s = retry_after_ms / 1000
        return max(self.draw() * ceiling, asked_s * (1 + self.draw() / 4))

    def gives_up(self, failures: int) -> bool:
        """Tell whether so many failures are enough."""
        return failures >= self.attempts
