"""Which nodes hold which partition: even loads, apart in zones, and as little moved as can be.

Consistent hashing with a fixed table (Dynamo, section 6.2, strategy 3). A new table is made from
the one before: what stays is kept, each node gets a quota, and partitions go from nodes above
theirs to nodes below theirs. Where no partition can go straight from one to the other, because it
is there already or its zone is taken, a chain of nodes passes one on each: the cheapest chain,
found by a search in order of cost (augmenting paths, as in Ford and Fulkerson 1956).

Pure, and a function of its arguments alone: every node computes the same table.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias, TypeVar

from envd.core.ring import PARTITIONS

Table: TypeAlias = Sequence[tuple[int, ...]]
"""The uids of the nodes that hold each partition, the preferred one first."""

ResultT = TypeVar("ResultT")
Steps: TypeAlias = Generator[None, None, ResultT]
"""Work in small steps, so that who has other things to do may do them in between."""

_SLACK = 32
"""A node may hold a 32nd more than its quota: to be exactly even would move more."""
_FILLED_A_STEP = 16


@dataclass(frozen=True, slots=True)
class Site:
    """Where a storage node is."""

    uid: int
    zone: str = ""
    region: str = ""


def assign(sites: Iterable[Site], copies: int, before: Table = ()) -> Table:
    """Place `copies` (at least 1) of each partition on these nodes of one region.

    With fewer nodes than copies, each holds everything. No two copies share a zone where there are
    as many zones as copies, else the copies are spread over the zones as evenly as can be.
    """
    return run_through(assigning(sites, copies, before))


def assigning(sites: Iterable[Site], copies: int, before: Table = ()) -> Steps[Table]:
    """`assign` in steps: a first table of 100 nodes takes many seconds."""
    nodes = {site.uid: site for site in sorted(sites, key=lambda site: site.uid)}
    if copies >= len(nodes):
        return [_in_order(number, nodes) for number in range(PARTITIONS)]
    work = _Assignment(nodes, copies, before)
    yield from work.fill()
    yield from work.level()
    return [_in_order(number, holders) for number, holders in enumerate(work.holders)]


def assign_regions(sites: Iterable[Site], copies: Mapping[str, int], before: Table = ()) -> Table:
    """Place so many copies in each of these regions."""
    return run_through(assigning_regions(sites, copies, before))


def assigning_regions(
    sites: Iterable[Site], copies: Mapping[str, int], before: Table = ()
) -> Steps[Table]:
    """`assign_regions` in steps."""
    listed = sorted(sites, key=lambda site: site.uid)
    parts = []
    for region, count in sorted(copies.items()):
        here = [site for site in listed if site.region == region]
        uids = {site.uid for site in here}
        earlier = [tuple(uid for uid in holders if uid in uids) for holders in before]
        parts.append((yield from assigning(here, count, earlier)))
    return [
        _in_order(number, (uid for part in parts for uid in part[number]))
        for number in range(PARTITIONS)
    ]


def run_through(steps: Steps[ResultT]) -> ResultT:
    """Do all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result


def zone_most(sizes: Collection[int], copies: int) -> int:
    """How many copies of a partition a zone may have: as few as these sizes of zones allow."""
    return next(
        most for most in range(1, copies + 1) if sum(min(size, most) for size in sizes) >= copies
    )


def moved(before: Table, after: Table) -> int:
    """How many copies of partitions a node gets that it did not hold."""
    return sum(len(set(now) - set(then)) for then, now in zip(before, after, strict=True))


def loads(table: Table) -> Counter[int]:
    """How many partitions each node holds."""
    return Counter(uid for holders in table for uid in holders)


def _in_order(partition: int, holders: Iterable[int]) -> tuple[int, ...]:
    """By a hash, so that every node is preferred for its share (rendezvous hashing)."""
    return tuple(sorted(holders, key=lambda uid: rank(partition, uid)))


def rank(partition: int, uid: int) -> bytes:
    """Where a node stands in the order of preference of a partition: the least one first."""
    return blake2b(uid.to_bytes(8) + partition.to_bytes(2), digest_size=8).digest()


def _quotas(
    nodes: Mapping[int, Site], copies: int, in_zone: int, held: Counter[int]
) -> Counter[int]:
    """How many partitions each node is to hold.

    As equal as zones allow: a zone takes no more than `in_zone` copies of each partition, and
    what a small number of nodes in a large share can't take goes to the others. Where a share is no
    whole number, those that hold the most already get one more.
    """
    members: dict[str, list[int]] = {}
    for uid, site in nodes.items():
        members.setdefault(site.zone, []).append(uid)
    quotas: Counter[int] = Counter()
    left, open_zones = copies * PARTITIONS, dict(members)
    # The zones that can't take an equal share are full: those with the most nodes.
    for zone, uids in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        count = sum(map(len, open_zones.values()))
        most = in_zone * PARTITIONS
        if len(uids) * left <= most * count:
            break
        _share(quotas, uids, most, held)
        left -= most
        del open_zones[zone]
    _share(quotas, [uid for uids in open_zones.values() for uid in uids], left, held)
    return quotas


