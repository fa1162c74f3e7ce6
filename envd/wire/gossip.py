"""Bytes of membership: a leading version byte, then msgpack arrays.

    datagram   version | [cluster, kind, body, [[kind, body], ...]]     message, then news
    exchange   version | [cluster, speaker, [[member, age_ms], ...]]

Neighbouring versions talk: messages and news of an unknown kind are passed over, fields are only
ever added at the end, with a default. What could be misread gets a new version byte. The bytes
are pinned in tests/golden.

Whatever comes in, the answer is a value or Corrupt (Unsupported for a newer version byte): sizes
and counts are bounded before anything is built.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, TypeVar

import msgspec

from envd.core.errors import Corrupt, Unsupported
from envd.core.members import BOOT_ID_BYTES, Member, MemberState
from envd.core.swim.messages import (
    Ack,
    Announcement,
    Claim,
    Exchange,
    Gossip,
    Hello,
    Here,
    Message,
    Nack,
    News,
    Packet,
    Ping,
    PingRequest,
    Row,
)

VERSION: Final = 1
MAX_PACKET_BYTES: Final = 65_535
MAX_EXCHANGE_BYTES: Final = 16 << 20
MAX_ROWS: Final = 10_000
MAX_NEWS: Final = 1024
_VERSION_BYTE = bytes([VERSION])

_Uid = Annotated[int, msgspec.Meta(ge=0)]
_Generation = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
_Incarnation = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Seq = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
_Small = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Age = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Cluster = Annotated[str, msgspec.Meta(max_length=64)]
_Name = Annotated[str, msgspec.Meta(max_length=253)]
_Address = Annotated[str, msgspec.Meta(max_length=262)]
_Word = Annotated[str, msgspec.Meta(max_length=64)]
_BootId = Annotated[bytes, msgspec.Meta(max_length=BOOT_ID_BYTES)]
_RowT = TypeVar("_RowT")


class _PacketRow(msgspec.Struct, array_like=True, frozen=True):
    cluster: _Cluster
    kind: _Small
    body: msgspec.Raw
    news: Annotated[list[_NewsRow], msgspec.Meta(max_length=MAX_NEWS)]


class _NewsRow(msgspec.Struct, array_like=True, frozen=True):
    kind: _Small
    body: msgspec.Raw


class _SeqRow(msgspec.Struct, array_like=True, frozen=True):
    seq: _Seq


class _PingRow(msgspec.Struct, array_like=True, frozen=True):
    seq: _Seq
    target: _Uid


class _PingRequestRow(msgspec.Struct, array_like=True, frozen=True):
    seq: _Seq
    target: _Uid
    address: _Address


class _MemberRow(msgspec.Struct, array_like=True, frozen=True):
    uid: _Uid
    generation: _Generation
    incarnation: _Incarnation
    state: _Small
    name: _Name
    gossip: _Address
    peer: _Address
    http: _Address
    region: _Word
    zone: _Word
    role: _Word
    boot_id: _BootId
    lowest: _Small
    highest: _Small
    release: _Word


class _HereRow(msgspec.Struct, array_like=True, frozen=True):
    seq: _Seq
    member: _MemberRow


class _ClaimRow(msgspec.Struct, array_like=True, frozen=True):
    uid: _Uid
    generation: _Generation
    incarnation: _Incarnation
    state: _Small
    by: _Uid


class _AnnouncementRow(msgspec.Struct, array_like=True, frozen=True):
    by: _Uid
    member: _MemberRow


class _AgedRow(msgspec.Struct, array_like=True, frozen=True):
    member: _MemberRow
    age_ms: _Age


class _ExchangeRow(msgspec.Struct, array_like=True, frozen=True):
    cluster: _Cluster
    speaker: _Uid
    rows: Annotated[list[_AgedRow], msgspec.Meta(max_length=MAX_ROWS)]


class _Kind(IntEnum):
    """Kinds of messages, as they are sent."""

    GOSSIP = 0
    PING = 1
    ACK = 2
    NACK = 3
    PING_REQUEST = 4
    HELLO = 5
    HERE = 6


_CLAIM: Final = 0
_ANNOUNCEMENT: Final = 1
_STATES: Final = frozenset(int(state) for state in MemberState)

_encoder = msgspec.msgpack.Encoder()
_packets = msgspec.msgpack.Decoder(_PacketRow)
_seqs = msgspec.msgpack.Decoder(_SeqRow)
_pings = msgspec.msgpack.Decoder(_PingRow)
_ping_requests = msgspec.msgpack.Decoder(_PingRequestRow)
_heres = msgspec.msgpack.Decoder(_HereRow)
_claims = msgspec.msgpack.Decoder(_ClaimRow)
_announcements = msgspec.msgpack.Decoder(_AnnouncementRow)
_exchanges = msgspec.msgpack.Decoder(_ExchangeRow)


# -- datagrams -----------------------------------------------------------------------------


def encode_packet(packet: Packet) -> bytes:
    """The payload of a datagram, before it is sealed."""
    kind, body = _message_row(packet.message)
    news = [_news_row(item) for item in packet.news]
    return _VERSION_BYTE + _encoder.encode((packet.cluster, kind, body, news))


def decode_packet(raw: bytes) -> Packet:
    """The inverse of `encode_packet`; a message of an unknown kind is as none (Gossip).

    Raises Corrupt, and Unsupported for a newer version.
    """
    row = _decode(_packets, _versioned(raw, MAX_PACKET_BYTES))
    news = (_news(item) for item in row.news)
    return Packet(
        row.cluster,
        _message(row.kind, row.body),
        tuple(item for item in news if item is not None),
    )


def _message_row(message: Message) -> tuple[int, object]:
    match message:
        case Gossip():
            return int(_Kind.GOSSIP), ()
        case Ping(seq, target):
            return int(_Kind.PING), (seq, target)
        case Ack(seq):
            return int(_Kind.ACK), (seq,)
        case Nack(seq):
            return int(_Kind.NACK), (seq,)
        case PingRequest(seq, target, address):
            return int(_Kind.PING_REQUEST), (seq, target, address)
        case Hello(seq):
            return int(_Kind.HELLO), (seq,)
        case Here(seq, member):
            return int(_Kind.HERE), (seq, _member_row(member))


def _message(kind: int, body: msgspec.Raw) -> Message:
    match kind:
        case _Kind.PING:
            ping = _decode(_pings, body)
            return Ping(ping.seq, ping.target)
        case _Kind.ACK:
            return Ack(_decode(_seqs, body).seq)
        case _Kind.NACK:
            return Nack(_decode(_seqs, body).seq)
        case _Kind.PING_REQUEST:
            request = _decode(_ping_requests, body)
            return PingRequest(request.seq, request.target, request.address)
        case _Kind.HELLO:
            return Hello(_decode(_seqs, body).seq)
        case _Kind.HERE:
            here = _decode(_heres, body)
            member = _member(here.member)
            return Gossip() if member is None else Here(here.seq, member)
        case _:
            return Gossip()


def _news_row(news: News) -> tuple[int, object]:
    if isinstance(news, Claim):
        return _CLAIM, (news.uid, news.generation, news.incarnation, int(news.state), news.by)
    return _ANNOUNCEMENT, (news.by, _member_row(news.member))


def _news(row: _NewsRow) -> News | None:
    """None for a kind, or a state, that only a later version knows."""
    if row.kind == _CLAIM:
        claim = _decode(_claims, row.body)
        if claim.state not in _STATES:
            return None
        state = MemberState(claim.state)
        return Claim(claim.uid, claim.generation, claim.incarnation, state, claim.by)
    if row.kind == _ANNOUNCEMENT:
        announcement = _decode(_announcements, row.body)
        member = _member(announcement.member)
        return None if member is None else Announcement(member, announcement.by)
    return None


# -- exchanges -----------------------------------------------------------------------------


def encode_exchange(exchange: Exchange) -> bytes:
    """One side of a push/pull."""
    rows = [(_member_row(row.member), row.age_ms) for row in exchange.rows]
    return _VERSION_BYTE + _encoder.encode((exchange.cluster, exchange.speaker, rows))


def decode_exchange(raw: bytes) -> Exchange:
    """The inverse of `encode_exchange`; raises Corrupt, and Unsupported for a newer version."""
    row = _decode(_exchanges, _versioned(raw, MAX_EXCHANGE_BYTES))
    rows = ((_member(aged.member), aged.age_ms) for aged in row.rows)
    known = tuple(Row(member, age_ms) for member, age_ms in rows if member is not None)
    return Exchange(row.cluster, row.speaker, known)


# -- members -------------------------------------------------------------------------------


def _member_row(member: Member) -> tuple[object, ...]:
    return (
        member.uid,
        member.generation,
        member.incarnation,
        int(member.state),
        member.name,
        member.gossip,
        member.peer,
        member.http,
        member.region,
        member.zone,
        member.role,
        member.boot_id,
        *member.versions,
        member.release,
    )


def _member(row: _MemberRow) -> Member | None:
    if row.state not in _STATES:
        return None
    return Member(
        row.uid,
        row.generation,
        row.incarnation,
        MemberState(row.state),
        row.name,
        row.gossip,
        row.peer,
        row.http,
        row.region,
        row.zone,
        row.role,
        row.boot_id,
        (row.lowest, row.highest),
        row.release,
    )


def _versioned(raw: bytes, most_bytes: int) -> memoryview:
    if not raw or raw[0] < VERSION or len(raw) > most_bytes:
        raise Corrupt("a message of membership is empty, too large, or of no known version")
    if raw[0] > VERSION:
        raise Unsupported(
            f"a message of membership has version {raw[0]}; this node speaks version {VERSION}",
            hint="upgrade step by step: neighbouring versions talk to each other",
            reason="VERSION_SKEW",
        )
    return memoryview(raw)[1:]


def _decode(decoder: msgspec.msgpack.Decoder[_RowT], raw: memoryview | msgspec.Raw) -> _RowT:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Corrupt("a message of membership does not decode") from None
