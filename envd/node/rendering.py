"""Environments as a codec wrote them, kept for the next reader of the same state.

Most reads are of environments that did not change since the last one. What is kept belongs to
one state, by identity, so nothing has to be forgotten when a commit comes in. The state itself
is not kept for it: one that left memory is another one when it is read again.
"""

from __future__ import annotations

from collections import OrderedDict
from weakref import ref

from envd.ports import StoredState

MAX_BYTES = 16 << 20
_OVERHEAD_BYTES = 300


class Renderings:
    """The most recently used renderings, together at most `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[tuple[str, bool], tuple[ref[StoredState], bytes]] = OrderedDict()

    def find(self, name: str, reveal: bool, state: StoredState) -> bytes | None:
        """What was kept for just this state, None where nothing was."""
        known = self._known.get((name, reveal))
        if known is None or known[0]() is not state:
            return None
        self._known.move_to_end((name, reveal))
        return known[1]

    def keep(self, name: str, reveal: bool, state: StoredState, raw: bytes) -> None:
        """Keep a rendering in place of the one of an earlier state."""
        earlier = self._known.pop((name, reveal), None)
        if earlier is not None:
            self._bytes -= _OVERHEAD_BYTES + len(earlier[1])
        self._known[name, reveal] = (ref(state), raw)
        self._bytes += _OVERHEAD_BYTES + len(raw)
        while self._bytes > self._max_bytes:
            _, (_, oldest) = self._known.popitem(last=False)
            self._bytes -= _OVERHEAD_BYTES + len(oldest)
