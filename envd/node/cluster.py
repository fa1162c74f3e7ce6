"""The cluster as one of its nodes knows it: what `cluster_view` asks for.

Figures are this node's own view: another node may know more, or less.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from envd.core.answers import (
    ClusterFigures,
    PeerView,
    PlaceView,
    SeedView,
    TopologyView,
    VoterView,
)
from envd.core.errors import Conflict, Unavailable
from envd.core.members import Member, MemberState
from envd.core.partitions import stage_counts
from envd.core.placement import Site
from envd.core.ring import partition_of
from envd.core.stamp import COUNTER_BITS
from envd.core.topology import Topology
from envd.node.cluster_view import shown_state, voter_view
from envd.node.node import Node
from envd.node.peer import PeerLink

JOIN_S: Final = 10.0
ANSWERS_S: Final = 15.0
"""Who asks a node to leave is answered within this, and asks again: callers wait for 30 s."""
ASKED_S: Final = 60.0
_LOOK_S: Final = 0.1


class NodeCluster:
    """The Cluster of a node that runs in one; `stop` ends the process in good order."""

    def __init__(self, node: Node, seeds: Sequence[str], stop: Callable[[], None]) -> None:
        self._node = node
        self._seeds = list(seeds)
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._leave: asyncio.Task[None] | None = None
        self._asked_s = 0.0

    @property
    def own_uid(self) -> int:
        return self._node.membership.me.uid

    def members(self) -> Sequence[Member]:
        return self._node.membership.members()

    def peers(self) -> Sequence[PeerView]:
        return [self._peer(member, link) for member, link in self._node.replication.links()]

    def _peer(self, member: Member, link: PeerLink) -> PeerView:
        now = self._loop.time()
        return PeerView(
            name=member.name,
            uid=f"{member.uid:016x}",
            address=member.peer,
            connected=link.streaming,
            acknowledged=link.synced_lsn,
            handoff=self._node.replication.waiting_for(link),
            lag_ms=self._node.replication.lag_ms(link),
            clock_offset_ms=link.offset_ms,
            heard_ms=int((now - link.heard_s) * 1000),
            phi=round(link.phi(now), 2),
            problem=link.problem,
        )

    def seeds(self) -> Sequence[SeedView]:
        known = {member.gossip: member for member in self.members()}
        return [self._seed(address, known.get(address)) for address in self._seeds]

    def _seed(self, address: str, member: Member | None) -> SeedView:
        if member is None and _is_name(address):  # It stands for addresses that may change.
            others = any(each.reachable for each in self.members() if each.uid != self.own_uid)
            return SeedView(address, others, "" if others else "no other member answers")
        if member is None:
            return SeedView(address, False, "no member has this address")
        if not member.reachable:
            return SeedView(address, False, f"{member.name} is {shown_state(member.state)}")
        return SeedView(address, True)

    def figures(self) -> ClusterFigures:
        replication = self._node.replication
        links = [link for _, link in replication.links()]
        return ClusterFigures(
            epoch=self._node.consent.electorate.epoch,
            members=sum(member.reachable for member in self.members()),
            under_replicated=self._under_replicated(),
            handoff=max(map(replication.waiting_for, links), default=0),
            lag_ms=max(map(replication.lag_ms, links), default=0),
            quarantined=self._node.quarantined,
            detached=replication.detached(),
        )

    def topology(self, environment: str = "") -> TopologyView:
        electorate = self._node.consent.electorate
        topology = electorate.current
        place = self._place(environment) if environment else None
        if topology is None:
            return TopologyView(0, (), majority=False, place=place)
        table = topology.table
        members = {member.uid: member for member in self.members()}
        reached = self._reached()
        loads = {} if table is None else table.loads()
        nodes = [
            _voter(
                site,
                members.get(site.uid),
                topology,
                reachable=site.uid in reached,
                partitions=loads.get(site.uid, 0),
            )
            for site in topology.nodes
        ]
        return TopologyView(
            topology.epoch,
            tuple(sorted(nodes, key=lambda each: (each.name, each.uid))),
            majority=topology.own_quorum.is_met(reached),
            copies={} if table is None else dict(table.copies),
            moving={} if table is None else stage_counts(table),
            waiting=0 if table is None else table.waiting,
            under_replicated=self._under_replicated(),
            left_seconds=self._left_seconds(),
            place=place,
            floor_ms=topology.floor.hlc >> COUNTER_BITS,
        )

    def _place(self, environment: str) -> PlaceView:
        partition, table = partition_of(environment), self._node.holdings.table
        if table is None:
            return PlaceView(partition)
        move = table.moves.get(partition)
        return PlaceView(
            partition,
            tuple(f"{uid:016x}" for uid in table.readers(partition)),
            tuple(f"{uid:016x}" for uid in table.writers(partition)),
            move.stage.name.lower() if move is not None else "",
        )

    def _left_seconds(self) -> int | None:
        left_s = self._node.pace.left_s()
        return None if left_s is None else round(left_s)

    def _under_replicated(self) -> int:
        """How many partitions have fewer copies on nodes that are up than there are to be."""
        return self._node.pace.under_replicated(
            {each.uid for each in self.members() if each.reachable}
        )

    def _reached(self) -> Collection[int]:
        """The storage nodes that can be reached; an agent has heartbeats of one of them alone."""
        if self._node.is_agent:
            return {each.uid for each in self.members() if each.state is MemberState.ALIVE}
        return self._node.consent.electorate.reached()

    async def join(self, addresses: Sequence[str]) -> None:
        """Ask at these addresses too; raises Unavailable where no member answers there."""
        before, self._seeds = self._seeds, list(dict.fromkeys([*self._seeds, *addresses]))
        await self._node.seek(self._seeds)
        try:
            async with asyncio.timeout(JOIN_S):
                while not self._answered(addresses):  # noqa: ASYNC110 - seldom, and once
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            self._seeds = before
            await self._node.seek(before)
            raise Unavailable(
                f"no node of this cluster answers at {', '.join(addresses)}",
                hint="compare the cluster's name and secret; a node with data of another cluster "
                "never joins this one: start it with an empty data directory and --join",
                reason="NO_MEMBER_THERE",
            ) from None

    def _answered(self, addresses: Sequence[str]) -> bool:
        return any(seed.answers for seed in self.seeds() if seed.address in addresses)

    async def leave(self) -> None:
        if self._leave is None and self._node.holdings.whole:
            await self._node.hand_over()
            # From here on there is no way back: whoever asked may go, it comes to its end.
            await asyncio.shield(self._loop.create_task(self._go(), name="leave"))
            return
        if self._leave is None or self._leave.done():
            self._leave = self._loop.create_task(self._leave_slowly(), name="leave")
            self._leave.add_done_callback(_taken)
        self._asked_s = self._loop.time()
        await asyncio.wait((self._leave,), timeout=ANSWERS_S)
        if not self._leave.done():
            raise Unavailable(
                f"the node is leaving: {self._node.draining.so_far}",
                hint=f"ask again, and it goes on; it stays if nobody asks within {ASKED_S:.0f} s",
                reason="DRAINING",
                retry_after_ms=100,
            )
        self._leave.result()

    async def _leave_slowly(self) -> None:
        """Leave, which may take hours; stay after all if nobody asks any more."""
        handing = self._loop.create_task(self._node.hand_over(), name="hand-over")
        try:
            while not handing.done():
                await asyncio.wait((handing,), timeout=1.0)
                if not handing.done() and self._loop.time() - self._asked_s > ASKED_S:
                    raise Unavailable(
                        "nobody asked any more, so the node stays", reason="NOT_DRAINED"
                    )
            handing.result()
        finally:
            handing.cancel()
        await self._go()

    async def _go(self) -> None:
        await self._node.leave(for_good=True)
        self._stop()

    async def remove(self, member: Member) -> None:
        self._node.membership.remove(member.uid)

    async def recover(self, *, dry_run: bool) -> None:
        if self._node.is_agent:
            raise Conflict(
                "this node is an agent, and only storage nodes vote; nothing was changed",
                hint="ask a storage node: envctl --server HOST:7420 cluster recover",
                reason="WRONG_NODE",
            )
        electorate = self._node.consent.electorate
        if dry_run:
            electorate.check_lost()
        else:
            await electorate.recover()


def _voter(
    site: Site,
    member: Member | None,
    topology: Topology,
    *,
    reachable: bool,
    partitions: int,
) -> VoterView:
    votes = "no"
    if site.uid in topology.voters:
        votes = "yes"
    elif site.uid in topology.joining:
        votes = "next"
    leaving = site.uid in topology.leaving
    if member is not None:
        view = voter_view(member, votes, reachable=reachable, leaving=leaving)
    else:
        uid = f"{site.uid:016x}"
        view = VoterView("", uid, site.region, site.zone, "", votes, reachable, leaving)
    return replace(view, partitions=partitions)


def _taken(task: asyncio.Task[None]) -> None:
    """Take an error out: who asked may have gone."""
    if not task.cancelled():
        task.exception()


def _is_name(address: str) -> bool:
    """Whether HOST:PORT has a name for its host."""
    try:
        ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return True
    return False
