"""The wiring of a node's cluster: how it becomes a member of one, and what it is built of.

A data directory that holds no node yet becomes one in one of three ways: without seeds it founds
a cluster; with seeds it looks for one, for as long as it takes; and of `bootstrap_expect` empty
nodes that find each other, one founds what the others join.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import envd
from envd.core.errors import EnvdError, SettingsError
from envd.core.members import Member, MemberState
from envd.core.partitions import ANYWHERE
from envd.datadir import DataDirectory, EmptyDirectory
from envd.logs import get_logger
from envd.net.gossip_socket import GossipSocket
from envd.net.peer_transport import GrpcPeerTransport
from envd.net.seeds import Seeds
from envd.node.handshake import Introduction
from envd.node.joining import Joiner
from envd.node.node import Node
from envd.node.world import NodePlace, NodePorts
from envd.ports import Clock, Registers, Rng, Store
from envd.security.cluster_secret import SharedSecret
from envd.security.datagrams import SealedDatagrams
from envd.settings import Settings
from envd.threads import finish_in_thread
from envd.wire import peers as wire

REMEMBER_S = 0.5
_log = get_logger("envd.cluster")


@dataclass(frozen=True, slots=True)
class Ways:
    """How this node reaches others; `gossip_port` is where its socket really listens."""

    gossip: GossipSocket
    gossip_port: int
    transport: GrpcPeerTransport
    seeds: Seeds

    async def close(self) -> None:
        """End them."""
        await self.transport.close()
        await self.gossip.close()


async def open_ways(settings: Settings) -> Ways:
    """Open the gossip socket; raises StartupError where its address can't be had."""
    gossip = GossipSocket(settings.cluster.gossip)
    port = await gossip.start()
    return Ways(gossip, port, GrpcPeerTransport(), Seeds(settings.cluster.join))


def read_secret(settings: Settings) -> SharedSecret:
    """What the nodes of the cluster share; raises KeyFileError that says what to do."""
    if settings.security.insecure:
        return SharedSecret.insecure(settings.cluster.name)
    return SharedSecret.read(settings.cluster.secret_file)


async def become_node(
    empty: EmptyDirectory, settings: Settings, ways: Ways, rng: Rng
) -> DataDirectory:
    """Make a node of an empty directory; with seeds, once a cluster is found.

    Raises KeyFileError where a joiner lacks the cluster's secret.
    """
    cluster = settings.cluster
    if not cluster.join and settings.node.role == "agent":
        raise SettingsError(
            "an agent belongs to a cluster of storage nodes, and founds none",
            hint="name gossip addresses of theirs with --join HOST:PORT[,...]",
            reason="NO_SEEDS",
        )
    if not cluster.join:
        if cluster.bootstrap_expect not in {None, 1}:
            raise SettingsError(
                "bootstrap_expect needs to know where the other nodes are",
                hint="name their gossip addresses with --join HOST:PORT[,...]",
                reason="NO_SEEDS",
            )
        return empty.create()
    secret = read_secret(settings)
    sealer = SealedDatagrams(secret, cluster.name, empty.node_uid, 0, rng)
    me = Introduction(cluster.name, "", empty.node_uid, 0, sealer.boot_id)
    _log.info(
        "cluster.joining",
        seeds=[str(seed) for seed in cluster.join],
        expect=cluster.bootstrap_expect or 0,
    )
    joiner = Joiner(
        me,
        ways.gossip,
        ways.transport,
        secret,
        rng,
        ways.seeds.resolve,
        cluster.bootstrap_expect or 0,
    )
    ticket = await joiner.run()
    if ticket is None:
        _log.info("cluster.founded")
        return empty.create()
    _log.info("cluster.joined", cluster_id=ticket.cluster_id)
    return empty.admit(ticket.cluster_id, ticket.digest_key)


