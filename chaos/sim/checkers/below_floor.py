"""Invariant 4: nothing returns below a committed floor, and nothing that was there is missing.

Once the topology of any node tells of a floor:

* What any node of that topology had at or below it, each of them has, as far as it holds the
  partition: that is what was gathered.
* A node that is at the floor shows just that: what was overwritten or deleted does not come back,
  collected or not, and neither does what only a node had that was given up.
* Who stamps or applies something at or below the floor that nobody had by then is not at the floor.

Of a partition a node is judged once it has all of it. A disk that went back may take from its node
what it said that it had gathered, and then the first says nothing of that node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from chaos.sim import shares
from chaos.sim.checkers import Checker, Sighting, Violation, names_of
from chaos.sim.shares import Shares
from chaos.sim.truth import Truth
from envd.core.commit import Commit, Kind
from envd.core.environment import Environment
from envd.core.ring import partition_of
from envd.core.topology import TOPOLOGY, Topology
from envd.ports import Applied, Store

Disks = Callable[[Iterable[int]], Mapping[int, Store]]
"""What is on the disks of these nodes, by uid, running or not; of those whose disk there is."""


class BelowFloor(Checker):
    """Has a `Truth` told of what happens, and looks at nodes that are at its floor.

    It is to be told before those that ask the truth.
    """

    name = "4 nothing returns below a committed floor"

    def __init__(self, disks: Disks, raised: Callable[[Topology], None] = lambda _: None) -> None:
        """`raised` is told of each topology that has a higher floor."""
        self.truth = Truth()
        self._disks = disks
        self._raised = raised
        self._uids: dict[str, set[int]] = {}
        self._went_back: set[int] = set()
        self._members: set[int] = set()
        self._epoch = 0
        self._rounds: list[tuple[int, frozenset[int]]] = []
        """The floors (hlc), and the nodes that were in the topology that raised each."""

    @property
    def counts(self) -> Counter[str]:
        """How often the floor was raised, and what became of what came too late."""
        return self.truth.counts

    def applied(self, node: Sighting, applied: Applied) -> None:
        self._uids.setdefault(node.machine, set()).add(node.uid)
        commit = applied.record.commit
        if applied.row:
            self.truth.took(commit)
            self._look(node, commit)
        is_topology = commit.environment == TOPOLOGY
        topology = shares.decoded(applied.after.environment) if is_topology else None
        if topology is None:
            return
        if topology.epoch > self._epoch:
            self._epoch, before = topology.epoch, self._members
            self._members = {site.uid for site in topology.nodes}
            self.counts["given up"] += len(before - self._members)
        if topology.floor.hlc > self.truth.floor.hlc:
            self.rose(topology)

    def _look(self, node: Sighting, commit: Commit) -> None:
        """What comes too late is applied by nobody who is at the floor."""
        name, stamp = commit.environment, commit.stamp
        if stamp.hlc <= node.store.floor() and self.truth.late(name, stamp) is not None:
            told = f"{node.machine} took in {stamp.hex()} of {name}, below its floor"
            raise Violation(self.name, told)

    def rose(self, topology: Topology) -> None:
        """The first node heard of a topology with a higher floor."""
        disks = self._disks(site.uid for site in topology.nodes)
        known = Shares(topology)
        for commit, uids in self.truth.settle(topology.floor, disks):
            for uid in sorted(disks.keys() - uids - self._went_back):
                if known.has_all(uid, partition_of(commit.environment)):
                    told = f"{commit.stamp.hex()} of {commit.environment}"
                    raise Violation(self.name, f"{uid:016x} had not gathered {told}")
        self._rounds.append((topology.floor.hlc, frozenset(site.uid for site in topology.nodes)))
        self._raised(topology)

    def may_begin_anew(self, node: Sighting) -> bool:
        """Whether what a node has may be what others forgot, if its disk never went back.

        A floor above its own was raised without it: it was given up before, or not taken in yet.
        Where it was in the topology it gathered what there was, and can go up.
        """
        own = node.store.floor()
        return any(own < floor and node.uid not in members for floor, members in self._rounds)

    def disk_lost(self, machine: str, others: Mapping[str, Sighting], back_to_s: float) -> None:
        self._went_back |= self._uids.get(machine, set())

    # -- what is shown -------------------------------------------------------------------------

    def looked(self, nodes: Sequence[Sighting], now_s: float) -> None:
        self.ended(nodes)

    def ended(self, nodes: Sequence[Sighting]) -> None:
        floor, known = self.truth.floor.hlc, shares.of(nodes)
        for node in nodes if floor else ():
            if node.store.floor() != floor:
                continue
            for name in sorted({*names_of(node), *self.truth.names()}):
                if known.has_all(node.uid, partition_of(name)):
                    self.check_shown(node, name)

    def check_shown(self, node: Sighting, name: str) -> None:
        """Raise Violation where what a node at the floor shows is not what there is."""
        floor, truth = self.truth.floor.hlc, self.truth.state(name)
        state = node.store.visible(name)
        shown = Environment(name) if state is None else state.environment
        for kind in Kind:
            for key, entry in shown.live(kind):
                if entry.stamp.hlc > floor:
                    continue
                right = truth.entries(kind).get(key)
                if right is None or right.stamp != entry.stamp or right.value != entry.value:
                    told = f"{key} of {name} at {entry.stamp.hex()}"
                    raise Violation(self.name, f"{node.machine} shows {told} again")
            for key, right in truth.live(kind):
                there = shown.entries(kind).get(key)
                if there is not None and there.stamp >= right.stamp:
                    continue
                if shown.deleted_at < right.stamp:
                    told = f"{key} of {name} at {right.stamp.hex()}"
                    raise Violation(self.name, f"{node.machine} is at the floor and lacks {told}")
