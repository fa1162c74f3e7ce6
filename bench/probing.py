"""Reads and writes at a fixed rate beside whatever else goes on, each timed from when it was due.

The rate waits for nobody: a call is sent when its time has come, however late those before it
are. So where a node stands still for a second, all that a program would have asked meanwhile
counts as late, not one call alone. Reads are of whole environments drawn at random, from each node
in turn; writes set one variable, at the node that alone writes the environment: two nodes that
write one at the same time would make a conflict of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.light import Caller, CallFailed
from bench.node import SERVICE
from bench.payload import drawn, value
from bench.trio_envd import Copies
from envd.wire._pb import environment_pb2 as pb

READS_S: Final = 60
WRITES_S: Final = 30
"""Calls a second to all nodes together: load that a busy machine has room for."""
PATIENCE_S: Final = 30.0


@dataclass(slots=True)
class Times:
    """Seconds of the calls of one phase, in no order, and how many had no answer."""

    reads_s: list[float] = field(default_factory=list)
    writes_s: list[float] = field(default_factory=list)
    failed: int = 0
    why: str = ""


def share_ms(times_s: Sequence[float], share: float) -> float:
    """The milliseconds that this share of the calls did not exceed; 0 where there are none."""
    if not times_s:
        return 0.0
    return sorted(times_s)[min(len(times_s) - 1, int(len(times_s) * share))] * 1000


class Probing:
    """Calls to several nodes; `phase` begins to count anew, and gives what it counts in."""

    def __init__(
        self,
        lights: Sequence[Caller],
        prefix: str,
        environments: int,
        names: Sequence[str],
        *,
        reads_s: float = READS_S,
        writes_s: float = WRITES_S,
    ) -> None:
        self._lights = lights
        self._prefix = prefix
        self._names = names
        self._draw = drawn(environments)
        self._rates = (reads_s, writes_s)
        self._calls: set[asyncio.Task[None]] = set()
        self.copies = Copies()
        self.times = Times()

    def phase(self) -> Times:
        """Count in another place from now on: what is sent before counts where it was sent."""
        self.times = Times()
        return self.times

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_sending(self._rates[0], self._read))
                group.create_task(self._keep_sending(self._rates[1], self._write))
        finally:
            for call in self._calls:
                call.cancel()

    async def settled(self) -> None:
        """Return once every call that was sent has its answer or has none."""
        while self._calls:
            await asyncio.wait(self._calls)

    async def _keep_sending(self, rate: float, send: Callable[[int, float], None]) -> None:
        begun, sent = time.perf_counter(), 0
        while True:
            due = begun + sent / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            send(sent, due)
            sent += 1

    def _read(self, n: int, due: float) -> None:
        request = pb.GetRequest(environment=f"{self._prefix}/e{self._draw()}")
        times = self.times
        light = self._lights[n % len(self._lights)]
        self._begin(light, "Get", request.SerializeToString(), due, times, times.reads_s)

    def _write(self, n: int, due: float) -> None:
        number, name = self._draw(), self._names[n % len(self._names)]
        put = pb.Put(name=name, value=value(name, n))
        request = pb.WriteRequest(environment=f"{self._prefix}/e{number}", puts=[put])
        times = self.times
        light = self._lights[number % len(self._lights)]
        self._begin(light, "Write", request.SerializeToString(), due, times, times.writes_s)

    def _begin(
        self,
        light: Caller,
        method: str,
        message: bytes,
        due: float,
        times: Times,
        into: list[float],
    ) -> None:
        async def call() -> None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    answer = await light.call(SERVICE + method, message)
            except (CallFailed, TimeoutError) as error:
                times.failed += 1
                times.why = f"{method}: {str(error) or 'no answer'}"
                return
            into.append(time.perf_counter() - due)
            if method == "Write":
                self.copies.note(pb.WriteResponse.FromString(answer).acknowledged)

        task = asyncio.create_task(call())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