def make_node(
    directory: DataDirectory,
    settings: Settings,
    ways: Ways,
    store: Store,
    clock: Clock,
    rng: Rng,
    *,
    registers: Registers,
    coordinator_store: Store,
    on_identity_lost: Callable[[str], None],
    on_stale: Callable[[str], None],
    propagated: Callable[[float], None],
) -> Node:
    """Build the node of a data directory; `locate` it before it runs. For the rest see Node."""
    record, secret = directory.record, read_secret(settings)
    sealer = SealedDatagrams(secret, settings.cluster.name, record.node_uid, record.generation, rng)

    async def renew(above: int) -> tuple[int, bytes]:
        renewed = await finish_in_thread(directory.renew_generation, above)
        sealer.become(renewed.node_uid, renewed.generation)
        return renewed.generation, sealer.boot_id

    place = NodePlace(
        settings.cluster.name,
        record.cluster_id,
        directory.digest_key,
        _member(settings, record.node_uid, record.generation, sealer.boot_id),
        ways.seeds.resolve,
        record.former_uids if record.relog_from is not None else (),
        directory.known_members(),
        frozenset(record.former_uids),
        # Who gave up a uid met others; without its store it must not take itself for the first.
        expects_others=bool(settings.cluster.join or record.former_uids),
        founds=directory.founded,
        copies=wanted_copies(settings),
    )
    ports = NodePorts(store, clock, rng, ways.gossip, sealer, ways.transport, secret, registers)
    return Node(
        ports,
        place,
        renew=renew,
        on_identity_lost=on_identity_lost,
        on_stale=on_stale,
        coordinator_store=coordinator_store,
        propagated=propagated,
    )


def wanted_copies(settings: Settings) -> Mapping[str, int]:
    """How many copies the settings want of each partition, by region; empty where they do not say.

    Where they say so of regions, others have none.
    """
    regions = {
        name: region.replication_factor
        for name, region in sorted(settings.regions.items())
        if region.replication_factor
    }
    anywhere = settings.distributed.replication_factor
    return regions or ({} if anywhere is None else {ANYWHERE: anywhere})


def _member(settings: Settings, uid: int, generation: int, boot_id: bytes) -> Member:
    node = settings.node
    return Member(
        uid,
        generation,
        0,
        MemberState.ALIVE,
        node.name,
        "",
        "",
        region=node.region,
        zone=node.zone,
        role=node.role,
        boot_id=boot_id,
        versions=(wire.LOWEST_VERSION, wire.HIGHEST_VERSION),
        release=envd.__version__,
    )


def locate(node: Node, settings: Settings, ways: Ways, grpc_port: int, http_port: int) -> None:
    """Tell the node where others reach it."""
    at = _reached_at(settings.node.advertise)
    http = replace(settings.node.http, host=at, port=http_port)
    node.locate(
        gossip=str(replace(settings.cluster.gossip, host=at, port=ways.gossip_port)),
        peer=str(replace(settings.node.listen, host=at, port=grpc_port)),
        http=str(http),
    )


def _reached_at(host: str) -> str:
    """The host to advertise: of 0.0.0.0 and ::, this machine's address towards others."""
    unspecified = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}  # noqa: S104 - compared
    family = unspecified.get(host.strip("[]"))
    if family is None:
        return host
    somewhere = "192.0.2.1" if family is socket.AF_INET else "2001:db8::1"  # RFC 5737, RFC 3849
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((somewhere, 9))  # Sends nothing; asks for the route.
            found = str(probe.getsockname()[0])
        except OSError:
            found = socket.gethostname()
    _log.info("cluster.advertised", host=found)
    return found


async def keep_remembering(node: Node, directory: DataDirectory) -> None:
    """Keep who the other members are for the next start, for ever."""
    known: tuple[Member, ...] = ()
    while True:
        uid = node.membership.me.uid
        fresh = tuple(
            replace(each, incarnation=0, state=MemberState.ALIVE, boot_id=b"")
            for each in node.membership.members()
            if each.uid != uid and each.state is not MemberState.GONE
        )
        if fresh != known:
            try:
                await finish_in_thread(directory.remember_members, fresh)
                known = fresh
            except EnvdError as error:
                _log.warning("members.not_remembered", detail=error.message)
        await asyncio.sleep(REMEMBER_S)


def start_again() -> None:
    """Replace this process by a new start of itself, with the same arguments and environment."""
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
