"""Samples of one server: what the work took of the processors, and what the server holds."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from bench.figures import Sample, number
from bench.processes import machine_cpu_s, own_cpu_s


class Subject(Protocol):
    """What is measured: one server, or several that are one."""

    @property
    def name(self) -> str:
        """The peer that it is in the result."""
        ...

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        ...

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory now, and what of it is anonymous."""
        ...

    def disk_mb(self) -> float:
        """What its files take on the disk."""
        ...


class Measured:
    """Takes the samples of one server, and says each as it comes."""

    def __init__(self, server: Subject) -> None:
        self._server = server
        self.samples: list[Sample] = []

    def add(
        self,
        case: str,
        value: float,
        unit: str,
        variant: str = "",
        *,
        since_cpu_s: float = 0.0,
        remark: str = "",
    ) -> None:
        """A sample without a rate; its processor seconds count from `since_cpu_s`."""
        cpu = self._server.cpu_s() - since_cpu_s
        sample = self._sample(case, value, unit, variant, server_cpu_s=cpu)
        self.keep(replace(sample, remark=remark))

    async def rate(
        self,
        case: str,
        variant: str,
        unit: str,
        work: Callable[[], Awaitable[float]],
        generator: str,
        *,
        keep: bool = True,
    ) -> Sample:
        """A sample of `work`, which answers with its rate per second, made by `generator`."""
        server_cpu, own_cpu, machine = self._server.cpu_s(), own_cpu_s(), machine_cpu_s()
        start = time.perf_counter()
        value = await work()
        wall = time.perf_counter() - start
        own_cpu, server_cpu = own_cpu_s() - own_cpu, self._server.cpu_s() - server_cpu
        sample = self._sample(
            case,
            value,
            unit,
            variant,
            generator=generator,
            wall_s=wall,
            server_cpu_s=server_cpu,
            generator_cpu_s=own_cpu,
            others_cpu_s=max(0.0, machine_cpu_s() - machine - own_cpu - server_cpu),
        )
        if keep:
            self.keep(sample)
        return sample

    def keep(self, sample: Sample) -> None:
        """Have it in the result."""
        self.samples.append(sample)
        said = f"{sample.case} {sample.variant}: {number(sample.value)} {sample.unit}"
        print(f"  {said}", file=sys.stderr, flush=True)

    def _sample(
        self,
        case: str,
        value: float,
        unit: str,
        variant: str,
        *,
        server_cpu_s: float,
        generator: str = "",
        wall_s: float = 0.0,
        generator_cpu_s: float = 0.0,
        others_cpu_s: float = 0.0,
    ) -> Sample:
        rss_mb, anon_mb = self._server.memory_mb()
        return Sample(
            case=case,
            peer=self._server.name,
            variant=variant,
            value=value,
            unit=unit,
            wall_s=wall_s,
            server_cpu_s=server_cpu_s,
            generator_cpu_s=generator_cpu_s,
            others_cpu_s=others_cpu_s,
            rss_mb=rss_mb,
            disk_mb=self._server.disk_mb(),
            anon_mb=anon_mb,
            generator=generator,
        )


async def timed(work: Awaitable[int]) -> float:
    """How much `work` did per second of its time."""
    start = time.perf_counter()
    done = await work
    return done / (time.perf_counter() - start)
