"""What nodes tell each other; `wire.gossip` gives it bytes.

A packet is one message and, in what room is left, news: short *claims* about a start of a
member that everybody knows, or whole *announcements* with its addresses. Sizes here are upper
bounds of the encoded ones, so that the core can fill a datagram without knowing the codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from envd.core.members import Member, MemberState

LEAST_NEWS_BYTES: Final = 16
"""Shorter than any claim about a real uid (64 random bits)."""
_CLAIM_BYTES: Final = 4
_ANNOUNCEMENT_BYTES: Final = 32
_PACKET_BYTES: Final = 30
NOBODY: Final = 0
"""No node has this uid; the `by` of news that accuses nobody."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`by` says that the start `generation` of `uid` is in this state."""

    uid: int
    generation: int
    incarnation: int
    state: MemberState
    by: int = NOBODY

    @property
    def size_bytes(self) -> int:
        numbers = (self.uid, self.generation, self.incarnation, self.by)
        return _CLAIM_BYTES + sum(_number_bytes(number) for number in numbers)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A member with all its facts, for those who may not know this start of it yet."""

    member: Member
    by: int = NOBODY

    @property
    def uid(self) -> int:
        return self.member.uid

    @property
    def size_bytes(self) -> int:
        member = self.member
        texts = (member.name, member.gossip, member.peer, member.http)
        more = (member.region, member.zone, member.role, member.release)
        numbers = (self.by, member.uid, member.generation, member.incarnation)
        return (
            _ANNOUNCEMENT_BYTES
            + sum(_text_bytes(text) for text in texts + more)
            + sum(_number_bytes(number) for number in numbers)
        )


News = Claim | Announcement


def _text_bytes(text: str) -> int:
    return 3 + (len(text) if text.isascii() else len(text.encode()))


def _number_bytes(number: int) -> int:
    """What msgpack takes for it."""
    bits = number.bit_length()
    return 1 if bits < 8 else 2 if bits == 8 else 3 if bits <= 16 else 5 if bits <= 32 else 9


@dataclass(frozen=True, slots=True)
class Gossip:
    """Nothing but news."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? Answered by `target` only: an address may have passed to another node."""

    seq: int
    target: int


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to the ping, or the request, of this number."""

    seq: int


@dataclass(frozen=True, slots=True)
class Nack:
    """The target of that request did not answer me in time; but I am here."""

    seq: int


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Ping `target` at `address` for me."""

    seq: int
    target: int
    address: str


@dataclass(frozen=True, slots=True)
class Hello:
    """Who is at this address? Asked of seeds; the packet's cluster may be "", not known yet."""

    seq: int


@dataclass(frozen=True, slots=True)
class Here:
    """The answer to Hello: the node itself, and in the packet its cluster."""

    seq: int
    member: Member


Message = Gossip | Ping | Ack | Nack | PingRequest | Hello | Here


@dataclass(frozen=True, slots=True)
class Packet:
    """What one datagram says; `cluster` is the id of the sender's cluster."""

    cluster: str
    message: Message
    news: tuple[News, ...] = ()


def room_for_news(payload_bytes: int, cluster: str, message: Message) -> int:
    """How many bytes a packet with this message leaves for news."""
    address = len(message.address) if isinstance(message, PingRequest) else 0
    return payload_bytes - _PACKET_BYTES - len(cluster.encode()) - address


@dataclass(frozen=True, slots=True)
class Row:
    """One member in an exchange; `age_ms` is for how long it has been down or gone."""

    member: Member
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """All that `speaker` knows: one side of a push/pull."""

    cluster: str
    speaker: int
    rows: tuple[Row, ...]
