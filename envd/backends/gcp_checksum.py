"""CRC-32C (Castagnoli), by which Secret Manager tells whether a payload came as it was sent.

The polynomial is 0x1EDC6F41, taken bit-reversed (RFC 3720, appendix B.4: 32 bytes of zeros have
0x8A9136AA). In plain Python 64 KiB take some milliseconds; no library is needed for that.
"""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE: Final = tuple(_entry(byte) for byte in range(256))


def crc32c(data: bytes) -> int:
    """The checksum of some bytes. Example: that of b"123456789" is 0xE3069283."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
