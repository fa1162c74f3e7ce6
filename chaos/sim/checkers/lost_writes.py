"""Invariant 3: no acknowledged, not detached write is lost.

In words: an acknowledged write survives the loss of any one node, and a detached one survives
unless that very node's disk is lost before anybody else has it, be it in quarantine. A write is
there where its commit stands in the history, and where each of its variables shows its stamp or a
later one. It must be on each node that has all of its partition. At or below the floor of a node
its store can't tell of each commit any more; `below_floor` looks at what it shows.

A write that only nodes had that were given up comes too late (`chaos.sim.truth`). Once they are
back it is on record, as a commit that salvages it, unless all that it wrote was overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chaos.sim import shares
from chaos.sim.checkers import Acknowledged, Checker, Sighting, Violation
from chaos.sim.held import held_back
from chaos.sim.truth import Truth
from envd.core.floor import salvaged
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp


class LostWrites(Checker):
    """Remembers every acknowledged write and looks for all of them at the end, on each holder."""

    name = "3 no acknowledged write is lost"

    def __init__(self, truth: Truth | None = None) -> None:
        self._truth = truth or Truth()
        self._writes: list[Acknowledged] = []
        self.excused = 0

    def answered(self, write: Acknowledged) -> None:
        self._writes.append(write)

    def disk_lost(self, machine: str, others: Mapping[str, Sighting], back_to_s: float) -> None:
        stamps = {name: Stamps(node, self._truth) for name, node in others.items()}
        kept = []
        for write in self._writes:
            lost = at_stake(write, machine, back_to_s)
            if lost and not any(held.keeps(write) for held in stamps.values()):
                self.excused += 1
            else:
                kept.append(write)
        self._writes = kept

    def ended(self, nodes: Sequence[Sighting]) -> None:
        known = shares.of(nodes)
        nowhere = dict.fromkeys(write.environment for write in self._writes)
        for node in nodes:
            held = Stamps(node, self._truth)
            for write in self._writes:
                if not known.has_all(node.uid, partition_of(write.environment)):
                    continue
                nowhere.pop(write.environment, None)
                if not held.has(write):
                    raise Violation(self.name, _told(write, node, "its commit"))
                if not held.tells_of(write):
                    continue
                if name := _not_shown(write, node):
                    raise Violation(self.name, _told(write, node, name))
        for name in nowhere:
            raise Violation(self.name, f"no node that there is has all of {name}")


def at_stake(write: Acknowledged, machine: str, back_to_s: float) -> bool:
    """Whether a write may go with the disk of a machine, unless another node has it."""
    return write.machine == machine and not write.safe and write.at_s >= back_to_s


class Stamps:
    """The stamps of the commits that a node has, read once for each environment."""

    def __init__(self, node: Sighting, truth: Truth) -> None:
        self._node = node
        self._truth = truth
        self._floor = node.store.floor()
        self._known: dict[str, tuple[frozenset[Stamp], Stamp]] = {}
        self._early = {commit.stamp for commit in held_back(node.store.quarantined())}

    def tells_of(self, write: Acknowledged) -> bool:
        """Tell whether the store has to show this write, or a later one."""
        name, stamp = write.environment, write.stamp
        return stamp.hlc > self._floor and self._truth.late(name, stamp) is None

    def has(self, write: Acknowledged) -> bool:
        """Tell whether the commit is in the history, or may be folded into its base, or was at the
        floor; and of one that came too late, whether it is on record."""
        name, stamp = write.environment, write.stamp
        late = self._truth.late(name, stamp)
        if late is None:
            return stamp.hlc <= self._floor or self._lists(name, stamp)
        if salvaged(late) is None or self._truth.overwrites(late):
            return True
        return any(self._lists(name, one) for one in self._truth.salvaging(name, stamp))

    def _lists(self, name: str, stamp: Stamp) -> bool:
        known = self._known.get(name)
        if known is None:
            store = self._node.store
            rows = frozenset(stamp for stamp, _ in store.commit_rows(name))
            known = self._known[name] = (rows, store.base(name).highest_stamp)
        stamps, trimmed = known
        return stamp in stamps or stamp <= trimmed or stamp.hlc <= self._floor

    def keeps(self, write: Acknowledged) -> bool:
        """Tell whether it has the commit, or will have it once its time has come."""
        return self.has(write) or write.stamp in self._early


def _not_shown(write: Acknowledged, node: Sighting) -> str:
    """A variable of the write that shows neither its stamp nor a later one, "" for none."""
    state = node.store.visible(write.environment)
    if state is None:
        return "its environment"
    environment = state.environment
    if environment.deleted_at >= write.stamp:
        return ""
    for name in write.names:
        entry = environment.variables.get(name)
        if (entry.stamp if entry else ZERO) < write.stamp:
            return name
    return ""


def _told(write: Acknowledged, node: Sighting, what: str) -> str:
    return (
        f"{node.machine} lacks {what} of {write.environment} at {write.stamp.hex()}, "
        f"acknowledged by {write.machine} at {write.at_s:.3f} s"
    )
