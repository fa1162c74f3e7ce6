"""A scenario whose partitions are on some nodes only: who holds them, when moves end, what is left.

The figures are taken at the end from the disks: the history of the topology there has the table of
each epoch, so nobody is asked for it while it changes.
"""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

import envd
from chaos.live import disks
from chaos.live.checkers import Evidence, placed, read_back
from chaos.live.disks import Disk
from chaos.live.operator import Operator
from chaos.live.processes import LiveNode
from chaos.live.stage import Stage
from chaos.live.workload import LIBRARY, PREFIX, READER, SERIAL
from envd.core.answers import TopologyView
from envd.core.partitions import PartitionTable

COPIES: Final = 3
PLACED_WITHIN_S: Final = 420.0
_QUIET_WITHIN_S: Final = 90.0
_LOOK_S: Final = 0.5
_SERIAL_ENVIRONMENTS: Final = 4
_READERS: Final = 2
_AT_ONCE: Final = 16
FILLED: Final = tuple(f"filled/app{number:04d}" for number in range(1500))
_KEPT: Final = re.compile(r"^envd_partitions_kept (\d+)", re.MULTILINE)
Wanted = Callable[[TopologyView], bool]


class Placing:
    """What such a scenario does besides what all do; `here` is in the cluster of its stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.cluster = stage.cluster
        self.operator = Operator()
        self.left: list[tuple[str, int, Disk]] = []
        """Of those that left: the name, how many partitions they had, and what their disk has."""
        self._had: dict[str, int] = {}

    # -- callers -------------------------------------------------------------------------------

    async def use(self) -> None:
        """Have writers and readers use a client that knows all nodes which are here now.

        Before that many environments are filled that nobody writes to any more.
        """
        stage = self.stage
        client = self.cluster.knows_all()
        stage.ends_with(client)
        await self._fill(client)
        stage.write_through_library()
        serial = [f"{PREFIX}serial{number}" for number in range(_SERIAL_ENVIRONMENTS)]
        for name in serial:
            stage.load.begin_serial(SERIAL, client, name, pause_s=0.2)
        for _ in range(_READERS):
            stage.load.begin_reading(READER, client, pause_s=0.02)
        stage.names.extend(serial)

    async def _fill(self, client: envd.Client) -> None:
        names = iter(FILLED)

        async def some() -> None:
            for name in names:
                await client.set(name, {"NAME": name})

        async with asyncio.TaskGroup() as filling:
            for _ in range(_AT_ONCE):
                filling.create_task(some())
        self.stage.did(f"{len(FILLED):,} environments are filled")

    async def _judge_filled(self) -> None:
        """Ask that what nobody wrote to while partitions moved is as it was."""
        views = await self.cluster.clients[self.cluster.here[-1]].get_many(FILLED)
        good = [
            name
            for name, view in views.items()
            if {key: one.value for key, one in view.variables.items()} == {"NAME": name}
        ]
        what = "environments that nobody wrote to are as they were"
        self.stage.asks(what, len(good) == len(FILLED), f"{len(good):,} of {len(FILLED):,}")

    # -- who holds what ------------------------------------------------------------------------

    async def topology(self) -> TopologyView:
        """As the first node that answers knows it; raises Unavailable where none does."""
        for node in self._up():
            with suppress(envd.EnvdError):
                return await self.operator.topology(node)
        raise envd.Unavailable("no node tells the topology")

    def _up(self) -> Sequence[LiveNode]:
        return [self.cluster.nodes[at] for at in self.cluster.here if self.cluster.nodes[at].is_up]

    async def until(self, wanted: Wanted, within_s: float = PLACED_WITHIN_S) -> TopologyView:
        """Wait until the topology is as it should be; raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                with suppress(envd.EnvdError):
                    seen = await self.topology()
                    if wanted(seen):
                        return seen
                await asyncio.sleep(_LOOK_S)

    async def placed(self) -> int:
        """Wait until all have moved to the nodes that are here; return the epoch."""
        began_s = self.stage.now_s()
        async with asyncio.timeout(PLACED_WITHIN_S):
            while not (seen := await self._agreed()):  # noqa: ASYNC110 - other processes tell
                await asyncio.sleep(_LOOK_S)
        took_s = self.stage.now_s() - began_s
        loads = [node.partitions for node in seen.nodes]
        self.stage.did(
            f"epoch {seen.epoch}: nothing moves, {len(loads)} nodes hold "
            f"{min(loads):,} to {max(loads):,} partitions; waited {took_s:.1f} s"
        )
        return seen.epoch

    async def _agreed(self) -> TopologyView | None:
        """What all nodes that are here know alike, if nothing moves by that; else None.

        They are asked who they are: one whose disk went back in time takes another uid.
        """
        try:
            seen = await self.topology()
            uids = {await self.stage.uid(number) for number in self.cluster.here}
            if not is_placed(seen, uids):
                return None
            told = [await self.operator.topology(node) for node in self._up()]
        except envd.EnvdError:
            return None
        return seen if all(each.epoch == seen.epoch for each in told) else None

    async def number_of(self, uid: str) -> int:
        """Of the node that has this uid now; raises LookupError for none."""
        for number in self.cluster.here:
            if self.cluster.nodes[number].is_up and await self.stage.uid(number) == uid:
                return number
        raise LookupError(uid)

    async def voters(self) -> list[int]:
        """The numbers of those that vote and answer; the first of them governs."""
        told = await self.topology()
        uids = sorted(each.uid for each in told.nodes if each.votes == "yes" and each.reachable)
        return [await self.number_of(uid) for uid in uids]

    # -- coming and going ----------------------------------------------------------------------

    async def join(self, number: int) -> str:
        """Start a node that was not here; return its uid."""
        await self.cluster.start(number)
        self.cluster.here.append(number)
        self.stage.did(f"{self.cluster.nodes[number].place.name} joined")
        return await self.stage.uid(number)

    async def leave(self, number: int) -> None:
        """Have a node leave for good, and read its disk when it has ended."""
        node, uid = self.cluster.nodes[number], await self.stage.uid(number)
        told = await self.topology()
        had = sum(each.partitions for each in told.nodes if each.uid == uid)
        self._had[uid] = max(had, self._had.get(uid, 0))
        self.stage.did(f"{node.place.name} is told to leave; it holds {had:,} partitions")
        began_s = self.stage.now_s()
        await self.operator.leave(node, PLACED_WITHIN_S)
        self.cluster.here.remove(number)
        code = await node.ends()
        took_s = self.stage.now_s() - began_s
        self.stage.did(f"{node.place.name} has left after {took_s:.1f} s, exit code {code}")
        self.left.append((node.place.name, self._had[uid], await node.at_rest()))

    # -- the end -------------------------------------------------------------------------------

    async def settle(
        self, *, killed: bool = False, asked: bool = True
    ) -> Mapping[int, PartitionTable]:
        """Finish as every scenario does, then stop all nodes and compare what is on their disks.

        Return the table of each epoch. `killed`: nodes died under the callers' requests. Without
        `asked` calls may fail: all holders of some partitions were away.
        """
        stage = self.stage
        await stage.settle()
        stage.outcome.verdicts.append(read_back.check(Evidence(stage.load.records, {})))
        if asked:
            stage.accepted("no write failed over a client that knows all", LIBRARY, killed=killed)
            stage.accepted("no read failed over a client that knows all", READER)
        if asked and not killed:  # Else the majority of a partition may be away.
            stage.accepted("no serial write failed over a client that knows all", SERIAL)
        await self._judge_filled()
        return await self.judge_disks()

    async def judge_disks(self) -> Mapping[int, PartitionTable]:
        """Stop all nodes and compare what is on their disks; return the table of each epoch."""
        stage = self.stage
        await self.quiet()
        found = await self._at_rest()
        tables = disks.history(found.values())
        newest = tables[max(tables)]
        stage.outcome.verdicts += [
            placed.whole(newest, COPIES),
            placed.in_order([tables[epoch] for epoch in sorted(tables)]),
            placed.equal_copies(newest, found),
            placed.nothing_besides(newest, found),
            *(placed.nothing_left(name, had, disk) for name, had, disk in self.left),
        ]
        stage.did("every disk was read and compared")
        return tables

    async def quiet(self) -> None:
        """Wait until nothing is on its way to another node, or to be handed over."""
        deadline_s = self.stage.now_s() + _QUIET_WITHIN_S
        while busy := await self._busy():
            if self.stage.now_s() > deadline_s:
                self.stage.did(f"gave up waiting for {', '.join(busy)} to hand over what is left")
                return
            await asyncio.sleep(_LOOK_S)

    async def _busy(self) -> Sequence[str]:
        """Those that have something for others still."""
        busy = []
        for number in self.cluster.here:
            node = self.cluster.nodes[number]
            status = await self.cluster.clients[number].status()
            if status.handoff or status.detached or await asyncio.to_thread(_kept, node):
                busy.append(node.place.name)
        return busy

    async def _at_rest(self) -> Mapping[str, Disk]:
        nodes = [self.cluster.nodes[number] for number in self.cluster.here]
        codes = await asyncio.gather(*(node.terminate() for node in nodes))
        self.stage.did(f"SIGTERM to all of them: exit codes {sorted(set(codes))}")
        return {node.place.name: await node.at_rest() for node in nodes}


def is_placed(told: TopologyView, uids: Collection[str]) -> bool:
    """Whether these nodes hold all there is, none lacks a copy, and nothing moves."""
    holding = {node.uid for node in told.nodes if node.partitions}
    known = {node.uid for node in told.nodes}
    ended = not told.moving and not told.waiting and not told.under_replicated
    return bool(told.copies) and ended and holding == known == set(uids)


def _kept(node: LiveNode) -> int:
    """How many partitions it has something of that it does not hold, as its metrics tell."""
    place = node.place
    request = urllib.request.Request(f"http://{place.host}:{place.http_port}/metrics")
    if node.token:
        request.add_header("Authorization", f"Bearer {node.token}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        found = _KEPT.search(answer.read().decode())
    return int(found[1]) if found else 0