def _share(quotas: Counter[int], uids: Sequence[int], total: int, held: Counter[int]) -> None:
    if not uids:
        return
    each, more = divmod(total, len(uids))
    for place, uid in enumerate(sorted(uids, key=lambda uid: (-held[uid], uid))):
        quotas[uid] = each + (place < more)


class _Assignment:
    """A table in the making.

    `_kept` and `_fresh` are what each node holds of the table before, and what it gets now;
    `_closed` are the partitions of which a zone has its copies.
    """

    def __init__(self, nodes: Mapping[int, Site], copies: int, before: Table) -> None:
        self._nodes = nodes
        self._copies = copies
        zones = Counter(site.zone for site in nodes.values())
        self._zone_most = zone_most(zones.values(), copies)
        self.holders: list[set[int]] = [set() for _ in range(PARTITIONS)]
        self._kept: dict[int, set[int]] = {uid: set() for uid in nodes}
        self._fresh: dict[int, set[int]] = {uid: set() for uid in nodes}
        self._closed: dict[str, set[int]] = {zone: set() for zone in zones}
        for number, holders in enumerate(before):
            for uid in holders:
                if uid in nodes and self._may_take(uid, number):
                    self._put(uid, number, self._kept)
        held = Counter({uid: len(kept) for uid, kept in self._kept.items()})
        self._quotas = _quotas(nodes, copies, self._zone_most, held)

    # -- what goes where -------------------------------------------------------------------

    def _may_take(self, uid: int, number: int) -> bool:
        """Whether a partition may have one more copy, on this node."""
        holders = self.holders[number]
        closed = number in self._closed[self._nodes[uid].zone]
        return not closed and uid not in holders and len(holders) < self._copies

    def _put(self, uid: int, number: int, where: Mapping[int, set[int]]) -> None:
        self.holders[number].add(uid)
        where[uid].add(number)
        zone = self._nodes[uid].zone
        if sum(self._nodes[one].zone == zone for one in self.holders[number]) >= self._zone_most:
            self._closed[zone].add(number)

    def _take(self, uid: int, number: int) -> None:
        self.holders[number].remove(uid)
        self._kept[uid].discard(number)
        self._fresh[uid].discard(number)
        self._closed[self._nodes[uid].zone].discard(number)

    def _room(self, uid: int) -> int:
        return self._quotas[uid] - len(self._kept[uid]) - len(self._fresh[uid])

    def _excess(self, uid: int) -> int:
        """How far a node is above what is even enough."""
        return -self._room(uid) - self._quotas[uid] // _SLACK

    # -- the two steps -----------------------------------------------------------------------

    def fill(self) -> Steps[None]:
        """Give each partition its copies, each to the node with the most room."""
        for number in range(PARTITIONS):
            if number % _FILLED_A_STEP == 0:
                yield
            while len(self.holders[number]) < self._copies:
                able = [uid for uid in self._nodes if self._may_take(uid, number)]
                best = max(able, key=lambda uid: (self._room(uid), rank(number, uid)))
                self._put(best, number, self._fresh)

    def level(self) -> Steps[None]:
        """Pass partitions on until no node is far above its quota, or none can go on."""
        for uid in self._nodes:
            while self._excess(uid) > 0 and self._pass_on(self._chain(uid)):
                yield

    def _pass_on(self, chain: Sequence[tuple[int, int, int]]) -> bool:
        """Do it, from its end on; tell whether something was passed on."""
        for giver, taker, number in chain:
            self._take(giver, number)
            if not self._may_take(taker, number):  # Another step has put a copy into that zone.
                self._put(giver, number, self._fresh)
                return False
            self._put(taker, number, self._fresh)
        return bool(chain)

    def _chain(self, start: int) -> Sequence[tuple[int, int, int]]:
        """The way from a node to one with room that moves the least: (giver, taker, partition).

        The last step first. What a node would only get costs nothing to pass on.
        """
        came: dict[int, tuple[int, int]] = {}
        cost = {start: 0}
        waiting = deque([start])
        while waiting:
            giver = waiting.popleft()
            if self._room(giver) > 0:
                return _steps(came, start, giver)
            for taker in sorted(self._nodes, key=lambda uid: (-self._room(uid), uid)):
                for held, more in ((self._fresh, 0), (self._kept, 1)):
                    total = cost[giver] + more
                    if total >= cost.get(taker, PARTITIONS):
                        continue
                    able = self._passable(giver, taker, held[giver])
                    if able:
                        cost[taker], came[taker] = total, (giver, min(able))
                        (waiting.append if more else waiting.appendleft)(taker)
                if self._room(taker) > 0 and cost.get(taker, PARTITIONS) <= 1:
                    break  # Nothing cheaper will be found than to go there.
        return ()

    def _passable(self, giver: int, taker: int, held: set[int]) -> set[int]:
        """What of this may go from one to the other."""
        able = held - self._kept[taker] - self._fresh[taker]
        if self._nodes[giver].zone != self._nodes[taker].zone:
            able -= self._closed[self._nodes[taker].zone]
        return able


def _steps(
    came: Mapping[int, tuple[int, int]], start: int, end: int
) -> Sequence[tuple[int, int, int]]:
    steps = []
    at = end
    while at != start:
        giver, number = came[at]
        steps.append((giver, at, number))
        at = giver
    return steps
