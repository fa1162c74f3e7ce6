"""Membership between regions: how long news and losses take to cross, and what it costs.

    python -m chaos.sim.membership --regions 3 --nodes 15,60 --far-ms 80

The nodes are in so many places, `far_ms` from each other. Each size has two columns: the places are
regions of the cluster, and, as the control, all nodes say that they are in one region.

* informed: a node leaves; how long until 99 % know, where it was and elsewhere?
* found: a gateway, or another node, is killed; how long until it is down for 99 %, likewise?
* cut off: one place is; how long until all others hold all that is there for down, and after the
  heal, until everybody sees everybody alive?
* false positives: nobody dies, with and without loss and slow nodes; who is declared down?
* bytes: what one node sends, in peace, and how much of what all send goes to other places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from chaos.sim.swarm import (
    FIRST_UID,
    PEACE,
    QUORUM,
    SETTLE_MS,
    TROUBLE,
    Cluster,
    Map,
    Weather,
    uids,
)
from envd.core.members import MemberState
from envd.core.swim.events import Leave

_PATIENCE_MS: Final = 3_600_000
_PEACE_TIMES: Final = 4
"""Peace is watched for so much longer: exchanges are rare, and most of what it costs."""
_TRIED: Final = 0
"""The place where things happen."""


@dataclass(frozen=True, slots=True)
class World:
    """What is asked about: so many nodes in so many places, of which each is a region or none."""

    count: int
    places: int
    far_ms: int
    seed: int
    named: bool = True

    def settled(self, weather: Weather = PEACE) -> Cluster:
        """The cluster, after it ran for a while."""
        over = Map(self.places, self.named)
        weather = replace(weather, far_ms=self.far_ms)
        cluster = Cluster(self.count, self.seed, weather, over=over)
        cluster.run_until(SETTLE_MS)
        cluster.verdicts.clear()
        return cluster

    @property
    def here(self) -> list[int]:
        """The nodes of the place where things happen; the first ones are its gateways."""
        return [uid for uid in uids(self.count) if (uid - FIRST_UID) % self.places == _TRIED]

    @property
    def elsewhere(self) -> list[int]:
        """All others."""
        return [uid for uid in uids(self.count) if (uid - FIRST_UID) % self.places != _TRIED]


class Seen:
    """When so many of `observers` came to see all of `subjects` in this state; they don't yet."""

    def __init__(
        self,
        cluster: Cluster,
        observers: Iterable[int],
        subjects: Iterable[int],
        state: MemberState,
        share: float = QUORUM,
    ) -> None:
        self._cluster = cluster
        self._state = state
        told = list(subjects)
        self._lacking = {(one, uid) for one in observers for uid in told if one != uid}
        self._pairs = frozenset(self._lacking)
        self._allowed = len(self._pairs) - ceil(len(self._pairs) * share)
        self._read = 0
        self._began_ms = cluster.now_ms
        self.after_ms: int | None = None if self._pairs else 0

    def look(self) -> bool:
        """Read what was said since; tell whether it has been so once."""
        verdicts = self._cluster.verdicts
        for verdict in verdicts[self._read :]:
            pair = (verdict.observer, verdict.uid)
            if verdict.state is self._state:
                self._lacking.discard(pair)
            elif pair in self._pairs:
                self._lacking.add(pair)
        self._read = len(verdicts)
        if self.after_ms is None and len(self._lacking) <= self._allowed:
            self.after_ms = self._cluster.now_ms - self._began_ms
        return self.after_ms is not None


def _wait(cluster: Cluster, *seen: Seen) -> tuple[int, ...]:
    end_ms = cluster.now_ms + _PATIENCE_MS

    def all_have() -> bool:
        """Let each look, also when one lacks something."""
        return sum(each.look() for each in seen) == len(seen)

    if not cluster.run_until(end_ms, all_have):
        raise RuntimeError(f"not all of {cluster.count} nodes came to know; seed {cluster.seed}")
    return tuple(each.after_ms or 0 for each in seen)


# -- the questions -------------------------------------------------------------------------


def informed_ms(world: World) -> tuple[int, ...]:
    """How long after a node leaves 99 % know, of those where it was, and elsewhere."""
    cluster = world.settled()
    uid = world.here[-1]
    seen = _watched(cluster, world, uid, MemberState.LEFT)
    cluster.tell(uid, Leave())
    return _wait(cluster, *seen)


def found_ms(world: World, *, gateway: bool) -> tuple[int, ...]:
    """How long after a node is killed 99 % hold it for down, likewise."""
    cluster = world.settled()
    uid = world.here[0 if gateway else -1]
    cluster.kill(uid)
    return _wait(cluster, *_watched(cluster, world, uid, MemberState.DOWN))


