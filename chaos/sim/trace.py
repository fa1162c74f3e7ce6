"""What happened in a run, in order, as one hash: equal hashes, equal runs.

Every delivered message, fault, client call and answer goes in with its virtual time. The last
events are kept in words, to be told when a run fails.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

KEPT_EVENTS: Final = 400
_MICROSECONDS: Final = 1_000_000


class Trace:
    """`now` gives virtual seconds."""

    def __init__(self, now: Callable[[], float], kept: int = KEPT_EVENTS) -> None:
        self._now = now
        self._hash = blake2b(digest_size=16, person=b"envd trace")
        self._last: deque[str] = deque(maxlen=kept)
        self.counts: Counter[str] = Counter()

    def note(self, kind: str, text: str, payload: bytes = b"") -> None:
        """Take in one event; of the payload only the hash and the size are kept."""
        line = f"{round(self._now() * _MICROSECONDS)} {kind} {text} {len(payload)}\n"
        self._hash.update(line.encode())
        self._hash.update(payload)
        self._last.append(line)
        self.counts[kind] += 1

    def hexdigest(self) -> str:
        """32 digits over everything so far."""
        return self._hash.hexdigest()

    def last(self, count: int, leave_out: frozenset[str] = frozenset()) -> list[str]:
        """The last events in words, the oldest first, without some kinds."""
        told = []
        for line in self._last:
            at, kind, rest = line.rstrip("\n").split(" ", 2)
            if kind not in leave_out:
                told.append(f"{int(at) / _MICROSECONDS:12.6f}  {kind:<10} {rest}")
        return told[-count:]
