"""What is measured of three nodes, in which order, and what envd should reach."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from bench import trio_envd, trio_etcd
from bench.cases import DYING_S, Rate, for_seconds, reason
from bench.figures import PYTHON, Aim, Sample
from bench.measuring import Measured, timed
from bench.payload import VARIABLES, Variant
from bench.spreading import WARM_UP_S as SPREAD_WARM_UP_S
from bench.spreading import Sightings, count_of, spread
from bench.trio import NODES, Trio

WARM_UP_S: Final = 0.5
PATIENCE_S: Final = 120.0
CHANGES: Final = (200, 1_000, 5_000)


@dataclass(frozen=True, slots=True)
class ClusterScale:
    """How much of each case; `environments` of 20 variables are imported."""

    seconds: float
    environments: int
    change_seconds: float


DEFAULT: Final = ClusterScale(seconds=2.5, environments=20_000, change_seconds=3.0)
QUICK: Final = ClusterScale(seconds=0.5, environments=500, change_seconds=0.5)

RATES: Final = (
    Rate("set-batched", 64, "sets/s"),
    Rate("set-batched", 256, "sets/s"),
    Rate("commit", 16, "variables/s"),
)
_PUT: Final = f"put, {trio_etcd.LEADER}"
_SETS: Final = (
    Aim(2, "etcd", _PUT, trio_envd.SETS_ONE),
    Aim(2, "etcd", _PUT, trio_envd.SETS_EACH),
)
_CHANGE: Final = (Aim(3.3), Aim(3, "etcd", trio_etcd.LEADER))
CASES: Final = (
    *(rate.name for rate in RATES),
    "import",
    *(f"change-{rate}-{share}" for rate in CHANGES for share in ("p50", "p99")),
)
AIMS: Final[Mapping[str, Sequence[Aim]]] = {
    "set-batched-64": _SETS,
    "set-batched-256": _SETS,
    "commit-16": (Aim(2, "etcd", f"txn of 100, {trio_etcd.LEADER}"),),
    "import": (Aim(3, "etcd", ""),),
    **{f"change-{rate}-p99": _CHANGE for rate in CHANGES},
}


class ClusterRepetition:
    """One store's turn: three nodes are started, every chosen case is done, they are stopped.

    `failures` says after `run` which cases have no sample, and why.
    """

    def __init__(self, trio: Trio, scale: ClusterScale, chosen: Sequence[str]) -> None:
        self._trio = trio
        self._scale = scale
        self._chosen = frozenset(chosen or CASES)
        self._measured = Measured(trio)
        self.failures: dict[str, str] = {}

    @property
    def samples(self) -> list[Sample]:
        """What was measured so far of the chosen cases."""
        return [sample for sample in self._measured.samples if sample.case in self._chosen]

    async def run(self) -> None:
        """Do it all. A case that fails is named, and the next one goes on where all nodes live."""
        try:
            await self._attempt("start", self._trio.start)
            for case, work in self._work() if not self.failures else ():
                if not self._trio.lives():
                    words = self._trio.last_words()
                    self.failures.setdefault(f"{case} and after", f"a node ended: {words}")
                    break
                await self._attempt(case, work)
        finally:
            self._trio.stop()

    def _work(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        """The chosen cases; each way of a rate is tried by itself."""
        client, chosen = self._trio.client, self._chosen
        rates = [
            (f"{rate.name}, {variant.label}", partial(self._rate, rate, variant))
            for rate in RATES
            if rate.name in chosen
            for variant in client.variants[rate.kind]
        ]
        bulk = [("import", self._import)] if "import" in chosen else []
        changes = [
            (f"change-{rate}, {way}", partial(self._change, rate, way))
            for rate in CHANGES
            if chosen & change_cases(rate)
            for way in client.change_ways
        ]
        return [*rates, *bulk, *changes]

    async def _attempt(self, case: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await work()
        except Exception as error:  # noqa: BLE001 - one case must not end the others; it is named
            self.failures[case] = reason(error)
            await asyncio.sleep(DYING_S)
        finally:
            await self._close(case)

    async def _close(self, case: str) -> None:
        try:
            await self._trio.client.close()
        except Exception as error:  # noqa: BLE001 - as above
            self.failures.setdefault(case, reason(error))

    # -- the cases ---------------------------------------------------------------------

    async def _rate(self, rate: Rate, variant: Variant) -> None:
        numbers = itertools.count()
        operations = await variant.begin(rate.callers)
        await for_seconds(WARM_UP_S, operations, numbers)
        self._trio.client.remark()

        async def work() -> float:
            return await timed(for_seconds(self._scale.seconds, operations, numbers))

        sample = await self._measured.rate(
            rate.name, variant.label, rate.unit, work, PYTHON, keep=False
        )
        self._measured.keep(replace(sample, remark=self._trio.client.remark()))

    async def _import(self) -> None:
        """The clock stops when the last node has all; then each counts what it has."""
        variables = self._scale.environments * VARIABLES
        send = self._trio.client.import_("import", range(self._scale.environments))

        async def work() -> float:
            begun = time.perf_counter()
            await send()
            return variables / (time.perf_counter() - begun)

        sample = await self._measured.rate("import", "", "variables/s", work, PYTHON, keep=False)
        held = await self._trio.client.holds("import")
        if list(held) != [variables] * NODES:
            raise RuntimeError(f"of {variables} variables the nodes have {list(held)}")
        self._measured.keep(replace(sample, remark=self._trio.client.remark()))

    async def _change(self, rate: int, way: str) -> None:
        client, seconds = self._trio.client, self._scale.change_seconds
        sightings = Sightings(count_of(rate, seconds), NODES)
        send = await client.changes(
            way, lambda watcher, n: sightings.saw(watcher, n, time.perf_counter())
        )
        cpu = self._trio.cpu_s()
        found = await spread(rate, seconds, sightings, send)
        said = [client.remark()]
        if found.rate < 0.95 * rate:
            said.append(f"only {found.rate:,.0f} a second were sent")
        if found.unseen:
            said.append(f"{found.unseen:,} changes were not seen by all")
        remark = "; ".join(filter(None, said))
        for share in (0.5, 0.99):
            case = f"change-{rate}-p{share * 100:.0f}"
            figure = found.share_s(share) * 1000
            self._measured.add(case, figure, "ms", way, since_cpu_s=cpu, remark=remark)


EXPECTED_S: Final = 9.0
"""To start and stop three nodes."""


def change_cases(rate: int) -> frozenset[str]:
    """The two cases of one rate of changes."""
    return frozenset({f"change-{rate}-p50", f"change-{rate}-p99"})


def expected_s(scale: ClusterScale, chosen: Sequence[str], peers: int, repetitions: int) -> float:
    """About how long a run takes."""
    cases = frozenset(chosen or CASES)
    rates = sum(3 * (WARM_UP_S + scale.seconds) for rate in RATES if rate.name in cases)
    imported = scale.environments * VARIABLES / 25_000 if "import" in cases else 0.0
    changes = sum(
        2 * (SPREAD_WARM_UP_S + scale.change_seconds + 0.5)
        for rate in CHANGES
        if change_cases(rate) & cases
    )
    return peers * repetitions * (EXPECTED_S + rates + imported + changes)
