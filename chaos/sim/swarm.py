"""Many membership machines in one world: a heap of events, a network, and what it does to them.

Only the machines of `envd.core.swim` run: no asyncio, no sealing. The network loses, delays and
reorders datagrams; channels (exchanges, stream pings) are reliable, and take three of its delays.
Nodes may be in several places, far from each other, and one place can be cut off. A slow node
handles each datagram seconds after it came, in order, while its timers run on: what Lifeguard was
made for (Dadgar et al. 2017, section V). All follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import ceil
from random import Random
from typing import Final

from envd.core.members import Member, MemberState
from envd.core.swim.chance import Chance, below, sample
from envd.core.swim.config import LAN, SEAL_OVERHEAD_BYTES, SwimConfig
from envd.core.swim.events import (
    Changed,
    Effect,
    Event,
    Merge,
    PushPull,
    Received,
    Renew,
    Renewed,
    Send,
    Sender,
    StreamAnswered,
    StreamPing,
    Tick,
)
from envd.core.swim.machine import Swim
from envd.core.swim.messages import Packet
from envd.wire.gossip import encode_exchange, encode_packet

CLUSTER: Final = "0123456789abcdef0123456789abcdef"
UDP_IP_BYTES: Final = 28
SETTLE_MS: Final = 5_000
QUORUM: Final = 0.99
_NEVER: Final = 1 << 62
FIRST_UID: Final = 1 << 63
"""As long on the wire as real uids are."""
EXACT_NODES: Final = 200
_SAMPLED: Final = 16


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network and the nodes suffer from; one way takes `delay_ms` (least, most).

    `far_ms` is added on the way to another place.
    """

    loss: float = 0.0
    slow_share: float = 0.0
    delay_ms: tuple[int, int] = (1, 5)
    slow_ms: tuple[int, int] = (2_000, 10_000)
    far_ms: int = 0


PEACE: Final = Weather()
TROUBLE: Final = Weather(loss=0.05, slow_share=0.2)


@dataclass(frozen=True, slots=True)
class Map:
    """In how many places nodes are, in turn; `named`: each is a region of the cluster."""

    places: int = 1
    named: bool = True

    def place(self, uid: int) -> int:
        """Where a node is."""
        return (uid - FIRST_UID) % self.places

    def region(self, uid: int) -> str:
        """What it says of that."""
        return f"region-{self.place(uid)}" if self.named and self.places > 1 else "default"


HERE: Final = Map()


