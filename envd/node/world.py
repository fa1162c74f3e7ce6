"""What a node is given: the ports through which it meets the world, and its place in a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from envd.core.members import Member
from envd.core.sealing import DEFAULT_FLOOR_PACE, FloorPace
from envd.ports import (
    Clock,
    ClusterSecret,
    Datagrams,
    DatagramSealer,
    PeerTransport,
    Registers,
    Rng,
    Store,
)


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The world of one node."""

    store: Store
    clock: Clock
    rng: Rng
    datagrams: Datagrams
    sealer: DatagramSealer
    transport: PeerTransport
    secret: ClusterSecret
    registers: Registers


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Which node of which cluster this is.

    `member` is this start of it, ALIVE; its addresses may be told later, by `Node.locate`.
    `seeds` gives the datagram addresses to look for others at, as they are now. `former_uids`
    are those under which this data directory was known before, whose commits are logged anew;
    `own_uids` all that it ever had. `known` are the other members as they were when this
    node last ran. `expects_others`: there are some, though perhaps none is known. `founds`: this
    start of it made the cluster, so nobody knows of a topology. `copies` are how many there are to
    be of each partition, by region ("" for any), where the settings say. `floor_pace` tells when
    what was deleted is forgotten.
    """

    cluster_name: str
    cluster_id: str
    digest_key: bytes = field(repr=False)
    member: Member
    seeds: Callable[[], Awaitable[Sequence[str]]]
    former_uids: tuple[int, ...] = ()
    known: tuple[Member, ...] = ()
    own_uids: frozenset[int] = frozenset()
    expects_others: bool = False
    founds: bool = False
    copies: Mapping[str, int] = field(default_factory=dict)
    floor_pace: FloorPace = DEFAULT_FLOOR_PACE
