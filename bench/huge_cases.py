"""A cluster that is filled, then joined by one more node: what is measured, and what should hold.

Three nodes get everything through all of them at once. Then clients read and write at a fixed rate,
before, while and after a fourth node, with an empty directory, joins and pulls all of it; it is
through once it has as many environments as the others, and its streams from and to each stand
and lag by less than a second. Then nothing is written any more, and all four must list the same
names and revisions, answer the same for a random sample, and end with the same roots.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench import agreeing, growth
from bench.figures import PYTHON, Aim, Sample, number
from bench.filling import Filling
from bench.growth import Look
from bench.large import lacking
from bench.light import Light
from bench.measuring import Measured
from bench.node import NodeClient
from bench.payload import SEED
from bench.probing import Probing, Times, share_ms
from bench.running import say
from bench.servers import Server
from bench.trio import NODES, Trio, envd_nodes
from bench.trio_envd import EnvdTrio, peers_of

PREFIX: Final = "huge"
ENVIRONMENT_KB: Final = 1.5
VARIABLE_KB: Final = 0.45
"""What an environment and each of its variables take on the disk of one node, at the most."""
NODE_DISK_GB: Final = 0.7
"""The journal of a node, with what it keeps for peers."""
NODE_MEMORY_GB: Final = 0.6
STALLED_S: Final = 300.0
SAME_S: Final = 120.0
LAG_MS: Final = 1_000
SAMPLED: Final = 2_000
_LOOK_S: Final = 0.5
_PULLS: Final = 'envd_repair_pulls_total{kind="'

AIMS: Final[Mapping[str, Sequence[Aim]]] = {
    "load-slowing": (Aim(1.5),),
    "load-anon-growth": (Aim(100),),
    "load-anon-most": (Aim(600),),
    "join-anon-most": (Aim(600),),
    "read-p99": (Aim(250),),
    "write-p99": (Aim(500),),
    "calls-failed": (Aim(0),),
    "lists-differing": (Aim(0),),
    "sample-differing": (Aim(0),),
    "roots-differing": (Aim(0),),
}
FEW: Final = 500_000
"""With fewer environments the caches are what grows: what is held against growth says nothing."""
OF_MANY: Final = ("load-slowing", "load-anon-growth")


@dataclass(frozen=True, slots=True)
class Size:
    """How much of it: `phase_s` is how long is measured before and after the join."""

    environments: int
    names: Sequence[str]
    phase_s: float
    look_s: float

    @property
    def variables(self) -> int:
        return self.environments * len(self.names)


def too_large(size: Size, home: Path) -> str:
    """Why this machine can't take so much; "" where it can."""
    nodes = NODES + 1
    data_kb = size.environments * ENVIRONMENT_KB + size.variables * VARIABLE_KB
    return lacking(home, nodes * (NODE_DISK_GB + data_kb / 1e6), nodes * NODE_MEMORY_GB)


LOAD_S: Final = 0.0006
"""Seconds to get an environment of 20 variables into three nodes, on two processors."""
JOIN_S: Final = 0.0007
"""Seconds to get one into a fourth."""


def expected_s(size: Size) -> float:
    """About how long it takes."""
    return size.environments * (LOAD_S + JOIN_S) + 2 * size.phase_s + 30


