"""A few Swim machines with a network and a clock of their own, led by the lines of a script.

    nodes a b c            start nodes that know each other
    start d seeds a        start a node that knows only where to ask
    keep 60s 30s           nodes started from now on keep who is down, and who left, so long
    cluster other          nodes started from now on belong to this cluster
    region east a b        these nodes, when they start, are in this region
    far 80ms               one way between two regions takes so much longer
    advance 5s | 300ms     let time pass; the output is what the nodes said meanwhile
    kill a                 end a node without a word
    restart a              start it again: its next generation, its seeds
    restore a              start it again as it was at its first start (a data directory put back)
    clone a as x           a second node with the uid and the generation of `a`
    pause a, resume a      SIGSTOP, SIGCONT: what comes meanwhile waits
    cut a b | c            nothing passes between the two sides
    oneway a > b           nothing passes from a to b
    nodatagrams a b        datagrams between the two are lost, channels work
    heal                   all passes again
    leave a                gracefully
    remove b by a          an operator says at a that b is gone
    accuse b by a          a hears nothing of b: as if its probe had failed
    show a                 the members as a sees them
    health a               its local health score
    trace on | off         print datagrams and exchanges too
    trace far              print those between regions

One way takes 2 ms for a datagram and 5 ms for a channel; nothing is lost but where it is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from random import Random

from envd.core.members import Member, MemberState
from envd.core.swim.config import LAN, SwimConfig
from envd.core.swim.events import (
    Changed,
    DuplicateIdentity,
    Effect,
    Event,
    Forgotten,
    Leave,
    Merge,
    PushPull,
    Received,
    Remove,
    Renew,
    Renewed,
    Seeds,
    Send,
    Sender,
    StreamAnswered,
    StreamPing,
    Tick,
)
from envd.core.swim.machine import Swim
from envd.core.swim.messages import (
    Announcement,
    Claim,
    Exchange,
    Gossip,
    Message,
    News,
    Packet,
    PingRequest,
)

DATAGRAM_MS = 2
CHANNEL_MS = 5


@dataclass
class Node:
    """One process; `place` is its address and the name in the script."""

    place: str
    swim: Swim
    sender: Sender
    seeds: tuple[str, ...] = ()
    running: bool = True
    waiting: list[Event] | None = None
    tick_ms: int | None = None


@dataclass
class World:
    """The nodes by place; `run` takes one command and gives what is printed."""

    now_ms: int = 0
    cluster: str = "home"
    config: SwimConfig = LAN
    nodes: dict[str, Node] = field(default_factory=dict)
    regions: dict[str, str] = field(default_factory=dict)
    far_ms: int = 0
    _heap: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _serial: int = 0
    _starts: int = 0
    _sides: list[frozenset[str]] = field(default_factory=list)
    _oneway: list[tuple[str, str]] = field(default_factory=list)
    _nodatagrams: list[frozenset[str]] = field(default_factory=list)
    _said: list[str] = field(default_factory=list)
    _trace: str = "off"

    def run(self, command: str) -> str:
        """Do what the line says; return what was said meanwhile."""
        self._said = []
        words = command.split()
        getattr(self, f"_do_{words[0]}")(*words[1:])
        return "\n".join(self._said)

    # -- commands ----------------------------------------------------------------------------

    def _do_nodes(self, *places: str) -> None:
        members = [self._first_member(place) for place in places]
        for member in members:
            self._start(member.gossip, member, known=members)

    def _do_start(self, place: str, _: str, *seeds: str) -> None:
        self._start(place, self._first_member(place), seeds=seeds)

    def _do_cluster(self, name: str) -> None:
        self.cluster = name

    def _do_region(self, name: str, *places: str) -> None:
        self.regions |= dict.fromkeys(places, name)

    def _do_far(self, length: str) -> None:
        self.far_ms = _ms(length)

    def _do_keep(self, down: str, left: str) -> None:
        self.config = replace(LAN, down_kept_ms=_ms(down), left_kept_ms=_ms(left))

    def _do_advance(self, length: str) -> None:
        self._pass(_ms(length))

    def _do_kill(self, place: str) -> None:
        self.nodes[place].running = False

    def _do_restart(self, place: str) -> None:
        me = self.nodes[place].swim.me
        again = self._member(me.name, me.uid, me.generation + 1, place)
        self._start(place, again, seeds=self.nodes[place].seeds or tuple(self._others(place)))

    def _do_restore(self, place: str) -> None:
        me = self.nodes[place].swim.me
        self._start(
            place, self._member(me.name, me.uid, 1, place), seeds=tuple(self._others(place))
        )

    def _do_clone(self, place: str, _: str, new: str) -> None:
        me = self.nodes[place].swim.me
        twin = self._member(me.name, me.uid, me.generation, new)
        self._start(new, twin, seeds=tuple(self._others(new)))

    def _do_pause(self, place: str) -> None:
        self.nodes[place].waiting = []

    def _do_resume(self, place: str) -> None:
        node = self.nodes[place]
        waiting, node.waiting = node.waiting or [], None
        for event in [*waiting, Tick()]:
            self._tell(node, event)

    def _do_cut(self, *words: str) -> None:
        at = words.index("|")
        self._sides = [frozenset(words[:at]), frozenset(words[at + 1 :])]

    def _do_oneway(self, source: str, _: str, target: str) -> None:
        self._oneway.append((source, target))

    def _do_nodatagrams(self, one: str, other: str) -> None:
        self._nodatagrams.append(frozenset((one, other)))

    def _do_heal(self) -> None:
        self._sides, self._oneway, self._nodatagrams = [], [], []

    def _do_leave(self, place: str) -> None:
        self._tell(self.nodes[place], Leave())

    def _do_remove(self, place: str, _: str, by: str) -> None:
        self._tell(self.nodes[by], Remove(self.nodes[place].swim.me.uid))

    def _do_accuse(self, place: str, _: str, by: str) -> None:
        accused, accuser = self.nodes[place].swim.me, self.nodes[by]
        claim = Claim(
            accused.uid,
            accused.generation,
            accused.incarnation,
            MemberState.SUSPECT,
            accuser.sender.uid,
        )
        for other in self._others(by):
            if other != place:
                packet = Packet(self.cluster, Gossip(), (claim,))
                self._tell(self.nodes[other], Received(accuser.sender, by, packet))

    def _do_show(self, place: str) -> None:
        for member in self.nodes[place].swim.members:
            where = "" if member.gossip == member.name else f" at {member.gossip}"
            self._said.append(
                f"{member.name} {member.state.name.lower()} "
                f"{member.generation}.{member.incarnation}{where}"
            )

    def _do_health(self, place: str) -> None:
        self._said.append(str(self.nodes[place].swim.health))

    def _do_trace(self, switch: str) -> None:
        self._trace = switch

    # -- the world ---------------------------------------------------------------------------

    def _first_member(self, place: str) -> Member:
        return self._member(place, sum(place.encode()), 1, place)

    def _member(self, name: str, uid: int, generation: int, place: str) -> Member:
        self._starts += 1
        boot_id = self._starts.to_bytes(16)
        return Member(
            uid,
            generation,
            0,
            MemberState.ALIVE,
            name,
            place,
            place,
            region=self._region(place),
            boot_id=boot_id,
        )

    def _start(
        self,
        place: str,
        me: Member,
        *,
        known: list[Member] | None = None,
        seeds: tuple[str, ...] = (),
    ) -> None:
        swim = Swim(me, self.cluster, Random(self._starts * 1000 + me.uid), self.config)
        swim.know(known or [])
        node = Node(place, swim, Sender(me.uid, me.generation, me.boot_id), seeds)
        self.nodes[place] = node
        self._tell(node, Tick())
        if seeds:
            self._tell(node, Seeds(seeds))

    def _region(self, place: str) -> str:
        return self.regions.get(place, "default")

    def _way_ms(self, least_ms: int, source: str, target: str) -> int:
        far = self._region(source) != self._region(target)
        return least_ms + self.far_ms * far

    def _others(self, place: str) -> list[str]:
        return [other for other in sorted(self.nodes) if other != place]

    def _at(self, after_ms: int, act: Callable[[], None]) -> None:
        self._serial += 1
        heappush(self._heap, (self.now_ms + after_ms, self._serial, act))

    def _pass(self, length_ms: int) -> None:
        end_ms = self.now_ms + length_ms
        while self._heap and self._heap[0][0] <= end_ms:
            self.now_ms, _, act = heappop(self._heap)
            act()
        self.now_ms = end_ms

    def _tell(self, node: Node, event: Event) -> None:
        if not node.running or self.nodes[node.place] is not node:
            return
        if node.waiting is not None:
            if not isinstance(event, Tick):
                node.waiting.append(event)
            return
        for effect in node.swim.handle(event, self.now_ms):
            self._perform(node, effect)
        due_ms = node.swim.due_ms
        if due_ms is not None and (node.tick_ms is None or due_ms < node.tick_ms):
            node.tick_ms = due_ms
            self._at(max(0, due_ms - self.now_ms), lambda: self._tick(node, due_ms))

    def _tick(self, node: Node, planned_ms: int) -> None:
        if node.tick_ms == planned_ms:
            node.tick_ms = None
            self._tell(node, Tick())

    def _perform(self, node: Node, effect: Effect) -> None:
        match effect:
            case Send(address, packet):
                self._send(node, address, packet)
            case PushPull(peer):
                self._note_traffic(node, peer, f"exchanges with {peer}")
                way_ms = self._way_ms(CHANNEL_MS, node.place, peer)
                self._at(way_ms, lambda: self._push_pull(node, peer))
            case StreamPing(seq, member, _):
                self._note_traffic(node, member.peer, f"stream ping {member.name}")
                way_ms = 2 * self._way_ms(CHANNEL_MS, node.place, member.peer)
                self._at(way_ms, lambda: self._stream_ping(node, seq, member))
            case Changed(member, previous):
                was = "" if previous is None else f" (was {_short(previous)})"
                self._note(node, f"{member.name} {_short(member)}{was}")
            case Forgotten(member):
                self._note(node, f"{member.name} forgotten")
            case Renew(generation, reason):
                self._note(node, f"must renew, {reason.value}")
                self._at(1, lambda: self._renew(node, generation))
            case DuplicateIdentity(generation, _, yields):
                ending = "yields" if yields else "goes on"
                self._note(node, f"its uid is also elsewhere, generation {generation}; it {ending}")

    def _renew(self, node: Node, generation: int) -> None:
        self._starts += 1
        boot_id = self._starts.to_bytes(16)
        node.sender = Sender(node.sender.uid, generation + 1, boot_id)
        self._tell(node, Renewed(generation + 1, boot_id))

    def _send(self, node: Node, address: str, packet: Packet) -> None:
        self._note_traffic(node, address, f"-> {address} {_told(packet)}")
        event = Received(node.sender, node.place, packet)
        if self._passes(node.place, address, datagram=True):
            way_ms = self._way_ms(DATAGRAM_MS, node.place, address)
            self._at(way_ms, lambda: self._arrive(address, event))

    def _arrive(self, address: str, event: Event) -> None:
        if address in self.nodes:
            self._tell(self.nodes[address], event)

    def _passes(self, source: str, target: str, *, datagram: bool = False) -> bool:
        cut = any(source in side and target not in side for side in self._sides)
        lost = datagram and frozenset((source, target)) in self._nodatagrams
        return not cut and not lost and (source, target) not in self._oneway

    def _connects(self, node: Node, address: str) -> bool:
        both = self._passes(node.place, address) and self._passes(address, node.place)
        other = self.nodes.get(address)
        return both and other is not None and other.running and other.waiting is None

    def _stream_ping(self, node: Node, seq: int, member: Member) -> None:
        alive = self._connects(node, member.peer)
        self._tell(node, StreamAnswered(seq, alive))

    def _push_pull(self, node: Node, peer: str) -> None:
        if not node.running or not self._connects(node, peer):
            return
        other = self.nodes[peer]
        if other.swim.cluster != node.swim.cluster:
            return
        self._tell(other, Merge(self._exchange(node)))
        self._tell(node, Merge(self._exchange(other)))

    def _exchange(self, node: Node) -> Exchange:
        return node.swim.exchange(self.now_ms)

    def _note(self, node: Node, what: str) -> None:
        self._said.append(f"{self.now_ms / 1000:.3f} {node.place}: {what}")

    def _note_traffic(self, node: Node, target: str, what: str) -> None:
        far = self._region(node.place) != self._region(target)
        if self._trace == "on" or (self._trace == "far" and far):
            self._note(node, what)


def _ms(length: str) -> int:
    amount = float(length.removesuffix("ms").removesuffix("s"))
    return int(amount if length.endswith("ms") else amount * 1000)


def _short(member: Member) -> str:
    return f"{member.state.name.lower()} {member.generation}.{member.incarnation}"


def _told(packet: Packet) -> str:
    news = "".join(f" [{_news(item)}]" for item in packet.news)
    return _message(packet.message) + news


def _message(message: Message) -> str:
    name = type(message).__name__.lower()
    return f"{name} for {message.address}" if isinstance(message, PingRequest) else name


def _news(news: News) -> str:
    if isinstance(news, Announcement):
        return f"{news.member.name} {_short(news.member)} whole"
    accuser = f" by {_name(news.by)}" if news.by else ""
    state = news.state.name.lower()
    return f"{_name(news.uid)} {state} {news.generation}.{news.incarnation}{accuser}"


def _name(uid: int) -> str:
    return chr(uid) if uid < 128 else str(uid)
