"""Invariant 7: a commit is never partly applied.

Clients always write the three variables of GROUP together and with one value, so whatever a
reader sees, on any node, at any moment, the three are equal or all absent. And each
visible state is exactly the base of its history with the commits that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from chaos.sim import shares
from chaos.sim.checkers import Checker, Sighting, Violation
from envd.core.environment import Environment
from envd.core.history import state_at
from envd.core.stamp import MAX_HLC, Stamp
from envd.ports import Applied

GROUP: Final = ("GROUP_A", "GROUP_B", "GROUP_C")
_LAST: Final = Stamp((1 << 32) - 1, MAX_HLC, (1 << 64) - 1)
_ALL: Final = 1_000_000
_AT_ONCE: Final = 2


class WholeCommits(Checker):
    """Looks at every state that becomes visible, and at histories by samples."""

    name = "7 a commit is never partly applied"

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def applied(self, node: Sighting, applied: Applied) -> None:
        after, commit = applied.after.environment, applied.record.commit
        self.check_group(node.machine, after)
        if not applied.row or after.deleted_at >= commit.stamp:
            return  # a base that was merged in has many stamps
        for change in commit.changes:
            entry = after.entries(change.kind).get(change.name)
            if entry is None or entry.stamp < commit.stamp:
                told = f"{change.name} of {commit.environment} at {commit.stamp.hex()}"
                raise Violation(self.name, f"{node.machine} left out {told}")

    def check_group(self, machine: str, state: Environment) -> None:
        """Raise Violation where the variables that are always written together differ."""
        entries = [state.variables.get(name) for name in GROUP]
        if len({entry.value if entry else None for entry in entries}) > 1:
            raise Violation(self.name, f"{machine} shows a part of a commit to {state.name}")

    def looked(self, nodes: Sequence[Sighting], now_s: float) -> None:
        for node in nodes:
            listed = node.store.environments("", "", _ALL)
            for one in self._chance.sample(listed, min(_AT_ONCE, len(listed))):
                self.check_history(node, one.environment)

    def ended(self, nodes: Sequence[Sighting]) -> None:
        for node in nodes[:1] if shares.of(nodes).table is None else nodes:
            for listed in node.store.environments("", "", _ALL):
                self.check_history(node, listed.environment)

    def check_history(self, node: Sighting, name: str) -> None:
        """Raise Violation where the state is not what the history makes, at any commit of it."""
        commits = node.store.commits(name, None, _ALL)[::-1]
        state = node.store.base(name)
        for commit in commits:
            state = state.apply(commit)
            self.check_group(f"{node.machine}, at {commit.stamp.hex()},", state)
        visible = node.store.visible(name)
        if visible is None or state_at(state, (), _LAST) != visible.environment:
            raise Violation(self.name, f"{node.machine}: {name} is not what its history makes")
