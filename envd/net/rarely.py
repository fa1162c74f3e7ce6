"""Telling of what strangers can cause as often as they like, without letting them fill the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

EVERY_S: Final = 10.0


class Rarely:
    """Lets one of many through, at most every `every_s` seconds of `now`."""

    def __init__(self, now: Callable[[], float], every_s: float = EVERY_S) -> None:
        self._now = now
        self._every_s = every_s
        self._next = float("-inf")
        self._count = 0

    def due(self) -> int:
        """How many there were since one was let through, with this one; 0: not yet."""
        self._count += 1
        now = self._now()
        if now < self._next:
            return 0
        self._next = now + self._every_s
        count, self._count = self._count, 0
        return count
