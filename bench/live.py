"""A live environment of the Python client, read as fast as a program can while it changes.

The reads, the watch that keeps the mapping current and the task that writes 100 changes a second
share one event loop, as they do in an application. So the figure includes what the changes cost
the reader, and a mapping that no longer changes is not taken for a fast one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import envd
from bench.payload import NAMES, value

CHANGES_A_SECOND: Final = 100
READS: Final = 5_000
"""Between two looks at the event loop: a millisecond or less."""
_ENVIRONMENT: Final = "live/e0"
_CHANGING: Final = NAMES[7]


class LiveReads:
    """`read` is the operation; `close` raises RuntimeError where most changes were not seen."""

    def __init__(
        self,
        client: envd.Client,
        env: Mapping[str, str],
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._client = client
        self._env = env
        self._clock_s = clock_s
        self._written = self._seen = 0
        self._last = ""
        self._begun = self._clock_s()
        self._writer = asyncio.create_task(self._write())

    @classmethod
    async def begin(cls, client: envd.Client) -> LiveReads:
        await client.set(_ENVIRONMENT, {name: value(name, 0) for name in NAMES})
        return cls(client, await client.environment(_ENVIRONMENT))

    async def read(self, _: int) -> int:
        """Read each of the 20 variables in turn, READS times in all, and let the loop run."""
        env = self._env
        for _round in range(READS // len(NAMES)):
            for name in NAMES:
                env[name]
        if env[_CHANGING] != self._last:
            self._last = env[_CHANGING]
            self._seen += 1
        await asyncio.sleep(0)
        return READS

    async def _write(self) -> None:
        while True:
            await self._client.set(_ENVIRONMENT, {_CHANGING: value(_CHANGING, self._written + 1)})
            self._written += 1
            due = self._begun + self._written / CHANGES_A_SECOND
            await asyncio.sleep(max(0.0, due - self._clock_s()))

    async def close(self) -> None:
        self._writer.cancel()
        outcome = (await asyncio.gather(self._writer, return_exceptions=True))[0]
        if not isinstance(outcome, asyncio.CancelledError):
            raise RuntimeError("the writer of the changes ended") from outcome
        due = int((self._clock_s() - self._begun) * CHANGES_A_SECOND)
        if self._seen * 2 < due:
            raise RuntimeError(f"{due} changes were due, {self._written} made, {self._seen} seen")
