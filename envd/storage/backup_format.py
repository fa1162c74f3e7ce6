"""The file of a backup: what stands where. docs/backup.md tells the same byte by byte.

    file      = preamble, frames of kind D, one of kind L, one of kind F, tail
    preamble  = magic "ENVDBAK1", length u32, header (JSON), HMAC-SHA256 of all before,
                CRC-32 of all before
    frame     = kind (1 byte), 3 zero bytes, number u32, length u32, CRC-32 of the 12 bytes before
                and of the body; body
    tail      = position of frame F u64, BLAKE2b-256 of all before, magic "ENVDEND1"

Frames D and L hold chunks of the rows (`backup_rows`), each sealed with AES-256-GCM: the nonce is
the frame's number, the AAD is the kind and a hash of the preamble, and for L, the last one, of
frame F's body too. So chunks can't be reordered, repeated, left out or cut off, nor the figures
in F be changed: the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizar, 2015). F holds
the figures of the whole in clear (JSON), for lists.

CRCs say where a file is damaged, and the hash in the tail says it of the whole, both without any
key; they are no protection against somebody, which is what the seals are for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Annotated, Any
from zlib import crc32

import msgspec

from envd.core.errors import Corrupt, StorageError
from envd.ports import Subkey

BACKUP_FORMAT = 1
MAGIC = b"ENVDBAK1"
END_MAGIC = b"ENVDEND1"
CHUNK_BYTES = 1 << 20
MIN_CHUNK_BYTES = 1 << 12
MAX_CHUNK_BYTES = 4 << 20
MAX_HEADER_BYTES = 64 << 10
MAX_LOCKS = 64
MAC_BYTES = 32
HASH_BYTES = 32
TAG_BYTES = 16
PREAMBLE_START = struct.Struct(">8sI")
FRAME = struct.Struct(">c3xIII")
TAIL = struct.Struct(f">Q{HASH_BYTES}s8s")
DATA, LAST, FIGURES = b"D", b"L", b"F"
_CRC_BYTES = 4
DAMAGED_HINT = "use another backup, or another copy of this one; nothing was changed"

Hex = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2}){0,256}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Name = Annotated[str, msgspec.Meta(max_length=512)]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in clear at the beginning; fields are only added.

    `created_ms` is unix time; `node_uid` are 16 hexadecimal digits, `salt` 32 bytes. Everything
    that the node had acknowledged up to its record number `covered_lsn` is in the backup. What
    `locks` hold is told in `security.backup_keys`; more of them, and of other kinds, can be read
    than are written, for later versions may know other ways to open a backup.
    """

    format: int = BACKUP_FORMAT
    created_ms: _Count
    cluster: _Name
    cluster_id: _Name
    node: _Name
    node_uid: _Name
    version: _Name
    covered_lsn: _Count
    scheduled: bool = False
    chunk_bytes: Annotated[int, msgspec.Meta(ge=MIN_CHUNK_BYTES, le=MAX_CHUNK_BYTES)] = CHUNK_BYTES
    salt: Hex
    locks: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(min_length=1, max_length=MAX_LOCKS)]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in clear at the end: how much of everything, and the bytes of all rows."""

    environments: _Count
    variables: _Count
    commits: _Count
    rows: _Count
    row_bytes: _Count


_header_decoder = msgspec.json.Decoder(Header)
_figures_decoder = msgspec.json.Decoder(Figures)


def encode_json(document: Header | Figures) -> bytes:
    """The bytes of a header or of the figures."""
    return msgspec.json.encode(document)


def proved_part(header: Header) -> bytes:
    """What the MAC of a preamble proves: magic, length and header."""
    encoded = encode_json(header)
    return PREAMBLE_START.pack(MAGIC, len(encoded)) + encoded


def preamble(proved: bytes, mac: bytes) -> bytes:
    """The whole preamble."""
    whole = proved + mac
    return whole + crc32(whole).to_bytes(_CRC_BYTES)


def preamble_length(start: bytes) -> int:
    """How many bytes follow the first ones of a preamble.

    Raises Corrupt where those are none, StorageError for a newer format.
    """
    if len(start) == PREAMBLE_START.size:
        magic, length = PREAMBLE_START.unpack(start)
        if magic == MAGIC and length <= MAX_HEADER_BYTES:
            return int(length) + MAC_BYTES + _CRC_BYTES
        if magic[:7] == MAGIC[:7] and magic[7:].isdigit() and magic > MAGIC:
            raise StorageError(
                "its format is newer than this version reads, or its first bytes are damaged",
                hint="use the envd version that wrote it, or a later one",
                reason="NEWER_FORMAT",
            )
    raise Corrupt("it does not begin as a backup does")


@dataclass(frozen=True, slots=True)
class Preamble:
    """A preamble whose CRC holds; `proved` and `mac` are for whoever has the key."""

    header: Header
    proved: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    digest: bytes = field(repr=False)


def decode_preamble(whole: bytes) -> Preamble:
    """Read a preamble; raises Corrupt."""
    checked = whole[:-_CRC_BYTES]
    if crc32(checked).to_bytes(_CRC_BYTES) != whole[-_CRC_BYTES:]:
        raise Corrupt("its header is damaged")
    proved, mac = checked[:-MAC_BYTES], checked[-MAC_BYTES:]
    try:
        header = _header_decoder.decode(proved[PREAMBLE_START.size :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Corrupt("its header can't be read") from None
    if header.format != BACKUP_FORMAT:
        raise Corrupt("its header names another format than its magic")
    return Preamble(header, proved, mac, preamble_digest(whole))


def preamble_digest(whole: bytes) -> bytes:
    """What binds every chunk to its file."""
    return blake2b(whole, digest_size=HASH_BYTES).digest()


def decode_figures(body: bytes) -> Figures:
    """Read the body of frame F; raises Corrupt."""
    try:
        return _figures_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Corrupt("its figures can't be read") from None


def frame(kind: bytes, number: int, body: bytes) -> bytes:
    """One frame."""
    start = FRAME.pack(kind, number, len(body), 0)[:-_CRC_BYTES]
    return start + frame_crc(start, body).to_bytes(_CRC_BYTES) + body


def frame_crc(start: bytes, body: bytes) -> int:
    """The CRC of a frame; `start` is its header, with or without a CRC."""
    return crc32(body, crc32(start[: FRAME.size - _CRC_BYTES]))


@dataclass(frozen=True, slots=True)
class ChunkCipher:
    """Seals and opens the chunks of one file."""

    subkey: Subkey
    preamble_digest: bytes = field(repr=False)

    def seal(self, kind: bytes, number: int, chunk: bytes, figures: bytes = b"") -> bytes:
        """The body of frame `number`; the last one takes the body of frame F too."""
        return self.subkey.seal(number, chunk, self._place(kind, figures))

    def open(self, kind: bytes, number: int, body: bytes, figures: bytes = b"") -> bytes:
        """The inverse of `seal`; raises Corrupt."""
        return self.subkey.open(number, body, self._place(kind, figures))

    def _place(self, kind: bytes, figures: bytes) -> bytes:
        bound = blake2b(figures, digest_size=HASH_BYTES).digest() if kind == LAST else b""
        return b"envd backup %d " % BACKUP_FORMAT + kind + self.preamble_digest + bound
