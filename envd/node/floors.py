"""How far back the commits of peers are taken in, as the topology and this node's store say.

Three times matter: the floor that is agreed, the one that this node is at, and the one up to which
a round is being sealed (`core.sealing`). A node below the agreed floor is `behind`: it either has
gathered all up to there and is about to go up, or it must be filled anew.
"""

from __future__ import annotations

from collections.abc import Callable

from envd.core.sealing import NO_FLOOR, Floor, Sealing
from envd.core.stamp import MAX_HLC
from envd.core.topology import Topology
from envd.node.holdings import Holdings
from envd.ports import Store


class Floors:
    """The floors as this node knows them; `follow` is told of each topology.

    An agent has none: it forgets nothing, and nobody takes anything from it.
    """

    def __init__(
        self, store: Store, holdings: Holdings, *, is_agent: bool = False, began_empty: bool = False
    ) -> None:
        """`began_empty`: this node has nothing of its own, and is to be filled by the others."""
        self.began_empty = began_empty
        self._known = False
        self._is_agent = is_agent
        self._store = store
        self._holdings = holdings
        self.members: frozenset[int] = frozenset()
        """The storage nodes that are in the topology."""
        self._listeners: list[Callable[[], None]] = []
        self.agreed: Floor = NO_FLOOR
        self.sealing: Sealing | None = None
        self.unproven = MAX_HLC
        """The lowest time (hlc) of what was taken since the start from a node that was below it: at
        a floor above, that may be deleted and forgotten."""

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever the floor or the round is another one."""
        self._listeners.append(changed)

    def follow(self, topology: Topology | None) -> None:
        """The topology is this one now."""
        if topology is None:
            return
        self._known = True
        self.members = frozenset(site.uid for site in topology.nodes)
        before = (self.agreed, self.sealing)
        self.agreed, self.sealing = topology.floor, topology.sealing
        if (self.agreed, self.sealing) != before:
            for changed in self._listeners:
                changed()

    @property
    def own(self) -> int:
        """The floor (hlc) that this node is at."""
        return self._store.floor()

    @property
    def behind(self) -> bool:
        """Whether this node is below the floor that is agreed."""
        return self._store.floor() < self.agreed.hlc and not self._is_agent

    @property
    def sealed_to(self) -> int:
        """Up to where (hlc) this node stamps nothing."""
        return max(self.own, self.agreed.hlc, 0 if self.sealing is None else self.sealing.hlc)

    @property
    def closed_to(self) -> int:
        """Up to where (hlc) nothing that an acceptor accepted is open any more."""
        gathering = self.sealing is not None and self.sealing.gathering
        return self.sealed_to if gathering else max(self.own, self.agreed.hlc)

    def judges_below(self, partition: int) -> int:
        """At or below which time what is not here comes too late; 0 where that can't be told.

        That takes all there is of a partition.
        """
        if not self._holdings.complete(partition):
            return 0
        if not self.behind:
            return self.own
        return self.agreed.hlc if self._store.gathered() >= self.agreed.round else 0

    def passes_below(self, partition: int, floor: int = 0) -> int:
        """At or below which time a record that comes by a log is passed over here.

        Who has all of the partition has it, or judges it. `floor` (hlc) is that of who sends it:
        a node that joins may not have heard of any yet.
        """
        if self._is_agent or self.judges_below(partition):
            return 0
        return max(self.own, self.agreed.hlc, floor)

    @property
    def lacks_topology(self) -> bool:
        """Whether this node is to be filled, and does not know up to where."""
        return self.began_empty and not self._known

    def fills_from(self, floor: int) -> bool:
        """Whether something may be taken from a node that is at this floor (hlc).

        While this node is filled it takes from those at the floor alone, and before it knows that
        floor from nobody: others may have what all deleted, or be about to be filled themselves.
        """
        fills = self.began_empty and self.behind
        return not (self.lacks_topology or (fills and floor < self.agreed.hlc))

    def note_taken(self, hlc: int, floor: int) -> None:
        """Something of a time is taken from a node that is at this floor (both hlc)."""
        if hlc > floor:
            self.unproven = min(self.unproven, hlc)

    def refuses_below(self, uid: int) -> int:
        """At or below which time nothing is taken from this peer now; 0: all is.

        While a round is under way nobody asks who is not in the topology what it has. Of what comes
        from nobody (0), because this node itself accepted it, others know.
        """
        if self.sealing is None or not uid or uid in self.members:
            return 0
        return self.sealing.hlc
