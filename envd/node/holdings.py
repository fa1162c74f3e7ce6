"""Which partitions this node and its peers hold, as the topology says now.

Until a topology has a partition table (`core.partitions`), every storage node holds everything, and
so is the partition of the system's own environments held always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envd.core.partitions import PartitionTable
from envd.core.ring import SYSTEM_PARTITION


class Holdings:
    """The holdings as this node, `uid`, knows them; `follow` is told of each table.

    `placed` is the table of the topology, `table` the one by which this node goes: None for an
    agent, whose copy is of everything.
    """

    def __init__(self, uid: int, *, is_agent: bool = False) -> None:
        self.uid = uid
        self.placed: PartitionTable | None = None
        self.table: PartitionTable | None = None
        self._is_agent = is_agent
        self._gained: frozenset[int] = frozenset()
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever the table is another one."""
        self._listeners.append(changed)

    def follow(self, table: PartitionTable | None) -> None:
        """The topology has this table now."""
        if table == self.placed:
            return
        self.placed = table
        self.table = table = None if self._is_agent else table
        self._gained = frozenset() if table is None else table.gained_by(self.uid)
        for changed in self._listeners:
            changed()

    @property
    def whole(self) -> bool:
        """Whether every storage node holds everything."""
        return self.table is None

    def holds(self, uid: int, partition: int) -> bool:
        """Whether the writes to a partition go to a storage node."""
        return (
            self.table is None
            or partition == SYSTEM_PARTITION
            or uid in self.table.writers(partition)
        )

    def mine(self, partition: int) -> bool:
        """Whether the writes to a partition come here."""
        return self.holds(self.uid, partition)

    def writers(self, partition: int) -> Sequence[int] | None:
        """To whom the writes to a partition go; None: to every storage node."""
        if self.table is None or partition == SYSTEM_PARTITION:
            return None
        return self.table.writers(partition)

    def readers(self, partition: int) -> Sequence[int] | None:
        """Who has all of a partition, the preferred one first; None: every storage node."""
        if self.table is None or partition == SYSTEM_PARTITION:
            return None
        return self.table.readers(partition)

    def readable(self, partition: int) -> bool:
        """Whether this node has all of a partition."""
        readers = self.readers(partition)
        return readers is None or self.uid in readers

    def gaining(self, partition: int) -> bool:
        """Whether this node gets the writes to a partition, and lacks what was before them."""
        return partition in self._gained

    def complete(self, partition: int) -> bool:
        """Whether this node gets the writes to a partition, and has what was before."""
        return self.mine(partition) and partition not in self._gained

    def brings(self, uid: int, partition: int) -> bool:
        """Whether a node is to be brought a record of others that it lacks: not while it pulls."""
        return self.holds(uid, partition) and (
            self.table is None or not self.table.gains(uid, partition)
        )

    def both(self, uid: int) -> frozenset[int] | None:
        """The partitions whose writes go to this node and to a peer; None: every one."""
        if self.placed is None:
            return None
        both = self.placed.held_by(uid)
        if self.table is not None:
            both &= self.table.held_by(self.uid)
        return both | {SYSTEM_PARTITION}

    def common(self, uid: int) -> frozenset[int] | None:
        """The partitions of which this node and a peer have all; None: every one."""
        both = self.both(uid)
        if self.placed is None or both is None:
            return None
        return both - self._gained - self.placed.gained_by(uid)
