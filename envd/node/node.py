"""One node of a cluster: its parts, put together over the ports.

The daemon and the simulator build the same `Node`; nothing here knows which of them it is. What
comes from other nodes comes in at two doors: datagrams (gossip, and questions of nodes that look
for a cluster) and channels (handshake first, then by purpose: a log, calls, a ticket to join).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from envd.core.errors import Conflict, Corrupt, EnvdError, NotFound, Unavailable
from envd.core.hlc import SALT_BITS, HybridClock
from envd.core.members import Member, MemberState
from envd.node import calls, forwarding, handshake, relogging
from envd.node.acknowledging import Acknowledging
from envd.node.calls import CallClient, Method
from envd.node.consent import Consent
from envd.node.coordinator import Coordinator
from envd.node.draining import Draining
from envd.node.electorate import Others
from envd.node.feeds import Feeds
from envd.node.floors import Floors
from envd.node.forwarding import Forwarder
from envd.node.gathering import Gathering
from envd.node.guarding import guarded
from envd.node.handshake import Introduction, Peer
from envd.node.held import Held
from envd.node.holdings import Holdings
from envd.node.intake import MAX_AHEAD_MS, Intake
from envd.node.joining import Discovery, join_methods
from envd.node.membership import Membership
from envd.node.pace import Pace
from envd.node.peer_calls import PeerCalls
from envd.node.peering import DIAL_S, Surroundings
from envd.node.repair import Repairer
from envd.node.repair_server import RepairServer
from envd.node.replication import Replication
from envd.node.routing import Routing
from envd.node.session_reads import SessionReads
from envd.node.spread import SpreadWatches
from envd.node.syncing import Syncing, SyncLeading, syncing_of
from envd.node.tail import LogTail
from envd.node.vectors import VectorFeed
from envd.node.views import NodeIdentity
from envd.node.watch import WatchHub
from envd.node.watch_pages import WatchPages
from envd.node.world import NodePlace, NodePorts
from envd.ports import (
    Datagrams,
    PeerChannel,
    Store,
)
from envd.wire import peers as wire

DRAIN_S: Final = 5.0
_RELEASE_S: Final = 1.0
_SEEK_S: Final = 30.0
_RESIGNS: Final = 4
"""To vote no more takes several writes, one after the other."""
_RENEWED_AGAIN_S: Final = 1.0
_log = logging.getLogger(__name__)


class _Gossip:
    """The Datagrams port as membership sees it: without what is not gossip."""

    def __init__(self, datagrams: Datagrams) -> None:
        self._datagrams = datagrams
        self.receive: Callable[[str, bytes], None] | None = None

    def send(self, address: str, datagram: bytes) -> None:
        self._datagrams.send(address, datagram)

    def on_datagram(self, receive: Callable[[str, bytes], None]) -> None:
        self.receive = receive


class Node:
    """The parts of one node. `coordinator` reads and writes, the rest is the cluster."""

    def __init__(
        self,
        ports: NodePorts,
        place: NodePlace,
        *,
        renew: Callable[[int], Awaitable[tuple[int, bytes]]],
        on_identity_lost: Callable[[str], None],
        on_stale: Callable[[str], None],
        coordinator_store: Store | None = None,
        propagated: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`renew(generation)` makes a higher generation durable and returns it with a new boot id.

        `on_identity_lost(why)`: this node must not go on under its uid; `on_stale(why)`: nor with
        what it has, which the others do not lack any more. `coordinator_store` is the store as the
        coordinator sees it (traced), if that is another. `propagated` is told how many seconds own
        records took to each other storage node.
        """
        self._ports = ports
        self._place = place
        self._lost = False
        self._handing_over = False
        self._also: tuple[str, ...] = ()
        self._is_agent = place.member.role == "agent"
        self._tell_lost = on_identity_lost
        self._tell_stale = on_stale
        self._renew = renew
        salt = int.from_bytes(ports.rng.token_bytes(2)) >> (16 - SALT_BITS)
        self._hlc = hlc = HybridClock(place.member.uid, ports.store.highest_hlc(), salt=salt)
        self.holdings = Holdings(place.member.uid, is_agent=self._is_agent)
        self._tail = LogTail(ports.store, place.member.uid)
        self.acknowledging = Acknowledging(
            lambda: self._tail.last_own_lsn, self.holdings, expecting=place.expects_others
        )
        self._forwarder = Forwarder(self._forward_to, self._ask, always=self._is_agent)
        self.coordinator = self._coordinator(coordinator_store or ports.store, hlc)
        key, uid = place.digest_key, place.member.uid
        self.floors = self._floors()
        self._intake = Intake(ports.store, ports.clock, hlc, key, uid, self.holdings, self.floors)
        feed = VectorFeed(ports.store)
        self._intake.advanced = feed.advanced
        self._intake.salvage = self.coordinator.salvage
        self.repairer = Repairer(ports.store, self._intake, feed, key, uid, self.floors)
        self.consent = self._consent()
        self.pace = Pace(self.holdings)
        self.draining = Draining(self.holdings, self.consent.kept)
        self._routing = Routing(uid, self.holdings, lambda: self.replication, ports.rng)
        self._held = Held(uid, ports.store, self.coordinator, self._routing)
        self._pages = WatchPages(ports.store, self._routing, self._held)
        self.gathering: Gathering | None = None
        if not self._is_agent:  # An agent is fed everything.
            self.gathering = Gathering(uid, self.coordinator, self._held, self._routing)
        self.syncing = self._syncing()
        self.feeds: Feeds | None = None
        self.replication = self._replication(feed, propagated)
        self.coordinator.noticed = self.replication.mending.note_read
        self.coordinator.session_reads = SessionReads(feed, self.replication.holders, self._ask)
        if self.gathering is not None:
            self.feeds = Feeds(uid, ports.store, self._held, self._routing, ports.rng)
            self.coordinator.routing = self._routing
            self.coordinator.layers_checked = self.gathering.check_layers
        ticket = wire.Ticket(place.cluster_id, key)
        self._join_methods: Mapping[str, Method] = join_methods(ticket, ports.secret)
        self._discovery = Discovery(
            ports.datagrams, ports.secret, ports.rng, place.cluster_name, uid
        )
        self._gossip = _Gossip(ports.datagrams)
        for known in place.known:  # Until they are heard of, writes are honest about them.
            self.replication.member_changed(replace(known, state=MemberState.DOWN))
        self.membership = self._membership(place.member)

    def _floors(self) -> Floors:
        store = self._ports.store
        empty = store.last_lsn() == 0 and not any(store.roots().partitions)
        return Floors(
            store,
            self.holdings,
            is_agent=self._is_agent,
            began_empty=empty and not self._is_agent,
        )

    def _coordinator(self, store: Store, hlc: HybridClock) -> Coordinator:
        place = self._place
        return Coordinator(
            store,
            self._ports.clock,
            NodeIdentity(place.member.uid, place.member.name, place.member.region),
            place.digest_key,
            hlc=hlc,
            acknowledging=self.acknowledging,
            own_uids=place.own_uids,
            forwarder=self._forwarder,
        )

    def _consent(self) -> Consent:
        """What serial environments take: who votes, this node's votes, and its proposals."""
        consent = Consent(
            self._ports,
            self._place,
            self.coordinator,
            self._intake,
            self.repairer,
            self.holdings,
            self.floors,
            self._hlc,
            others=self._others,
            ask=self._ask,
            on_identity_lost=self._identity_lost,
            isolate=self._take_no_logs,
            ends=self._take_no_writes,
            on_stale=self._tell_stale,
        )
        self.coordinator.chained = consent.serial.write
        self.coordinator.confirmed = consent.serial.confirm
        return consent

    def _syncing(self) -> Syncing:
        """What the reconciler is given."""
        uid = self._place.member.uid
        return syncing_of(
            self._ports.store,
            self.coordinator,
            self._routing,
            self._forwarder,
            self.gathering,
            SyncLeading(uid, self.consent.leases, self._member, is_agent=self._is_agent),
            PeerCalls(uid, self._ask_for),
        )

    def _member(self, uid: int) -> Member | None:
        return self.membership.member(uid)

    def _others(self) -> Others:
        replication = self.replication
        behind, ahead = replication.all_behind(MAX_AHEAD_MS), replication.ahead(MAX_AHEAD_MS)
        return Others(self.membership.members(), replication.answering(), bool(behind), ahead)

    def _replication(self, feed: VectorFeed, propagated: Callable[[float], None]) -> Replication:
        ports, place = self._ports, self._place
        server = RepairServer(ports.store, place.digest_key, self._hold_for)
        methods: dict[str, Method] = {
            **server.methods(),
            **forwarding.methods(self.coordinator.write_here),
            **self.consent.methods(),
            **self._held.methods(),
            **self._pages.methods(),
            **self.syncing.methods(),
            "swim.push_pull": self._push_pull,
        }
        around = Surroundings(
            place.member.uid,
            ports.store,
            ports.clock,
            ports.rng,
            ports.transport,
            ports.secret,
            self._introduction,
        )
        return Replication(
            around,
            self._tail,
            feed,
            self._intake,
            self.acknowledging,
            self.repairer,
            methods,
            self._identity_lost,
            self.holdings,
            is_agent=self._is_agent,
            on_heard=self._heard_from,
            lead_ms=self._lead_ms,
            propagated=propagated,
        )

    def _membership(self, member: Member) -> Membership:
        ports = self._ports
        membership = Membership(
            member,
            self._place.cluster_id,
            datagrams=self._gossip,
            sealer=ports.sealer,
            rng=ports.rng,
            push_pull=self._ask_push_pull,
            stream_ping=self._stream_ping,
            renew=self._renew,
            on_duplicate=self._identity_lost,
            known=self._place.known,
        )
        membership.subscribe(self._member_changed)
        return membership

    def locate(self, *, gossip: str, peer: str, http: str) -> None:
        """Tell where this node is reached ("host:port"), before it runs."""
        member = replace(self.membership.me, gossip=gossip, peer=peer, http=http)
        self.membership = self._membership(member)

    def watches(self, hub: WatchHub) -> SpreadWatches | None:
        """The watches of this node, of which others tell what the hub can't; tells others what
        the hub can. None on an agent, which has everything."""
        if self.gathering is None or self.feeds is None:
            return None
        watches = SpreadWatches(hub, self.gathering, self.feeds, self._pages)
        self.syncing.environments.watches = watches
        return watches

    # -- running ---------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Before anything is served: log again what this directory took under a former uid."""
        uid, former_uids = self._place.member.uid, self._place.former_uids
        await relogging.log_again(self._ports.store, uid, former_uids)

    async def run(self) -> None:
        """Be a member of the cluster, until cancelled."""
        self._ports.datagrams.on_datagram(self._on_datagram)
        self._ports.transport.on_channel(self._on_channel)
        works = {
            "membership": self.membership.run,
            "replication": self.replication.run,
            "quarantine": self._keep_releasing,
            "seeds": self._keep_seeking,
            **({} if self._is_agent else {"consent": self.consent.run}),
            **({} if self.feeds is None else {"watches": self.feeds.run}),
        }
        try:
            async with asyncio.TaskGroup() as group:
                for name, work in works.items():
                    group.create_task(guarded(name, work), name=name)
        finally:
            await self._routing.close()

    async def drain(self, patience_s: float = DRAIN_S) -> bool:
        """Let the others have all that was taken here; tell whether they do."""
        return await self.replication.drain(patience_s)

    async def hand_over(self, patience_s: float = DRAIN_S) -> None:
        """Take no more writes, and see to it that two others hold all that this one holds.

        One will do where only one is up. Where not every node holds everything it waits, for as
        long as that goes on, until others hold what this one held. Raises Unavailable where that
        can't be had in time, and then writes are taken again; Conflict while this is done already.
        """
        if self._handing_over:
            raise Conflict("the node is about to leave already", reason="LEAVING")
        refusal = Unavailable(
            "the node is leaving its cluster; nothing was done",
            hint="ask another node",
            reason="STOPPING",
            retry_after_ms=1000,
        )
        self.coordinator.refuse_writes = self.coordinator.refuse_writes or refusal
        self._handing_over = True
        handed_over = False
        try:
            handed_over = await self._hand_over(patience_s)
        finally:
            if not handed_over:
                self._handing_over = False
                self.consent.electorate.stay()
                if self.coordinator.refuse_writes is refusal:
                    self.coordinator.refuse_writes = None

    async def _hand_over(self, patience_s: float) -> bool:
        if self._is_agent:
            return True
        if self.quarantined:
            raise Unavailable(
                f"{self.quarantined} records from the future wait in quarantine; "
                "nothing was changed",
                hint="see envctl doctor; to stop the node, send it SIGTERM: its data stay",
                reason="NOT_DRAINED",
            )
        ahead_ms = self._lead_ms()
        if ahead_ms > MAX_AHEAD_MS:
            raise Unavailable(
                f"what this node wrote while its clock was ahead waits elsewhere for its time, "
                f"{ahead_ms // 1000} s from now; nothing was changed",
                hint="leave then; to stop the node, send it SIGTERM: its data stay",
                reason="NOT_DRAINED",
            )
        await self.consent.electorate.resign(_RESIGNS * patience_s)
        settled = False
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self.coordinator.settle()
            await self.draining.wait()
            settled = await self.replication.hand_over(patience_s)
            await self.draining.wait()  # Of what came before the others were refused.
        if not settled:
            raise Unavailable(
                "not enough other nodes hold everything that this node holds; nothing was changed",
                hint="see what waits: envctl cluster status; to stop it, send it SIGTERM: "
                "its data stay",
                reason="NOT_DRAINED",
            )
        return True

    async def leave(self, *, for_good: bool = False) -> None:
        """Tell the others that this node is about to stop; `for_good`, not to wait for it."""
        await self.membership.leave(for_good=for_good)
        self.acknowledging.close()

    async def seek(self, addresses: Sequence[str]) -> None:
        """Look for other members at these datagram addresses too."""
        self._also = tuple(addresses)
        await self._seek()

    @property
    def is_agent(self) -> bool:
        """Whether it only keeps a copy, and votes on nothing."""
        return self._is_agent

    @property
    def quarantined(self) -> int:
        """How many records from the future are held back."""
        return self._intake.quarantined

    @property
    def zombies(self) -> int:
        """How many commits of others came too late to be applied, since the start."""
        return self._intake.zombies

    async def _seek(self) -> None:
        found = await self._place.seeds()
        await self.membership.join(dict.fromkeys([*found, *self._also]))

    async def _keep_seeking(self) -> None:
        while True:
            await self._seek()
            await asyncio.sleep(_SEEK_S)

    async def _keep_releasing(self) -> None:
        while True:
            await asyncio.sleep(_RELEASE_S)
            if self._intake.quarantined:
                try:
                    await self._intake.release()
                except EnvdError as error:
                    _log.warning("quarantine.not_released", extra={"detail": error.message})

    # -- the doors -------------------------------------------------------------------------

    def _on_datagram(self, address: str, datagram: bytes) -> None:
        if not Discovery.is_one(datagram):
            if self._gossip.receive is not None:
                self._gossip.receive(address, datagram)
            return
        said = self._discovery.open(datagram)
        if isinstance(said, wire.Discover) and said.uid != self._place.member.uid:
            self._discovery.answer(address, self._place.cluster_id, self.membership.me.peer)

    async def _on_channel(self, channel: PeerChannel) -> None:
        try:
            peer = await handshake.accept(
                channel, self._introduction, self._ports.secret, self._ports.rng
            )
            if peer.purpose == "join":
                await calls.serve(channel, peer, self._join_methods)
            else:
                await self.replication.serve(channel, peer)
        except Corrupt as error:
            _log.warning("peer.nonsense", extra={"detail": error.message})
        except EnvdError as error:
            _log.info("peer.refused", extra={"reason": error.reason, "detail": error.message})
        finally:
            channel.close()

    def _introduction(self) -> Introduction:
        me = self.membership.me
        return Introduction(
            self._place.cluster_name, self._place.cluster_id, me.uid, me.generation, me.boot_id
        )

    # -- membership ------------------------------------------------------------------------

    def _member_changed(self, member: Member, previous: Member | None) -> None:
        if member.uid == self._place.member.uid:
            return
        if previous is None or previous.state is not member.state:
            extra = {"member": member.name, "uid": f"{member.uid:016x}"}
            _log.info(f"member.{member.state.name.lower()}", extra=extra)
        self.replication.member_changed(member)
        self.consent.electorate.member_changed(member)
        is_away = member.state in (MemberState.DOWN, MemberState.LEFT)
        if is_away and self._was_this_node(member):  # It took its leave to become this one.
            asyncio.get_running_loop().call_soon(self._strike, member.uid)

    def _was_this_node(self, member: Member) -> bool:
        """Whether it is what this node was before it took another uid.

        Where the directory was copied, the original may go on under that uid, elsewhere.
        """
        return member.uid in self._place.own_uids and member.gossip == self.membership.me.gossip

    def _strike(self, uid: int) -> None:
        """Strike an earlier self, so that nobody waits for it."""
        with suppress(NotFound):
            self.membership.remove(uid)

    async def _push_pull(self, _peer: Peer, body: bytes) -> bytes:
        return self.membership.receive_push_pull(body)

    async def _ask_push_pull(self, address: str, payload: bytes) -> bytes:
        channel = await self._dial(address)
        asking = CallClient(lambda: _ready(channel))
        try:
            await self._introduce(channel)
            return await asking.call("swim.push_pull", payload)
        finally:
            await asking.close()
            channel.close()

    async def _stream_ping(self, address: str, uid: int) -> bool:
        channel = await self._dial(address)
        try:
            return (await self._introduce(channel)).uid == uid
        finally:
            channel.close()

    async def _dial(self, address: str) -> PeerChannel:
        try:
            async with asyncio.timeout(DIAL_S):
                return await self._ports.transport.dial(address)
        except TimeoutError:
            raise Unavailable(f"{address} does not answer", reason="PEER_UNREACHABLE") from None

    async def _introduce(self, channel: PeerChannel) -> Peer:
        ports = self._ports
        return await handshake.dial(channel, self._introduction(), "call", ports.secret, ports.rng)

    async def _ask(self, uid: int, method: str, body: bytes) -> bytes:
        return await self.replication.ask(uid, method, body)

    async def _ask_for(self, uid: int, method: str, body: bytes, patience_s: float) -> bytes:
        return await self.replication.ask(uid, method, body, patience_s)

    def _lead_ms(self) -> int:
        """How far this node's stamps are ahead of its wall clock."""
        return self._hlc.ahead_ms(self._ports.clock.wall_ms())

    def _forward_to(self) -> Sequence[int]:
        """Whom to hand writes to: nobody, unless its stamps would be far ahead of all others.

        So does one that is to hand over what it has; an agent always hands them on.
        """
        if self._is_agent:
            return self.replication.storage()
        if self.consent.floor.stale:
            return self.consent.alive()
        return self.replication.all_behind(MAX_AHEAD_MS)

    def _heard_from(self, uid: int) -> None:
        self.membership.heard_from(uid)

    def _identity_lost(self, why: str) -> None:
        if self._lost:
            return
        self._lost = True
        _log.critical("node.identity_lost", extra={"detail": why})
        self.coordinator.refuse_writes = _other_identity()
        self._renew_identity(why)

    def _take_no_logs(self) -> None:
        self.replication.take_no_logs()

    async def _take_no_writes(self) -> None:
        """Before it ends as stale: what it took is settled, and nothing comes any more."""
        self.coordinator.refuse_writes = _other_identity()
        await self.coordinator.settle()

    def _renew_identity(self, why: str) -> None:
        """Have a new identity made durable; where that fails, again and again."""
        try:
            self._tell_lost(why)
        except EnvdError as error:
            _log.error("node.not_renewed", extra={"detail": error.message})
            asyncio.get_running_loop().call_later(_RENEWED_AGAIN_S, self._renew_identity, why)

    def _hold_for(self, uid: int, lsn: int) -> None:
        self.replication.hold_for(uid, lsn)


def _other_identity() -> Unavailable:
    return Unavailable(
        "the node takes a new identity; nothing was done",
        hint="ask another node, or this one in a moment",
        reason="STOPPING",
        retry_after_ms=1000,
    )


async def _ready(channel: PeerChannel) -> PeerChannel:
    return channel
