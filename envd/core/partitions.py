"""The partition table: which nodes hold which partition, and the moves that are under way.

A partition goes over from some nodes to others in stages, each an epoch of the topology:

1. `WRITE_BOTH`: writes go to the old and the new holders, reads to the old ones.
2. `STREAMING`: every node knows that, so what a new holder lacks is what was written before; it
   pulls that from the old ones.
3. `READ_NEW`: the new holders have everything, so reads go to them; writes go to both.
4. `USE_NEW`: everybody reads the new ones, so writes go to them alone. Who holds the partition no
   longer hands over what it still has and lets go of it; then the move is done.

Who decides about a serial environment are majorities: of the old holders, in stages 1 to 3 of the
old and of the new ones, then of the new ones. Any two of neighbouring stages have a node in common.

Who is no holder of a partition, but has some of it, keeps that until the holders have it: so a copy
that was counted once is handed on and never dropped, whatever epoch it was counted in.

The system's own partition, which has the topology itself, is in no table: all storage nodes hold
it, and the voters decide about what is in it.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property, partial
from typing import Any, Final, NamedTuple

from envd.core.errors import Corrupt
from envd.core.paxos import Quorum
from envd.core.placement import (
    Site,
    Steps,
    Table,
    assigning,
    assigning_regions,
    rank,
    run_through,
)
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION

Holders = tuple[int, ...]
"""Uids of nodes, the preferred one first."""
ANYWHERE: Final = ""
"""The region of copies that may be in any."""
EVERY_NODE: Final = 0
"""As a number of copies: every storage node has one."""
WHOLE_UP_TO: Final = 7
"""Where nothing else is said, of so many storage nodes each holds everything."""
DEFAULT_COPIES: Final = 3
_MOVABLE: Final = frozenset(range(PARTITIONS)) - {SYSTEM_PARTITION}
_MOVE: Final = struct.Struct(">HBQ")
_MOST_NODES: Final = 1 << 16
_ROUNDS: Final = 5
_MOST_BYTES: Final = 1 << 23
"""Of rows before they are compressed: each partition on each of a thousand nodes."""
_UIDS: Final = 1 << 64


class Stage(IntEnum):
    """How far a move is; the numbers are stored."""

    WRITE_BOTH = 1
    STREAMING = 2
    READ_NEW = 3
    USE_NEW = 4


class Move(NamedTuple):
    """A partition on its way to the holders `to`, since `epoch`."""

    stage: Stage
    to: Holders
    epoch: int


@dataclass(frozen=True)
class PartitionTable:
    """`holders` of each partition, its `moves`, and how many `copies` there are to be by region.

    `waiting` tells how many partitions are to move that do not yet. The copies are ANYWHERE, or at
    least one in each of some regions. Raises ValueError for a table that is none.
    """

    copies: Mapping[str, int]
    holders: tuple[Holders, ...]
    moves: Mapping[int, Move] = field(default_factory=dict)
    waiting: int = 0

    def __post_init__(self) -> None:
        if len(self.holders) != PARTITIONS or self.holders[SYSTEM_PARTITION]:
            raise ValueError("a partition table has a row for each partition but the system's own")
        targets = [move.to for move in self.moves.values()]
        if not _MOVABLE.issuperset(self.moves) or not all(targets):
            raise ValueError("a partition moves to some node, and the system's own does not move")
        if not 0 <= self.waiting < PARTITIONS:
            raise ValueError("no more partitions wait to move than there are")
        if any(len(set(row)) != len(row) for row in {*self.holders, *targets}):
            raise ValueError("a node holds a partition once")
        if not self.copies or any(
            count < 0 or (region != ANYWHERE and not (count and ANYWHERE not in self.copies))
            for region, count in self.copies.items()
        ):
            raise ValueError("copies are anywhere, or at least one in each region that is named")

    # -- who does what ---------------------------------------------------------------------

    def writers(self, partition: int) -> Holders:
        """Who is to get each write."""
        move = self.moves.get(partition)
        if move is None:
            return self.holders[partition]
        if move.stage is Stage.USE_NEW:
            return move.to
        return tuple(dict.fromkeys((*self.holders[partition], *move.to)))

    def readers(self, partition: int) -> Holders:
        """Who has all of it, and may be read from."""
        move = self.moves.get(partition)
        if move is not None and move.stage >= Stage.READ_NEW:
            return move.to
        return self.holders[partition]

    def quorum(self, partition: int) -> Quorum:
        """Whose consent a change of a serial environment takes."""
        move = self.moves.get(partition)
        old = frozenset(self.holders[partition])
        if move is None:
            return Quorum((old,))
        new = frozenset(move.to)
        return Quorum((new,) if move.stage is Stage.USE_NEW else (old, new))

    def holds(self, uid: int, partition: int) -> bool:
        """Whether writes to it go to a node."""
        return uid in self.writers(partition)

    def _by_node(self, nodes: Callable[[int], Holders]) -> dict[int, frozenset[int]]:
        found: dict[int, set[int]] = {}
        for partition in range(PARTITIONS):
            for uid in nodes(partition):
                found.setdefault(uid, set()).add(partition)
        return {uid: frozenset(partitions) for uid, partitions in found.items()}

    @cached_property
    def _written(self) -> dict[int, frozenset[int]]:
        return self._by_node(self.writers)

    @cached_property
    def _read(self) -> dict[int, frozenset[int]]:
        return self._by_node(self.readers)

    def held_by(self, uid: int) -> frozenset[int]:
        """The partitions of which a node gets every write."""
        return self._written.get(uid, frozenset())

    def read_by(self, uid: int) -> frozenset[int]:
        """The partitions that a node may be read for."""
        return self._read.get(uid, frozenset())

    def gained_by(self, uid: int) -> frozenset[int]:
        """The partitions that a node is to pull now: it gets their writes, and lacks the rest."""
        return frozenset(partition for partition in self.moves if self.gains(uid, partition))

    def gains(self, uid: int, partition: int) -> bool:
        """Whether a node gets the writes to a partition, and has not pulled what was before yet."""
        move = self.moves.get(partition)
        return (
            move is not None
            and move.stage < Stage.READ_NEW
            and uid in move.to
            and uid not in self.holders[partition]
        )

    @cached_property
    def targets(self) -> Table:
        """The holders of each partition once all moves are done."""
        return [
            self.moves[partition].to if partition in self.moves else holders
            for partition, holders in enumerate(self.holders)
        ]

    def uids(self) -> frozenset[int]:
        """All nodes that hold something, or are to."""
        return frozenset(
            uid for rows in (self.holders, self.targets) for row in rows for uid in row
        )

    def under_replicated(self, able: Collection[int]) -> int:
        """How many partitions these nodes have fewer whole copies of than there are to be."""
        everywhere = self.copies.get(ANYWHERE) == EVERY_NODE
        wanted = len(self.uids()) if everywhere else sum(self.copies.values())
        return sum(
            sum(uid in able for uid in self.readers(partition)) < wanted for partition in _MOVABLE
        )

    def loads(self) -> Counter[int]:
        """How many partitions each node holds, or is to hold."""
        return Counter(uid for row in self.targets for uid in row)

    def stages(self) -> Counter[Stage]:
        """How many moves are in each stage."""
        return Counter(move.stage for move in self.moves.values())

    # -- how it changes --------------------------------------------------------------------

    def wanted(self, sites: Iterable[Site], copies: Mapping[str, int]) -> Mapping[int, Holders]:
        """Where each partition should be that is, or is to be, somewhere else.

        What could be nowhere, because its regions have no node, stays where it is.
        """
        rows = placed(sites, copies, self.targets)
        return {
            partition: row
            for partition, (row, target) in enumerate(zip(rows, self.targets, strict=True))
            if row and set(row) != set(target)
        }

    def begin(self, to: Mapping[int, Holders], epoch: int) -> PartitionTable:
        """Begin to move these partitions; raises ValueError where one can't, or moves already."""
        if not self.moves.keys().isdisjoint(to):
            raise ValueError("a partition is moving already")
        begun = {partition: Move(Stage.WRITE_BOTH, row, epoch) for partition, row in to.items()}
        return replace(self, moves={**self.moves, **begun})

    def advance(self, partitions: Iterable[int]) -> PartitionTable:
        """Bring the moves of these partitions to their next stage, the last one to its end."""
        moves, holders = dict(self.moves), list(self.holders)
        for partition in partitions:
            move = moves[partition]
            if move.stage is Stage.USE_NEW:
                holders[partition] = move.to
                del moves[partition]
            else:
                moves[partition] = move._replace(stage=Stage(move.stage + 1))
        return replace(self, holders=tuple(holders), moves=moves)

    def abandon(self, partitions: Iterable[int]) -> PartitionTable:
        """Leave these where they are; raises ValueError for one that is read elsewhere already."""
        moves = dict(self.moves)
        for partition in partitions:
            if moves.pop(partition).stage >= Stage.READ_NEW:
                raise ValueError("a partition that is read from its new holders stays there")
        return replace(self, moves=moves)

    def without(self, uids: Collection[int]) -> PartitionTable:
        """Strike nodes that are gone for good, with what they held."""
        if not uids:
            return self
        holders = tuple(_less(row, uids) for row in self.holders)
        moves = {
            partition: move._replace(to=_less(move.to, uids))
            for partition, move in self.moves.items()
        }
        return replace(
            self, holders=holders, moves={at: move for at, move in moves.items() if move.to}
        )

    # -- as it is stored -------------------------------------------------------------------

    def encode(self) -> str:
        """JSON whose fields are only added; rows are packed, compressed, and in base 64."""
        nodes = sorted(self.uids())
        number = {uid: at for at, uid in enumerate(nodes)}
        if len(nodes) >= _MOST_NODES:
            raise ValueError("a table of more nodes than a cluster has")
        packed = {row: _packed(row, number) for row in {*self.holders, *self.targets}}
        rows = b"".join(packed[row] for row in self.holders)
        moves = b"".join(
            _MOVE.pack(partition, move.stage, move.epoch) + packed[move.to]
            for partition, move in sorted(self.moves.items())
        )
        fields = {
            "copies": dict(sorted(self.copies.items())),
            "nodes": [f"{uid:016x}" for uid in nodes],
            "rows": _shrunk(rows),
            "moves": _shrunk(moves),
            **({"waiting": self.waiting} if self.waiting else {}),
        }
        return json.dumps(fields, separators=(",", ":"))


