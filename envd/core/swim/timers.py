"""What is due when: each key is armed at most once, and arming it again replaces the old time.

A heap whose outdated items are passed over when they come up (the serial number tells), and
swept out when they are more than the live ones. Equal times fire in the order of arming.
"""

from __future__ import annotations

from enum import IntEnum
from heapq import heapify, heappop, heappush


class Kind(IntEnum):
    """What there are timers for."""

    PROBE = 0
    PROBE_TIMEOUT = 1
    SUSPICION = 2
    GOSSIP = 3
    PUSH_PULL = 4
    REVIVE = 5
    RECONNECT = 6
    SEEDS = 7
    RELAY = 8
    FORGET = 9


Key = tuple[Kind, int]
"""A kind, and which one of it (a uid, the number of a reach; 0 where there is one only)."""
_SLACK = 64


class Timers:
    """A set of keys with due times (ms)."""

    __slots__ = ("_armed", "_heap", "_serial")

    def __init__(self) -> None:
        self._armed: dict[Key, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, Key]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._armed)

    def __contains__(self, key: Key) -> bool:
        return key in self._armed

    def arm(self, key: Key, due_ms: int) -> None:
        """`key` fires at `due_ms`, and not when it was due before."""
        self._serial += 1
        self._armed[key] = (due_ms, self._serial)
        heappush(self._heap, (due_ms, self._serial, key))
        if len(self._heap) > 2 * len(self._armed) + _SLACK:
            self._rebuild()

    def arm_if_idle(self, key: Key, due_ms: int) -> None:
        """As `arm`, but leave a key that is armed alone."""
        if key not in self._armed:
            self.arm(key, due_ms)

    def disarm(self, key: Key) -> None:
        """`key` does not fire."""
        self._armed.pop(key, None)

    def clear(self) -> None:
        """Nothing fires."""
        self._armed.clear()
        self._heap.clear()

    @property
    def due_ms(self) -> int | None:
        """When the first one fires; None for never."""
        while self._heap:
            due_ms, serial, key = self._heap[0]
            if self._armed.get(key) == (due_ms, serial):
                return due_ms
            heappop(self._heap)
        return None

    def pop_due(self, now_ms: int) -> Key | None:
        """Take out the first key that is due."""
        due_ms = self.due_ms
        if due_ms is None or due_ms > now_ms:
            return None
        _, _, key = heappop(self._heap)
        del self._armed[key]
        return key

    def delay(self, by_ms: int) -> None:
        """All fire so much later, in the same order."""
        self._armed = {key: (due + by_ms, serial) for key, (due, serial) in self._armed.items()}
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(due_ms, serial, key) for key, (due_ms, serial) in self._armed.items()]
        heapify(self._heap)
