"""The metrics of a node's cluster: members, peers, replication, repair, gossip.

The label `peer` is the name of another storage node. A figure of a peer that is not known, such
as the clock of one that was never reached, has no sample: 0 would say that all is well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import Metric

from envd.telemetry.cluster import ClusterFigures, PartitionFigures, PeerFigures
from envd.telemetry.requests import Histogram
from envd.telemetry.samples import counter, counters, gauge, gauges, histogram

_STAGES: Final = ("write_both", "streaming", "read_new", "use_new")
_OF_A_PEER: Final[tuple[tuple[str, str, Callable[[PeerFigures], float | None]], ...]] = (
    (
        "envd_peer_up",
        "1 while membership holds a peer for alive or suspect, else 0.",
        lambda peer: int(peer.up),
    ),
    (
        "envd_peer_connected",
        "1 while this node's log goes to a peer, else 0.",
        lambda peer: int(peer.connected),
    ),
    (
        "envd_replication_lag_seconds",
        "The age of the oldest commit of this node that a peer has not synced, 0 for none.",
        lambda peer: peer.lag_s,
    ),
    (
        "envd_peer_handoff_commits",
        "Commits of this node that a peer has not synced.",
        lambda peer: peer.handoff,
    ),
    (
        "envd_peer_clock_offset_seconds",
        "How far a peer's clock is ahead of this node's, as last measured.",
        lambda peer: peer.clock_offset_s,
    ),
    (
        "envd_peer_phi",
        "How implausible a peer's silence is, as a power of ten: 1 is 10 %, 8 is 1e-8.",
        lambda peer: peer.phi,
    ),
)


def cluster_families(figures: ClusterFigures, propagation: Histogram) -> Iterator[Metric]:
    """All of them; those of peers only where there are any."""
    yield gauges(
        "envd_members", "Members by state, this node is one of them.", "state", figures.members
    )
    for name, about, of in _OF_A_PEER:
        told = {peer.name: of(peer) for peer in figures.peers}
        if known := {peer: value for peer, value in told.items() if value is not None}:
            yield gauges(name, about, "peer", known)
    yield from _replication(figures)
    yield histogram(
        "envd_propagation_seconds",
        "From when a batch of this node's commits was durable here until a peer had synced it.",
        propagation,
    )
    yield from _repair(figures)
    yield from _gossip(figures)
    if figures.partitions is not None:
        yield from _partitions(figures.partitions)


def _replication(figures: ClusterFigures) -> Iterator[Metric]:
    yield gauge(
        "envd_handoff_commits",
        "The most commits of this node that any peer has not synced.",
        max((peer.handoff or 0 for peer in figures.peers), default=0),
    )
    yield counter(
        "envd_detached_commits",
        "Commits that were answered while no other storage node was known to have them.",
        figures.detached,
    )
    if figures.unreplicated is not None:
        yield gauge(
            "envd_unreplicated_commits",
            "Commits of this node that no peer has synced yet: they are lost with this disk.",
            figures.unreplicated,
        )
    yield gauge(
        "envd_quarantined_records",
        "Commits of others, stamped too far in the future, that are held back.",
        figures.quarantined,
    )
    yield counter(
        "envd_zombie_commits",
        "Commits of others that came too late to be applied; what they wrote is a conflict.",
        figures.zombies,
    )
    if figures.floor_s is not None:
        yield gauge(
            "envd_floor_timestamp_seconds",
            "What was deleted before is forgotten; 0: nothing. It waits for who is away.",
            figures.floor_s,
        )
        yield counter(
            "envd_forgotten_tombstones",
            "Marks of deleted variables that were taken away below the floor.",
            figures.forgotten,
        )


def _repair(figures: ClusterFigures) -> Iterator[Metric]:
    repair = figures.repair
    yield counter("envd_repair_bytes", "Bytes that repair got from peers.", repair.bytes)
    yield counter("envd_repair_commits", "Commits that repair got from peers.", repair.commits)
    yield counters(
        "envd_repair_pulls",
        "Repairs by kind: `catch_up` of what a log no longer has, `compare` now and then, "
        "`read` of what was read, `vote` and `floor` before a node votes or forgets.",
        "kind",
        repair.pulls,
    )
    yield counter(
        "envd_repair_divergences",
        "Comparisons that found a difference where none should be: lost or damaged data.",
        repair.divergences,
    )


def _partitions(figures: PartitionFigures) -> Iterator[Metric]:
    yield gauge("envd_partitions_held", "Partitions that this node holds.", figures.held)
    yield gauge(
        "envd_partitions_kept",
        "Partitions of which this node has something that it is to hand over and drop.",
        figures.kept,
    )
    yield gauges(
        "envd_partitions_moving",
        "Partitions that move, by stage; `waiting` are those that are to move after them.",
        "stage",
        {**dict.fromkeys(_STAGES, 0), **figures.moving, "waiting": figures.waiting},
    )
    yield gauge(
        "envd_partitions_under_replicated",
        "Partitions that have fewer copies on nodes that are up than there are to be.",
        figures.under_replicated,
    )
    yield gauge(
        "envd_partitions_balance_ratio",
        "The most partitions that a node is to hold, as a multiple of the mean: 1 is even.",
        figures.balance,
    )


def _gossip(figures: ClusterFigures) -> Iterator[Metric]:
    yield gauge(
        "envd_membership_health_score",
        "How late this node is in its own gossip: 0 is well, 7 the worst.",
        figures.health,
    )
    yield counters(
        "envd_gossip_datagrams",
        "Datagrams: `sent`, `received`, or `dropped` since they could not be sent.",
        "kind",
        figures.datagrams,
    )
    yield counters(
        "envd_gossip_refused",
        "Datagrams that were received and not taken: `unauthenticated`, with another secret or "
        "damaged, or nonsense.",
        "reason",
        figures.refused,
    )
