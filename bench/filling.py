"""Whole environments into several nodes at once, as fast as they take them and no faster.

Each node has one import stream. On each only so many environments are on their way: the next
ones go out as answers come in, so a node that is slow gets fewer of them, and no message waits in
memory. What a node refuses because it has too much to do comes again, a little later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from bench.light import CallFailed, Streamer
from bench.node import IMPORT_BATCH, SERVICE, import_message
from bench.trio_envd import Copies
from envd.wire._pb import environment_pb2 as pb

ON_THEIR_WAY: Final = 150
"""Environments of one node without an answer."""
AGAIN_S: Final = 0.2
_BUSY: Final = "OVERLOADED"


class Filling:
    """Environments PREFIX/e0, PREFIX/e1 ... of these variables; `done` counts the answers."""

    def __init__(
        self, prefix: str, environments: int, names: Sequence[str], *, again_s: float = AGAIN_S
    ) -> None:
        self.again_s = again_s
        self._prefix = prefix
        self._names = names
        self._environments = environments
        self._left = iter(range(0, environments, IMPORT_BATCH))
        self._again: deque[int] = deque()
        self.copies = Copies()
        self.done = 0
        self.refused = 0
        """How often one came again."""

    async def run(self, lights: Sequence[Streamer]) -> None:
        """Return once all are answered, over these connections; raises CallFailed."""
        async with asyncio.TaskGroup() as group:
            for light in lights:
                group.create_task(_Feed(self, light).run())

    def batch(self) -> Sequence[int]:
        """The next ones to be sent, empty where there are none now."""
        if self._again:
            return [self._again.popleft() for _ in range(min(IMPORT_BATCH, len(self._again)))]
        first = next(self._left, None)
        if first is None:
            return ()
        return range(first, min(first + IMPORT_BATCH, self._environments))

    def message(self, numbers: Sequence[int]) -> bytes:
        return import_message(self._prefix, numbers, self._names)

    @property
    def complete(self) -> bool:
        return self.done == self._environments

    def answered(self, result: pb.ImportResponse.Result) -> None:
        """Count an answer; raises CallFailed for an error that does not pass."""
        if result.HasField("done"):
            self.copies.note(result.done.acknowledged)
            self.done += 1
        elif result.error.reason == _BUSY:
            self.refused += 1
            self._again.append(int(result.environment.rpartition("/e")[2]))
        else:
            raise CallFailed(f"{result.error.reason}: {result.error.message}")


class _Feed:
    """The import stream of one node."""

    def __init__(self, filling: Filling, light: Streamer) -> None:
        self._filling = filling
        self._light = light
        self._news = asyncio.Event()
        self._on_their_way = 0
        self._failure: CallFailed | None = None
        self._is_busy = False

    async def run(self) -> None:
        """Send until all are answered, of every node; raises CallFailed."""
        filling, light = self._filling, self._light
        stream = light.begin(SERVICE + "Import", self._answered, self._end)
        while not filling.complete:
            if self._is_busy:
                self._is_busy = False
                await asyncio.sleep(filling.again_s)
            batch = filling.batch() if self._on_their_way < ON_THEIR_WAY else ()
            if batch:
                self._on_their_way += len(batch)
                light.send(stream, filling.message(batch))
                await asyncio.sleep(0)
            else:
                await self._wait()
            if self._failure is not None:
                raise self._failure
        light.finish(stream)

    async def _wait(self) -> None:
        """Until there is an answer, and now and then: others' answers tell of the end too."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._filling.again_s):
                await self._news.wait()

    def _answered(self, raw: bytes) -> None:
        results = pb.ImportResponse.FromString(raw).results
        self._on_their_way -= len(results)
        refused = self._filling.refused
        try:
            for result in results:
                self._filling.answered(result)
        except CallFailed as failure:
            self._failure = failure
        self._is_busy = self._is_busy or self._filling.refused > refused
        self._news.set()

    def _end(self) -> None:
        if not self._filling.complete:
            self._failure = self._failure or CallFailed("an import ended by itself")
        self._news.set()
