"""The items of a WriteStream as bytes, put together without a copy of each message.

A message of protobuf is its fields one after another, so `WriteStreamRequest` is the items of
`item_bytes` joined. A write is then encoded once, where it is made, and sent again as it is.
"""

from __future__ import annotations

from typing import Final

_ITEM, _ID, _WRITE = b"\x0a", b"\x08", b"\x12"
_ONE_BYTE: Final = 0x80


def item_bytes(item_id: int, write: bytes) -> bytes:
    """`WriteStreamRequest(items=[Item(id=item_id, write=write)])` of an encoded write."""
    inner = b"".join((_ID, varint(item_id), _WRITE, varint(len(write)), write))
    return b"".join((_ITEM, varint(len(inner)), inner))


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first (protobuf's encoding)."""
    if number < _ONE_BYTE:
        return bytes((number,))
    if number < _ONE_BYTE << 7:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number >= _ONE_BYTE:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
