"""A node's own part in the moves of partitions: it pulls those that it is to have.

While a partition is streamed, each of those that are to hold it takes over from the old holders:
from all that can be reached, and from a majority at least (`node.taking_over`). So do those that
hold it and go on with it, for two majorities of old and of new holders need not have a node in
common. What it has pulled it tells to who asks, by move: after a restart it pulls again, which
costs little where it is there already.

It also answers how far it is (`partitions.progress`), and pulls from a node that has something
which that one does not hold (`partitions.take`; see `node.letting_go`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from envd.core.errors import EnvdError, Unavailable
from envd.core.moves import Progress, has_enough, to_pull
from envd.core.partitions import Holders, Move, PartitionTable
from envd.core.shares import to_bitmap
from envd.node.calls import Method, Patient
from envd.node.handshake import Peer
from envd.node.holdings import Holdings
from envd.node.intake import IdentityLost
from envd.ports import Rng
from envd.wire import peers as wire

BATCH: Final = 32
"""So many partitions are pulled at once: what an interruption loses."""
TAKES_S: Final = 4.0
"""How long a peer that hands something over is pulled from before it is answered."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 15.0
LOOKS_S: Final = 5.0
Pull = Callable[[int, Collection[int]], Awaitable[object]]
"""(uid, partitions): have this node hold what a peer holds of them, by its name too."""
TakeOver = Callable[[int, int, Collection[int]], Awaitable[None]]
"""(uid, epoch, partitions): the same, and what the peer's acceptor has open there."""
_log = logging.getLogger(__name__)


class _Batch(NamedTuple):
    """Partitions to pull, which go over from the same holders."""

    holders: Holders
    moves: Mapping[int, Move]


