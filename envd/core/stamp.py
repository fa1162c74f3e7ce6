"""The order in which writes win: `(era, hlc, node_uid)`, compared in that order.

`hlc` is a hybrid logical clock reading (Kulkarni et al., "Logical Physical Clocks", 2014):
48 bits of unix milliseconds above a 16-bit counter. `era` grows when an environment
changes its mode, so that no late write of an older era can win. `node_uid` breaks what
ties are left. A stamp is never rewritten.

A named tuple, not a dataclass: stamps and entries are made once per variable read, where
a frozen dataclass costs twice as much, and comparing tuples runs in C.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_LAYOUT = struct.Struct(">IQQ")
STAMP_BYTES = _LAYOUT.size
COUNTER_BITS = 16
MAX_HLC = (1 << 64) - 1


class Stamp(NamedTuple):
    """One point in the order of writes.

    `era` is below 2^32; `hlc` and `node_uid` are below 2^64. Bytes and text keep the order:
    of two stamps the greater one has the greater bytes and the greater hex text.
    """

    era: int
    hlc: int
    node_uid: int

    @property
    def time_ms(self) -> int:
        """The wall clock's part of `hlc`, in unix milliseconds."""
        return self.hlc >> COUNTER_BITS

    def to_bytes(self) -> bytes:
        """20 bytes, big-endian, ordered as stamps are."""
        return _LAYOUT.pack(*self)

    def hex(self) -> str:
        """40 hexadecimal digits, ordered as stamps are."""
        return _LAYOUT.pack(*self).hex()

    @staticmethod
    def from_bytes(raw: bytes) -> Stamp:
        """The inverse of `to_bytes`; raises struct.error unless `raw` has 20 bytes."""
        return Stamp(*_LAYOUT.unpack(raw))

    @staticmethod
    def from_hex(text: str) -> Stamp:
        """The inverse of `hex`; raises ValueError or struct.error on anything else."""
        stamp = Stamp.from_bytes(bytes.fromhex(text))
        if stamp.hex() != text:
            raise ValueError("a stamp is 40 lower-case hexadecimal digits")
        return stamp


ZERO = Stamp(0, 0, 0)
"""Below every stamp a node gives: "never"."""
