"""The rows in which a node keeps its acceptors: msgpack behind a format byte of their own.

The rows of the log have the formats 1 and 2, so that neither is ever taken for the other. Fields
are only ever added at the end, with a default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

from envd.core.errors import Corrupt, StorageError
from envd.core.paxos import NEVER, Acceptor, Ballot, Proposal
from envd.core.stamp import STAMP_BYTES, Stamp

REGISTER_FORMAT = 16
_FORMAT_BYTE = bytes([REGISTER_FORMAT])


class RowKind(IntEnum):
    """What a row tells; the numbers are stored.

    A snapshot is a BEGIN, the rows of all registers, and an END: what stands before it is not
    needed any more.
    """

    REGISTER = 1
    BEGIN = 2
    END = 3


@dataclass(frozen=True, slots=True)
class RegisterRow:
    """One row: of a BEGIN, `acceptor` has the ballot below which nothing is promised."""

    kind: RowKind
    register: str = ""
    acceptor: Acceptor = field(default_factory=Acceptor)


class _Row(msgspec.Struct, array_like=True, frozen=True):
    kind: int
    register: str
    promised: tuple[int, int]
    accepted: tuple[int, int] = NEVER
    place: bytes = b""
    value: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Row)


def encode_register(row: RegisterRow) -> bytes:
    """The stored bytes of a row."""
    acceptor, accepted = row.acceptor, row.acceptor.accepted
    stored = _Row(row.kind, row.register, acceptor.promised)
    if accepted is not None:
        place = accepted.place.to_bytes()
        stored = _Row(
            row.kind, row.register, acceptor.promised, accepted.ballot, place, accepted.value
        )
    return _FORMAT_BYTE + _encoder.encode(stored)


def decode_register(raw: bytes) -> RegisterRow:
    """The inverse of `encode_register`; raises Corrupt, or StorageError for a newer format."""
    if raw[:1] != _FORMAT_BYTE:
        if raw and raw[0] > REGISTER_FORMAT:
            raise _newer(f"format {raw[0]}")
        raise Corrupt("a stored register is of no known format")
    try:
        row = _decoder.decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Corrupt("a stored register does not decode") from None
    if row.kind not in tuple(RowKind):
        raise _newer(f"kind {row.kind}")
    if row.place and len(row.place) != STAMP_BYTES:
        raise Corrupt("a stored register names a place that is none")
    accepted = None
    if row.place:
        accepted = Proposal(Ballot(*row.accepted), Stamp.from_bytes(row.place), row.value)
    return RegisterRow(RowKind(row.kind), row.register, Acceptor(Ballot(*row.promised), accepted))


def _newer(what: str) -> StorageError:
    return StorageError(
        f"a stored register is of {what}, which this version does not know",
        hint="a newer envd wrote it: run that version or a later one",
        reason="NEWER_FORMAT",
    )
