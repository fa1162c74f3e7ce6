"""Membership at 5 to some thousand nodes, beside the formulae of memberlist and Lifeguard.

    python -m chaos.sim.membership --nodes 5,100,1000 --seed 1

Only the machines of `envd.core.swim` run, on a heap of events: no asyncio, no sealing, so that a
thousand nodes take a minute or so. The network loses, delays and reorders datagrams; channels
(exchanges, stream pings) are reliable, and take three of its delays. A slow node handles each
datagram seconds after it came, in order, while its timers run on: what Lifeguard was made for
(Dadgar et al. 2017, section V).

Four questions, each in a cluster of its own that begins with everybody known:

* informed: one node leaves; how long until 99 % know?
* detected: one node is killed; when does the first, when do 99 % declare it down?
* false positives: 5 % of datagrams lost and 20 % of the nodes slow; how often is a live node
  declared down, and how many of those were well?
* bytes: what one node sends per second, sealing and UDP/IP headers included, in peace and with
  that trouble. The same without Lifeguard is the control.

All follows from the seed.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import ceil, log
from random import Random
from typing import Final

from envd.core.members import Member, MemberState
from envd.core.swim import config as formulae
from envd.core.swim.chance import Chance, below, choose, sample
from envd.core.swim.config import LAN, SEAL_OVERHEAD_BYTES, SwimConfig
from envd.core.swim.events import (
    Changed,
    Effect,
    Event,
    Leave,
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
_FIRST_UID: Final = 1 << 63
"""As long on the wire as real uids are."""
_EXACT_NODES: Final = 200
_SAMPLED: Final = 16


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network and the nodes suffer from; one way takes `delay_ms` (least, most)."""

    loss: float = 0.0
    slow_share: float = 0.0
    delay_ms: tuple[int, int] = (1, 5)
    slow_ms: tuple[int, int] = (2_000, 10_000)


PEACE: Final = Weather()
TROUBLE: Final = Weather(loss=0.05, slow_share=0.2)
PLAIN: Final = replace(LAN, max_health=0, confirmations=0)
"""SWIM without Lifeguard: suspicions last the least time, and no node doubts itself."""


@dataclass(slots=True)
class _Node:
    swim: Swim
    slow: bool = False
    alive: bool = True
    tick_ms: int = _NEVER
    busy_until_ms: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`observer` says since `at_ms` that `uid` is in this state."""

    at_ms: int
    observer: int
    uid: int
    state: MemberState


class Cluster:
    """Nodes who all know each other, and the time between them; an address is a uid, in digits."""

    def __init__(self, count: int, seed: int, weather: Weather, config: SwimConfig = LAN) -> None:
        self.count = count
        self.seed = seed
        self.weather = weather
        self.now_ms = 0
        self.verdicts: list[Verdict] = []
        self._chance = _chance(seed)
        self._serial = 0
        self._sends = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        members = [_member(uid) for uid in _uids(count)]
        self.nodes = {me.uid: _Node(_knowing(me, members, seed, config)) for me in members}
        slow_count = round(count * weather.slow_share)
        for uid in sample(_uids(count), slow_count, self._chance):
            self.nodes[uid].slow = True
        for uid in self.nodes:
            self._plan_tick(uid)

    @property
    def sent_bytes(self) -> int:
        """By all nodes so far."""
        return sum(node.sent_bytes for node in self.nodes.values())

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
                self._count(node, packet)
                if self._chance.random() >= self.weather.loss:
                    me = node.swim.me
                    sender = Sender(uid, me.generation, me.boot_id)
                    event = Received(sender, me.gossip, packet)
                    self._deliver(int(address), event, self._way_ms())
            case PushPull(peer):
                way_ms = 3 * self._way_ms()
                self._at(self.now_ms + way_ms, lambda: self._push_pull(uid, int(peer)))
            case StreamPing(seq, member):
                self._deliver_answer(uid, seq, member.uid)
            case Changed(member, _):
                self.verdicts.append(Verdict(self.now_ms, uid, member.uid, member.state))
            case Renew(generation, _):
                boot_id = uid.to_bytes(8) + (generation + 1).to_bytes(8)
                self._deliver(uid, Renewed(generation + 1, boot_id), 5)
            case _:
                return

    def _count(self, node: _Node, packet: Packet) -> None:
        """In large clusters one datagram of sixteen is weighed, and counts for all."""
        self._sends += 1
        weight = _SAMPLED if self.count > _EXACT_NODES else 1
        if self._sends % weight == 0:
            size = len(encode_packet(packet)) + SEAL_OVERHEAD_BYTES + UDP_IP_BYTES
            node.sent_bytes += weight * size

    def _slow_ms(self) -> int:
        return _between(*self.weather.slow_ms, self._chance)

    def _way_ms(self) -> int:
        least, most = self.weather.delay_ms
        return _between(least, most, self._chance)

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
        way_ms = 4 * self._way_ms() + (self._slow_ms() * node.slow)
        self._deliver(uid, StreamAnswered(seq, node.alive), way_ms)

    def _push_pull(self, uid: int, peer: int) -> None:
        node, other = self.nodes[uid], self.nodes[peer]
        if not (node.alive and other.alive):
            return
        mine = node.swim.exchange(self.now_ms)
        self.tell(peer, Merge(mine))
        theirs = other.swim.exchange(self.now_ms)
        self.tell(uid, Merge(theirs))
        node.sent_bytes += len(encode_exchange(mine))
        other.sent_bytes += len(encode_exchange(theirs))


def _uids(count: int) -> range:
    return range(_FIRST_UID, _FIRST_UID + count)


def _chance(seed: int) -> Random:
    return Random(seed)


def _between(least: int, most: int, chance: Chance) -> int:
    return least + below(most - least + 1, chance)


def _member(uid: int) -> Member:
    boot_id = uid.to_bytes(16)
    return Member(
        uid,
        1,
        0,
        MemberState.ALIVE,
        f"node-{uid - _FIRST_UID}",
        str(uid),
        str(uid),
        boot_id=boot_id,
    )


def _knowing(me: Member, members: Iterable[Member], seed: int, config: SwimConfig) -> Swim:
    """A machine that starts with everybody in its table, and nothing to tell."""
    swim = Swim(me, CLUSTER, _chance(seed << 64 | me.uid), config)
    swim.know(members)
    return swim


# -- the questions -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happened in a time of trouble without any death.

    `deaths` are starts of nodes that somebody declared down though they lived; `well` those of
    nodes that are not slow; `wrong_views` counts the declarations, each observer once;
    `node_seconds` for how long how many nodes lived; `bytes` are per node and second.
    `detected_ms` is as that of `detected_ms`, of a node that was killed at the end.
    """

    deaths: int
    well: int
    wrong_views: int
    node_seconds: float
    bytes: float
    detected_ms: tuple[int, int]


