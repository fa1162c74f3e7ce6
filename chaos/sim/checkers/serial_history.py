"""Invariant 5 and what it is for: a serial environment is one copy, one write at a time.

At each place of a chain all nodes log the same commit, and what clients were told is linearizable.
That holds as long as acceptors keep what they promised: a disk that goes back to an older state
under the same node takes a vote back, and is no longer told from one that never gave it. From then
on nothing is said of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from chaos.sim.checkers import Checker, Sighting, Violation
from chaos.sim.linearizability import Outcome, SerialOperation, check_serial
from envd.core.stamp import ZERO, Stamp
from envd.ports import Applied

Operations = Callable[[str, Sequence[Sighting]], Sequence[SerialOperation]]
"""(environment, nodes) -> all that clients were told of it."""


class SerialHistory(Checker):
    """`operations` gives what clients were told of each of `environments`."""

    name = "5 one value at each place, and serial histories"

    def __init__(self, environments: Sequence[str], operations: Operations) -> None:
        self._environments = environments
        self._operations = operations
        self._chosen: dict[tuple[str, Stamp], Stamp] = {}
        self.excused = False
        self.undecided = 0

    def applied(self, node: Sighting, applied: Applied) -> None:
        commit = applied.record.commit
        if commit.follows == ZERO or self.excused:
            return
        place = (commit.environment, commit.follows)
        known = self._chosen.setdefault(place, commit.stamp)
        if known != commit.stamp:
            told = f"{commit.stamp.hex()} on {node.machine} and {known.hex()} elsewhere"
            raise Violation(self.name, f"{told} both follow {commit.follows.hex()}")

    def disk_lost(self, machine: str, others: Mapping[str, Sighting], back_to_s: float) -> None:
        self.excused = self.excused or back_to_s > 0

    def ended(self, nodes: Sequence[Sighting]) -> None:
        if self.excused:
            return
        for environment in self._environments:
            verdict = check_serial(self._operations(environment, nodes))
            self.undecided += verdict.outcome is Outcome.UNDECIDED
            if verdict.outcome is Outcome.VIOLATED:
                raise Violation(self.name, f"{environment}: {verdict.account}")
