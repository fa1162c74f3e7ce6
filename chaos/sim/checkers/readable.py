"""Who is read from has everything, and what is let go of is on who holds it.

Three things, of clusters in which not every node holds everything:

* A node that begins to be read from has what it was to pull. Of a partition of n holders it pulls
  from a majority, so whatever n minus that majority and one more of them had when the move came to
  its stage `STREAMING`, it has when it comes to `READ_NEW`.
* Each partition with acknowledged writes has somebody to be read from, and whoever is read from has
  them all within PATIENCE_S, faults or not.
* What a node drops is on the disk of one that gets the writes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from chaos.sim import shares
from chaos.sim.checkers import Acknowledged, Checker, Sighting, Violation, names_of
from chaos.sim.checkers.lost_writes import Stamps, at_stake
from chaos.sim.held import Commits, Held
from chaos.sim.truth import Truth
from envd.core.partitions import PartitionTable, Stage
from envd.core.ring import partition_of
from envd.core.stamp import Stamp
from envd.core.topology import TOPOLOGY, Topology
from envd.ports import Applied

PATIENCE_S: Final = 120.0


class Readable(Checker):
    """`nodes` gives the nodes that are ready now."""

    name = "a partition is readable from its readers"

    def __init__(self, nodes: Callable[[], Sequence[Sighting]], truth: Truth | None = None) -> None:
        self._nodes = nodes
        self._truth = truth or Truth()
        self._epoch = 0
        self._expected: dict[tuple[int, int], Commits] = {}
        """By partition and the epoch of its move, what who is to be read from must have."""
        self._writes: list[Acknowledged] = []
        self._seen: dict[tuple[str, Stamp], set[int]] = {}
        self._lacks: dict[tuple[int, str, Stamp], float] = {}

    def answered(self, write: Acknowledged) -> None:
        self._writes.append(write)

    def disk_lost(self, machine: str, others: Mapping[str, Sighting], back_to_s: float) -> None:
        """What was there may be there no more, and a write of which nobody has a copy is lost."""
        self._expected.clear()
        self._seen.clear()
        stamps = [Stamps(node, self._truth) for node in others.values()]
        self._writes = [
            write
            for write in self._writes
            if not at_stake(write, machine, back_to_s) or any(one.keeps(write) for one in stamps)
        ]

    # -- a move ------------------------------------------------------------------------------

    def applied(self, node: Sighting, applied: Applied) -> None:
        if applied.record.commit.environment != TOPOLOGY:
            return
        topology = shares.decoded(applied.after.environment)
        if topology is not None and topology.table is not None and topology.epoch > self._epoch:
            self._epoch = topology.epoch
            self.moved(topology)

    def moved(self, topology: Topology) -> None:
        """The first node heard of a topology: note what is to be pulled, and see what was."""
        table = topology.table
        if table is None or not table.moves:
            return
        nodes = self._nodes()
        names: dict[int, set[str]] = {}
        for node in nodes:
            for name in names_of(node):
                names.setdefault(partition_of(name), set()).add(name)
        for partition, move in table.moves.items():
            key = (partition, move.epoch)
            if move.stage is Stage.STREAMING and key not in self._expected:
                here = sorted(names.get(partition, ()))
                self._expected[key] = _on_enough(table, partition, here, nodes)
            elif move.stage is Stage.READ_NEW:
                new = set(move.to) - set(table.holders[partition])
                self._check_pulled(self._expected.pop(key, {}), new, nodes)

    def _check_pulled(
        self, expected: Commits, uids: Iterable[int], nodes: Sequence[Sighting]
    ) -> None:
        for node in nodes:
            if node.uid not in uids:
                continue
            for name, stamps in expected.items():
                missing = stamps - _stamps(node, name)
                missing = frozenset(one for one in missing if one.hlc > node.store.floor())
                if missing and max(missing) > node.store.base(name).highest_stamp:
                    told = f"{node.machine} is to be read from and lacks {len(missing)} commits"
                    raise Violation(self.name, f"{told} to {name}")

    # -- all the while -------------------------------------------------------------------------

    def looked(self, nodes: Sequence[Sighting], now_s: float) -> None:
        known = shares.of(nodes)
        if known.table is None:
            return
        lacks: dict[tuple[int, str, Stamp], float] = {}
        for node in nodes:
            held = Stamps(node, self._truth)
            for write in self._writes:
                if self._truth.late(write.environment, write.stamp) is not None:
                    continue  # It comes to be on record once who has it is back.
                partition = partition_of(write.environment)
                readers = known.table.readers(partition)
                if not readers:
                    raise Violation(self.name, f"nobody may be read from of {write.environment}")
                seen = self._seen.setdefault((write.environment, write.stamp), set())
                if node.uid not in readers or node.uid in seen:
                    continue
                if held.keeps(write):
                    seen.add(node.uid)
                    continue
                key = (node.uid, write.environment, write.stamp)
                since = lacks[key] = self._lacks.get(key, now_s)
                if now_s - since > PATIENCE_S:
                    told = f"{node.machine} is read from and lacks {write.stamp.hex()}"
                    raise Violation(self.name, f"{told} of {write.environment}")
        self._lacks = lacks


def _on_enough(
    table: PartitionTable, partition: int, names: Iterable[str], nodes: Sequence[Sighting]
) -> Commits:
    """The commits that are on so many holders that some of each majority has them."""
    holders = table.holders[partition]
    enough = (len(holders) + 1) // 2
    found = {}
    for name in names:
        counts: dict[Stamp, int] = {}
        for node in nodes:
            if node.uid in holders:
                for stamp in _stamps(node, name):
                    counts[stamp] = counts.get(stamp, 0) + 1
        found[name] = frozenset(stamp for stamp, count in counts.items() if count >= enough)
    return found


def _stamps(node: Sighting, name: str) -> frozenset[Stamp]:
    return frozenset(stamp for stamp, _ in node.store.commit_rows(name))


class Dropped(Checker):
    """`kept` gives what is on the disks of all nodes but one, by uid, running or not."""

    name = "a node drops nothing that the holders don't have"

    def __init__(
        self,
        nodes: Callable[[], Sequence[Sighting]],
        kept: Callable[[str], Mapping[int, Held]],
    ) -> None:
        self._nodes = nodes
        self._kept = kept
        self.count = 0

    def dropped(self, machine: str, partition: int, commits: Commits) -> None:
        """A node lets go of these commits to the environments of a partition."""
        self.count += 1
        table = shares.of(self._nodes()).table
        if table is None:
            raise Violation(self.name, f"{machine} dropped {partition}, and every node holds it")
        holders = set(table.writers(partition))
        others = [held for uid, held in self._kept(machine).items() if uid in holders]
        for name, stamps in sorted(commits.items()):
            for stamp in sorted(stamps):
                if not any(other.has_all(name, frozenset((stamp,))) for other in others):
                    told = f"{machine} dropped {stamp.hex()} of {name}"
                    raise Violation(self.name, f"{told}, and no holder has it")
