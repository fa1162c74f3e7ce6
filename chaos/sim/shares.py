"""Who is to hold what, as the nodes of a run know it: by their topologies.

A checker judges a node by the newest topology that any node has; where that has no partition table,
each node is to hold everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from chaos.sim.checkers import Sighting
from envd.core import partitions
from envd.core.environment import Environment
from envd.core.partitions import PartitionTable
from envd.core.paxos import Quorum
from envd.core.ring import SYSTEM_PARTITION, partition_of
from envd.core.topology import TABLE, TOPOLOGY, VARIABLE, Topology, decode
from envd.ports import Store

_REMEMBERED = 64
_ALL = 1_000_000


@dataclass(frozen=True)
class Shares:
    """By one topology; None: nothing is known of any."""

    topology: Topology | None

    @property
    def table(self) -> PartitionTable | None:
        return None if self.topology is None else self.topology.table

    def has_all(self, uid: int, partition: int) -> bool:
        """Whether a node has all of a partition, and may be read from."""
        table = self.table
        return table is None or partition == SYSTEM_PARTITION or uid in table.readers(partition)

    def read_by(self, uid: int) -> frozenset[int] | None:
        """The partitions of which a node has all; None: every one."""
        table = self.table
        if table is None:
            return None
        return frozenset(at for at in table.held_by(uid) if uid in table.readers(at)) | {
            SYSTEM_PARTITION
        }

    def quorums(self) -> frozenset[Quorum]:
        """Those of the voters, and of who decides about each partition."""
        if self.topology is None:
            return frozenset()
        found = {self.topology.quorum}
        if self.table is not None:
            moving = {self.table.quorum(at) for at in self.table.moves}
            still = {Quorum((frozenset(row),)) for row in set(self.table.holders) if row}
            found |= moving | still
        return frozenset(found)

    def is_placed(self, nodes: Sequence[Sighting]) -> bool:
        """Whether there is a table, and all is where it is to be."""
        return self.table is not None and not self.unsettled(nodes)

    def unsettled(self, nodes: Sequence[Sighting]) -> str:
        """Why it is not as it is to stay yet, "" where it is, or where each holds everything."""
        table = self.table
        if table is None:
            return ""
        if table.moves or table.waiting:
            return f"{len(table.moves) + table.waiting} partitions are on their way"
        if few := table.under_replicated([node.uid for node in nodes]):
            return f"{few} partitions have too few copies"
        for node in nodes:
            if kept := sorted(at for at in something_of(node) if not self.has_all(node.uid, at)):
                return f"{node.machine} has something of partition {kept[0]}, which is not its own"
        return ""


def listed(nodes: Sequence[Sighting], asked: Sighting) -> dict[str, str]:
    """The revisions of all environments, as a node that is asked is to tell them."""
    known = of(nodes)
    return {
        one.environment: one.revision
        for node in ([asked] if known.table is None else nodes)
        for one in node.store.environments("", "", _ALL)
        if known.has_all(node.uid, partition_of(one.environment))
    }


def own(store: Store) -> Shares:
    """By the topology that a node has."""
    state = store.visible(TOPOLOGY)
    return Shares(None if state is None else decoded(state.environment))


def newest(stores: Iterable[Store]) -> Shares:
    """By the newest topology that any of them has."""
    found = [shares.topology for shares in map(own, stores) if shares.topology is not None]
    return Shares(max(found, key=lambda topology: topology.epoch, default=None))


def of(nodes: Iterable[Sighting]) -> Shares:
    """By the newest topology that any of these nodes has."""
    return newest(node.store for node in nodes)


def decoded(environment: Environment) -> Topology | None:
    """The topology in its environment; what was decoded lately is not decoded again."""
    entries = (environment.variables.get(name) for name in (VARIABLE, TABLE))
    text, rows = (None if entry is None else entry.value for entry in entries)
    return None if text is None else _decoded(text, rows)


@lru_cache(_REMEMBERED)
def _decoded(text: str, rows: str | None) -> Topology:
    table = None if rows is None else partitions.decode(rows)
    return replace(decode(text), table=table)


def something_of(node: Sighting) -> frozenset[int]:
    """The partitions of which a node has something."""
    roots = node.store.roots()
    there = {at for at, root in enumerate(roots.partitions) if root}
    return frozenset(there | set(roots.unsettled))