@dataclass(slots=True)
class _Node:
    swim: Swim
    slow: bool = False
    alive: bool = True
    tick_ms: int = _NEVER
    busy_until_ms: int = 0
    sent_bytes: int = 0
    far_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`observer` says since `at_ms` that `uid` is in this state."""

    at_ms: int
    observer: int
    uid: int
    state: MemberState


class Cluster:
    """Nodes who all know each other, and the time between them; an address is a uid, in digits."""

    def __init__(
        self,
        count: int,
        seed: int,
        weather: Weather,
        config: SwimConfig = LAN,
        over: Map = HERE,
    ) -> None:
        self.count = count
        self.seed = seed
        self.weather = weather
        self.map = over
        self.cut: int | None = None
        """A place that nothing leaves or reaches."""
        self.now_ms = 0
        self.verdicts: list[Verdict] = []
        self._chance = chance_of(seed)
        self._serial = 0
        self._sends = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        members = [_member(uid, over.region(uid)) for uid in uids(count)]
        self.nodes = {me.uid: _Node(_knowing(me, members, seed, config)) for me in members}
        slow_count = round(count * weather.slow_share)
        for uid in sample(uids(count), slow_count, self._chance):
            self.nodes[uid].slow = True
        for uid in self.nodes:
            self._plan_tick(uid)

    @property
    def sent_bytes(self) -> int:
        """By all nodes so far."""
        return sum(node.sent_bytes for node in self.nodes.values())

    @property
    def far_bytes(self) -> int:
        """As much of it as went to another place."""
        return sum(node.far_bytes for node in self.nodes.values())

    def run_until(self, end_ms: int, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; tell whether `until` became true before `end_ms`."""
        while self._heap and self._heap[0][0] <= end_ms:
            self.now_ms, _, act = heappop(self._heap)
            act()
            if until():
                return True
        self.now_ms = end_ms
        return False

    def kill(self, uid: int) -> None:
        """End a node without a word."""
        self.nodes[uid].alive = False

    def tell(self, uid: int, event: Event) -> None:
        """Give a node an event, now."""
        node = self.nodes[uid]
        if node.alive:
            for effect in node.swim.handle(event, self.now_ms):
                self._perform(uid, node, effect)
            self._plan_tick(uid)

    # -- the world ---------------------------------------------------------------------------

    def _at(self, due_ms: int, act: Callable[[], None]) -> None:
        self._serial += 1
        heappush(self._heap, (due_ms, self._serial, act))

    def _plan_tick(self, uid: int) -> None:
        node = self.nodes[uid]
        due_ms = node.swim.due_ms
        if due_ms is None or node.tick_ms <= due_ms:
            return
        node.tick_ms = due_ms
        self._at(max(due_ms, self.now_ms), lambda: self._tick(uid, due_ms))

    def _tick(self, uid: int, planned_ms: int) -> None:
        node = self.nodes[uid]
        if node.tick_ms == planned_ms:
            node.tick_ms = _NEVER
            self.tell(uid, Tick())

    def _perform(self, uid: int, node: _Node, effect: Effect) -> None:
        match effect:
            case Send(address, packet):
                self._send(uid, int(address), packet)
            case PushPull(peer):
                way_ms = 3 * self._way_ms(uid, int(peer))
                self._at(self.now_ms + way_ms, lambda: self._push_pull(uid, int(peer)))
            case StreamPing(seq, member, _):
                self._deliver_answer(uid, seq, member.uid)
            case Changed(member, _):
                self.verdicts.append(Verdict(self.now_ms, uid, member.uid, member.state))
            case Renew(generation, _):
                boot_id = uid.to_bytes(8) + (generation + 1).to_bytes(8)
                self._deliver(uid, Renewed(generation + 1, boot_id), 5)
            case _:
                return

    def _send(self, uid: int, target: int, packet: Packet) -> None:
        """In large clusters one datagram of sixteen is weighed, and counts for all."""
        node = self.nodes[uid]
        self._sends += 1
        weight = _SAMPLED if self.count > EXACT_NODES else 1
        if self._sends % weight == 0:
            size = len(encode_packet(packet)) + SEAL_OVERHEAD_BYTES + UDP_IP_BYTES
            self._count(uid, target, weight * size)
        if self._chance.random() >= self.weather.loss and self._passes(uid, target):
            me = node.swim.me
            event = Received(Sender(uid, me.generation, me.boot_id), me.gossip, packet)
            self._deliver(target, event, self._way_ms(uid, target))

    def _count(self, uid: int, target: int, size_bytes: int) -> None:
        node = self.nodes[uid]
        node.sent_bytes += size_bytes
        if self._is_far(uid, target):
            node.far_bytes += size_bytes

    def _is_far(self, uid: int, target: int) -> bool:
        return self.map.place(uid) != self.map.place(target)

    def _passes(self, uid: int, target: int) -> bool:
        places = (self.map.place(uid), self.map.place(target))
        return places[0] == places[1] or self.cut not in places

    def _slow_ms(self) -> int:
        return _between(*self.weather.slow_ms, self._chance)

    def _way_ms(self, uid: int, target: int) -> int:
        least, most = self.weather.delay_ms
        far_ms = self.weather.far_ms if self._is_far(uid, target) else 0
        return _between(least, most, self._chance) + far_ms

    def _deliver(self, uid: int, event: Event, way_ms: int) -> None:
        """A slow node takes one thing after the other, each seconds after it came."""
        node = self.nodes[uid]
        due_ms = self.now_ms + way_ms
        if node.slow:
            due_ms = max(node.busy_until_ms, due_ms + self._slow_ms())
            node.busy_until_ms = due_ms
        self._at(due_ms, lambda: self.tell(uid, event))

    def _deliver_answer(self, uid: int, seq: int, target: int) -> None:
        """A stream ping is answered by a live target, late by a slow one; a dead one refuses."""
        node = self.nodes[target]
        way_ms = 4 * self._way_ms(uid, target) + (self._slow_ms() * node.slow)
        alive = node.alive and self._passes(uid, target)
        self._deliver(uid, StreamAnswered(seq, alive), way_ms)

    def _push_pull(self, uid: int, peer: int) -> None:
        node, other = self.nodes[uid], self.nodes[peer]
        if not (node.alive and other.alive and self._passes(uid, peer)):
            return
        mine = node.swim.exchange(self.now_ms)
        self.tell(peer, Merge(mine))
        theirs = other.swim.exchange(self.now_ms)
        self.tell(uid, Merge(theirs))
        self._count(uid, peer, len(encode_exchange(mine)))
        self._count(peer, uid, len(encode_exchange(theirs)))


def uids(count: int) -> range:
    """The uids of so many nodes."""
    return range(FIRST_UID, FIRST_UID + count)


def chance_of(seed: int) -> Random:
    """What a seed draws."""
    return Random(seed)


def _between(least: int, most: int, chance: Chance) -> int:
    return least + below(most - least + 1, chance)


def _member(uid: int, region: str) -> Member:
    boot_id = uid.to_bytes(16)
    return Member(
        uid,
        1,
        0,
        MemberState.ALIVE,
        f"node-{uid - FIRST_UID}",
        str(uid),
        str(uid),
        region=region,
        boot_id=boot_id,
    )


def _knowing(me: Member, members: Iterable[Member], seed: int, config: SwimConfig) -> Swim:
    """A machine that starts with everybody in its table, and nothing to tell."""
    swim = Swim(me, CLUSTER, chance_of(seed << 64 | me.uid), config)
    swim.know(members)
    return swim


def quorum(count: int) -> int:
    """99 % of the others."""
    return ceil((count - 1) * QUORUM)


def views(
    cluster: Cluster, uid: int, state: MemberState, end_ms: int, quorum: int
) -> Sequence[int]:
    """When the first `quorum` others came to see `uid` in this state."""
    first: dict[int, int] = {}
    seen = 0

    def enough() -> bool:
        nonlocal seen
        for verdict in cluster.verdicts[seen:]:
            if verdict.uid == uid != verdict.observer and verdict.state is state:
                first.setdefault(verdict.observer, verdict.at_ms)
        seen = len(cluster.verdicts)
        return len(first) >= quorum

    if not cluster.run_until(end_ms, enough):
        raise RuntimeError(f"not all of {cluster.count} nodes came to know; seed {cluster.seed}")
    return sorted(first.values())
