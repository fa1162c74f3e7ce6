"""Which operation ids may have been seen: a Bloom filter (Bloom 1970), so that new ones cost no
look into the state.

It never forgets one of the last 24 hours, and now and then takes a new one for a known one,
which only costs that look. Keys are hashes already, so their own bits choose the places.

Two generations, each of 2 MiB, take turns every 24 hours. One generation answers wrong for 2 %
of the new keys once it holds 2 million; past that the share grows, and so does the cost only.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence

from envd.core.errors import EnvdError

_log = logging.getLogger(__name__)
_KEYS_A_TURN = 1_000
KEY_BYTES = 16
KEPT_MS = 24 * 3_600_000
_PLACES = struct.Struct("<4I")
_BITS = 1 << 24


class SeenKeys:
    """Until `complete` is called, every key may have been seen."""

    def __init__(self, now_ms: int, *, bits: int = _BITS) -> None:
        if bits & (bits - 1) or bits < 8:
            raise ValueError("the number of bits is a power of two, from 8 on")
        self._mask = bits - 1
        self._bytes = bits // 8
        self._current = bytearray(self._bytes)
        self._previous = bytearray(self._bytes)
        self._since_ms = now_ms
        self._complete = False

    def complete(self) -> None:
        """All keys of before have been added: what is not here is new."""
        self._complete = True

    def add(self, key: bytes, now_ms: int) -> None:
        """Note a key of KEY_BYTES; `now_ms` is of a clock that never goes back."""
        if now_ms - self._since_ms >= KEPT_MS:
            self._previous, self._current = self._current, bytearray(self._bytes)
            self._since_ms = now_ms
        current, mask = self._current, self._mask
        for place in _PLACES.unpack(key):
            at = place & mask
            current[at >> 3] |= 1 << (at & 7)

    def may_hold(self, key: bytes) -> bool:
        """Tell whether `key` may have been added in the last 24 hours."""
        if not self._complete:
            return True
        places = _PLACES.unpack(key)
        return self._in(self._current, places) or self._in(self._previous, places)

    def _in(self, generation: bytearray, places: tuple[int, ...]) -> bool:
        for place in places:
            at = place & self._mask
            if not generation[at >> 3] & 1 << (at & 7):
                return False
        return True


async def learn(
    seen: SeenKeys, keys_after: Callable[[bytes, int], Sequence[bytes]], now_ms: int
) -> None:
    """Add all keys of before, a few at a time beside other work; `keys_after(key, limit)` has them.

    Where they can't be read, every key may have been seen from then on.
    """
    last = b""
    try:
        while keys := keys_after(last, _KEYS_A_TURN):
            for key in keys:
                seen.add(key, now_ms)
            last = keys[-1]
            await asyncio.sleep(0)
    except EnvdError as error:
        _log.error("store.operations_unread", extra={"error": error.message})
        return
    seen.complete()
