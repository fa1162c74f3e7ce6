"""What must hold of partitions: few move, loads are even, copies are equal, nothing is left behind.

Tables are of one epoch each. Shares are counted in copies of partitions: a table of 4095 partitions
with 3 copies each has 12,285 of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from chaos.live.checkers import Verdict, some
from chaos.live.disks import Disk
from envd.core.partitions import PartitionTable, Stage
from envd.core.ring import SYSTEM_PARTITION

MOST_OF_IDEAL: Final = 1.2
MOST_OF_MEAN: Final = 1.05


def moved(before: PartitionTable, after: PartitionTable) -> int:
    """How many copies are on nodes that had none of that partition before."""
    rows = zip(before.targets, after.targets, strict=True)
    return sum(len(set(new) - set(old)) for old, new in rows)


def few_moved(what: str, before: PartitionTable, after: PartitionTable, changed: int) -> Verdict:
    """That hardly more moved than had to for a node that came or went.

    The least is what that node (its uid is `changed`) holds when it is there: for one that comes
    its even share, for one that goes all that it had.
    """
    has_come = changed in after.loads()
    total, nodes = after.loads().total(), len(after.loads())
    ideal = total / nodes if has_come else before.loads()[changed]
    count = moved(before, after)
    ratio = count / ideal if ideal else float("inf")
    seen = f"{count:,} of {total:,} copies moved, {ratio:.3f} x the ideal {ideal:,.0f}"
    return Verdict(what, 0 < ratio <= MOST_OF_IDEAL, seen)


def even(what: str, table: PartitionTable) -> Verdict:
    """That no node holds much more than the others."""
    loads = table.loads()
    ratio = unevenness(loads)
    spread = f"{min(loads.values()):,} to {max(loads.values()):,} partitions" if loads else "none"
    return Verdict(
        what,
        bool(loads) and ratio <= MOST_OF_MEAN,
        f"max/mean {ratio:.3f} over {len(loads)} nodes ({spread})",
    )


def unevenness(loads: Counter[int]) -> float:
    """The load of the fullest node, as a share of the mean one."""
    return max(loads.values()) * len(loads) / loads.total() if loads else 0.0


def whole(table: PartitionTable, copies: int) -> Verdict:
    """That each partition is on so many nodes, and none is on its way."""
    counts = Counter(len(row) for at, row in enumerate(table.holders) if at != SYSTEM_PARTITION)
    told = ", ".join(f"{count:,} with {size}" for size, count in sorted(counts.items()))
    ended = not table.moves and not table.waiting
    also = "" if ended else f"; {len(table.moves)} still move, {table.waiting} wait"
    return Verdict(
        f"all moves end, and each partition has {copies} copies",
        ended and set(counts) == {copies},
        f"{told}{also}",
    )


def equal_copies(table: PartitionTable, disks: Mapping[str, Disk]) -> Verdict:
    """That all copies of a partition are equal on the disks of those that hold it."""
    what = "all copies are equal on the disks of their holders"
    by_uid = {disk.uid: (name, disk) for name, disk in disks.items()}
    unlike, filled = [], 0
    for at, row in enumerate(table.holders):
        roots = {by_uid[uid][1].roots.get(at, 0) for uid in row if uid in by_uid}
        absent = [uid for uid in row if uid not in by_uid]
        if len(roots) > 1 or absent:
            unlike.append(f"partition {at}")
        filled += any(roots)
    if unlike:
        return Verdict(what, holds=False, seen=f"{len(unlike)} differ: {some(unlike)}")
    return Verdict(what, bool(filled), f"{filled} partitions with something in them, none differs")


def nothing_besides(table: PartitionTable, disks: Mapping[str, Disk]) -> Verdict:
    """That no node has anything of a partition that it does not hold."""
    left = {
        name: sorted(disk.roots.keys() - table.held_by(disk.uid)) for name, disk in disks.items()
    }
    told = [f"{name} has {len(each)}" for name, each in left.items() if each]
    seen = some(told) if told else f"none on {len(disks)} disks"
    return Verdict("no disk has partitions that are not its own", bool(disks) and not told, seen)


def nothing_left(name: str, before: int, disk: Disk) -> Verdict:
    """That a node which left has nothing of the partitions any more; it had so many of them."""
    seen = f"{before:,} partitions before, {len(disk.roots)} on its disk now"
    seen += f", {disk.environments} environments"
    holds = before > 0 and not disk.roots and not disk.environments
    return Verdict(f"the disk of {name}, which left, holds nothing of the partitions", holds, seen)


def in_order(tables: Sequence[PartitionTable]) -> Verdict:
    """That between an epoch and the next moves begin at their first stage, and skip none."""
    odd: list[str] = []
    stages = Counter[Stage]()
    for before, after in pairwise(tables):
        for at, move in after.moves.items():
            known = before.moves.get(at)
            goes_on = known is not None and known.epoch == move.epoch
            least = known.stage if known is not None and goes_on else 0
            stages[move.stage] += move.stage > least
            if not least <= move.stage <= least + 1:
                odd.append(f"partition {at} came to {move.stage.name} from {least}")
        odd += [
            f"partition {at} went over from {move.stage.name}"
            for at, move in before.moves.items()
            if _went_over(before, after, at) and move.stage is not Stage.USE_NEW
        ]
    told = ", ".join(f"{stages[stage]:,} {stage.name.lower()}" for stage in Stage)
    seen = f"{len(odd)}: {some(odd)}" if odd else f"{len(tables)} epochs: {told}"
    return Verdict("every move goes through all stages, in order", bool(stages) and not odd, seen)


def _went_over(before: PartitionTable, after: PartitionTable, partition: int) -> bool:
    """Whether a move came to its end, rather than being given up."""
    to, old, new = (
        set(row)
        for row in (
            before.moves[partition].to,
            before.holders[partition],
            after.holders[partition],
        )
    )
    return partition not in after.moves and new == to != old


def spread_over(zones: Mapping[int, str], table: PartitionTable) -> Verdict:
    """That the copies of a partition are in different zones; by uid where each node is."""
    unlike = [
        f"partition {at}"
        for at, row in enumerate(table.holders)
        if at != SYSTEM_PARTITION
        and (not row or len({zones[uid] for uid in row if uid in zones}) != len(row))
    ]
    seen = f"{len(unlike)} are not: {some(unlike)}" if unlike else f"{len(table.holders) - 1:,}"
    what = "the copies of each partition are in different zones"
    return Verdict(what, bool(zones) and not unlike, seen)
