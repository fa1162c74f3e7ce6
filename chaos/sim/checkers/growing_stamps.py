"""Invariant 8: the stamps that a node gives strictly grow, over crashes and clock jumps too.

Their clock readings do: the era in front of them is the environment's. A commit of a serial
environment is stamped before it is chosen, and logged after what was stamped meanwhile, so it is
looked at alone: no other commit has its reading.

And a name `(partition, origin, seq)` means one commit wherever it is seen. A disk that went back
to an older state may repeat itself until its node meets another; what it gave meanwhile is for
the invariant about lost writes.
"""

from __future__ import annotations

from collections.abc import Mapping

from chaos.sim.checkers import Checker, Sighting, Violation
from envd.core.commit import Commit
from envd.core.stamp import ZERO, Stamp
from envd.ports import Applied


class GrowingStamps(Checker):
    """Watches the own records of each node in the order of its log."""

    name = "8 a node's stamps strictly grow"

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._given: dict[tuple[int, int], tuple[str, Stamp]] = {}
        self._names: dict[tuple[int, int, int], Stamp] = {}
        self._uids: dict[str, set[int]] = {}
        self._went_back: set[int] = set()

    def applied(self, node: Sighting, applied: Applied) -> None:
        record, stamp = applied.record, applied.record.commit.stamp
        self._uids.setdefault(node.machine, set()).add(node.uid)
        if not record.origin or record.origin in self._went_back:
            return
        name = (record.partition, record.origin, record.seq)
        known = self._names.setdefault(name, stamp)
        if known != stamp:
            told = f"{name} is {known.hex()} and on {node.machine} {stamp.hex()}"
            raise Violation(self.name, told)
        if record.origin == node.uid == stamp.node_uid:
            self._look(node, record.commit)

    def _look(self, node: Sighting, commit: Commit) -> None:
        stamp = commit.stamp
        last = self._last.get(node.uid, 0)
        if commit.follows == ZERO:
            if stamp.hlc <= last:
                told = f"{node.machine} gave {stamp.hex()} after the reading {last}"
                raise Violation(self.name, told)
            self._last[node.uid] = stamp.hlc
        place = (commit.environment, stamp)
        if self._given.setdefault((node.uid, stamp.hlc), place) != place:
            raise Violation(self.name, f"{node.machine} gave the reading of {stamp.hex()} twice")

    def disk_lost(self, machine: str, others: Mapping[str, Sighting], back_to_s: float) -> None:
        self._went_back |= self._uids.get(machine, set())
