"""One journal segment: a preallocated file of sealed frames, one frame per group commit.

    segment  = header, frame, frame, ..., end mark, leftovers
    header   = magic "ENVDSEG1", number u64, first lsn u64, previous end u64, node uid u64,
               subkey header (18 bytes), 2 zero bytes, CRC-32 of all before
    frame    = magic "GRUP", body length u32, segment number u64, position u64,
               first lsn u64, record count u32, CRC-32 of all before and of the body; body
    body     = sealed msgpack (HLC bound, [record bytes, ...]), padded to 8 bytes with zeros
    end mark = one frame header of zeros, overwritten by the next frame

A frame is written in one piece and synced before the next is begun, so at most the last
frame of the last segment can be torn, and a torn frame was never acknowledged. Its CRC covers
the segment's number and its position, so the leftovers of a recycled file never validate.
`previous end` says where the segment before ended: a frame missing there is damage, not a
torn tail. The end mark is always there in the last segment, so a file that was cut off right
behind a frame is told from one that ends there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from envd.core.errors import Corrupt, StorageError
from envd.ports import SUBKEY_HEADER_BYTES, Subkey

JOURNAL_FORMAT = 1
PURPOSE = b"journal"
_HEADER = struct.Struct(f">8sQQQQ{SUBKEY_HEADER_BYTES}s2xI")
_FRAME = struct.Struct(">4sIQQQII")
_MAGIC = b"ENVDSEG1"
_FRAME_MAGIC = b"GRUP"
_ALIGN = 8
HEADER_BYTES = 64
FRAME_HEADER_BYTES = _FRAME.size
END_MARK = bytes(FRAME_HEADER_BYTES)
FRAME_OVERHEAD_BYTES = FRAME_HEADER_BYTES + 16 + 32 + _ALIGN + len(END_MARK)
"""More than a frame adds to its records: header, tag, msgpack framing, padding, end mark."""


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself; `previous_end` is 0 for the first one."""

    number: int
    first_lsn: int
    previous_end: int
    node_uid: int
    subkey_header: bytes

    def to_bytes(self) -> bytes:
        """HEADER_BYTES, padded with zeros."""
        fields = (
            _MAGIC,
            self.number,
            self.first_lsn,
            self.previous_end,
            self.node_uid,
            self.subkey_header,
        )
        raw = _HEADER.pack(*fields, 0)
        return _HEADER.pack(*fields, crc32(raw[:-4])).ljust(HEADER_BYTES, b"\0")

    @staticmethod
    def from_bytes(raw: bytes) -> SegmentHeader:
        """The inverse of `to_bytes`; raises Corrupt, or StorageError for a newer format."""
        if len(raw) >= len(_MAGIC) and raw[:7] == _MAGIC[:7] and raw[7:8] > _MAGIC[7:]:
            raise StorageError(
                "the journal has a newer format than this version reads",
                hint="run the envd version that wrote it, or a later one",
                reason="NEWER_FORMAT",
            )
        if len(raw) < HEADER_BYTES:
            raise Corrupt("the segment header is cut short")
        magic, number, first_lsn, previous_end, node_uid, subkey_header, crc = _HEADER.unpack(
            raw[: _HEADER.size]
        )
        if magic != _MAGIC or crc != crc32(raw[: _HEADER.size - 4]):
            raise Corrupt("the segment header is damaged")
        return SegmentHeader(number, first_lsn, previous_end, node_uid, subkey_header)


@dataclass(frozen=True, slots=True)
class Frame:
    """One group of records that were synced together."""

    position: int
    end: int
    first_lsn: int
    hlc_bound: int
    records: Sequence[bytes] = field(repr=False)


class _Body(msgspec.Struct, array_like=True, frozen=True):
    hlc_bound: int
    records: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_body_decoder = msgspec.msgpack.Decoder(_Body)