def informed_ms(count: int, seed: int, weather: Weather = PEACE) -> int:
    """How long after a node leaves 99 % of the others know."""
    cluster = Cluster(count, seed, weather)
    cluster.run_until(SETTLE_MS)
    uid = choose(_uids(count), _chance(seed))
    cluster.tell(uid, Leave())
    times = _views(cluster, uid, MemberState.LEFT, SETTLE_MS + 60_000, _quorum(count))
    return times[-1] - SETTLE_MS


def detected_ms(count: int, seed: int, weather: Weather = PEACE) -> tuple[int, int]:
    """How long after a node is killed the first, and 99 %, of the others declare it down."""
    cluster = Cluster(count, seed, weather)
    cluster.run_until(SETTLE_MS)
    return _kill_one(cluster)


def _kill_one(cluster: Cluster) -> tuple[int, int]:
    """Kill a node that is not slow."""
    killed_ms = cluster.now_ms
    well = [uid for uid, node in cluster.nodes.items() if not node.slow]
    uid = choose(well, _chance(cluster.seed))
    cluster.kill(uid)
    cluster.verdicts.clear()
    quorum = _quorum(cluster.count)
    times = _views(cluster, uid, MemberState.DOWN, killed_ms + 600_000, quorum)
    return times[0] - killed_ms, times[-1] - killed_ms


def trouble(
    count: int, seed: int, weather: Weather, lasting_ms: int, config: SwimConfig = LAN
) -> Trouble:
    """Let nobody die, and see who is declared down; then kill one."""
    cluster = Cluster(count, seed, weather, config)
    cluster.run_until(SETTLE_MS)
    before = cluster.sent_bytes
    cluster.run_until(SETTLE_MS + lasting_ms)
    wrong = [one for one in cluster.verdicts if one.state is MemberState.DOWN]
    uids = {one.uid for one in wrong}
    node_seconds = count * lasting_ms / 1000
    spent = (cluster.sent_bytes - before) / node_seconds
    return Trouble(
        deaths=len(uids),
        well=sum(not cluster.nodes[uid].slow for uid in uids),
        wrong_views=len({(one.observer, one.uid) for one in wrong}),
        node_seconds=node_seconds,
        bytes=spent,
        detected_ms=_kill_one(cluster),
    )


def _quorum(count: int) -> int:
    return ceil((count - 1) * QUORUM)