def _watched(cluster: Cluster, world: World, uid: int, state: MemberState) -> tuple[Seen, Seen]:
    near = [each for each in world.here if each != uid]
    return Seen(cluster, near, [uid], state), Seen(cluster, world.elsewhere, [uid], state)


def cut_off_ms(world: World) -> tuple[int, int, int]:
    """How long after a place is cut off the first, and all, there are down for all elsewhere.

    And how long after the heal everybody sees everybody alive.
    """
    cluster = world.settled()
    cluster.cut = _TRIED
    firsts = [Seen(cluster, world.elsewhere, [uid], MemberState.DOWN, 1) for uid in world.here]
    here = Seen(cluster, world.here, world.elsewhere, MemberState.DOWN, 1)
    lost_ms = _wait(cluster, *firsts, here)[:-1]
    cluster.run_until(cluster.now_ms + 120_000)
    cluster.cut = None
    cluster.verdicts.clear()
    healed = (
        Seen(cluster, world.elsewhere, world.here, MemberState.ALIVE, 1),
        Seen(cluster, world.here, world.elsewhere, MemberState.ALIVE, 1),
    )
    return min(lost_ms), max(lost_ms), max(_wait(cluster, *healed))


@dataclass(frozen=True, slots=True)
class Toll:
    """A time without any death: who was declared down, and bytes per second.

    `well`: of those declared down, who were not slow. `each`: what one node sends; `across`: what
    all nodes together send to other places.
    """

    deaths: int
    well: int
    each: float
    across: float


def toll(world: World, weather: Weather, lasting_ms: int) -> Toll:
    """Let nobody die, and see what it takes."""
    cluster = world.settled(weather)
    sent, far = cluster.sent_bytes, cluster.far_bytes
    cluster.run_until(SETTLE_MS + lasting_ms)
    dead = {one.uid for one in cluster.verdicts if one.state is MemberState.DOWN}
    lasting_s = lasting_ms / 1000
    return Toll(
        deaths=len(dead),
        well=sum(not cluster.nodes[uid].slow for uid in dead),
        each=(cluster.sent_bytes - sent) / world.count / lasting_s,
        across=(cluster.far_bytes - far) / lasting_s,
    )


# -- the report ----------------------------------------------------------------------------


def report(counts: Sequence[int], places: int, far_ms: int, seed: int, lasting_ms: int) -> str:
    """A Markdown table, with two columns for each size."""
    columns = {
        f"{count} nodes, {told}": _column(
            [World(count, places, far_ms, one, named) for one in _seeds(count, seed)], lasting_ms
        )
        for count in counts
        for named, told in ((True, f"{places} regions"), (False, "as one"))
    }
    rows = [
        f"| {name} |" + "|".join(f" {column[name]} " for column in columns.values()) + "|"
        for name in next(iter(columns.values()))
    ]
    head = "| |" + "|".join(f" {name} " for name in columns) + "|"
    return "\n".join((head, "|---|" + "---:|" * len(columns), *rows))


def _seeds(count: int, seed: int) -> range:
    return range(seed, seed + max(1, min(9, 300 // count)))


def _column(worlds: Sequence[World], lasting_ms: int) -> dict[str, str]:
    informed = _medians(informed_ms(world) for world in worlds)
    other = _medians(found_ms(world, gateway=False) for world in worlds)
    gateway = _medians(found_ms(world, gateway=True) for world in worlds)
    cut = _medians(cut_off_ms(world) for world in worlds)
    peace = [toll(world, PEACE, _PEACE_TIMES * lasting_ms) for world in worlds]
    trouble = [toll(world, TROUBLE, lasting_ms) for world in worlds]
    well = sum(one.well for one in trouble)
    return {
        "left: 99 % know, same region": informed[0],
        "left: 99 % know, others": informed[1],
        "killed node: 99 % know, same region": other[0],
        "killed node: 99 % know, others": other[1],
        "killed gateway: 99 % know, same region": gateway[0],
        "killed gateway: 99 % know, others": gateway[1],
        "region cut off: first is down for all": cut[0],
        "region cut off: all are down for all": cut[1],
        "healed: all see all": cut[2],
        "live nodes declared down, peace": str(sum(one.deaths for one in peace)),
        "… in trouble, slow": str(sum(one.deaths - one.well for one in trouble)),
        "… in trouble, well": str(well),
        "bytes per node and second, peace": f"{peace[0].each:,.0f}",
        "bytes per second between regions, peace": f"{peace[0].across:,.0f}",
        "bytes per second between regions, trouble": f"{trouble[0].across:,.0f}",
    }


def _medians(answers: Iterable[Sequence[int]]) -> list[str]:
    """Of each figure by itself, in seconds; "" where there was nobody to see anything."""
    figures = [sorted(column) for column in zip(*answers, strict=True)]
    return [f"{column[len(column) // 2] / 1000:.2f} s" if column[-1] else "" for column in figures]
