"""What a node knows of its cluster at one moment, in figures.

Streams and membership belong to the event loop, so they are looked at there: by the pulse twice
a second, and once more for each scrape. Who writes the text, in whatever thread, gets the last
look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PeerFigures:
    """Another storage node as this one sees it; no two have the same `name`.

    `up`: membership does not hold it for down or gone. `connected`: this node's log goes there.
    `handoff` is how many of this node's own commits it has not synced yet, and `lag_s` the age of
    the oldest of those: None where it has not told since this node started. `phi` is how
    implausible its silence is, as a power of ten. `clock_offset_s` is how far its clock is
    ahead of this node's, as last measured, None before.
    """

    name: str
    up: bool
    connected: bool
    handoff: int | None
    lag_s: float | None
    phi: float
    clock_offset_s: float | None


@dataclass(frozen=True, slots=True)
class RepairTotals:
    """What repair did since the start: `pulls` by their kind, `bytes` of all answers."""

    bytes: int = 0
    commits: int = 0
    divergences: int = 0
    pulls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartitionFigures:
    """Who holds what, of a cluster in which not every node holds everything.

    `held` counts the partitions whose writes go to this node, `kept` those of which it has
    something and that it does not hold; `moving` those that move, by stage, and `waiting` those
    that are to move later. `balance` is the most that a node is to hold, as a multiple of the mean.
    """

    held: int
    kept: int
    moving: Mapping[str, int]
    waiting: int
    under_replicated: int
    balance: float


@dataclass(frozen=True, slots=True)
class ClusterFigures:
    """The cluster as this node sees it; `members` by state, this node is one of them.

    `detached` counts the writes since the start that were answered as safe on this node alone,
    `unreplicated` the own commits that are so now (None: nobody has told yet). `datagrams` are
    those of gossip by what became of them, `refused` those that were not taken, by reason.
    `health` is how unwell this node believes itself to be, 0 for well. `partitions` is None where
    every node holds everything. `floor_s` is the Unix time of this node's floor, None on an agent;
    `forgotten` counts the tombstones that were collected below it.
    """

    members: Mapping[str, int]
    peers: tuple[PeerFigures, ...] = ()
    detached: int = 0
    unreplicated: int | None = 0
    quarantined: int = 0
    zombies: int = 0
    floor_s: float | None = None
    forgotten: int = 0
    repair: RepairTotals = field(default_factory=RepairTotals)
    datagrams: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    health: int = 0
    partitions: PartitionFigures | None = None
