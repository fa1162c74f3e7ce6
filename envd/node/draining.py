"""A node that is about to leave waits until others hold what it holds.

It stands as leaving in the topology, so who governs plans without it; all it has goes over by
moves, and what it keeps besides is handed on. That takes as long as it takes: it is given up only
where nothing went on for a while, and then tells how far it got.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from envd.core.errors import Unavailable
from envd.core.partitions import PartitionTable
from envd.node.holdings import Holdings

STALLS_S: Final = 120.0
"""So long nothing may go on: the others wait for a while before they plan, and plan for a while."""
LOOKS_S: Final = 0.2
_TELLS_S: Final = 10.0
_log = logging.getLogger(__name__)


class Drained(NamedTuple):
    """How far a node is: of `total` partitions that it had, so many are still here."""

    left: int
    total: int

    def __str__(self) -> str:
        return f"{self.left:,} of {self.total:,} partitions are still here"


class Draining:
    """`wait` until this node holds nothing, where not every node holds everything."""

    def __init__(self, holdings: Holdings, kept: Callable[[], Collection[int]]) -> None:
        """`kept` tells what this node has something of and does not hold."""
        self._holdings = holdings
        self._kept = kept
        self._loop = asyncio.get_running_loop()
        self.so_far = Drained(0, 0)

    async def wait(self) -> None:
        """Return once nothing is here; raises Unavailable where it does not go on."""
        self.so_far = Drained(0, 0)
        known: object = None
        since_s = told_s = self._loop.time()
        while (table := self._holdings.table) is not None:
            left = len(self._left(table))
            self.so_far = Drained(left, max(left, self.so_far.total))
            now = self._loop.time()
            if not left:
                return
            if (left, table) != known:
                known, since_s = (left, table), now
            if now - since_s >= STALLS_S:
                raise Unavailable(
                    f"{self.so_far}, and nothing went on for {STALLS_S:.0f} s; what went stays "
                    "where it is",
                    hint="see what they wait for: envctl cluster topology; to stop the node, send "
                    "it SIGTERM: its data stay",
                    reason="NOT_DRAINED",
                )
            if now - told_s >= _TELLS_S:
                told_s = now
                _log.info("node.draining", extra={"left": left, "total": self.so_far.total})
            await asyncio.sleep(LOOKS_S)

    def _left(self, table: PartitionTable) -> frozenset[int]:
        uid = self._holdings.uid
        held = {at for at, row in enumerate(table.holders) if uid in row}
        moving = {at for at, move in table.moves.items() if uid in move.to}
        return frozenset(held | moving | set(self._kept()))
