"""What a node has and does not hold is handed over to who holds it, and then dropped.

So a former holder lets go of a partition; and so is handed on what came to the wrong node: under an
older epoch, while no holder could be reached, or for a move that was given up. Each holder that can
be reached pulls it from here, two of them at least or all that there are; it is dropped if nothing
came to it meanwhile. Thus a copy that was counted once is never lost.

While it is not planned yet where all partitions are to go, only what a move took from this node is
dropped: the rest may be for this node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

from envd.core.errors import EnvdError
from envd.core.partitions import Holders, PartitionTable, Stage
from envd.core.shares import to_bitmap
from envd.node.acknowledging import WANTED_COPIES
from envd.node.holdings import Holdings
from envd.node.leftovers import Leftovers
from envd.node.moving import FIRST_PAUSE_S, LONGEST_PAUSE_S, LOOKS_S, slices
from envd.node.proposing import Ask
from envd.ports import Applied, Rng, Store
from envd.wire import peers as wire

Drop = Callable[[int, int], Awaitable[bool]]
"""(partition, lsn): let go of it, unless something came to it after that lsn; tell whether so."""
_log = logging.getLogger(__name__)


class LettingGo:
    """`run` it on each storage node."""

    def __init__(
        self,
        store: Store,
        holdings: Holdings,
        epoch: Callable[[], int],
        reached: Callable[[], Collection[int]],
        rng: Rng,
        *,
        kept: Leftovers,
        leaves: Callable[[], bool],
        ask: Ask,
        drop: Drop,
    ) -> None:
        """`leaves` tells whether this node is about to leave for good; for the others see
        `Moving`."""
        self._uid = holdings.uid
        self._store = store
        self._holdings = holdings
        self._epoch = epoch
        self._reached = reached
        self._rng = rng
        self._kept = kept
        self._leaves = leaves
        self._ask = ask
        self._drop = drop
        self._news = asyncio.Event()
        self._handed: dict[int, tuple[int, Holders]] = {}
        """Of each partition the lsn up to which it was handed over, and to whom."""
        self._problem = ""
        self.dropped = 0
        """How many partitions were let go of since the start."""
        holdings.subscribe(self._news.set)
        store.subscribe(self._applied)

    def _applied(self, applied: Applied) -> None:
        partition = applied.record.partition
        if not self._holdings.mine(partition):
            self._handed.pop(partition, None)
            self._news.set()

    async def run(self) -> None:
        """Hand over and drop what is to be, for ever."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._news.clear()
            kept, before = self._kept(), self.dropped
            table = self._holdings.table
            if table is not None and kept:
                for batch in _batches(table, kept):
                    await self._hand_over(batch)
                for at in sorted(kept):
                    await self._let_go(at)
            went_on = self.dropped > before or not kept
            pause_s = FIRST_PAUSE_S if went_on else min(2 * pause_s, LONGEST_PAUSE_S)
            await self._wait(pause_s, LOOKS_S if not kept else pause_s)

    async def _wait(self, least_s: float, most_s: float) -> None:
        """Wait for news, but not shorter than this: what comes in a row is handed over at once."""
        share = 0.5 + int.from_bytes(self._rng.token_bytes(4)) / (1 << 32)
        await asyncio.sleep(min(least_s, FIRST_PAUSE_S) * share)
        try:
            async with asyncio.timeout(most_s * share):
                await self._news.wait()
        except TimeoutError:
            return

    # -- handing over ----------------------------------------------------------------------------

    async def _hand_over(self, partitions: Sequence[int]) -> None:
        """Have those that hold them pull these, which go to the same nodes."""
        lsn, epoch = self._store.last_lsn(), self._epoch()
        writers = self._writers(partitions[0])
        left = [at for at in partitions if self._is_to_hand_over(at, writers)]
        able = sorted(set(self._reached()).intersection(writers))
        if not left or not able or len(able) < min(WANTED_COPIES, len(writers)):
            return
        taken = set(left)
        for uid in able:
            taken &= await self._offer(uid, epoch, sorted(taken))
        for at in taken:
            if self._writers(at) == writers:
                self._handed[at] = (lsn, writers)

    def _is_to_hand_over(self, partition: int, writers: Holders) -> bool:
        known = self._handed.get(partition)
        return self._writers(partition) == writers and (known is None or known[1] != writers)

    async def _offer(self, uid: int, epoch: int, partitions: Collection[int]) -> frozenset[int]:
        """Have one node pull these; return which it has pulled."""
        if not partitions:
            return frozenset()
        asked = wire.pack(wire.TakePartitions(epoch, to_bitmap(partitions)))
        try:
            answer = wire.unpack(bytes, await self._ask(uid, "partitions.take", asked))
            return wire.partitions_of(answer)
        except EnvdError as error:
            self._note(uid, error)
            return frozenset()

    def _writers(self, partition: int) -> Holders:
        table = self._holdings.table
        return () if table is None else _writers_of(table, partition)

    # -- dropping --------------------------------------------------------------------------------

    async def _let_go(self, partition: int) -> None:
        """Drop what was handed over to those that hold it now."""
        handed = self._handed.get(partition)
        if handed is None or self._holdings.mine(partition) or not self._may_drop(partition):
            return
        lsn, writers = handed
        if self._writers(partition) != writers:
            return
        del self._handed[partition]
        if await self._drop(partition, lsn):
            self._kept.dropped(partition)
            self.dropped += 1

    def _may_drop(self, partition: int) -> bool:
        table = self._holdings.table
        if table is None:
            return False
        move = table.moves.get(partition)
        was_moved = move is not None and move.stage is Stage.USE_NEW
        return was_moved or not table.waiting or self._leaves()

    def _note(self, uid: int, error: EnvdError) -> None:
        """Log a problem once, until there is another one."""
        problem = f"{uid:016x}: {error.message}"
        if problem != self._problem:
            self._problem = problem
            extra = {"peer": f"{uid:016x}", "reason": error.reason, "detail": error.message}
            _log.info("partitions.not_handed_over", extra=extra)


def _batches(table: PartitionTable, partitions: Collection[int]) -> Iterator[Sequence[int]]:
    """Those together that go to the same nodes."""
    groups: dict[Holders, list[int]] = {}
    for at in sorted(partitions):
        groups.setdefault(_writers_of(table, at), []).append(at)
    for writers, found in sorted(groups.items()):
        if writers:
            yield from slices(found)


def _writers_of(table: PartitionTable, partition: int) -> Holders:
    return tuple(sorted(table.writers(partition)))
