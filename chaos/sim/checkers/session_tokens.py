"""Invariant 9: session tokens hold over failover.

Who reads with the token of a write, on whichever node, is shown a state that has this write in
it, or is refused: stamps of an environment only grow, so that state is at least at the write's
stamp. A token names a record, and who loses a disk may give its numbers again before anybody
tells it: the tokens of that machine promise nothing. Nor do those of writes at or below the floor:
what such a write did may be collected, and one that came too late is on record only.
"""

from __future__ import annotations

from collections.abc import Mapping

from chaos.sim.checkers import Checker, Sighting, Violation
from chaos.sim.truth import Truth
from envd.core.answers import EnvironmentView, WriteAnswer
from envd.core.stamp import Stamp


class SessionTokens(Checker):
    """Looks at what clients are shown that read with the token of their last write."""

    name = "9 session tokens hold over failover"

    def __init__(self, truth: Truth | None = None) -> None:
        self._truth = truth or Truth()
        self._losers: set[str] = set()

    def disk_lost(self, machine: str, others: Mapping[str, Sighting], back_to_s: float) -> None:
        self._losers.add(machine)

    def read_back(
        self, machine: str, origin: str, written: WriteAnswer, view: EnvironmentView
    ) -> None:
        if Stamp.from_hex(written.stamp).hlc <= self._truth.floor.hlc:
            return
        if origin not in self._losers and view.stamp < written.stamp:
            told = f"{machine} showed {view.environment} at {view.stamp}"
            raise Violation(self.name, f"{told}, and the token is of {written.stamp}")
