"""How partitions are spread, and how fast they move, as a node sees it in the tables it knows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Final

from envd.core.partitions import PartitionTable, Stage
from envd.node.holdings import Holdings

WINDOW_S: Final = 300.0


class Pace:
    """Counts the moves that end; `left_s` says how long the others will take at this pace.

    What takes a look at all partitions is kept until something changes.
    """

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._loop = asyncio.get_running_loop()
        self._before = holdings.table
        self._began_s = self._loop.time()
        self._ended: deque[tuple[float, int]] = deque()
        self._short: tuple[PartitionTable | None, Collection[int], int] = (None, (), 0)
        self._balance: tuple[PartitionTable | None, float] = (None, 1.0)
        holdings.subscribe(self._changed)

    def _changed(self) -> None:
        before, table = self._before, self._holdings.table
        self._before = table
        if table is None:
            return
        now = self._loop.time()
        if before is None or not (before.moves or before.waiting):
            self._began_s = now
            self._ended.clear()
        if before is not None and (ended := _ended(before, table)):
            self._ended.append((now, ended))

    def left_s(self) -> float | None:
        """Seconds until all moves are done, as the last ones went; None where none has ended."""
        table, now = self._holdings.table, self._loop.time()
        if table is None or not (table.moves or table.waiting):
            return 0.0
        while self._ended and now - self._ended[0][0] > WINDOW_S:
            self._began_s = self._ended.popleft()[0]
        ended = sum(count for _, count in self._ended)
        if not ended:
            return None
        return (len(table.moves) + table.waiting) * (now - self._began_s) / ended

    def under_replicated(self, up: Collection[int]) -> int:
        """How many partitions have fewer copies on these nodes than there are to be."""
        table = self._holdings.table
        if table is None:
            return 0
        if (table, up) != self._short[:2]:
            self._short = (table, up, table.under_replicated(up))
        return self._short[2]

    def balance(self) -> float:
        """The most that a node is to hold, as a multiple of the mean."""
        table = self._holdings.table
        if table is not None and table != self._balance[0]:
            loads = table.loads()
            self._balance = (table, max(loads.values()) * len(loads) / loads.total())
        return self._balance[1]


def _ended(before: PartitionTable, table: PartitionTable) -> int:
    return sum(
        move.stage is Stage.USE_NEW and at not in table.moves for at, move in before.moves.items()
    )
