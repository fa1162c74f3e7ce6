"""Invariant 2: nodes with equal vectors of a partition have equal roots of it.

While repair is at work it holds commits that no vector tells of yet, so in the midst of faults
a difference counts once it has stood for PATIENCE_S between the same two runs of nodes; after the
heal at once. Where the flush does not cover a partition yet, or holds back records from the future,
nothing is said of it, nor where one of the two need not have all of it, nor where they are not at
the same floor, or one has something to collect there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final

from chaos.sim import shares
from chaos.sim.checkers import Checker, Sighting, Violation
from chaos.sim.collection import due_in
from envd.core.history import Retention
from envd.wire import records

PATIENCE_S: Final = 60.0
_Pair = tuple[str, int, str, int, int]


class EqualRoots(Checker):
    """Compares what the nodes themselves compare."""

    name = "2 equal vectors, equal roots"

    def __init__(self, retention: Retention | None = None) -> None:
        """`retention` is that of the nodes."""
        self._retention = retention or Retention()
        self._since: dict[_Pair, float] = {}

    def looked(self, nodes: Sequence[Sighting], now_s: float) -> None:
        differing = self._differing(nodes)
        since = {pair: self._since.get(pair, now_s) for pair in differing}
        for pair, began_s in since.items():
            if now_s - began_s > PATIENCE_S:
                raise self._violation(pair)
        self._since = since

    def ended(self, nodes: Sequence[Sighting]) -> None:
        for pair in self._differing(nodes):
            raise self._violation(pair)

    def _differing(self, nodes: Sequence[Sighting]) -> list[_Pair]:
        held = [(node, _vectors(node), node.store.roots(), _unsure(node)) for node in nodes]
        known = shares.of(nodes)
        found: list[_Pair] = []
        for (one, mine, roots, unsure), (other, theirs, others, also) in combinations(held, 2):
            for partition, vector in mine.items():
                if vector != theirs.get(partition) or partition in unsure or partition in also:
                    continue
                if roots.partitions[partition] == others.partitions[partition]:
                    continue
                if all(known.has_all(node.uid, partition) for node in (one, other)) and (
                    self._have_forgotten(one, other, partition)
                ):
                    found.append((one.machine, one.boot, other.machine, other.boot, partition))
        return found

    def _have_forgotten(self, one: Sighting, other: Sighting, partition: int) -> bool:
        """Whether both forgot the same there."""
        if one.store.floor() != other.store.floor():
            return False
        return not any(due_in(node, partition, self._retention) for node in (one, other))

    def _violation(self, pair: _Pair) -> Violation:
        one, _, other, _, partition = pair
        return Violation(
            self.name, f"{one} and {other} agree on the vector of partition {partition} only"
        )


def _unsure(node: Sighting) -> frozenset[int]:
    """The partitions of which its root does not say all yet."""
    held_back = (records.open_log_row(row)[0] for row in node.store.quarantined())
    return frozenset(node.store.roots().unsettled).union(held_back)


def _vectors(node: Sighting) -> dict[int, dict[int, int]]:
    """Origin -> seq by partition, partitions in order."""
    found: dict[int, dict[int, int]] = {}
    for (partition, origin), seq in sorted(node.store.vectors().items()):
        if seq:
            found.setdefault(partition, {})[origin] = seq
    return found
