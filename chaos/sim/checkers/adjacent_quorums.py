"""Invariant 6: any two strong quorums of adjacent epochs intersect.

Of the voters, and of the deciders of each partition, in each topology that some node went by. Who
was struck because it is gone for good still counts: what it consented to may be known to nobody
else. A disk that goes back takes its votes back, and from then on nothing is said of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from chaos.sim import shares
from chaos.sim.checkers import Checker, Sighting, Violation
from envd.core.paxos import Quorum
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION
from envd.core.topology import TOPOLOGY, Topology
from envd.ports import Applied

_REMEMBERED = 50_000


class AdjacentQuorums(Checker):
    """Compares each topology with those of the epochs before and after it."""

    name = "6 quorums of adjacent epochs intersect"

    def __init__(self) -> None:
        self._known: dict[int, Topology] = {}
        self.excused = False

    def applied(self, node: Sighting, applied: Applied) -> None:
        if applied.record.commit.environment != TOPOLOGY or self.excused:
            return
        topology = shares.decoded(applied.after.environment)
        if topology is not None:
            self.look(node.machine, topology)

    def look(self, machine: str, topology: Topology) -> None:
        """Raise Violation where this one does not go with those that are known."""
        known = self._known.setdefault(topology.epoch, topology)
        if known is not topology and known != topology:
            raise Violation(self.name, f"{machine} has another topology {topology.epoch}")
        if known is not topology:
            return
        for before, after in (
            (self._known.get(topology.epoch - 1), topology),
            (topology, self._known.get(topology.epoch + 1)),
        ):
            if before is not None and after is not None:
                self._compare(before, after)

    def _compare(self, before: Topology, after: Topology) -> None:
        told = f"topologies {before.epoch} and {after.epoch}"
        if not meet(before.quorum, after.quorum):
            raise Violation(self.name, f"the voters of {told} need not meet")
        if before.table is after.table:
            return
        seen: dict[tuple[Quorum, Quorum], None] = {}
        for partition in range(PARTITIONS):
            pair = (deciders(before, partition), deciders(after, partition))
            if pair not in seen:
                seen[pair] = None
                if not meet(*pair):
                    raise Violation(
                        self.name, f"who decides partition {partition} in {told} need not meet"
                    )

    def disk_lost(self, machine: str, others: Mapping[str, Sighting], back_to_s: float) -> None:
        self.excused = self.excused or back_to_s > 0


def deciders(topology: Topology, partition: int) -> Quorum:
    """Whose consent a change of a serial environment in a partition takes."""
    if topology.table is None or partition == SYSTEM_PARTITION:
        return topology.quorum
    return topology.table.quorum(partition)


@lru_cache(_REMEMBERED)
def meet(one: Quorum, other: Quorum) -> bool:
    """Whether any two quorums of these have a node in common."""
    return all(a & b for a in _least(one) for b in _least(other))


@lru_cache(_REMEMBERED)
def _least(quorum: Quorum) -> Sequence[frozenset[int]]:
    """The smallest sets that meet a quorum."""
    found: list[frozenset[int]] = []
    members = sorted(quorum.members)
    for size in range(len(members) + 1):
        for some in map(frozenset, combinations(members, size)):
            if quorum.is_met(some) and not any(one <= some for one in found):
                found.append(some)
    return found
