"""A million environments: filled, written to at random for a minute, started cold.

What matters here is not the best second but what lasts: sets spread over everything, so that no
page of the state is written twice for little, the lag of what is durable in the journal and not
yet in the state, the memory that this takes, and the time until a node with all of it serves. A
peer is left out where the disk or the memory of this machine does not hold its data.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.figures import PYTHON, Aim, Sample
from bench.measuring import Measured
from bench.payload import VARIABLES, Operation
from bench.processes import forget_pages, room
from bench.servers import Server

ENVIRONMENTS: Final = 1_000_000
SETS_S: Final = 60.0
CALLERS: Final = 64
CHUNK: Final = 5_000
READY_S: Final = 600.0
SETTLE_S: Final = 5.0
LOOK_S: Final = 0.5
LARGE_CASES: Final = (
    "large-import",
    "large-sets",
    "large-sets-p99",
    "large-flush-lag",
    "large-start",
    "large-rss",
    "large-anon",
    "large-disk",
)
LARGE_AIMS: Final[Mapping[str, Sequence[Aim]]] = {"large-anon": (Aim(500),)}
"""For ENVIRONMENTS; with fewer they say nothing."""


@dataclass(frozen=True, slots=True)
class Need:
    """KB that one environment may take at the most, with what a server needs meanwhile."""

    disk_kb: float
    memory_kb: float


NEEDS: Final[Mapping[str, Need]] = {
    "envd": Need(10, 2),
    "etcd": Need(16, 10),
    "redis-always": Need(10, 9),
}


def too_large(peer: str, environments: int, home: Path) -> str:
    """Why the peer can't take so many environments here; "" where it can."""
    need = NEEDS[peer]
    return lacking(home, environments * need.disk_kb / 1e6, environments * need.memory_kb / 1e6)


def lacking(home: Path, disk_gb: float, memory_gb: float) -> str:
    """What this machine has too little of for so much; "" where it has enough."""
    free_disk_gb, free_memory_gb = room(home)
    for what, wanted, free in (
        ("disk", disk_gb, free_disk_gb),
        ("memory", memory_gb, free_memory_gb),
    ):
        if wanted > free:
            return f"it may need {wanted:.0f} GB of {what}, and {free:.0f} GB are free"
    return ""


class Large:
    """One server's turn with so many environments.

    `seconds` is how long it is written to, `settle_s` the pause before memory is looked at.
    """

    def __init__(
        self, server: Server, environments: int, seconds: float, *, settle_s: float = SETTLE_S
    ) -> None:
        server.ready_s = READY_S
        self._server = server
        self._environments = environments
        self._seconds = seconds
        self._settle_s = settle_s
        self._measured = Measured(server)
        self._held = f"{environments:,} environments"

    def samples(self, chosen: Sequence[str]) -> list[Sample]:
        """What was measured so far of these cases."""
        return [sample for sample in self._measured.samples if sample.case in chosen]

    async def run(self, limit_s: float) -> None:
        """Start the server, do it all, stop it.

        Raises TimeoutError after so many seconds, and else what any of it raises.
        """
        try:
            async with asyncio.timeout(limit_s):
                await self._server.start()
                await self._fill()
                await self._sets()
                await self._cold_start()
        finally:
            with suppress(Exception):  # what went wrong before is what counts
                await self._server.client.close()
            self._server.stop()

    async def _cold_start(self) -> None:
        self._server.stop()
        forget_pages(self._server.home)
        taken = await self._server.start()
        self._measured.add("large-start", taken, "s", f"{self._held}, cold")
        await asyncio.sleep(self._settle_s)
        self._weigh("after the cold start")

    async def _fill(self) -> None:
        """Import in chunks; the time in which the messages are built does not count."""
        spent = 0.0

        async def work() -> float:
            nonlocal spent
            for first in range(0, self._environments, CHUNK):
                numbers = range(first, min(first + CHUNK, self._environments))
                send = self._server.client.import_("large", numbers)
                begun = time.perf_counter()
                await send()
                spent += time.perf_counter() - begun
                await self._server.client.close()
            return self._environments * VARIABLES / spent

        await self._measured.rate("large-import", self._held, "variables/s", work, PYTHON)
        await asyncio.sleep(self._settle_s)
        self._weigh("after the import")

    def _weigh(self, when: str) -> None:
        rss_mb, anon_mb = self._server.memory_mb()
        self._measured.add("large-rss", rss_mb, "MB", when)
        self._measured.add("large-anon", anon_mb, "MB", when)
        self._measured.add("large-disk", self._server.disk_mb(), "MB", when)

    async def _sets(self) -> None:
        variant = self._server.client.random_sets("large", self._environments)
        operations = await variant.begin(CALLERS)
        times: list[float] = []

        async def work() -> float:
            begun = time.perf_counter()
            await _until(begun + self._seconds, operations, times)
            return len(times) / (time.perf_counter() - begun)

        label = f"{variant.label}, {CALLERS} callers"
        watching = asyncio.create_task(self._worst())
        try:
            await self._measured.rate("large-sets", label, "sets/s", work, PYTHON)
        finally:
            watching.cancel()
        worst = await watching
        await self._server.client.close()
        times.sort()
        p99_ms = times[int(len(times) * 0.99)] * 1000
        self._measured.add("large-sets-p99", p99_ms, "ms", label)
        if worst.lag_s is not None:
            self._measured.add("large-flush-lag", worst.lag_s, "s", "the most of the sets")
        self._measured.add("large-anon", worst.anon_mb, "MB", "the most of the sets")
        self._weigh("after the sets")

    async def _worst(self) -> Worst:
        """Look now and then until cancelled; then answer with the most that was seen."""
        worst = Worst(0.0, None)
        try:
            while True:
                lag_s = await self._server.client.flush_lag_s()
                worst = replace(worst, anon_mb=max(worst.anon_mb, self._server.memory_mb()[1]))
                if lag_s is not None:
                    worst = replace(worst, lag_s=max(worst.lag_s or 0.0, lag_s))
                await asyncio.sleep(LOOK_S)
        except asyncio.CancelledError:
            return worst


@dataclass(frozen=True, slots=True)
class Worst:
    """The most anonymous memory, and the longest flush lag where the server tells it."""

    anon_mb: float
    lag_s: float | None


async def _until(end: float, operations: Sequence[Operation], times: list[float]) -> None:
    numbers = itertools.count()

    async def caller(operation: Operation) -> None:
        while (start := time.perf_counter()) < end:
            await operation(next(numbers))
            times.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for operation in operations:
            group.create_task(caller(operation))