class Huge:
    """The whole run, in `home`; `series` says how it went over time."""

    def __init__(self, home: Path, size: Size) -> None:
        self._size = size
        self._nodes, self._token = envd_nodes(home, NODES + 1)
        first = self._nodes[:NODES]
        client = EnvdTrio([node.address for node in first], self._token)
        self._cluster = Trio("envd", home, first, client, first_alone=True)
        self._measured = Measured(self._cluster)
        self._begun_s = time.perf_counter()
        self._lights: list[Light] = []
        self._looks: dict[str, list[Look]] = {}
        self._chance = random.Random(SEED)

    @property
    def samples(self) -> list[Sample]:
        """What was measured so far."""
        return self._measured.samples

    @property
    def series(self) -> list[dict[str, object]]:
        """All looks, each with what went on."""
        return [
            {"during": during, **one}
            for during, looks in self._looks.items()
            for one in growth.as_series(looks)
        ]

    async def run(self) -> None:
        """Do it all, and stop every node on the way out; raises RuntimeError, CallFailed."""
        try:
            await self._cluster.start()
            self._lights = [await self._light(node) for node in self._cluster.nodes]
            await self._fill()
            await self._join()
            await self._compare()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            for light in self._lights:
                await light.close()
            await self._stop()
        self._compare_roots()

    async def _light(self, node: Server) -> Light:
        return await Light.open(node.address, (("authorization", f"Bearer {self._token}"),))

    async def _stop(self) -> None:
        """All at the same time: none has to see the others go."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(len(self._nodes)) as threads:
            ends = (loop.run_in_executor(threads, node.stop) for node in self._nodes)
            await asyncio.gather(*ends)

    # -- the load ----------------------------------------------------------------------

    async def _fill(self) -> None:
        size = self._size
        filling = Filling(PREFIX, size.environments, size.names)
        looks = self._looks["load"] = []

        async def work() -> float:
            begun = time.perf_counter()
            async with self._looking(looks, lambda: filling.done, size.environments):
                await filling.run(self._lights)
            return size.variables / (time.perf_counter() - begun)

        sample = await self._measured.rate("load", "", "variables/s", work, PYTHON, keep=False)
        self._measured.keep(sample)
        add = self._measured.add
        short = filling.copies.take()
        environments_s = sample.value / len(size.names)
        said = "; ".join(filter(None, (short, f"{filling.refused:,} were refused once")))
        add("load-environments", environments_s, "environments/s", remark=said)
        took_s = await self._until(self._all_have_all, "all nodes have all", lambda: 0.0)
        add("load-until-all", took_s, "s", "until every node has all, after the last answer")
        slower, dearer = growth.slowing(looks)
        add("load-slowing", slower, "x", "the last fifth over the second: time")
        add("load-slowing", dearer, "x", "the last fifth over the second: processors")
        self._add_memory("load", looks)

    def _add_memory(self, stem: str, looks: Sequence[Look]) -> None:
        """What the nodes hold, and what of it grew with the data: of the worst of them."""
        add = self._measured.add
        anonymous, resident = [one.anon_mb for one in looks], [one.rss_mb for one in looks]
        if stem == "load":
            for case, held in (("anon", anonymous), ("rss", resident)):
                slopes = growth.per_million(looks, held)
                remark = "by node: " + ", ".join(f"{slope:.0f}" for slope in slopes)
                add(f"load-{case}-growth", max(slopes), "MB/million", remark=remark)
        for case, held in (("anon", anonymous), ("rss", resident)):
            most = [max(column) for column in zip(*held, strict=True)]
            remark = "by node: " + ", ".join(f"{each:.0f}" for each in most)
            add(f"{stem}-{case}-most", max(most), "MB", "of one node", remark=remark)
        disk_kb = max(looks[-1].disk_mb) * 1024 / self._size.environments
        add(f"{stem}-disk", disk_kb, "KB/environment", "of one node")
        first_mb, last_mb = looks[0].written_mb, looks[-1].written_mb
        if first_mb is not None and last_mb is not None:
            written_kb = (last_mb - first_mb) * 1024 / self._size.environments
            add(f"{stem}-written", written_kb, "KB/environment", "to the disk, by everybody")
        add(f"{stem}-flush-lag", max(max(one.flush_lag_s) for one in looks), "s", "the most")

    @asynccontextmanager
    async def _looking(
        self, looks: list[Look], done: Callable[[], int], total: int
    ) -> AsyncIterator[None]:
        """Look at the nodes now and then meanwhile, and tell how far it is."""
        begun = time.perf_counter()

        async def once() -> None:
            at_s = time.perf_counter() - begun
            looks.append(await growth.look(self._cluster.nodes, at_s, done()))

        async def keep() -> None:
            while True:
                await asyncio.sleep(self._size.look_s)
                await once()
                say(progress(looks, total, len(self._size.names)))

        await once()
        looking = asyncio.create_task(keep())
        try:
            yield
            await once()
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def _until(
        self, holds: Callable[[], Awaitable[bool]], what: str, moved: Callable[[], float]
    ) -> float:
        """Wait for it; the seconds that took. Raises RuntimeError where nothing moves for long."""
        begun = since = time.perf_counter()
        last = moved()
        while not await holds():
            await asyncio.sleep(_LOOK_S)
            for node in self._cluster.nodes:
                if not node.lives():
                    raise RuntimeError(f"a node ended: {node.last_words()}")
            now = time.perf_counter()
            if moved() != last:
                last, since = moved(), now
            elif now - since > STALLED_S:
                raise RuntimeError(f"not so, and nothing moved for {STALLED_S:.0f} s: {what}")
        return time.perf_counter() - begun

    async def _all_have_all(self) -> bool:
        """Whether all nodes have all, in their states and not in their journals alone."""
        figures = [await _figures(node) for node in self._cluster.nodes]
        held = all(one.get("envd_environments") == self._size.environments for one in figures)
        return held and await self._in_step()

    async def _in_step(self) -> bool:
        """Whether all nodes stream to all others, with next to no lag."""
        for light in self._lights:
            peers = await peers_of(light)
            fresh = [peer.connected and peer.lag_ms < LAG_MS for peer in peers]
            if len(fresh) < len(self._lights) - 1 or not all(fresh):
                return False
        return True

    # -- the join ----------------------------------------------------------------------

    async def _join(self) -> None:
        size = self._size
        probing = Probing(self._lights[:NODES], PREFIX, size.environments, size.names)
        task = asyncio.create_task(probing.run())
        try:
            phases = {"before": await self._phase(probing)}
            say("a fourth node joins")
            phases["during"] = probing.phase()
            await self._take_in()
            phases["after"] = await self._phase(probing)
        finally:
            task.cancel()
            await asyncio.wait((task,))
        await probing.settled()
        self._add_phases(phases, probing)

    async def _phase(self, probing: Probing) -> Times:
        times = probing.phase()
        await asyncio.sleep(self._size.phase_s)
        return times

    def _add_phases(self, phases: Mapping[str, Times], probing: Probing) -> None:
        add = self._measured.add
        for when, times in phases.items():
            for kind, taken in (("read", times.reads_s), ("write", times.writes_s)):
                for share in (0.5, 0.99, 1.0):
                    name = "most" if share == 1.0 else f"p{share * 100:.0f}"
                    remark = f"{len(taken):,} calls"
                    add(
                        f"{kind}-{name}",
                        share_ms(taken, share),
                        "ms",
                        f"{when} the join",
                        remark=remark,
                    )
        failed = sum(times.failed for times in phases.values())
        why = next((times.why for times in phases.values() if times.why), "")
        remark = "; ".join(filter(None, (why, probing.copies.take())))
        add("calls-failed", failed, "calls", remark=remark)

    async def _take_in(self) -> None:
        """Start the fourth node, and wait until it holds everything."""
        joiner, size = self._nodes[NODES], self._size
        begun, cpu_s = time.perf_counter(), self._cluster.cpu_s()
        await joiner.start()
        self._cluster.nodes = self._nodes
        self._lights.append(await self._light(joiner))
        held = 0

        async def all_there() -> bool:
            nonlocal held
            figures = await _figures(joiner)
            held = int(figures.get("envd_environments", held))
            return held >= size.environments and await self._all_have_all()

        looks = self._looks["join"] = []
        async with self._looking(looks, lambda: held, size.environments):
            await self._until(all_there, "the fourth node has all", lambda: held)
        add = self._measured.add
        took_s = time.perf_counter() - begun
        add("join", took_s, "s", "until it has all and is in step", since_cpu_s=cpu_s)
        figures = await _figures(joiner)
        moved_mb = figures.get("envd_repair_bytes_total", 0) / (1 << 20)
        commits = figures.get("envd_repair_commits_total", 0)
        pulls = ", ".join(
            f"{figure:.0f} {name.removeprefix(_PULLS)[:-2]}"
            for name, figure in sorted(figures.items())
            if name.startswith(_PULLS)
        )
        add("join-moved", moved_mb, "MB", "by repair", remark=f"{commits:,.0f} commits; {pulls}")
        add("join-rate", size.environments / took_s, "environments/s")
        self._add_memory("join", looks)

    # -- whether all is the same -------------------------------------------------------

    async def _compare(self) -> None:
        """Nothing is written any more: list, and ask for some, at each node."""
        await self._until(self._all_have_all, "all nodes are in step", lambda: 0.0)
        add, size = self._measured.add, self._size
        lists = [await agreeing.listed(light, PREFIX) for light in self._lights]
        whole = (size.environments, size.variables)
        wrong = sum(one != lists[0] or one[:2] != whole for one in lists)
        remark = f"{lists[0].environments:,} environments, {lists[0].variables:,} variables"
        add("lists-differing", wrong, "nodes", "names and revisions", remark=remark)
        chosen = self._chance.sample(range(size.environments), min(SAMPLED, size.environments))
        names = [f"{PREFIX}/e{n}" for n in chosen]
        differ = await agreeing.differing(self._lights, names)
        add("sample-differing", differ, "environments", f"values, of {len(names):,}")

    def _compare_roots(self) -> None:
        states = [agreeing.roots(node.home) for node in self._nodes]
        differ = agreeing.differing_roots(states)
        last = self.samples[-1]  # of the nodes when they still ran
        ended = replace(last, case="roots-differing", variant="of the states", remark="")
        self._measured.keep(replace(ended, value=differ, unit="partitions"))


async def _figures(node: Server) -> Mapping[str, float]:
    assert isinstance(node.client, NodeClient)
    return await node.client.figures()


def progress(looks: Sequence[Look], total: int, names: int) -> str:
    """How far it is, and how long it may still take at the pace of the last looks."""
    now, before = looks[-1], looks[max(0, len(looks) - 6)]
    pace = (now.done - before.done) / ((now.at_s - before.at_s) or 1)
    left = f"{(total - now.done) / pace / 60:.0f} min left" if pace > 0 else "it stands"
    anonymous = "/".join(f"{each:.0f}" for each in now.anon_mb)
    resident = "/".join(f"{each:.0f}" for each in now.rss_mb)
    return (
        f"  {now.at_s:6.0f} s  {now.done / total:4.0%}  {now.done:,} environments, "
        f"{number(pace * names)} variables/s, {left}; "
        f"anon {anonymous} MB, RSS {resident} MB, disk {sum(now.disk_mb) / 1024:.1f} GB, "
        f"flush lag {max(now.flush_lag_s):.1f} s"
    )
