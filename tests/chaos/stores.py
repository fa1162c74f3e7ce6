"""Nodes made by hand for checkers to look at: a store each, and all that it made visible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from chaos.sim.checkers import Acknowledged, Sighting
from chaos.sim.checkers.whole_commits import GROUP
from envd.core import digest
from envd.core.environment import Environment
from envd.core.history import Retention
from envd.core.placement import Site
from envd.core.stamp import Stamp
from envd.core.topology import TABLE, TOPOLOGY, VARIABLE, Topology
from envd.ports import Applied, StoredState
from envd.storage.memory import MemoryStore
from tests.storage.world import DIGEST_KEY, Writer

NAME = "a/b"
WHOLE = dict.fromkeys(GROUP, "v")
OTHER = 8


class Node:
    """One node with what its checkers see of it; everything it makes visible is kept."""

    def __init__(self, machine: str, uid: int, retention: Retention | None = None) -> None:
        self.store = MemoryStore(retention, node_uid=uid, digest_key=DIGEST_KEY)
        self.seen = Sighting(machine, uid, 1, self.store)
        self.writer = Writer(self.store, uid)
        self.applied: list[Applied] = []
        self.store.subscribe(self.applied.append)

    async def put(self, values: Mapping[str, str | None], name: str = NAME) -> Stamp:
        await self.writer.commit(name, values)
        return self.writer.stamps[-1]

    async def take(self, other: Node) -> None:
        """Take in all that another node has."""
        for applied in list(other.applied):
            record = applied.record
            head = self.store.head(record.commit.environment)
            before = head.environment if head else Environment(record.commit.environment)
            after = StoredState(before.apply(record.commit), b"")
            await self.store.append(record, replace(after, revision=revision_of(after)))

    async def go_by(self, topology: Topology) -> None:
        """Have this topology from now on."""
        assert topology.table is not None
        await self.put({VARIABLE: topology.encode(), TABLE: topology.table.encode()}, TOPOLOGY)


def revision_of(state: StoredState) -> bytes:
    return digest.revision(state.environment, DIGEST_KEY)


def acknowledged(node: Node, stamp: Stamp, *, safe: bool = True, at_s: float = 5.0) -> Acknowledged:
    machine, uid = node.seen.machine, node.seen.uid
    return Acknowledged(NAME, stamp, GROUP, machine, uid, safe, at_s)


async def pair() -> tuple[Node, Node]:
    """Two nodes that hold the same."""
    one, other = Node("n1", 7), Node("n2", OTHER)
    await one.put(WHOLE)
    await other.take(one)
    return one, other


def sites(uids: Iterable[int]) -> tuple[Site, ...]:
    return tuple(Site(uid) for uid in sorted(uids))


def sightings(*nodes: Node) -> list[Sighting]:
    return [node.seen for node in nodes]