class Moving:
    """`run` it on each storage node; `methods` is what a channel for calls serves."""

    def __init__(
        self,
        holdings: Holdings,
        epoch: Callable[[], int],
        reached: Callable[[], Collection[int]],
        kept: Callable[[], frozenset[int]],
        rng: Rng,
        *,
        take_over: TakeOver,
        pull: Pull,
        on_identity_lost: Callable[[str], None],
    ) -> None:
        """`epoch` tells that of the topology which this node holds durably, and `reached` which
        storage nodes can be reached; `kept` what this node has something of and does not hold."""
        self._uid = holdings.uid
        self._kept = kept
        self._holdings = holdings
        self._epoch = epoch
        self._reached = reached
        self._rng = rng
        self._take_over = take_over
        self._pull = pull
        self._on_identity_lost = on_identity_lost
        self._loop = asyncio.get_running_loop()
        self._pulling = asyncio.Lock()
        self._news = asyncio.Event()
        self._from: dict[int, tuple[int, set[int]]] = {}
        """Of each partition the epoch of its move, and from whom it was pulled for that."""
        self._pulled: dict[int, int] = {}
        """Of each partition the epoch of the move for which it was pulled."""
        self._taken = 0
        self._problem = ""
        holdings.subscribe(self._news.set)

    # -- what it tells -------------------------------------------------------------------------

    def progress(self) -> Progress:
        """How far this node is, in the epoch that it knows."""
        return Progress(self._epoch(), self._done(), self._kept())

    def _done(self) -> frozenset[int]:
        table = self._holdings.table
        moves = {} if table is None else table.moves
        return frozenset(
            at for at, epoch in self._pulled.items() if at in moves and moves[at].epoch == epoch
        )

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves."""
        return {
            "partitions.progress": self._serve_progress,
            "partitions.take": Patient(self._serve_take),
        }

    async def _serve_progress(self, _: Peer, __: bytes) -> bytes:
        progress = self.progress()
        return wire.pack(
            wire.PartitionProgress(
                progress.epoch, to_bitmap(progress.pulled), to_bitmap(progress.kept)
            )
        )

    # -- for itself ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Pull what is to be pulled, for ever."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._news.clear()
            left = self._left()
            before = self._taken
            for batch in _batches(self._holdings.table, left):
                await self._pull_batch(batch)
            left = self._left()
            pause_s = FIRST_PAUSE_S if self._taken > before else 2 * pause_s
            pause_s = min(pause_s, LONGEST_PAUSE_S)
            await self._wait(pause_s if left else LOOKS_S)
            if not left:
                pause_s = FIRST_PAUSE_S

    async def _wait(self, seconds: float) -> None:
        seconds *= 0.5 + int.from_bytes(self._rng.token_bytes(4)) / (1 << 32)
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def _left(self) -> Mapping[int, Move]:
        """The moves for which this node has still to pull."""
        table = self._holdings.table
        if table is None:
            return {}
        for known in (self._pulled, self._from):
            for at in [at for at in known if at not in table.moves]:
                del known[at]
        return {
            at: move
            for at, move in to_pull(table, self._uid).items()
            if self._pulled.get(at) != move.epoch
        }

    async def _pull_batch(self, batch: _Batch) -> None:
        able = set(self._reached())
        for uid in batch.holders:
            if uid != self._uid and uid in able:
                await self._pull_from(uid, batch.moves)
        able |= {self._uid}
        for at, move in batch.moves.items():
            found = self._pulled_from(at, move) | {self._uid}
            awaited = able.intersection(batch.holders)
            if awaited <= found and has_enough(batch.holders, found) and self._goes_on(at, move):
                self._pulled[at] = move.epoch

    async def _pull_from(self, uid: int, moves: Mapping[int, Move]) -> None:
        wanted = [at for at, move in moves.items() if uid not in self._pulled_from(at, move)]
        if not wanted:
            return
        try:
            async with self._pulling:
                await self._take_over(uid, max(moves[at].epoch for at in wanted), wanted)
        except IdentityLost as error:
            self._on_identity_lost(error.message)
        except EnvdError as error:
            self._note(uid, error)
        else:
            self._taken += len(wanted)
            for at in wanted:
                self._pulled_from(at, moves[at]).add(uid)

    def _pulled_from(self, at: int, move: Move) -> set[int]:
        """From whom a partition was pulled for this move."""
        epoch, found = self._from.get(at, (0, set()))
        if epoch != move.epoch:
            found = set()
            self._from[at] = (move.epoch, found)
        return found

    def _goes_on(self, at: int, move: Move) -> bool:
        """Whether a move is still under way."""
        table = self._holdings.table
        known = None if table is None else table.moves.get(at)
        return known is not None and known.epoch == move.epoch

    def _note(self, uid: int, error: EnvdError) -> None:
        """Log a problem once, until there is another one."""
        problem = f"{uid:016x}: {error.message}"
        if problem != self._problem:
            self._problem = problem
            extra = {"peer": f"{uid:016x}", "reason": error.reason, "detail": error.message}
            _log.info("partitions.not_pulled", extra=extra)

    # -- for who does not hold what it has -------------------------------------------------------

    async def _serve_take(self, peer: Peer, body: bytes) -> bytes:
        """Pull what a peer has and does not hold; tell of what that is done within a while.

        Raises Unavailable where this node knows a newer topology than the peer, or does not hold
        one of these itself.
        """
        said = wire.unpack(wire.TakePartitions, body)
        wanted = sorted(wire.partitions_of(said.partitions))
        if self._epoch() > said.epoch:
            raise Unavailable("this node knows a newer topology", reason="STALE_EPOCH")
        if not all(map(self._holdings.mine, wanted)):
            raise Unavailable("this node does not hold these partitions", reason="NOT_HELD")
        done: list[int] = []
        deadline_s = self._loop.time() + TAKES_S
        for batch in slices(wanted):
            if done and self._loop.time() > deadline_s:
                break
            try:
                async with self._pulling:
                    await self._pull(peer.uid, batch)
            except IdentityLost as error:
                self._on_identity_lost(error.message)
                raise
            done += batch
        return wire.pack(to_bitmap(done))


def _batches(table: PartitionTable | None, moves: Mapping[int, Move]) -> Iterator[_Batch]:
    """Those together that go over from the same holders."""
    if table is None:
        return
    groups: dict[Holders, list[int]] = {}
    for at in sorted(moves):
        groups.setdefault(tuple(sorted(table.holders[at])), []).append(at)
    for holders, partitions in sorted(groups.items()):
        for batch in slices(partitions):
            yield _Batch(holders, {at: moves[at] for at in batch})


def slices(partitions: Sequence[int]) -> Iterator[Sequence[int]]:
    """BATCH of them at a time."""
    for at in range(0, len(partitions), BATCH):
        yield partitions[at : at + BATCH]
