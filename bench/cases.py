"""What is measured, in which order, and what envd should reach.

One repetition of one server: start, fill, read, write, import, export, watch, restart. Each
server meets the same sequence, so a case finds the same data before it in every row. A case that
fails is named, and the next one goes on where the server still lives.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from bench.compiled import Compiled
from bench.figures import PYTHON, Aim, Sample
from bench.large import LARGE_AIMS, LARGE_CASES
from bench.measuring import Measured, timed
from bench.node import CLIENT, STREAM
from bench.payload import LOADED, VARIABLES, Operation, Variant
from bench.servers import Server

WARM_UP_S: Final = 0.3
PATIENCE_S: Final = 180.0
DYING_S: Final = 0.3
"""After a failure: a server whose connection broke is a moment from its end."""
_FULL: Final = f"{LOADED * VARIABLES:,} variables"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of each case; `settle_s` is the pause before memory is looked at."""

    seconds: float
    environments: int
    events: int
    commands: int
    settle_s: float = 1.0


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
    Rate("read-live", 1, "reads/s"),
    *(Rate("set", callers, "sets/s") for callers in (1, 16, 64, 256)),
    Rate("set-batched", 64, "sets/s"),
    Rate("set-batched", 256, "sets/s"),
    Rate("commit", 16, "variables/s"),
)
_BATCHED: Final = (Aim(2, "etcd", "plain put", STREAM), Aim(2, "etcd", "plain put", CLIENT))
AIMS: Final[Mapping[str, Sequence[Aim]]] = {
    "get-64": (Aim(0.2, "etcd", "range of a key"),),
    "set-64": (Aim(0.2, "etcd", "put"),),
    "read-batched-4": (Aim(2, "etcd", "txn of 100 ranges"), Aim(2, "etcd", "plain ranges")),
    "read-live-1": (Aim(1_000_000),),
    "set-batched-64": _BATCHED,
    "set-batched-256": _BATCHED,
    "commit-16": (Aim(2, "etcd", "txn of 100"),),
    "import": (Aim(1_000_000), Aim(5, "etcd", "")),
    "propagation-p99": (Aim(3),),
    "rss-full": (Aim(150),),
    "start": (Aim(1),),
    **LARGE_AIMS,
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
ALL_CASES: Final = (*CASES, *LARGE_CASES)


class Repetition:
    """One server's turn: every chosen case, each measured from outside.

    `compiled` says whether the plain rows come from compiled generators; `failures` says after
    `run` which cases have no sample, and why.
    """

    def __init__(
        self, server: Server, scale: Scale, chosen: Sequence[str], *, compiled: bool
    ) -> None:
        self._server = server
        self._scale = scale
        self._chosen = frozenset(chosen or CASES)
        self._compiled = compiled
        self._measured = Measured(server)
        self._hangs = False
        self.failures: dict[str, str] = {}

    @property
    def samples(self) -> list[Sample]:
        """What was measured so far of the chosen cases."""
        return [sample for sample in self._measured.samples if sample.case in self._chosen]

    async def run(self) -> None:
        """Start the server, do it all, stop it."""
        try:
            await self._attempt("start", self._begin)
            for case, work in self._work():
                if self._hangs or not self._server.lives():
                    self.failures.setdefault(f"{case} and after", self._why_over())
                    break
                await self._attempt(case, work)
        finally:
            self._server.stop()

    def _why_over(self) -> str:
        words = self._server.last_words()
        return "the case before took too long" if self._hangs else f"the server ended: {words}"

    def _work(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        rates = [
            (rate.name, lambda rate=rate: self._rate(rate))
            for rate in RATES
            if rate.name in self._chosen and rate.name not in self._server.client.lacks
        ]
        others = (
            ({"import", "export"}, "import", self._bulk),
            ({"propagation-p50", "propagation-p99"}, "propagation", self._propagation),
            ({"restart"}, "restart", self._restart),
        )
        wanted = [
            (name, work)
            for cases, name, work in others
            if cases & self._chosen and name not in self._server.client.lacks
        ]
        return [("rss-full", self._fill), ("command-line", self._command_line), *rates, *wanted]

    async def _attempt(self, case: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do one case; what it raises is noted, and its connections are closed."""
        try:
            async with asyncio.timeout(PATIENCE_S):  # a server that hangs must not hang the others
                await work()
        except Exception as error:  # noqa: BLE001 - one case must not end the others; it is named
            self.failures[case] = reason(error)
            self._hangs = isinstance(error, TimeoutError)
            await asyncio.sleep(DYING_S)
        finally:
            await self._close(case)

    async def _close(self, case: str) -> None:
        try:
            await self._server.client.close()
        except Exception as error:  # noqa: BLE001 - as above
            self.failures.setdefault(case, reason(error))

    # -- the cases ---------------------------------------------------------------------

    async def _begin(self) -> None:
        self._measured.add("start", await self._server.start(), "s")
        await asyncio.sleep(self._scale.settle_s)
        self._measured.add("rss-idle", self._server.memory_mb()[0], "MB")

    async def _fill(self) -> None:
        await self._server.client.import_("load", range(LOADED))()
        await self._server.client.close()
        await asyncio.sleep(self._scale.settle_s)
        self._measured.add("rss-full", self._server.memory_mb()[0], "MB", _FULL)

    async def _rate(self, rate: Rate) -> None:
        for variant in self._server.client.variants.get(rate.kind, ()):
            if self._compiled and variant.compiled is not None:
                await self._compiled_rate(rate, variant.label, variant.compiled)
            else:
                await self._python_rate(rate, variant)

    async def _python_rate(self, rate: Rate, variant: Variant) -> None:
        numbers = itertools.count()
        operations = await variant.begin(rate.callers)
        await for_seconds(WARM_UP_S, operations, numbers)

        async def work() -> float:
            return await timed(for_seconds(self._scale.seconds, operations, numbers))

        await self._measured.rate(rate.name, variant.label, rate.unit, work, PYTHON)
        await self._server.client.close()

    async def _compiled_rate(self, rate: Rate, label: str, compiled: Compiled) -> None:
        await compiled.begin(rate.callers)
        tallies = []

        async def work() -> float:
            tallies.append(await compiled.run(rate.callers, self._scale.seconds))
            return tallies[0].rate

        sample = await self._measured.rate(
            rate.name, label, rate.unit, work, compiled.generator, keep=False
        )
        await compiled.check(tallies[0])
        self._measured.keep(sample)

    async def _bulk(self) -> None:
        variables = self._scale.environments * VARIABLES
        send = self._server.client.import_("import", range(self._scale.environments))

        async def imported() -> int:
            await send()
            return variables

        async def exported() -> int:
            found = await self._server.client.export("import")
            if found != variables:
                raise RuntimeError(f"{found} of {variables} variables were exported")
            return found

        for case, work in (("import", imported), ("export", exported)):
            await self._measured.rate(case, "", "variables/s", lambda: timed(work()), PYTHON)  # noqa: B023 - awaited at once

    async def _propagation(self) -> None:
        cpu = self._server.cpu_s()
        times = sorted(await self._server.client.propagation(self._scale.events))
        for case, share in (("propagation-p50", 0.5), ("propagation-p99", 0.99)):
            figure = times[int(len(times) * share)] * 1000
            self._measured.add(case, figure, "ms", since_cpu_s=cpu)

    async def _restart(self) -> None:
        self._server.stop()
        self._measured.add("restart", await self._server.start(), "s", "with all that")

    async def _command_line(self) -> None:
        if "command-line" not in self._chosen:
            return
        cpu, times = self._server.cpu_s(), []
        for _ in range(self._scale.commands):
            start = time.perf_counter()
            subprocess.run(  # noqa: ASYNC221 - nothing else runs here
                self._server.command_line,
                env={**os.environ, **self._server.environ},
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                timeout=PATIENCE_S / self._scale.commands,
            )
            times.append((time.perf_counter() - start) * 1000)
        times.sort()
        median = times[len(times) // 2]
        self._measured.add("command-line", median, "ms", "get of a variable", since_cpu_s=cpu)


def reason(error: Exception) -> str:
    """One line on why a case has no figure."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {(error.details() or '')[:200]}"
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first[:200]}"


async def for_seconds(
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
