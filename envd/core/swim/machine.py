"""The membership of one node: `handle(event, now_ms)` gives the effects, `due_ms` the next Tick.

Rules (what news means is in `beliefs`):

1. Each probe interval one reachable member is pinged. No ack within the timeout: three others are
   asked to ping it, and a channel is tried; no ack until the interval ends: it is suspect.
   Timeout and interval grow with this node's own bad health. (`probe`, `relays`)
2. News rides on every ping, ack and nack, and in gossip of its own while there is any: at once
   after a silence, then once an interval.
3. Who is pinged or answered, and is held for suspect, down or gone, is told so in that very
   datagram, so that it can refute (Lifeguard's buddy system). (`sending`)
4. Only members change the table: datagrams of strangers, of other clusters, of starts that are
   over, of members that left, and of doubles are at most answered. Strangers come in by a
   push/pull, over a channel on which they proved themselves.
5. Who knows more than this node (a newer start, life in a member held for down) is asked for all,
   at most once a second.
6. Members that are down are pinged, one each second; seeds are asked for ever: at once and then
   less and less often while nobody is known, and one unknown seed now and then after that.
   (`contacts`)
7. Time in which this node did not run does not count: when a timer fires late by more than a probe
   timeout, all timers are put off by as much, and the node thinks less of its own health.
8. Of other regions only the gateways are asked, told and exchanged with, and only by gateways, at
   WAN pace; suspicions of members there last as long as that pace needs. (`reach`, `regions`)

Nothing here reads a clock or draws by itself: `now_ms` is monotonic, chance is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, assert_never

from envd.core.errors import InvalidRequest
from envd.core.members import Member, MemberState
from envd.core.swim.beliefs import Beliefs
from envd.core.swim.chance import Chance, below
from envd.core.swim.config import LAN, WAN, SwimConfig
from envd.core.swim.contacts import Contacts
from envd.core.swim.events import (
    Effect,
    Event,
    HeardFrom,
    Leave,
    Merge,
    Received,
    Remove,
    Renewed,
    Seeds,
    Sender,
    StreamAnswered,
    Tick,
)
from envd.core.swim.messages import (
    Ack,
    Announcement,
    Exchange,
    Hello,
    Here,
    Message,
    Nack,
    Packet,
    Ping,
    PingRequest,
    Row,
    room_for_news,
)
from envd.core.swim.probe import Prober
from envd.core.swim.relays import Relays
from envd.core.swim.sending import Outbox
from envd.core.swim.timers import Kind, Timers

_LONGEST_ADDRESS_BYTES: Final = 262


class Swim:
    """One node's machine; `me` is this start of it, ALIVE, with a boot id.

    `wan` has the intervals, timeouts and numbers that hold between regions, `config` all else.
    Raises InvalidRequest where what `me` says of itself does not fit a datagram.
    """

    def __init__(
        self,
        me: Member,
        cluster: str,
        chance: Chance,
        config: SwimConfig = LAN,
        wan: SwimConfig = WAN,
    ) -> None:
        self._config = config
        self._chance = chance
        self._timers = Timers()
        self._beliefs = Beliefs(me, config, wan, chance, self._timers)
        self._outbox = Outbox(cluster, self._beliefs, chance)
        parts = (self._beliefs, self._outbox, self._timers)
        self._probers = tuple(Prober(each, *parts, chance) for each in self._beliefs.reaches)
        self._relays = Relays(*parts)
        self._contacts = Contacts(config, *parts, chance)
        self._started = False
        self._excused = False
        _check_size(me, cluster, min(config.payload_bytes, wan.payload_bytes))

    # -- what it knows -----------------------------------------------------------------------

    @property
    def cluster(self) -> str:
        return self._outbox.cluster

    @property
    def me(self) -> Member:
        return self._beliefs.me

    @property
    def members(self) -> list[Member]:
        """All members, this node too, in order of their uids."""
        return list(self._beliefs.table)

    def member(self, uid: int) -> Member | None:
        return self._beliefs.table.get(uid)

    @property
    def reachable_count(self) -> int:
        """How many members are neither down nor gone, this node included."""
        return self._beliefs.table.reachable_count

    @property
    def health(self) -> int:
        """The local health score: 0 is well, 7 the worst."""
        return self._beliefs.health.score

    @property
    def queued(self) -> int:
        """How many pieces of news are on their way out."""
        return sum(len(reach.queue) for reach in self._beliefs.reaches)

    @property
    def over(self) -> bool:
        """This uid belongs to another node: this one says nothing any more."""
        return self._beliefs.yielded

    @property
    def left(self) -> bool:
        """This node left, and told it as often as news is told, wherever it speaks."""
        return self._beliefs.leaving and not any(
            reach.speaks and reach.queue.about(self.me.uid) for reach in self._beliefs.reaches
        )

    @property
    def due_ms(self) -> int | None:
        """When to come with a Tick; None for not before another event."""
        if self.over:
            return None
        return self._timers.due_ms if self._started else 0

    def exchange(self, now_ms: int) -> Exchange:
        """This node's side of a push/pull."""
        table = self._beliefs.table
        rows = tuple(Row(member, table.age_ms(member.uid, now_ms)) for member in table)
        return Exchange(self.cluster, self.me.uid, rows)

    def know(self, members: Iterable[Member]) -> None:
        """Begin with these in the table, as if long known: nothing is told, nothing reported."""
        for member in members:
            self._beliefs.table.put(member, 0, self._chance)

    # -- what happens ------------------------------------------------------------------------

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        """Take in one event; return what is to be done about it, in order."""
        if self.over:
            return []
        self._dispatch(event, now_ms)
        if not self.over:
            self._arm(now_ms)
        effects, self._beliefs.effects = self._beliefs.effects, []
        return effects

    def _dispatch(self, event: Event, now_ms: int) -> None:
        match event:
            case Tick():
                self._tick(now_ms)
            case Received(sender, address, packet):
                self._received(sender, address, packet, now_ms)
            case StreamAnswered(seq, alive):
                if alive:
                    for prober in self._probers:
                        prober.stream_answered(seq)
            case Merge(exchange):
                if exchange.cluster == self.cluster:
                    self._beliefs.merge(exchange, now_ms)
            case Seeds(addresses):
                self._contacts.use_seeds(addresses, now_ms)
            case HeardFrom(uid):
                known = self.member(uid)
                if known is not None and known.state is MemberState.DOWN:
                    self._contacts.catch_up(known, now_ms)
            case Remove(uid):
                self._beliefs.remove(uid, now_ms)
            case Leave(for_good):
                self._leave(now_ms, for_good=for_good)
            case Renewed(generation, boot_id):
                self._beliefs.renewed(generation, boot_id, now_ms)
            case _:
                assert_never(event)

    def _leave(self, now_ms: int, *, for_good: bool) -> None:
        if not self._beliefs.leaving:
            for prober in self._probers:
                prober.stop()
            self._relays.stop()
            self._timers.clear()
            self._beliefs.leave(now_ms, for_good=for_good)

    def _arm(self, now_ms: int) -> None:
        """Let the news be told, and what a gateway does be done from when this node is one."""
        beliefs, timers = self._beliefs, self._timers
        for reach in beliefs.reaches:
            if reach.queue and reach.speaks:
                timers.arm_if_idle((Kind.GOSSIP, reach.number), max(now_ms, reach.may_gossip_ms))
        idle = (Kind.PROBE, beliefs.far.number) not in timers
        if idle and self._started and not beliefs.leaving and beliefs.far.speaks:
            self._begin_far(now_ms)

    def _begin_far(self, now_ms: int) -> None:
        """Exchange soon, too: the gateways before this one may have died with what they knew."""
        far = self._beliefs.far
        for kind in (Kind.PROBE, Kind.PUSH_PULL):
            phase_ms = below(far.config.probe_interval_ms, self._chance)
            self._timers.arm((kind, far.number), now_ms + phase_ms)

    # -- time --------------------------------------------------------------------------------

    def _tick(self, now_ms: int) -> None:
        if not self._started:
            self._start(now_ms)
        elif self._slept(now_ms):
            return
        while not self.over and (key := self._timers.pop_due(now_ms)) is not None:
            self._fire(*key, now_ms)

    def _start(self, now_ms: int) -> None:
        """Arm what always runs, each at a random phase: nodes started together must not march."""
        self._started = True
        if self._beliefs.leaving:
            return
        for kind, interval_ms in (
            (Kind.PROBE, self._config.probe_interval_ms),
            (Kind.PUSH_PULL, self._beliefs.near.push_pull_interval_ms()),
        ):
            self._timers.arm_if_idle((kind, 0), now_ms + below(interval_ms, self._chance))

    def _slept(self, now_ms: int) -> bool:
        """Rule 7. Once only before timers fire, so that a node that is always late still acts."""
        due_ms = self._timers.due_ms
        late_ms = now_ms - due_ms if due_ms is not None else 0
        if late_ms <= self._config.probe_timeout_ms or self._excused:
            self._excused = False
            return False
        self._excused = True
        self._timers.delay(late_ms)
        self._beliefs.delay(late_ms, now_ms)
        self._beliefs.health.worsen()
        return True

    def _fire(self, kind: Kind, number: int, now_ms: int) -> None:
        match kind:
            case Kind.PROBE:
                self._probers[number].begin(now_ms)
            case Kind.PROBE_TIMEOUT:
                self._probers[number].ask_others()
            case Kind.RELAY:
                self._relays.due(number, now_ms)
            case Kind.SUSPICION:
                self._beliefs.declare_down(number, now_ms)
            case Kind.FORGET:
                self._beliefs.forget(now_ms)
            case Kind.GOSSIP:
                self._outbox.gossip(self._beliefs.reaches[number], now_ms)
            case Kind.PUSH_PULL:
                self._contacts.push_pull(self._beliefs.reaches[number], now_ms)
            case Kind.REVIVE:
                self._contacts.revive(now_ms)
            case Kind.RECONNECT:
                self._contacts.reconnect(now_ms)
            case Kind.SEEDS:
                self._contacts.ask_seeds(now_ms)
            case _:
                assert_never(kind)

    # -- datagrams (rules 3 and 4) -------------------------------------------------------------

    def _received(self, sender: Sender, address: str, packet: Packet, now_ms: int) -> None:
        message = packet.message
        if isinstance(message, Hello):
            self._greet(sender, address, packet.cluster, message)
            return
        if packet.cluster != self.cluster:
            return
        if sender.uid == self.me.uid:
            self._beliefs.meet_double(sender.generation, sender.boot_id)
            return
        known = self.member(sender.uid)
        if isinstance(message, Here):
            self._contacts.found(message, sender)
        elif known is None:
            self._contacts.ask_stranger(address, now_ms)
        if known is not None and self._counts(sender, known, now_ms):
            self._hear(packet, known, now_ms)
            self._answer(sender, address, message, now_ms)
        elif isinstance(message, Ping) and message.target == self.me.uid:
            self._outbox.send(address, Ack(message.seq), known, start=sender)

    def _greet(self, sender: Sender, address: str, cluster: str, hello: Hello) -> None:
        """Anybody who knows the secret may ask who is here; it says nothing about others.

        But who asks under this node's uid is a double, that may know of nobody else.
        """
        if sender.uid == self.me.uid and cluster == self.cluster:
            self._beliefs.meet_double(sender.generation, sender.boot_id)
            return
        mine = cluster in ("", self.cluster) and sender.uid != self.me.uid
        if mine and not self._beliefs.leaving:
            self._outbox.send(address, Here(hello.seq, self.me), None)

    def _counts(self, sender: Sender, known: Member, now_ms: int) -> bool:
        """Tell whether what this sender says counts; ask it for all where it knows more."""
        start = (sender.generation, sender.boot_id)
        if start < known.start:
            return False
        if start > known.start or known.state is MemberState.DOWN:
            self._contacts.catch_up(known, now_ms)
            return True
        return known.state < MemberState.LEFT

    def _hear(self, packet: Packet, speaker: Member, now_ms: int) -> None:
        beliefs = self._beliefs
        for news in packet.news:
            beliefs.hear(news, now_ms)
            if beliefs.yielded:
                return
        if beliefs.behind:
            beliefs.behind = False
            self._contacts.catch_up(speaker, now_ms)

    def _answer(self, sender: Sender, address: str, message: Message, now_ms: int) -> None:
        if self.over:
            return
        match message:
            case Ping(seq, target) if target == self.me.uid:
                known = self.member(sender.uid)
                self._outbox.send(address, Ack(seq), known, start=sender)
            case PingRequest():
                self._relays.relay(sender, address, message, now_ms)
            case Ack(seq):
                if not any(prober.acked(seq, sender) for prober in self._probers):
                    self._relays.acked(seq, sender)
            case Nack(seq):
                for prober in self._probers:
                    prober.nacked(seq, sender)
            case _:
                return


def _check_size(me: Member, cluster: str, payload_bytes: int) -> None:
    """What is told of `me` must fit beside the longest message."""
    longest = PingRequest(0, 0, "x" * _LONGEST_ADDRESS_BYTES)
    if Announcement(me).size_bytes > room_for_news(payload_bytes, cluster, longest):
        raise InvalidRequest(
            "the names and addresses of this node don't fit a datagram",
            hint="give it a shorter name or shorter addresses",
        )
