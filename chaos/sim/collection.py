"""Whether nodes are at the floor and have forgotten what is to be forgotten there.

Nodes with the same commits are equal once they are at the same floor and each has collected what is
due; until then some may still have what others let go of.
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.sim import shares
from chaos.sim.checkers import Sighting, names_of
from envd.core.floor import collected, is_empty
from envd.core.history import Retention
from envd.core.ring import partition_of
from envd.ports import Store

_ALL = 1_000_000


def is_due(store: Store, name: str, retention: Retention) -> bool:
    """Whether there is something to collect in an environment at the floor of this node."""
    floor, state = store.floor(), store.visible(name)
    if not floor or state is None:
        return False
    commits = store.commits(name, None, _ALL)[::-1]
    left = collected(state.environment, store.base(name), commits, floor, retention.of(name))
    return left.changes or (is_empty(left.environment) and is_empty(left.base) and not commits)


def due_in(node: Sighting, partition: int, retention: Retention) -> bool:
    """Whether there is something to collect in a partition."""
    names = (name for name, _ in node.store.digests(partition))
    return any(is_due(node.store, name, retention) for name in names)


def unforgotten(nodes: Sequence[Sighting], retention: Retention) -> str:
    """Why there is more to be forgotten, or not the same everywhere, "" where all is done.

    Nobody is below the floor that is agreed, and all is collected that can be there.
    """
    known = shares.of(nodes)
    floor = 0 if known.topology is None else known.topology.floor.hlc
    for node in nodes:
        if node.store.floor() != floor:
            return f"{node.machine} is at the floor {node.store.floor()}, and agreed is {floor}"
    for node in nodes if floor else ():
        for name in names_of(node):
            if known.has_all(node.uid, partition_of(name)) and is_due(node.store, name, retention):
                return f"{node.machine} has something to collect of {name}"
    return ""
