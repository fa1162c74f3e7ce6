"""When a store may let go of a partition, and what it refuses meanwhile.

The decision is made in one turn of the event loop, after a flush: whoever lets go said up to which
lsn others hold the partition too, and nothing of it may have come since, be on its way or wait in
quarantine. From that turn until the transaction is written records of the partition are refused, so
none is ever built upon what is about to go. Those that come later begin with an empty state, and
stand in the journal behind the position that the state covers, while all that was dropped stands
before it: a start that applies the journal's tail again brings nothing back.
"""

from __future__ import annotations

from envd.core.errors import Unavailable
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION, partition_of
from envd.storage.journal import stopping
from envd.storage.memtable import Memtable
from envd.storage.state import StateDb
from envd.storage.write_behind import WriteBehind
from envd.threads import finish_in_thread


class Newest:
    """The lsn of the newest record of each partition, since this start; kept in memory.

    Of a partition that had none since, it only knows that its newest record may be any of before.
    """

    def __init__(self, started_lsn: int = 0) -> None:
        """`started_lsn` is the last record of before this start."""
        self._started_lsn = started_lsn
        self._lsns: dict[int, int] = {}

    def note(self, partition: int, lsn: int) -> None:
        """A record of a partition became durable; lsns grow."""
        self._lsns[partition] = lsn

    def may_be_above(self, partition: int, lsn: int) -> bool:
        """Whether a record of a partition may have come after `lsn`: for sure, since the start."""
        return self._lsns.get(partition, self._started_lsn) > lsn


def check_droppable(partition: int) -> None:
    """Raise ValueError for what no node may let go of."""
    if not 0 <= partition < PARTITIONS or partition == SYSTEM_PARTITION:
        raise ValueError(f"partition {partition} is none that a node can let go of")


class Drops:
    """The partitions that one durable store lets go of."""

    def __init__(self, state: StateDb, memtable: Memtable, behind: WriteBehind) -> None:
        self._state = state
        self._memtable = memtable
        self._behind = behind
        self._going: int | None = None
        self.newest = Newest()

    def refusal(self, environment: str) -> Unavailable | None:
        """Why a record of an environment is not taken now, if it is not."""
        if self._going is None or partition_of(environment) != self._going:
            return None
        return Unavailable(
            "the node is just letting go of the partition that holds this environment; nothing "
            "was written",
            hint="try again: a node that holds it takes the write",
            reason="PARTITION_DROPPED",
            retry_after_ms=100,
        )

    async def drop(self, partition: int, last_lsn: int, keep_origin: int) -> bool:
        """As the port says."""
        check_droppable(partition)
        async with self._behind.alone():
            if self._behind.ends:
                raise stopping()
            if self._is_wanted(partition, last_lsn):
                return False
            await self._behind.write()
            if self._is_wanted(partition, min(last_lsn, self._state.covered_lsn)):
                return False
            await self._write(partition, keep_origin)
        while self._state.has_dropped_rows and not self._behind.ends:
            await self._behind.purge()
        return True

    def _is_wanted(self, partition: int, last_lsn: int) -> bool:
        return (
            self.newest.may_be_above(partition, last_lsn)
            or self._memtable.is_on_its_way(partition)
            or self._state.quarantine.holds(partition)
        )

    async def _write(self, partition: int, keep_origin: int) -> None:
        written = False

        def write() -> None:
            nonlocal written
            self._state.drop(partition, keep_origin)
            written = True
            self._state.sync()

        self._going = partition
        try:
            await finish_in_thread(write)
        finally:  # Where the caller was cancelled, or the sync failed, it is written all the same.
            self._going = None
            if written:
                self._memtable.drop(partition, keep_origin)
                self._state.refresh()
