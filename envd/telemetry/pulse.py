"""What only a clock can see: how late the event loop runs, and whether a flush is stuck.

Twice a second a timer asks to be woken, and how late that comes is how long everybody else
waits too. At the same moment it looks how old the oldest commit is that the state lacks, and
lets others look at what belongs to the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from envd.telemetry.requests import Histogram

INTERVAL_S: Final = 0.5
LAG_BOUNDS_S: Final = (1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 5.0)


class FlushLag:
    """How old the oldest commit that was not flushed yet is, to within one look.

    Example: looks at 1 s (lsn 5, flushed 3), 2 s (9, 4) and 3 s (9, 5) give 0, 1 and 0: at
    1 s it notes 5, which is flushed by the third look, when 9 is the next to be noted.
    """

    def __init__(self) -> None:
        self._marked: tuple[int, float] | None = None
        self.seconds = 0.0

    def look(self, now_s: float, last_lsn: int, flushed_lsn: int) -> None:
        """Note how far things are; `now_s` never goes back."""
        if self._marked is not None and flushed_lsn >= self._marked[0]:
            self._marked = None
        if self._marked is None and last_lsn > flushed_lsn:
            self._marked = (last_lsn, now_s)
        self.seconds = 0.0 if self._marked is None else now_s - self._marked[1]


class Pulse:
    """Looks every INTERVAL_S while it runs; `positions` gives the last lsn and the flushed one.

    `clock` counts seconds for intervals; a loop's own time may be whole milliseconds. `also` is
    called at each look.
    """

    def __init__(
        self,
        positions: Callable[[], tuple[int, int]],
        clock: Callable[[], float] = time.perf_counter,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self._positions = positions
        self._clock = clock
        self._also = also
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.lag = Histogram(LAG_BOUNDS_S)
        self.flush = FlushLag()

    def start(self) -> None:
        """Begin, on the running loop."""
        self._due = self._clock() + INTERVAL_S
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self.beat)

    def stop(self) -> None:
        """End; it may be called more than once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def beat(self) -> None:
        """Note how late this is, and how far the flush; then wait for the next."""
        now = self._clock()
        self.lag.observe(max(0.0, now - self._due))
        self.start()
        self.flush.look(now, *self._positions())
        self._also()