def _views(
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


# -- the formulae --------------------------------------------------------------------------


def expected_informed_ms(config: SwimConfig, count: int) -> float:
    """Rounds until a rumour is at 99 %: log_(f+1) N + ln(100) / f, of one gossip interval each.

    (Pittel 1987, "On Spreading a Rumor"; f nodes a round.) Example: LAN, 1,000: 1,303 ms.
    """
    fanout = config.gossip_nodes
    rounds = log(count) / log(fanout + 1) + log(1 / (1 - QUORUM)) / fanout
    return rounds * config.gossip_interval_ms


def expected_detection_ms(config: SwimConfig, count: int) -> tuple[float, float]:
    """The first probe of the dead, that probe's interval, and the least or the longest suspicion.

    The first is e / (e - 1) intervals away on average (SWIM, section 3.1). Example: LAN, 5:
    6.6 s to 26.6 s; the more independent suspicions, the nearer to the former.
    """
    probe_ms = config.probe_interval_ms * (1.582 + 1)
    least_ms = formulae.suspicion_min_ms(config, count)
    most_ms = least_ms
    if formulae.confirmations_wanted(config, count):
        most_ms *= config.suspicion_max_mult
    return probe_ms + least_ms, probe_ms + most_ms


def expected_bytes(config: SwimConfig, count: int, state_bytes: int) -> float:
    """In peace: a ping and an ack a probe interval, and two states an exchange interval."""
    ping_and_ack = 2 * (45 + SEAL_OVERHEAD_BYTES + UDP_IP_BYTES)
    exchange = 2 * state_bytes / formulae.push_pull_interval_ms(config, count)
    return 1000 * (ping_and_ack / config.probe_interval_ms + exchange)


# -- the report ----------------------------------------------------------------------------


def report(counts: Sequence[int], seed: int, lasting_ms: int) -> str:
    """A Markdown table, with one column for each size."""
    columns = [_column(count, seed, lasting_ms) for count in counts]
    names = list(columns[0])
    head = "| |" + "|".join(f" {count:,} nodes " for count in counts) + "|"
    rule = "|---|" + "---:|" * len(counts)
    rows = [
        f"| {name} |" + "|".join(f" {column[name]} " for column in columns) + "|" for name in names
    ]
    return "\n".join((head, rule, *rows))


def _column(count: int, seed: int, lasting_ms: int) -> dict[str, str]:
    runs = max(1, min(9, 500 // count))
    seeds = range(seed, seed + runs)
    if count > _EXACT_NODES:
        lasting_ms //= 3
    informed = _median(informed_ms(count, one) for one in seeds)
    quiet = [detected_ms(count, one) for one in seeds]
    peace = trouble(count, seed, PEACE, lasting_ms)
    storms = [trouble(count, one, TROUBLE, lasting_ms) for one in seeds]
    plain = [trouble(count, one, TROUBLE, lasting_ms, PLAIN) for one in seeds if runs > 1]
    least_ms, most_ms = expected_detection_ms(LAN, count)
    state = len(encode_exchange(Cluster(count, seed, PEACE).nodes[_FIRST_UID].swim.exchange(0)))
    node_hours = sum(storm.node_seconds for storm in storms) / 3600
    return {
        "99 % informed of a leave": _seconds(informed),
        "informed, by formula": _seconds(expected_informed_ms(LAN, count)),
        "killed node: first declares it down": _seconds(_median(one[0] for one in quiet)),
        "killed node: 99 % know": _seconds(_median(one[1] for one in quiet)),
        "detection, by formula": f"{_seconds(least_ms)} to {_seconds(most_ms)}",
        "in trouble: first declares it down": _seconds(
            _median(storm.detected_ms[0] for storm in storms)
        ),
        "in trouble: 99 % know": _seconds(_median(storm.detected_ms[1] for storm in storms)),
        "trouble, node hours": f"{node_hours:.2f}",
        "live nodes declared down, slow": str(sum(one.deaths - one.well for one in storms)),
        "live nodes declared down, well": str(sum(one.well for one in storms)),
        "… by SWIM without Lifeguard": str(sum(one.well for one in plain)) if plain else "",
        "bytes per node and second, peace": f"{peace.bytes:,.0f}",
        "bytes, by formula": f"{expected_bytes(LAN, count, state):,.0f}",
        "bytes per node and second, trouble": f"{storms[0].bytes:,.0f}",
    }


def _median(values: Iterable[int]) -> int:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _seconds(time_ms: float) -> str:
    return f"{time_ms / 1000:.2f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; see the module."""
    parser = argparse.ArgumentParser(prog="python -m chaos.sim.membership")
    parser.add_argument("--nodes", default="5,100,1000", help="sizes, with commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--seconds", type=int, default=60, help="of trouble; a third above 200 nodes"
    )
    chosen = parser.parse_args(arguments)
    counts = [int(count) for count in chosen.nodes.split(",")]
    if min(counts) < 2:
        parser.error("a cluster has two nodes at least")
    gc.disable()  # nothing here makes cycles, and a thousand tables are slow to look through
    sys.stdout.write(report(counts, chosen.seed, chosen.seconds * 1000) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
