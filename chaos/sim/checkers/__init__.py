"""One module for each invariant of the architecture page, each able to fail.

A checker is told of what happens (`applied`, `answered`, `read_back`, `disk_lost`), looks at the
nodes now and then in the midst of the faults (`looked`) and once after the heal (`ended`). It
raises Violation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos.sim.held import Commits
from envd.core.answers import EnvironmentView, WriteAnswer
from envd.core.stamp import Stamp
from envd.ports import Applied, Store


class Violation(Exception):
    """An invariant does not hold: which one, and what was seen."""

    def __init__(self, invariant: str, seen: str) -> None:
        super().__init__(f"invariant {invariant}: {seen}")
        self.invariant = invariant
        self.seen = seen


@dataclass(frozen=True)
class Sighting:
    """A node that is ready, as a checker sees it; `boot` counts the runs of its machine."""

    machine: str
    uid: int
    boot: int
    store: Store


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that a client was told is done.

    `names` are the variables that it set or unset, empty where that is not known; `uid` is the
    node that answered. `safe`: by the words of the promise it survives the loss of any one node.
    """

    environment: str
    stamp: Stamp
    names: tuple[str, ...]
    machine: str
    uid: int
    safe: bool
    at_s: float


class Checker:
    """What all checkers can be told; each overrides what it needs."""

    name = ""

    def applied(self, node: Sighting, applied: Applied) -> None:
        """A node made a record visible."""

    def answered(self, write: Acknowledged) -> None:
        """A client was told that a write is done."""

    def read_back(
        self, machine: str, origin: str, written: WriteAnswer, view: EnvironmentView
    ) -> None:
        """A client was shown a state by a machine that it gave the token of its own write.

        `origin` is the machine that stamped it.
        """

    def dropped(self, machine: str, partition: int, commits: Commits) -> None:
        """A node lets go of a partition, of which it had these commits."""

    def disk_lost(self, machine: str, others: Mapping[str, Sighting], back_to_s: float) -> None:
        """The disk of a machine was lost or went back to what it held at `back_to_s`.

        `others` are the nodes that were ready then.
        """

    def looked(self, nodes: Sequence[Sighting], now_s: float) -> None:
        """The nodes that are ready, now and then while there are faults."""

    def ended(self, nodes: Sequence[Sighting]) -> None:
        """All nodes, after the heal, once they had their time to converge."""


def names_of(node: Sighting) -> list[str]:
    """All environments of a node that were ever written, those that were deleted too."""
    return sorted({name for at in partitions_of(node) for name, _ in node.store.digests(at)})


def partitions_of(node: Sighting) -> list[int]:
    """The partitions that a node has records of, those that have no name too."""
    named = {partition for partition, _ in node.store.vectors()}
    return sorted(named | {at for at, root in enumerate(node.store.roots().partitions) if root})