def decode(text: str) -> PartitionTable:
    """The inverse of `PartitionTable.encode`; raises Corrupt."""
    try:
        fields: dict[str, Any] = json.loads(text)
        nodes = [int(uid, 16) for uid in fields["nodes"]]
        if not all(0 <= uid < _UIDS for uid in nodes):
            raise ValueError("a uid has 64 bits")
        copies = {str(region): int(count) for region, count in fields["copies"].items()}
        holders = _rows_of(_grown(fields["rows"]), nodes)
        moves = _moves_of(_grown(fields["moves"]), nodes)
        return PartitionTable(copies, holders, moves, int(fields.get("waiting", 0)))
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError),
        *(RecursionError, zlib.error, struct.error),
    ):
        raise Corrupt("the partition table of the cluster does not decode") from None


def first_table(voters: Sequence[int], copies: Mapping[str, int]) -> PartitionTable:
    """The table of a cluster in which every node has everything, and these decide.

    They are its first holders, so that who decides goes over by majorities that meet. Where each
    partition is to go is for a plan to say.
    """
    rows = (tuple(sorted(voters, key=partial(rank, at))) for at in range(PARTITIONS))
    return PartitionTable(dict(copies), tuple(_but_the_system(rows)), waiting=PARTITIONS - 1)


