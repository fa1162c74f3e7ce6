"""A node's clocks: the wall clock is off, runs too fast or too slow, and jumps; intervals hold.

Wall time = start + offset + (1 + drift) x virtual time; a jump changes the offset. Monotonic time
counts from a start of its own, as on a real machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

EPOCH_MS: Final = 1_750_000_000_000
"""The unix time (ms) at virtual second 0."""
_PPM: Final = 1_000_000


class SimClock:
    """`now` gives virtual seconds; `drift_ppm` is how many microseconds a second it gains."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        offset_ms: float = 0.0,
        drift_ppm: float = 0.0,
        booted_s: float = 0.0,
    ) -> None:
        self._now = now
        self._offset_ms = offset_ms
        self._drift_ppm = drift_ppm
        self._booted_s = booted_s
        self._drifts_since_s = now()

    def wall_ms(self) -> int:
        return self.true_ms() + round(self.offset_ms())

    def monotonic_ms(self) -> int:
        return int((self._now() - self._booted_s) * 1000)

    def true_ms(self) -> int:
        """What a clock that is right would show."""
        return EPOCH_MS + int(self._now() * 1000)

    def offset_ms(self) -> float:
        """How far ahead of the right time it is now."""
        gained_ms = self._drift_ppm * (self._now() - self._drifts_since_s) * 1000 / _PPM
        return self._offset_ms + gained_ms

    def jump(self, by_ms: float) -> None:
        """Step, as an operator or a wrong NTP server would make it."""
        self._offset_ms += by_ms

    def drift(self, ppm: float) -> None:
        """Gain so many microseconds a second from now on; what was gained stays."""
        self._offset_ms = self.offset_ms()
        self._drift_ppm = ppm
        self._drifts_since_s = self._now()

    def mend(self, offset_ms: float = 0.0) -> None:
        """Step to this far ahead of the right time, and run right."""
        self._offset_ms, self._drift_ppm = offset_ms, 0.0
