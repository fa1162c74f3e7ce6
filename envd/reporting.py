"""Wiring of telemetry: where a node's figures come from, and where they go.

Without a collector nothing of opentelemetry is imported; with one it costs a start 0.2 s, which
pass beside the check of the state.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import envd
from envd.core.members import Member, MemberState
from envd.core.partitions import stage_counts
from envd.core.stamp import COUNTER_BITS
from envd.settings import Settings
from envd.settings.units import Address
from envd.telemetry.cluster import ClusterFigures, PartitionFigures, PeerFigures, RepairTotals
from envd.telemetry.destinations import destinations
from envd.telemetry.node import NodeFigures, Telemetry

if TYPE_CHECKING:
    from envd.net.gossip_socket import GossipSocket, Traffic
    from envd.node.node import Node
    from envd.node.peer import PeerLink
    from envd.node.watch import WatchHub
    from envd.storage.store import DurableStore

COORDINATOR_SPANS: Final = {
    name: f"coordinator.{name}"
    for name in (
        "begin_write",
        "conflicts",
        "delete",
        "history",
        "list",
        "reaches",
        "read",
        "read_elsewhere",
        "rendered",
        "resolve",
        "rollback",
        "write",
        "write_here",
    )
}
STORE_SPANS: Final = {"append": "store.append"}
_STATES: Final = tuple(state for state in MemberState if state <= MemberState.LEFT)
"""Those that are told; who is gone for good has left too."""
_PULLS: Final = ("catch_up", "compare", "floor", "read", "vote")
"""What the Repairer calls its pulls: a counter begins with 0."""


def telemetry_of(settings: Settings, environ: Mapping[str, str]) -> Telemetry:
    """The telemetry of a node: metrics always, and pushing what settings or `environ` ask for."""
    observability = settings.observability
    wanted = destinations(observability.tracing_endpoint, observability.metrics_endpoint, environ)
    if not wanted:
        return Telemetry(version=envd.__version__)
    from envd.telemetry.otlp import Origin, OtlpExport

    origin = Origin(envd.__version__, settings.node.name, settings.cluster.name)
    export = OtlpExport(wanted, origin, ratio=observability.trace_sample_ratio)
    return Telemetry(version=envd.__version__, export=export)


def begin(
    telemetry: Telemetry,
    store: DurableStore,
    hub: WatchHub,
    ready: Callable[[], bool],
    data_dir: Path,
    node: Node,
    gossip: GossipSocket,
) -> None:
    """Let `telemetry` look at the node from now on; on the running loop."""

    def read() -> NodeFigures:
        disk = os.statvfs(data_dir)
        return NodeFigures(
            environments=store.environment_count(),
            variables=store.variable_count(),
            commits=store.last_lsn(),
            flushed_commits=store.flushed_lsn(),
            watches=hub.open_watches,
            open_conflicts=store.conflict_count(),
            ready=ready(),
            storage_bytes=store.storage_bytes(),
            available_bytes=disk.f_bavail * disk.f_frsize,
            unflushed_bytes=store.unflushed_bytes(),
            queued_bytes=store.queued_bytes(),
        )

    loop = asyncio.get_running_loop()
    telemetry.fault_counts.append(lambda: gossip.faults)
    telemetry.start(
        read,
        lambda: (store.last_lsn(), store.flushed_lsn()),
        lambda: cluster_figures(node, gossip.traffic, loop.time()),
    )


def cluster_figures(node: Node, traffic: Traffic, now_s: float) -> ClusterFigures:
    """The cluster as `node` sees it at `now_s`, the loop's time; on the loop.

    An agent is no replica: it ships to no peers, and has no commits of its own.
    """
    membership, replication, repair = node.membership, node.replication, node.repairer.figures
    is_agent = membership.me.role == "agent"
    links = [] if is_agent else list(replication.links())
    states = Counter(min(member.state, MemberState.LEFT) for member in membership.members())
    told = not links or any(link.has_told for _, link in links)
    return ClusterFigures(
        members={state.name.lower(): states[state] for state in _STATES},
        peers=tuple(_peers(node, links, now_s)),
        detached=node.acknowledging.detached,
        unreplicated=(replication.detached() if links else 0) if told else None,
        quarantined=node.quarantined,
        zombies=node.zombies,
        floor_s=None if is_agent else (node.floors.own >> COUNTER_BITS) / 1000,
        forgotten=node.consent.floor.forgotten.tombstones,
        repair=RepairTotals(
            repair.bytes,
            repair.commits,
            repair.divergences,
            {**dict.fromkeys(_PULLS, 0), **repair.pulls},
        ),
        datagrams={
            "sent": traffic.sent,
            "received": traffic.received,
            "dropped": traffic.dropped,
        },
        refused={"unauthenticated": 0, **membership.refused},
        health=membership.health,
        partitions=None if is_agent else _partitions(node),
    )


def _partitions(node: Node) -> PartitionFigures | None:
    """Who holds what, None where every node holds everything."""
    table = node.holdings.table
    if table is None:
        return None
    up = {member.uid for member in node.membership.members() if member.reachable}
    return PartitionFigures(
        held=len(table.held_by(node.holdings.uid)),
        kept=len(node.consent.kept()),
        moving=stage_counts(table),
        waiting=table.waiting,
        under_replicated=node.pace.under_replicated(up),
        balance=node.pace.balance(),
    )


def _peers(
    node: Node, links: Sequence[tuple[Member, PeerLink]], now_s: float
) -> Iterator[PeerFigures]:
    """Named by their names; where several have the same, by their uids too.

    So it is where a node came back without its data, until the old one is forgotten.
    """
    replication, times = node.replication, Counter(member.name for member, _ in links)
    for member, link in links:
        known = node.membership.member(member.uid)
        told, offset_ms = link.has_told, link.offset_ms
        yield PeerFigures(
            name=member.name if times[member.name] == 1 else f"{member.name}-{member.uid:016x}",
            up=known is not None and known.reachable,
            connected=link.streaming,
            handoff=replication.waiting_for(link) if told else None,
            lag_s=replication.lag_ms(link) / 1000 if told else None,
            phi=link.phi(now_s),
            clock_offset_s=None if offset_ms is None else offset_ms / 1000,
        )


def metrics_address(settings: Settings) -> Address | None:
    """Where metrics are served besides the HTTP address: its host, so the same rules hold."""
    port = settings.observability.metrics_port
    return None if port is None else Address(settings.node.http.host, port)