def copies_for(nodes: int, wanted: Mapping[str, int]) -> Mapping[str, int]:
    """How many copies there are to be, of what the settings say (nothing: by default)."""
    if wanted:
        return wanted
    return {ANYWHERE: EVERY_NODE if nodes <= WHOLE_UP_TO else DEFAULT_COPIES}


def stage_counts(table: PartitionTable) -> dict[str, int]:
    """How many moves are in each stage, by its name; only those there are."""
    return {stage.name.lower(): count for stage, count in sorted(table.stages().items())}


def placed(sites: Iterable[Site], copies: Mapping[str, int], before: Table) -> Table:
    """The holders of each partition upon these nodes, moving as few as can be."""
    return run_through(placing(sites, copies, before))


def placing(sites: Iterable[Site], copies: Mapping[str, int], before: Table) -> Steps[Table]:
    """`placed` in steps.

    What came out is placed once more, until that moves nothing: then it moves nothing later either.
    """
    known = list(sites)
    everywhere = copies.get(ANYWHERE)
    rows = before
    for _ in range(_ROUNDS):
        if everywhere is not None:
            again = yield from assigning(known, everywhere or len(known), rows)
        else:
            again = yield from assigning_regions(known, copies, rows)
        placed_again = _but_the_system(again)
        done = list(map(set, rows)) == list(map(set, placed_again))
        rows = placed_again
        if done:
            break
    return rows


