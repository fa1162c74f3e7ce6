"""What is measured, in which order, and what envd should reach.

One repetition of one server: start, fill, read, write, import, export, watch, restart. Each
server meets the same sequence, so a case finds the same data before it in every row.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.figures import Aim, Sample, number
from bench.payload import LOADED, VARIABLES, Operation, Variant
from bench.servers import Server, machine_cpu_s

WARM_UP_S: Final = 0.3
SETTLE_S: Final = 1.0
PATIENCE_S: Final = 300.0
_FULL: Final = f"{LOADED * VARIABLES:,} variables"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of each case."""

    seconds: float
    environments: int
    events: int
    commands: int


DEFAULT: Final = Scale(seconds=2.0, environments=50_000, events=1_000, commands=10)
QUICK: Final = Scale(seconds=1.0, environments=2_000, events=200, commands=5)


@dataclass(frozen=True, slots=True)
class Rate:
    """Callers that each wait for their answer, for a fixed time."""

    kind: str
    callers: int
    unit: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.callers}"


RATES: Final = (
    *(Rate("get", callers, "gets/s") for callers in (1, 16, 64, 256)),
    Rate("read", 16, "variables/s"),
    Rate("read-batched", 4, "variables/s"),
    *(Rate("set", callers, "sets/s") for callers in (1, 16, 64, 256)),
    Rate("set-batched", 64, "sets/s"),
    Rate("set-batched", 256, "sets/s"),
    Rate("commit", 16, "variables/s"),
)
AIMS: Final[Mapping[str, Sequence[Aim]]] = {
    "get-64": (Aim(0.2, "etcd", "range of a key"),),
    "set-64": (Aim(0.2, "etcd", "put"),),
    "read-batched-4": (Aim(2, "etcd", "txn of 100 ranges"), Aim(2, "etcd", "plain ranges")),
    "set-batched-64": (Aim(2, "etcd", "plain put"),),
    "set-batched-256": (Aim(2, "etcd", "plain put"),),
    "commit-16": (Aim(2, "etcd", "txn of 100"),),
    "import": (Aim(1_000_000), Aim(5, "etcd", "")),
    "propagation-p99": (Aim(3),),
    "rss-full": (Aim(150),),
    "start": (Aim(1),),
}
CASES: Final = (
    "start",
    "rss-idle",
    "rss-full",
    "command-line",
    *(rate.name for rate in RATES),
    "import",
    "export",
    "propagation-p50",
    "propagation-p99",
    "restart",
)


