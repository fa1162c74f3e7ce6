"""Where partitions are to be, and how far their moves are: what a governor does about it.

Once the storage nodes have been the same for a while it is planned where each partition is to be:
in small steps, beside everything else, for it may take many seconds. Then the moves are begun, some
hundreds at once, those of the fewest copies first; the nodes are asked how far they are, and each
move goes to its next stage once what that takes is so (`core.moves`). All that is due is one change
of the topology.

Any node may come to govern: all that it needs is in the topology, or is asked of the nodes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from envd.core.errors import EnvdError
from envd.core.moves import Progress, due, in_vain, is_partial, planning, to_begin, to_move
from envd.core.partitions import PartitionTable, copies_for, first_table
from envd.core.placement import Site, Table
from envd.core.topology import Topology
from envd.node.proposing import Ask
from envd.wire import peers as wire

SETTLES_S: Final = 10.0
"""For so long the storage nodes must have been the same before partitions move: joins and removals
come in bunches, and each alone would move other ones."""
PACE_S: Final = 0.5
"""Between two changes: each is an epoch, under which serial writes under way are tried again."""
ASKS_S: Final = 2.0
_STEPS_A_TURN: Final = 4
_log = logging.getLogger(__name__)


class Change(NamedTuple):
    """The next topology, and what it is for in words."""

    topology: Topology
    message: str


class _Input(NamedTuple):
    """What a plan is made of, besides the table."""

    sites: tuple[Site, ...]
    copies: Mapping[str, int]


class Balancing:
    """Ask it for the `change` that is due, and let `run` run."""

    def __init__(
        self,
        copies: Mapping[str, int],
        progress: Callable[[], Progress],
        uid: int,
        ask: Ask,
        poke: Callable[[], None],
    ) -> None:
        """`copies` is what the settings of this node say, `progress` how far it is itself; `poke`
        is called when there is something to look at."""
        self._copies = copies
        self._progress = progress
        self._uid = uid
        self._ask = ask
        self._poke = poke
        self._loop = asyncio.get_running_loop()
        self._input: _Input | None = None
        self._since_s = 0.0
        self._ordered = asyncio.Event()
        self._order: tuple[_Input, PartitionTable] | None = None
        self._planned: tuple[_Input, Table] | None = None
        self._tables: tuple[PartitionTable | None, ...] = ()
        """As the table was when it was last looked at, and as it was to be then."""
        self._changed_s = -PACE_S
        self._told: Mapping[str, int] | None = None
        self._awaited: tuple[str, ...] = ()

    # -- the change that is due ----------------------------------------------------------------

    async def change(
        self, topology: Topology, able: Collection[int], lost: Collection[int]
    ) -> Change | None:
        """What is to be changed next about who holds what; None for nothing.

        `able` are the storage nodes that can be reached, `lost` those that were away for long.
        """
        if topology.table not in self._tables:  # Another node governed, by a plan of its own.
            self._planned = self._order = None
        self._tables = (topology.table,)
        if self._loop.time() - self._changed_s < PACE_S:
            return None
        change = await self._due(topology, able, lost)
        if change is not None:
            self._changed_s = self._loop.time()
            self._tables = (topology.table, change.topology.table)
        return change

    async def _due(
        self, topology: Topology, able: Collection[int], lost: Collection[int]
    ) -> Change | None:
        wanted = self._wanted(topology)
        settled = self._settled(wanted)
        table = topology.table
        if table is None:
            if not settled or not is_partial(*wanted):
                return None
            return await self._first(topology, able, wanted)
        if settled and dict(table.copies) != dict(wanted.copies):
            self._tell(table.copies, wanted.copies)
            table = replace(table, copies=dict(wanted.copies))
            return Change(topology.with_table(table), "there are to be other numbers of copies")
        self._plan(wanted, table, settled=settled)
        return await self._next(topology, table, wanted, able, lost)

    def _wanted(self, topology: Topology) -> _Input:
        sites = tuple(site for site in topology.nodes if site.uid not in topology.leaving)
        return _Input(sites, copies_for(len(sites), self._copies))

    def _settled(self, wanted: _Input) -> bool:
        """Whether the storage nodes have been the same for long enough."""
        now = self._loop.time()
        if wanted != self._input:
            self._input, self._since_s = wanted, now
        return now - self._since_s >= SETTLES_S

    async def _first(
        self, topology: Topology, able: Collection[int], wanted: _Input
    ) -> Change | None:
        """The first table: once every node that there is knows what one is."""
        told = await self._ask_all(able)
        silent = {site.uid for site in topology.nodes} - told.keys()
        if silent:
            self._wait_for("to be asked about partitions", silent)
            return None
        table = first_table(topology.voters, wanted.copies)
        _log.info("partitions.begun", extra={"copies": dict(wanted.copies)})
        return Change(topology.with_table(table), "not every node holds everything any more")

    async def _next(
        self,
        topology: Topology,
        table: PartitionTable,
        wanted: _Input,
        able: Collection[int],
        lost: Collection[int],
    ) -> Change | None:
        done, vain = await self._advanced(topology, table, wanted, able, lost)
        changed = table.abandon(vain).advance(done - vain)
        begun = 0
        if self._planned is not None and self._planned[0] == wanted:
            to = to_move(changed, self._planned[1])
            begins = to_begin(changed, to, able)
            begun = len(begins)
            changed = changed.begin(begins, topology.epoch + 1)
            changed = replace(changed, waiting=len(to) - begun)
        if not (done or vain or begun or changed.waiting != table.waiting):
            return None
        parts = ((begun, "begin to move"), (len(done - vain), "go on"), (len(vain), "stay"))
        said = ", ".join(f"{count} {what}" for count, what in parts if count)
        return Change(topology.with_table(changed), f"partitions: {said or 'all is planned'}")

    async def _advanced(
        self,
        topology: Topology,
        table: PartitionTable,
        wanted: _Input,
        able: Collection[int],
        lost: Collection[int],
    ) -> tuple[frozenset[int], frozenset[int]]:
        """The partitions whose moves may go on, and those whose moves are in vain."""
        if not table.moves:
            return frozenset(), frozenset()
        vain = in_vain(table, {site.uid for site in wanted.sites}, lost)
        told = await self._ask_all(able)
        behind = {uid for uid in able if uid not in told or told[uid].epoch < topology.epoch}
        self._wait_for("to know the topology", behind)
        return due(table, topology.epoch, able, told), vain

    # -- the others ----------------------------------------------------------------------------

    async def _ask_all(self, able: Collection[int]) -> Mapping[int, Progress]:
        """How far the nodes are, of those that answer in time."""
        others = sorted(uid for uid in able if uid != self._uid)
        answers = await asyncio.gather(*map(self._ask_one, others))
        told = {uid: said for uid, said in zip(others, answers, strict=True) if said is not None}
        return {**told, self._uid: self._progress()}

    async def _ask_one(self, uid: int) -> Progress | None:
        try:
            async with asyncio.timeout(ASKS_S):
                raw = await self._ask(uid, "partitions.progress", b"")
            said = wire.unpack(wire.PartitionProgress, raw)
            pulled, kept = map(wire.partitions_of, (said.pulled, said.kept))
            return Progress(said.epoch, pulled, kept)
        except (EnvdError, TimeoutError):
            return None

    def _wait_for(self, what: str, uids: Collection[int]) -> None:
        """Log for whom the moves wait, when that has been so twice and is another than before."""
        named = tuple(f"{uid:016x}" for uid in sorted(uids))
        if named and named == self._awaited:
            _log.debug("partitions.wait", extra={"nodes": list(named), "detail": what})
        self._awaited = named

    def _tell(self, before: Mapping[str, int], now: Mapping[str, int]) -> None:
        if now != self._told:
            self._told = now
            _log.warning(
                "partitions.other_copies",
                extra={
                    "before": dict(before),
                    "now": dict(now),
                    "detail": "as this node's settings say; all nodes should have the same",
                },
            )

    # -- planning ------------------------------------------------------------------------------

    def _plan(self, wanted: _Input, table: PartitionTable, *, settled: bool) -> None:
        """Have it planned where all is to be, if that is not known for these nodes."""
        if not settled or (self._planned is not None and self._planned[0] == wanted):
            return
        if self._order is None or self._order[0] != wanted:
            self._order = (wanted, table)
            self._ordered.set()

    async def run(self) -> None:
        """Make the plans that are ordered, for ever."""
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            order = self._order
            if order is None:
                continue
            wanted, table = order
            rows = await self._place(table, wanted)
            if rows is not None and self._order is order:
                self._planned, self._order = (wanted, rows), None
                self._poke()

    async def _place(self, table: PartitionTable, wanted: _Input) -> Table | None:
        """Where all is to be; None where another plan was ordered meanwhile."""
        steps = planning(table, wanted.sites, wanted.copies)
        done = 0
        while not self._ordered.is_set():
            try:
                next(steps)
            except StopIteration as end:
                rows: Table = end.value
                return rows
            done += 1
            if done % _STEPS_A_TURN == 0:
                await asyncio.sleep(0)
        return None
