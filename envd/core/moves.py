"""How the moves of partitions go on: what may begin, what is done in each stage, what is in vain.

Functions of the table and of what each node told of itself; `core.partitions` has the stages. Who
governs asks the nodes and writes what these say into the topology. A node that can't be asked is
not waited for where that is safe:

* It knows no new epoch: what it takes for a partition meanwhile goes to holders of before, who
  hand it on. So it is enough that every node which can be asked knows.
* It is to get a partition: nobody reads from it before it has it, so that is waited for, or the
  move is given up.
* It has a partition and is to have it further on: it takes over what the others chose as new
  holders do, because old majorities need not have a node in common with those of the new holders;
  it is enough that a majority of the new ones has.
* It is to let go: it does so once it is back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from envd.core.partitions import ANYWHERE, Holders, Move, PartitionTable, Stage, placing
from envd.core.placement import Site, Steps, Table

MOST_MOVING: Final = 512
"""So many partitions move at once: few enough that their moves are soon done, or given up."""


class Progress(NamedTuple):
    """What a node tells of itself: the epoch that it knows, and which partitions it `pulled`.

    Those for the moves that are under way in that epoch. `kept` are those of which it has something
    and that it does not hold.
    """

    epoch: int
    pulled: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()


# -- where to ----------------------------------------------------------------------------------


def is_partial(sites: Iterable[Site], copies: Mapping[str, int]) -> bool:
    """Whether, with so many copies, there is a node that does not hold everything."""
    regions = Counter(site.region for site in sites)
    anywhere = copies.get(ANYWHERE)
    if anywhere is not None:
        return 0 < anywhere < regions.total()
    return any(copies.get(region, 0) < count for region, count in regions.items())


def planning(
    table: PartitionTable, sites: Iterable[Site], copies: Mapping[str, int]
) -> Steps[Table]:
    """The rows that the table should have, in steps; what could be nowhere stays where it is."""
    rows = yield from placing(sites, copies, table.targets)
    return [row or before for row, before in zip(rows, table.targets, strict=True)]


def to_move(table: PartitionTable, rows: Table) -> Mapping[int, Holders]:
    """Those that are, or are to be, elsewhere than in these rows."""
    return {
        partition: row
        for partition, (row, target) in enumerate(zip(rows, table.targets, strict=True))
        if row and set(row) != set(target)
    }


def to_begin(
    table: PartitionTable, wanted: Mapping[int, Holders], able: Collection[int]
) -> Mapping[int, Holders]:
    """Which of these moves may begin now: those of the fewest copies first, as many as may be.

    Only to nodes that are `able`; another one is waited for before the move begins.
    """
    room = MOST_MOVING - len(table.moves)
    ready = [
        partition
        for partition, row in wanted.items()
        if partition not in table.moves
        and all(uid in able for uid in row if uid not in table.holders[partition])
    ]
    ready.sort(key=lambda at: (sum(uid in able for uid in table.holders[at]), at))
    return {partition: wanted[partition] for partition in ready[: max(room, 0)]}


# -- how far -----------------------------------------------------------------------------------


def due(
    table: PartitionTable, epoch: int, able: Collection[int], told: Mapping[int, Progress]
) -> frozenset[int]:
    """The partitions whose moves may go to their next stage, in the topology of this `epoch`.

    `able` are the storage nodes that can be reached, and `told` what those said that answered.
    """
    current = {uid: progress for uid, progress in told.items() if progress.epoch >= epoch}
    all_know = all(uid in current for uid in able)
    return frozenset(
        partition
        for partition, move in table.moves.items()
        if _is_done(partition, move, table.holders[partition], able, current, all_know=all_know)
    )


def _is_done(
    partition: int,
    move: Move,
    holders: Holders,
    able: Collection[int],
    current: Mapping[int, Progress],
    *,
    all_know: bool,
) -> bool:
    match move.stage:
        case Stage.WRITE_BOTH | Stage.READ_NEW:
            return all_know
        case Stage.STREAMING:
            have = {uid for uid in move.to if uid in current and partition in current[uid].pulled}
            new = {uid for uid in move.to if uid not in holders}
            awaited = new.union(uid for uid in move.to if uid in able)
            return awaited <= have and 2 * len(have) > len(move.to)
        case Stage.USE_NEW:
            former = [uid for uid in holders if uid not in move.to and uid in able]
            return all(uid in current and partition not in current[uid].kept for uid in former)


def in_vain(
    table: PartitionTable, staying: Collection[int], lost: Collection[int]
) -> frozenset[int]:
    """The moves to give up: to a node that leaves, or to a new one that is lost, as far as one can.

    What is read from its new holders already is moved on from there.
    """
    return frozenset(
        partition
        for partition, move in table.moves.items()
        if move.stage < Stage.READ_NEW
        and any(
            uid not in staying or (uid in lost and uid not in table.holders[partition])
            for uid in move.to
        )
    )


def to_pull(table: PartitionTable, uid: int) -> Mapping[int, Move]:
    """The moves for which a node is to have all that the old holders have, now."""
    return {
        partition: move
        for partition, move in table.moves.items()
        if move.stage is Stage.STREAMING and uid in move.to
    }


def has_enough(move_holders: Holders, pulled_from: Collection[int]) -> bool:
    """Whether pulled from these, a majority of the old holders, a node has all there is.

    Where all old holders are gone for good, nothing is left to pull.
    """
    found = sum(uid in pulled_from for uid in move_holders)
    return not move_holders or 2 * found > len(move_holders)