class Repetition:
    """One server's turn: every chosen case, each measured from outside."""

    def __init__(self, server: Server, scale: Scale, chosen: Sequence[str]) -> None:
        self._server = server
        self._scale = scale
        self._chosen = frozenset(chosen or CASES)
        self._samples: list[Sample] = []

    async def run(self) -> list[Sample]:
        """Start the server, do it all, stop it."""
        try:
            self._add("start", await self._server.start(), "s")
            await asyncio.sleep(SETTLE_S)
            self._add("rss-idle", self._server.rss_mb(), "MB")
            await self._server.client.import_("load", LOADED)()
            await self._server.client.close()
            await asyncio.sleep(SETTLE_S)
            self._add("rss-full", self._server.rss_mb(), "MB", _FULL)
            self._command_line()
            for rate in RATES:
                if rate.name in self._chosen:
                    await self._rate(rate)
            await self._bulk()
            await self._propagation()
            if "restart" in self._chosen:
                self._server.stop()
                self._add("restart", await self._server.start(), "s", "with all that")
        finally:
            await self._server.client.close()
            self._server.stop()
        return [sample for sample in self._samples if sample.case in self._chosen]

    def _add(
        self, case: str, value: float, unit: str, variant: str = "", *, since_cpu_s: float = 0.0
    ) -> None:
        """A sample without a rate; its processor seconds count from `since_cpu_s`."""
        server = self._server
        sample = Sample(
            case,
            server.name,
            variant,
            value,
            unit,
            wall_s=0.0,
            server_cpu_s=server.cpu_s() - since_cpu_s,
            generator_cpu_s=0.0,
            others_cpu_s=0.0,
            rss_mb=server.rss_mb(),
            disk_mb=server.disk_mb(),
        )
        self._samples.append(sample)
        print(f"  {case} {variant}: {number(value)} {unit}", file=sys.stderr, flush=True)

    async def _measured(
        self, case: str, variant: str, unit: str, work: Callable[[], Awaitable[float]]
    ) -> None:
        """One sample of `work`, which answers with how much it did; per second of its time."""
        server_cpu, own_cpu = self._server.cpu_s(), time.process_time()
        busy = machine_cpu_s()
        start = time.perf_counter()
        async with asyncio.timeout(PATIENCE_S):  # a server that hangs must not hang the others
            done = await work()
        wall = time.perf_counter() - start
        own_cpu, server_cpu = time.process_time() - own_cpu, self._server.cpu_s() - server_cpu
        others = max(0.0, machine_cpu_s() - busy - own_cpu - server_cpu)
        await self._server.client.close()
        self._add(case, done / wall, unit, variant)
        self._samples[-1] = replace(
            self._samples[-1],
            wall_s=wall,
            server_cpu_s=server_cpu,
            generator_cpu_s=own_cpu,
            others_cpu_s=others,
        )

    async def _rate(self, rate: Rate) -> None:
        for variant in self._server.client.variants.get(rate.kind, ()):
            await self._variant(rate, variant)

    async def _variant(self, rate: Rate, variant: Variant) -> None:
        numbers = itertools.count()
        async with asyncio.timeout(PATIENCE_S):
            operations = await variant.begin(rate.callers)
            await _for(WARM_UP_S, operations, numbers)

        async def work() -> float:
            return await _for(self._scale.seconds, operations, numbers)

        await self._measured(rate.name, variant.label, rate.unit, work)

    async def _bulk(self) -> None:
        if not self._chosen & {"import", "export"}:
            return
        variables = self._scale.environments * VARIABLES
        send = self._server.client.import_("import", self._scale.environments)

        async def imported() -> float:
            await send()
            return variables

        async def exported() -> float:
            found = await self._server.client.export("import")
            assert found == variables
            return found

        await self._measured("import", "", "variables/s", imported)
        await self._measured("export", "", "variables/s", exported)

    async def _propagation(self) -> None:
        if not self._chosen & {"propagation-p50", "propagation-p99"}:
            return
        cpu = self._server.cpu_s()
        async with asyncio.timeout(PATIENCE_S):
            times = sorted(await self._server.client.propagation(self._scale.events))
        await self._server.client.close()
        if times:
            self._add("propagation-p50", times[len(times) // 2] * 1000, "ms", since_cpu_s=cpu)
            self._add(
                "propagation-p99", times[len(times) * 99 // 100] * 1000, "ms", since_cpu_s=cpu
            )

    def _command_line(self) -> None:
        if "command-line" not in self._chosen:
            return
        cpu, times = self._server.cpu_s(), []
        for _ in range(self._scale.commands):
            start = time.perf_counter()
            subprocess.run(
                self._server.command_line,
                env={**os.environ, **self._server.environ},
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                timeout=PATIENCE_S,
            )
            times.append((time.perf_counter() - start) * 1000)
        times.sort()
        self._add(
            "command-line", times[len(times) // 2], "ms", "get of a variable", since_cpu_s=cpu
        )


async def _for(
    seconds: float, operations: Sequence[Operation], numbers: itertools.count[int]
) -> int:
    """Let every caller do one piece of work after the other; how much they did."""
    end = time.perf_counter() + seconds
    done = 0

    async def caller(operation: Operation) -> None:
        nonlocal done
        while time.perf_counter() < end:
            units = await operation(next(numbers))
            done += units  # apart: `done` must be read after the wait

    async with asyncio.TaskGroup() as group:
        for operation in operations:
            group.create_task(caller(operation))
    return done
