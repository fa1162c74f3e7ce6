"""The real clock and randomness behind the ports."""

from __future__ import annotations

import secrets
import time


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class SystemRng:
    """The operating system's randomness, fit for keys."""

    def token_bytes(self, size: int) -> bytes:
        return secrets.token_bytes(size)
