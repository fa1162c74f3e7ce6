"""What happens to the machine, and what it wants done, in this order, by whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from envd.core.members import Member
from envd.core.swim.messages import Exchange, Packet

# -- events --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: what is due is done."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sealed a datagram: from the seal, never from the payload."""

    uid: int
    generation: int
    boot_id: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A datagram came from `address`."""

    sender: Sender
    address: str
    packet: Packet


@dataclass(frozen=True, slots=True)
class StreamAnswered:
    """What became of a StreamPing."""

    seq: int
    alive: bool


@dataclass(frozen=True, slots=True)
class Merge:
    """A peer's side of a push/pull, over a channel on which it proved itself."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Seeds:
    """Where to ask for the cluster: datagram addresses; they replace the ones given before."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeardFrom:
    """This node was heard from by other means (a stream); matters where it is held for down."""

    uid: int


@dataclass(frozen=True, slots=True)
class Remove:
    """An operator says that this member is gone for good."""

    uid: int


@dataclass(frozen=True, slots=True)
class Leave:
    """This node is about to stop: tell the others; `for_good`, that it will not come back."""

    for_good: bool = False


@dataclass(frozen=True, slots=True)
class Renewed:
    """This node has a new generation, durably, and a boot id to go with it."""

    generation: int
    boot_id: bytes


Event = Tick | Received | StreamAnswered | Merge | Seeds | HeardFrom | Remove | Leave | Renewed

# -- effects -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Seal and send."""

    address: str
    packet: Packet


@dataclass(frozen=True, slots=True)
class StreamPing:
    """Find out over a channel whether `member` lives, and answer with StreamAnswered(seq).

    After `within_ms` the answer does not matter any more.
    """

    seq: int
    member: Member
    within_ms: int


@dataclass(frozen=True, slots=True)
class PushPull:
    """Exchange all that is known with the node at this channel address, and Merge its side."""

    peer: str


@dataclass(frozen=True, slots=True)
class Changed:
    """Another state, or another start, of a member; `previous` is None for a new one."""

    member: Member
    previous: Member | None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A member that was down or gone for long is not listed any more."""

    member: Member


class RenewReason(Enum):
    """Why this start of this node is over although it lives."""

    DECLARED_DOWN = "declared_down"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Renew:
    """Make a higher generation than `generation` durable, then answer with Renewed."""

    generation: int
    reason: RenewReason


@dataclass(frozen=True, slots=True)
class DuplicateIdentity:
    """This node's uid is in use elsewhere, or was beyond what this node remembers.

    `generation` and `boot_id` are those of the other start (`boot_id` b"" where not known).
    `yields`: this node is the one that must take a new uid; the machine says nothing any more.
    """

    generation: int
    boot_id: bytes
    yields: bool


Effect = Send | StreamPing | PushPull | Changed | Forgotten | Renew | DuplicateIdentity
