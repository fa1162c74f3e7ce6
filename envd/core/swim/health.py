"""A node's opinion of its own health.

A node that is slow itself sees others as dead (Lifeguard, section IV.A): probes that fail
although the helpers should have said "no answer", suspicions of this node that it has to refute,
timers that fire late, all say that the fault may be here. The score, 0 (well) to 7, stretches
this node's timeouts, so it accuses others later.
"""

from __future__ import annotations


class LocalHealth:
    """The score, between 0 and `worst`."""

    __slots__ = ("_worst", "score")

    def __init__(self, worst: int) -> None:
        self._worst = worst
        self.score = 0

    def worsen(self, by: int = 1) -> None:
        """Something says that this node is slow."""
        self.score = min(self._worst, self.score + by)

    def improve(self) -> None:
        """A probe was answered in time."""
        self.score = max(0, self.score - 1)

    def scale(self, time_ms: int) -> int:
        """`time_ms` times score + 1."""
        return time_ms * (self.score + 1)