def encode_frame(
    header: SegmentHeader,
    subkey: Subkey,
    position: int,
    first_lsn: int,
    hlc_bound: int,
    records: Sequence[bytes],
) -> tuple[bytes, int]:
    """Return (the bytes to write at `position`, end mark included; where the frame ends)."""
    plaintext = _encoder.encode((hlc_bound, records))
    count = len(records)
    body = subkey.seal(position, plaintext, _place(header.number, position, first_lsn, count))
    fields = (_FRAME_MAGIC, len(body), header.number, position, first_lsn, count)
    crc = crc32(body, crc32(_FRAME.pack(*fields, 0)[:-4]))
    padding = bytes(-(FRAME_HEADER_BYTES + len(body)) % _ALIGN)
    frame = _FRAME.pack(*fields, crc) + body + padding
    return frame + END_MARK, position + len(frame)


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame whose CRC holds, not opened yet."""

    position: int
    end: int
    first_lsn: int
    count: int
    body: memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """What a frame's header says, its CRC not asked."""

    end: int
    first_lsn: int
    count: int
    length: int
    crc: int


def frame_span(head: bytes | memoryview, number: int, position: int) -> FrameSpan | None:
    """What `head`, which stands at `position` of a segment, says if it is a frame's header."""
    if len(head) < FRAME_HEADER_BYTES:
        return None
    magic, length, in_segment, at, first_lsn, count, crc = _FRAME.unpack_from(head)
    if magic != _FRAME_MAGIC or in_segment != number or at != position:
        return None
    whole = FRAME_HEADER_BYTES + length
    return FrameSpan(position + whole + -whole % _ALIGN, first_lsn, count, length, crc)


def frame_in(data: bytes | memoryview, number: int, position: int) -> RawFrame | None:
    """The frame that `data`, which stands at `position`, begins with if it is undamaged."""
    span = frame_span(data, number, position)
    if span is None:
        return None
    body = memoryview(data)[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + span.length]
    head = data[: FRAME_HEADER_BYTES - 4]
    if len(body) < span.length or span.crc != crc32(body, crc32(head)):
        return None
    return RawFrame(position, span.end, span.first_lsn, span.count, body)


def _raw_frame(data: bytes, number: int, position: int) -> RawFrame | None:
    """The frame at `position` if a whole, undamaged one of this segment stands there."""
    return frame_in(memoryview(data)[position:], number, position)


def raw_frames(data: bytes, number: int) -> Iterator[RawFrame]:
    """Find the frames of a segment, up to the first place that holds none."""
    position = HEADER_BYTES
    while (raw := _raw_frame(data, number, position)) is not None:
        yield raw
        position = raw.end


def open_frame(header: SegmentHeader, subkey: Subkey, raw: RawFrame) -> Frame:
    """Decrypt a frame; raises Corrupt where its CRC holds but it does not open."""
    place = _place(header.number, raw.position, raw.first_lsn, raw.count)
    try:
        body = _body_decoder.decode(subkey.open(raw.position, bytes(raw.body), place))
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Corrupt("a journal frame does not decode") from error
    if len(body.records) != raw.count:
        raise Corrupt("a journal frame holds another number of records than it says")
    return Frame(raw.position, raw.end, raw.first_lsn, body.hlc_bound, body.records)


def has_frame_after(data: bytes, number: int, position: int) -> bool:
    """Tell whether an undamaged frame of this segment stands anywhere after `position`."""
    found = data.find(_FRAME_MAGIC, position + 1)
    while found != -1:
        if _raw_frame(data, number, found) is not None:
            return True
        found = data.find(_FRAME_MAGIC, found + 1)
    return False


def is_clean_end(data: bytes, position: int) -> bool:
    """Tell whether the whole end mark stands at `position`."""
    return data[position : position + len(END_MARK)] == END_MARK


def _place(number: int, position: int, first_lsn: int, count: int) -> bytes:
    return b"envd journal %d %d %d %d %d" % (JOURNAL_FORMAT, number, position, first_lsn, count)