def _but_the_system(rows: Iterable[Holders]) -> list[Holders]:
    return [() if at == SYSTEM_PARTITION else row for at, row in enumerate(rows)]


def _less(row: Holders, uids: Collection[int]) -> Holders:
    return tuple(uid for uid in row if uid not in uids)


def _packed(row: Holders, number: Mapping[int, int]) -> bytes:
    return b"".join((len(row).to_bytes(2), *(number[uid].to_bytes(2) for uid in row)))


class _Rows:
    """Reads packed rows; of many partitions they are the same, so each is read once."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self._nodes = nodes
        self._known: dict[bytes, Holders] = {}

    def read(self, raw: bytes, at: int) -> tuple[Holders, int]:
        """The row at this place, and where it ends."""
        begin = at + 2
        count = int.from_bytes(raw[at:begin])
        end = begin + 2 * count
        if not begin <= end <= len(raw) or count > len(self._nodes):
            raise ValueError("a row ends early, or has more nodes than there are")
        packed = raw[begin:end]
        row = self._known.get(packed)
        if row is None:
            numbers = (
                int.from_bytes(packed[place : place + 2]) for place in range(0, 2 * count, 2)
            )
            row = self._known[packed] = tuple(self._nodes[number] for number in numbers)
        return row, end


def _rows_of(raw: bytes, nodes: Sequence[int]) -> tuple[Holders, ...]:
    rows, holders, at = _Rows(nodes), [], 0
    for _ in range(PARTITIONS):
        row, at = rows.read(raw, at)
        holders.append(row)
    if at != len(raw):
        raise ValueError("rows go on after the last one")
    return tuple(holders)


def _moves_of(raw: bytes, nodes: Sequence[int]) -> dict[int, Move]:
    rows, before, at = _Rows(nodes), -1, 0
    moves: dict[int, Move] = {}
    while at < len(raw):
        partition, stage, epoch = _MOVE.unpack_from(raw, at)
        if partition <= before:
            raise ValueError("moves are in order of their partitions")
        to, at = rows.read(raw, at + _MOVE.size)
        moves[partition], before = Move(Stage(stage), to, epoch), partition
    return moves


def _shrunk(raw: bytes) -> str:
    if len(raw) >= _MOST_BYTES:
        raise ValueError("a table of more nodes than a cluster has")
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def _grown(text: str) -> bytes:
    engine = zlib.decompressobj()
    raw = engine.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
    if not engine.eof:
        raise ValueError("packed rows end early, or are too long")
    return raw
