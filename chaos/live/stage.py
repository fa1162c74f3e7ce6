"""What every scenario stands on: a cluster, writers, a clock, and the verdict at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import envd
from chaos.live import reading
from chaos.live.checkers import (
    Apart,
    Evidence,
    Verdict,
    all_accepted,
    lost_writes,
    marked_detached,
    same_everywhere,
)
from chaos.live.cluster import Cluster
from chaos.live.outcome import Moment, Outcome, curve
from chaos.live.workload import LIBRARY, Acknowledged, Load, environments

SETTLES_WITHIN_S: Final = 150.0
ENVIRONMENTS: Final = 24
_LOOK_S: Final = 0.02
_BEFORE_S: Final = 0.5


@dataclass
class Stage:
    """One scenario as it runs. `seconds` is how long its fault lasts, or its loop."""

    cluster: Cluster
    seconds: float
    seed: int
    outcome: Outcome
    tell: Callable[[str], None]
    chance: random.Random = field(init=False)
    load: Load = field(init=False)
    lost_disks: dict[str, float] = field(default_factory=dict)
    apart: Apart | None = None
    healed_s: float = 0.0
    _clients: list[envd.Client] = field(default_factory=list)
    _names_by_uid: dict[str, str] = field(default_factory=dict)
    _began_s: float = 0.0

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.seed} {self.outcome.scenario}")
        self.names = environments(ENVIRONMENTS)
        self.load = Load(self.seed, self.names)
        self._began_s = self.now_s()

    def now_s(self) -> float:
        """The time of the event loop."""
        return asyncio.get_running_loop().time()

    def did(self, what: str) -> None:
        """Note what was done now."""
        clock = f"{datetime.now(UTC):%H:%M:%S.%f}"[:-3]
        moment = Moment(self.now_s() - self._began_s, clock, what)
        self.outcome.moments.append(moment)
        self.tell(f"  {moment.at_s:6.1f} s  {what}")

    # -- writers -------------------------------------------------------------------------------

    def write_on_all(self, *, each: int = 2, pause_s: float = 0.05, value_bytes: int = 24) -> None:
        """Have writers write on every node, each to that one alone."""
        for name, client in self.cluster.asked:
            for _ in range(each):
                self.load.begin(name, client, pause_s=pause_s, value_bytes=value_bytes)

    def write_through_library(self, *, writers: int = 4, pause_s: float = 0.02) -> None:
        """Have writers write over one client that knows every node."""
        client = self.cluster.knows_all()
        self._clients.append(client)
        for _ in range(writers):
            self.load.begin(LIBRARY, client, pause_s=pause_s)

    def ends_with(self, client: envd.Client) -> None:
        """Close this client, too, in the end."""
        self._clients.append(client)

    async def uid(self, number: int) -> str:
        """The uid of a node, which the stamps of what it takes end with."""
        uid = (await self.cluster.clients[number].status()).node_uid
        self._names_by_uid[uid] = self.cluster.nodes[number].place.name
        return uid

    async def begin(self) -> None:
        """Learn who the nodes are; once, before anything is done to them."""
        for number in self.cluster.here:
            await self.uid(number)

    async def killed_for(self, number: int, seconds: float) -> None:
        """SIGKILL a node, and start it again after a while."""
        node = self.cluster.nodes[number]
        await node.kill()
        self.did(f"SIGKILL {node.place.name}")
        await asyncio.sleep(seconds)
        await self.cluster.start(number)
        self.healed_s = self.now_s()
        self.did(f"{node.place.name} is ready again")

    def lost(self, number: int, uid: str) -> None:
        """The data of a node, known as `uid`, was taken from it now."""
        self.lost_disks[uid] = self.now_s()
        if number < len(self.cluster.watchers):
            self.cluster.watchers[number].forget()

    # -- the end -------------------------------------------------------------------------------

    async def settle(self) -> None:
        """After the last fault was mended: finish writing, wait, read everything, and judge."""
        self.healed_s = self.healed_s or self.now_s()
        await self.load.finish()
        finished_s = self.now_s()
        await self._converge(max(self.healed_s, finished_s))
        self._count()
        evidence = await self._evidence()
        self.outcome.conflicts = len(next(iter(evidence.wholes.values())).surface.conflicts)
        self.outcome.verdicts += [
            lost_writes.check(evidence),
            *same_everywhere.check(evidence),
            *marked_detached.check(evidence),
        ]
        self.did("everything was read from every node and compared")

    def accepted(self, what: str, *writers: str, killed: bool = False) -> None:
        """Ask that no write of these writers failed, of all where none is named.

        `killed`: nodes died under their requests, so some may be of unknown outcome.
        """
        evidence = Evidence(self.load.records, {})
        self.outcome.verdicts.append(
            all_accepted.check(
                evidence,
                what=what,
                asked=lambda name: not writers or name in writers,
                may_be_open=killed,
            )
        )

    def asks(self, what: str, holds: bool, seen: str) -> None:
        """Ask for one thing more."""
        self.outcome.verdicts.append(Verdict(what, holds, seen))

    async def _converge(self, still_from_s: float) -> None:
        """Wait until all is shown everywhere and equal; nobody writes since `still_from_s`."""
        outcome, deadline_s = self.outcome, still_from_s + SETTLES_WITHIN_S
        missing = {write.stamp for write in self._expected()}
        outcome.backlog = sum(not self._shown_by_all_at(stamp, self.healed_s) for stamp in missing)
        while self.now_s() < deadline_s:
            anew = any(watcher.resets for watcher in self.cluster.watchers)
            if anew and missing and await self._agree(reading.revisions):
                await self._look_into_histories()
            missing = {stamp for stamp in missing if not self._shown_by_all(stamp)}
            if not missing:
                if outcome.shown_s is None:
                    outcome.shown_s = self._last_shown_s() - self.healed_s
                    self.did("every node shows every acknowledged write")
                began_s = self.now_s()
                if await self._is_equal():
                    outcome.equal_s = began_s - still_from_s
                    took_s = self.now_s() - began_s
                    self.did(f"revisions and conflicts are equal; reading them took {took_s:.1f} s")
                    return
            await asyncio.sleep(_LOOK_S)
        self.did(f"gave up waiting; {len(missing)} writes are not shown by every node")

    def _expected(self) -> list[Acknowledged]:
        return [
            write
            for write in self.load.records.acknowledged
            if write.copies > 1 or write.origin not in self.lost_disks
        ]

    def _shown_by_all(self, stamp: str) -> bool:
        return all(stamp in watcher.seen for watcher in self.cluster.watchers)

    def _shown_by_all_at(self, stamp: str, at_s: float) -> bool:
        never_s = at_s + 1
        return all(watcher.seen.get(stamp, never_s) <= at_s for watcher in self.cluster.watchers)

    def _last_shown_s(self) -> float:
        last_s = self.healed_s
        for write in self._expected():
            if write.ended_s > self.healed_s:
                continue
            for watcher in self.cluster.watchers:
                last_s = max(last_s, watcher.seen[write.stamp])
        return last_s

    def _arrivals_s(self) -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], float] = {}
        for write in self._expected():
            if write.ended_s > self.healed_s:
                continue
            origin = self._names_by_uid.get(write.origin, write.origin)
            for node, watcher in zip(self.cluster.watched, self.cluster.watchers, strict=True):
                after_s = watcher.seen.get(write.stamp, float("inf")) - self.healed_s
                pair = origin, node.place.name
                found[pair] = max(after_s, found.get(pair, 0.0))
        return found

    async def _is_equal(self) -> bool:
        """Nodes are asked for what is cheap first, so that looking does not slow them."""
        return await self._agree(reading.revisions) and await self._agree(reading.conflicts)

    async def _agree(self, read: Callable[[envd.Client], Awaitable[object]]) -> bool:
        try:
            clients = [client for _, client in self.cluster.asked]
            first, *others = await asyncio.gather(*map(read, clients))
        except envd.EnvdError:
            return False
        return all(other == first for other in others)

    async def _look_into_histories(self) -> None:
        """For watches that had to begin anew: what they did not tell one by one."""
        for node, watcher in zip(self.cluster.watched, self.cluster.watchers, strict=True):
            client = self.cluster.clients[self.cluster.nodes.index(node)]
            if not watcher.resets:
                continue
            for name in self.names:
                commits, _ = await reading.history(client, name)
                for commit in commits:
                    watcher.shows(commit.stamp)

    async def _evidence(self) -> Evidence:
        wholes = {
            name: await reading.whole(client, self.names) for name, client in self.cluster.asked
        }
        return Evidence(self.load.records, wholes, self.apart, self.lost_disks)

    def _count(self) -> None:
        outcome, records = self.outcome, self.load.records
        outcome.acknowledged = len(records.acknowledged)
        outcome.failed = records.reasons()
        outcome.not_admitted = records.not_admitted.total()
        outcome.detached = sum(write.detached for write in records.acknowledged)
        took = sorted(1000 * (each.ended_s - each.began_s) for each in records.acknowledged)
        if took:
            outcome.latencies_ms = (
                took[len(took) // 2],
                took[min(len(took) - 1, len(took) * 99 // 100)],
                took[-1],
            )
        outcome.arrivals_s = self._arrivals_s()
        outcome.curve = curve(
            [write.stamp for write in self._expected()],
            [watcher.seen for watcher in self.cluster.watchers],
            self.healed_s,
            before_s=_BEFORE_S,
        )

    async def close(self) -> None:
        """Stop writers and clients."""
        self.load.stop()
        for client in self._clients:
            await client.close()
