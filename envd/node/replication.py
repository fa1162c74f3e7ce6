"""The streams of a node: one to each other storage node, one from each, and their repairs.

To each storage node that membership knows, down or not, this node keeps dialing: a channel
that comes up says more than a rumour. What it can't ship now stays in the log, held for that
peer for a while (`holding`); past that, the peer repairs (`mending`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from envd.core.errors import EnvdError, Unavailable
from envd.core.members import Member, MemberState
from envd.core.ring import SYSTEM_PARTITION
from envd.node import calls, handshake
from envd.node.acknowledging import WANTED_COPIES, Acknowledging
from envd.node.calls import CALL_S, CallClient, Method
from envd.node.feeding import AgentFeed
from envd.node.guarding import guarded
from envd.node.handshake import Peer
from envd.node.holding import LogHold
from envd.node.holdings import Holdings
from envd.node.intake import IdentityLost, Intake
from envd.node.mending import Mending
from envd.node.peer import HEARTBEAT_S, PeerLink, heartbeat_s
from envd.node.peering import Dialer, KnownPeer, Surroundings
from envd.node.receiving import LogReceiver, NeedsRepair
from envd.node.repair import Repairer
from envd.node.shipping import RELAY_S, LogShipper
from envd.node.tail import LogTail
from envd.node.vectors import VectorFeed
from envd.ports import PeerChannel

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0
ELSEWHERE_PAUSE_S: Final = 10.0
"""After another node answered: an earlier identity of a node keeps its address, and is no more."""
_GONE_RELAY_S: Final = 0.1
_log = logging.getLogger(__name__)


class Replication:
    """Make it with the node's parts, tell it of members, and let `run` run."""

    def __init__(
        self,
        around: Surroundings,
        tail: LogTail,
        feed: VectorFeed,
        intake: Intake,
        acknowledging: Acknowledging,
        repairer: Repairer,
        methods: Mapping[str, Method],
        on_identity_lost: Callable[[str], None],
        holdings: Holdings,
        *,
        on_heard: Callable[[int], None] = lambda _: None,
        is_agent: bool = False,
        lead_ms: Callable[[], int] = lambda: 0,
        propagated: Callable[[float], None] = lambda _: None,
    ) -> None:
        """An agent ships nothing and is no replica: it is fed by one storage node.

        `lead_ms` tells how far our stamps are ahead of our wall clock; `propagated` is told how
        long own records took to each peer, see LogShipper.
        """
        self._is_agent = is_agent
        self._leaving = False
        self._refusing = False
        self._on_heard = on_heard
        self._around = around
        self._store = around.store
        self._uid = around.uid
        self._tail = tail
        self._feed = feed
        self._intake = intake
        self._acknowledging = acknowledging
        self._repairer = repairer
        self._methods = methods
        self._on_identity_lost = on_identity_lost
        self._lead_ms = lead_ms
        self._propagated = propagated
        self._holdings = holdings
        self._loop = asyncio.get_running_loop()
        self._peers: dict[int, KnownPeer] = {}
        self._group: asyncio.TaskGroup | None = None
        self._dialer = Dialer(around, on_heard)
        self._hold = LogHold(self._store, tail, self._peers.values)
        self.mending = Mending(
            around, repairer, holdings, self._peers, self._agents_source, on_identity_lost
        )
        self._behind: tuple[float, Sequence[int]] = (0.0, ())
        self._agent = self._agent_feed()

    # -- who there is ------------------------------------------------------------------------

    def member_changed(self, member: Member) -> None:
        """Note a storage node of the cluster, or what changed of it."""
        if member.uid == self._uid:
            return
        if member.state is MemberState.GONE or member.role != "storage":
            self._dismiss(member.uid)
            return
        peer = self._peers.get(member.uid)
        is_new = peer is None
        if peer is None:
            peer = self._peers[member.uid] = KnownPeer(
                member,
                self._loop.time(),
                self._call_client(member.uid),
                held_lsn=self._store.oldest_lsn() - 1,
                lsn=self._tail.last_lsn,
            )
            if not self._is_agent:
                self._tail.kept = True
                self._acknowledging.expect(member.uid)
                self._start(peer)
        moved = peer.member.peer != member.peer or peer.member.generation != member.generation
        revived = member.state is MemberState.ALIVE is not peer.member.state
        peer.member = member
        if moved or revived or is_new:
            self.poke(member.uid)
            self.mending.hasten(member.uid)

    def poke(self, uid: int) -> None:
        """There is a sign of life from a peer: dial it now if it has no channel."""
        peer = self._peers.get(uid)
        if peer is not None:
            peer.poked.set()

    def _dismiss(self, uid: int) -> None:
        peer = self._peers.pop(uid, None)
        if peer is None:
            return
        self._acknowledging.dismiss(uid)
        self._tail.kept = bool(self._peers) and not self._is_agent
        if self._group is not None:
            self._group.create_task(peer.asking.close(), name="peer-calls-end")
        if peer.task is not None:
            peer.task.cancel()
        if peer.receiving is not None:
            peer.receiving.close()

    def _start(self, peer: KnownPeer) -> None:
        if self._group is not None and not self._is_agent:
            link = guarded("peer-link", partial(self._keep_link, peer))
            peer.task = self._group.create_task(link, name="peer-link")

    def links(self) -> Iterable[tuple[Member, PeerLink]]:
        """The other storage nodes, with what is known of each."""
        return [(peer.member, peer.link) for _, peer in sorted(self._peers.items())]

    def answering(self) -> Sequence[int]:
        """The peers of which a timely answer can be expected."""
        now = self._loop.time()
        return [uid for uid, peer in sorted(self._peers.items()) if peer.link.answers(now)]

    def waiting_for(self, link: PeerLink) -> int:
        """How many own commits a peer has not synced yet."""
        return self._tail.own_count_after(link.synced_lsn)

    def lag_ms(self, link: PeerLink) -> int:
        """The age of the oldest own commit that a peer has not synced yet, 0 for none.

        Of one so old that only the log has it, at least for how long the peer was not heard.
        """
        now = self._loop.time()
        waiting = self._tail.own_after(link.synced_lsn, 1)
        if waiting is None:
            return int((now - link.heard_s) * 1000)
        return int((now - waiting[0].at_s) * 1000) if waiting else 0

    def detached(self) -> int:
        """How many own commits no other storage node has synced yet."""
        if not self._peers:
            return 0
        return self._tail.own_count_after(
            max(peer.link.synced_lsn for peer in self._peers.values())
        )

    def all_behind(self, limit_ms: int) -> Sequence[int]:
        """The peers that can be asked, where the clocks of all are so far behind our stamps.

        Those run ahead of our wall clock for as long as that was fast, after it was set right.
        Asked for at each write, and looked at once a heartbeat.
        """
        now = self._loop.time()
        if now < self._behind[0]:
            return self._behind[1]
        found = self._look_behind(now, limit_ms)
        self._behind = (now + HEARTBEAT_S, found)
        return found

    def ahead(self, limit_ms: int) -> Sequence[int]:
        """The peers whose clocks are so far ahead of ours."""
        links, now = [peer.link for _, peer in sorted(self._peers.items())], self._loop.time()
        return [link.uid for link in links if link.offset_at(now) > limit_ms]

    def _look_behind(self, now: float, limit_ms: int) -> Sequence[int]:
        links = [peer.link for _, peer in sorted(self._peers.items())]
        able = [link for link in links if link.answers(now)]
        limit_ms -= self._lead_ms()
        behind = all(link.is_behind(now, limit_ms) for link in able)
        return [link.uid for link in able] if able and behind else ()

    # -- running -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the streams up and repair, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for _, peer in sorted(self._peers.items()):
                    self._start(peer)
                works = dict(self.mending.works(is_agent=self._is_agent))
                if self._is_agent:
                    works["agent-feed"] = self._agent.run
                else:
                    works["log-hold"] = self._hold.run
                for name, work in works.items():
                    group.create_task(guarded(name, work), name=name)
        finally:
            self._group = None
            for _, peer in sorted(self._peers.items()):
                await peer.asking.close()

    async def drain(self, patience_s: float) -> bool:
        """Wait until every peer with a channel has synced all own records; tell whether so."""

        def missing() -> bool:
            return any(
                peer.link.streaming and peer.link.synced_lsn < self._tail.last_own_lsn
                for peer in self._peers.values()
            )

        try:
            async with asyncio.timeout(patience_s):
                while missing():  # noqa: ASYNC110 - of several peers, and once
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    async def hand_over(self, patience_s: float) -> bool:
        """Wait until two peers, or the only one that is up, hold all that this node holds.

        Tells whether so. With one of several, its loss right after this node's leaving would be
        the loss of what was acknowledged. Meanwhile nothing is taken from peers, for they would
        count this node's copy.
        """
        self._leaving, handed_over = True, False
        for peer in self._peers.values():
            if peer.receiving is not None:
                peer.receiving.close()
        try:
            async with asyncio.timeout(patience_s):
                while not (handed_over := self._is_handed_over()):  # noqa: ASYNC110 - once
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        finally:
            self._leaving = handed_over
        return True

    def take_no_logs(self) -> None:
        """Take nothing more from peers by their logs: they would count this node's copies."""
        self._refusing = True
        for peer in self._peers.values():
            if peer.receiving is not None:
                peer.receiving.close()

    def _is_handed_over(self) -> bool:
        held = dict(self._store.vectors())
        if not self._holdings.whole:  # What others hold was handed over to them by now.
            held = {name: seq for name, seq in held.items() if name[0] == SYSTEM_PARTITION}
        up = [each for each in self._peers.values() if each.member.reachable]
        holding = sum(
            all(peer.link.vectors.holds(*name, seq) for name, seq in held.items())
            for peer in self._peers.values()
            if peer.link.streaming
        )
        return holding >= max(1, min(WANTED_COPIES, len(up)))

    # -- the stream to a peer ------------------------------------------------------------------

    async def _keep_link(self, peer: KnownPeer) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = self._loop.time()
            peer.reached = False
            peer.poked.clear()
            try:
                await self._stream(peer)
            except IdentityLost as error:
                self._on_identity_lost(error.message)
                return
            except EnvdError as error:
                self._note_problem(peer, error)
                peer.link.finds_us_early |= error.reason == "CLOCK_SKEW"
                if error.reason == "PEER_ELSEWHERE":
                    await self._pause(peer, ELSEWHERE_PAUSE_S)
                    continue
            if self._loop.time() - began_s > 2 * LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            await self._pause(peer, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _stream(self, peer: KnownPeer) -> None:
        channel = await self._dialer.open(peer, "log")
        try:
            peer.link.problem = ""
            _log.info("peer.connected", extra={"peer": peer.member.name})
            await self._shipper(peer.link).run(channel)
        finally:
            channel.close()

    def _shipper(self, link: PeerLink, *, everything: bool = False) -> LogShipper:
        return LogShipper(
            link,
            self._store,
            self._tail,
            self._around.clock,
            self._uid,
            self._acknowledging,
            self._relay_delay,
            self._holdings,
            everything=everything,
            beat_s=lambda: heartbeat_s(len(self._peers)),
            propagated=_untold if everything else self._propagated,
        )

    def _note_problem(self, peer: KnownPeer, error: EnvdError) -> None:
        if error.message != peer.link.problem:
            peer.link.problem = error.message
            extra = {"peer": peer.member.name, "reason": error.reason, "detail": error.message}
            _log.warning("peer.disconnected", extra=extra)

    async def _pause(self, peer: KnownPeer, seconds: float) -> None:
        """Wait before dialing again, less where there is a sign of life.

        Not at once where the peer was there and it failed all the same: two nodes that refuse
        each other's records are a sign of life to each other with every attempt.
        """
        seconds *= 0.5 + self._jitter()
        try:
            async with asyncio.timeout(seconds):
                if peer.reached:
                    await asyncio.sleep(min(seconds, LONGEST_PAUSE_S) / 2)
                await peer.poked.wait()
        except TimeoutError:
            return

    def _jitter(self) -> float:
        """A number from 0 to a half."""
        return int.from_bytes(self._around.rng.token_bytes(4)) / (1 << 33)

    def _relay_delay(self, origin: int, target: int) -> float:
        """How long a record of `origin` that `target` lacks is left to others, in seconds.

        Each storage node that could relay it waits for those before it, in an order that is
        another for each pair.
        """
        me = self._uid
        source = self._peers.get(origin)
        gone = source is None or source.member.state is not MemberState.ALIVE
        others = [
            uid
            for uid, peer in self._peers.items()
            if uid not in (origin, target) and peer.member.state is MemberState.ALIVE
        ]
        order = sorted([*others, me], key=lambda uid: (uid ^ origin ^ target, uid))
        return (_GONE_RELAY_S if gone else RELAY_S) + order.index(me) * RELAY_S

    # -- the streams from peers ------------------------------------------------------------------

    async def serve(self, channel: PeerChannel, peer: Peer) -> None:
        """Serve a channel of a node that introduced itself, until it ends."""
        self._on_heard(peer.uid)
        if peer.purpose == "log":
            await self._receive(channel, peer)
        elif peer.purpose == "feed":
            await self._feed_agent(channel, peer)
        else:
            await calls.serve(channel, peer, self._methods)

    async def _receive(self, channel: PeerChannel, other: Peer) -> None:
        peer = self._peers.get(other.uid)
        if peer is None:
            await handshake.refuse(channel, _not_known())
            return
        if peer.catching_up:
            await handshake.refuse(channel, _catching_up())
            return
        if self._leaving or self._refusing:
            await handshake.refuse(channel, _leaving())
            return
        if peer.receiving is not None:
            peer.receiving.close()  # A newer channel of the same node: the old one is dead.
        peer.receiving = channel
        self.poke(other.uid)
        around = self._around
        receiver = LogReceiver(peer.link, self._store, self._intake, self._feed, around.clock)
        try:
            await receiver.run(channel)
        except IdentityLost as error:
            self._on_identity_lost(error.message)
        except NeedsRepair as error:
            _log.info("repair.needed", extra={"peer": peer.member.name, "detail": error.message})
            if self._group is not None:
                self.mending.begin_catching_up(peer, self._group)
        except EnvdError as error:
            await handshake.refuse(channel, error)
        finally:
            if peer.receiving is channel:
                peer.receiving = None

    # -- agents ----------------------------------------------------------------------------------

    async def _feed_agent(self, channel: PeerChannel, other: Peer) -> None:
        """Ship everything to an agent; nothing waits for it, and no log is held for it."""
        link = PeerLink(other.uid, self._loop.time())
        shipper = self._shipper(link, everything=True)
        try:
            await shipper.run(channel)
        except IdentityLost as error:
            self._on_identity_lost(error.message)
        except EnvdError as error:
            _log.info("agent.gone", extra={"uid": f"{other.uid:016x}", "detail": error.message})

    def _agent_feed(self) -> AgentFeed:
        async def dial(uid: int) -> PeerChannel:
            return await self._dialer.open(self._known(uid), "feed")

        return AgentFeed(
            self._store,
            self._intake,
            self._feed,
            self._around.clock,
            self._repairer,
            self._holdings,
            self._nearest,
            dial,
            lambda uid: self._known(uid).asking.call,
        )

    def _agents_source(self) -> KnownPeer | None:
        source = self._agent.source
        return None if source is None else self._peers.get(source.uid)

    def fed_by(self) -> Member | None:
        """The storage node that feeds this agent, None while none does."""
        return self._agent.source

    def _nearest(self) -> Sequence[Member]:
        """Storage nodes that may answer, in an order that differs from agent to agent."""
        members = [peer.member for peer in self._peers.values() if peer.member.reachable]
        return sorted(members, key=lambda member: (member.uid ^ self._uid, member.uid))

    def storage(self) -> Sequence[int]:
        """The uids of the storage nodes that may answer."""
        return [member.uid for member in self._nearest()]

    def holders(self, partition: int, origin: int, seq: int) -> Sequence[int]:
        """The storage nodes that may have a record: those first that said so, then its origin.

        Where not every node holds everything, those that hold its partition, and its origin.

        An agent is told of no vectors; nearly always the origin is the one.
        """
        now = self._loop.time()

        def rank(uid: int) -> tuple[bool, bool, bool]:
            link = self._peers[uid].link
            said_so = link.vectors.holds(partition, origin, seq)
            return not said_so, not link.answers(now), uid != origin

        readers = self._holdings.readers(partition)
        able = self.storage()
        if readers is not None:
            able = [uid for uid in able if uid in readers or uid == origin]
        return sorted(able, key=rank)

    def _known(self, uid: int) -> KnownPeer:
        peer = self._peers.get(uid)
        if peer is None:
            raise Unavailable("the peer has left the cluster", reason="PEER_GONE")
        return peer

    # -- calls -------------------------------------------------------------------------------------

    def _call_client(self, uid: int) -> CallClient:
        async def open_channel() -> PeerChannel:
            return await self._dialer.open(self._known(uid), "call")

        return CallClient(open_channel)

    async def ask(self, uid: int, method: str, body: bytes, timeout_s: float = CALL_S) -> bytes:
        """Ask one peer; raises what it raises, or Unavailable."""
        return await self._known(uid).asking.call(method, body, timeout_s=timeout_s)

    def hold_for(self, uid: int, lsn: int) -> None:
        """Keep the log after `lsn` for a peer that begins to pull."""
        peer = self._peers.get(uid)
        if peer is not None:
            peer.held_lsn = lsn


def _untold(_seconds: float) -> None:
    """An agent is no replica: how long records took to it is not told."""


def _not_known() -> Unavailable:
    return Unavailable("this node does not know the other yet", reason="PEER_UNKNOWN")


def _leaving() -> Unavailable:
    return Unavailable("this node is leaving the cluster", reason="LEAVING")


def _catching_up() -> Unavailable:
    return Unavailable("this node repairs what it lacks first", reason="CATCHING_UP")
