"""What is inside a backup: rows of records in clear, as one stream of bytes.

    row = kind u8, length of key u16, length of value u32, key, value

    1 node         key empty; value: msgpack map, the facts that no other row holds
    2 vector       partition u16, origin u64 -> seq u64
    3 operation    hash of author and operation id -> record
    4 environment  name -> record
    5 base         name -> record, behind its environment
    6 commit       stamp -> record, behind its environment (and base), oldest first
    7 conflict     environment's name, NUL, conflict key -> record

in this order; 5 and 6 follow the environment that they belong to, environments are in order of
partition and name. Records are those of `wire.records`, each with its own format byte. Nothing in
them depends on the engine, on the node or on its keys, so a backup of today is read by a node
that stores otherwise; what can be told from the rest (the index) is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

import msgspec

from envd.core.digest import DIGEST_KEY_BYTES
from envd.core.errors import Corrupt, StorageError

MAX_VALUE_BYTES = 64 << 20
"""Far more than an environment or a commit can have; a hostile length must not be allocated."""
_ROW = struct.Struct(">BHI")


class RowKind(IntEnum):
    """The numbers are stored."""

    NODE = 1
    VECTOR = 2
    OPERATION = 3
    ENVIRONMENT = 4
    BASE = 5
    COMMIT = 6
    CONFLICT = 7


class Row(NamedTuple):
    """One row."""

    kind: RowKind
    key: bytes
    value: bytes

    def __repr__(self) -> str:
        """Tell the kind and the sizes, never what it holds."""
        return f"Row({self.kind.name}, {len(self.key)}, {len(self.value)} bytes)"


class NodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """The value of the first row; fields are only added.

    `hlc_bound`: no stamp of the node that made the backup is above it.
    """

    digest_key: bytes
    hlc_bound: int

    def __repr__(self) -> str:
        """Leave the key out."""
        return "NodeRow(...)"


_node_encoder = msgspec.msgpack.Encoder()
_node_decoder = msgspec.msgpack.Decoder(NodeRow)


def encode_node(node: NodeRow) -> bytes:
    """The value of the first row."""
    return _node_encoder.encode(node)


def decode_node(raw: bytes) -> NodeRow:
    """The inverse of `encode_node`; raises Corrupt."""
    try:
        node = _node_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        node = None
    if (
        node is None
        or len(node.digest_key) != DIGEST_KEY_BYTES
        or not 0 <= node.hlc_bound < 1 << 64
    ):
        raise Corrupt("its first row can't be read")
    return node


def encode_row(kind: RowKind, key: bytes, value: bytes) -> bytes:
    """The bytes of one row."""
    return _ROW.pack(kind, len(key), len(value)) + key + value


def decode_rows(chunks: Iterable[bytes]) -> Iterator[Row]:
    """The rows in a stream that comes in chunks; raises Corrupt, StorageError for a newer kind."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        at = 0
        while True:
            end = _row_end(buffer, at)
            if end is None or end > len(buffer):
                break
            kind, key_length, _ = _ROW.unpack_from(buffer, at)
            middle = at + _ROW.size + key_length
            row = Row(
                RowKind(kind), bytes(buffer[at + _ROW.size : middle]), bytes(buffer[middle:end])
            )
            yield row
            at = end
        del buffer[:at]
    if buffer:
        raise Corrupt("its last row is cut short")


def _row_end(buffer: bytearray, at: int) -> int | None:
    """Where the row at `at` ends, None where its lengths are not there yet."""
    if len(buffer) < at + _ROW.size:
        return None
    kind, key_length, value_length = _ROW.unpack_from(buffer, at)
    if kind not in _KINDS:
        raise StorageError(
            "it holds rows of a kind that this version does not know",
            hint="use the envd version that wrote it, or a later one",
            reason="NEWER_FORMAT",
        )
    if value_length > MAX_VALUE_BYTES:
        raise Corrupt("it holds a row that is larger than rows can be")
    return at + _ROW.size + int(key_length) + int(value_length)


_KINDS = frozenset(RowKind)
