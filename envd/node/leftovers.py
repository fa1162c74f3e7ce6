"""What a node has of partitions that it does not hold."""

from __future__ import annotations

from envd.core.ring import SYSTEM_PARTITION
from envd.node.holdings import Holdings
from envd.ports import Applied, Store


class Leftovers:
    """Looked for when the table changes, and kept up to date in between: a look takes a while."""

    def __init__(self, store: Store, holdings: Holdings) -> None:
        self._store = store
        self._holdings = holdings
        self._found: set[int] | None = None
        holdings.subscribe(self._changed)
        store.subscribe(self._applied)

    def __call__(self) -> frozenset[int]:
        """The partitions of which this node has something and that it does not hold."""
        table = self._holdings.table
        if table is None:
            return frozenset()
        if self._found is None:
            roots = self._store.roots()
            there = {at for at, root in enumerate(roots.partitions) if root} | roots.unsettled
            self._found = there - table.held_by(self._holdings.uid) - {SYSTEM_PARTITION}
        return frozenset(self._found)

    def dropped(self, partition: int) -> None:
        """There is nothing of it any more."""
        if self._found is not None:
            self._found.discard(partition)

    def _changed(self) -> None:
        self._found = None

    def _applied(self, applied: Applied) -> None:
        partition = applied.record.partition
        if self._found is not None and not self._holdings.mine(partition):
            self._found.add(partition)
