"""Many writes over one stream, without waiting in between.

Writes are begun in the order they come, so of two writes to one environment the later one
wins, and answered in that order as they become durable. At most `window` are under way: then
nothing more is read, and gRPC's flow control makes the sender wait. A write counts as under
way until its answer is sent, so a client that does not read its answers stops itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from envd.core.answers import WriteAnswer
from envd.core.errors import EnvdError
from envd.core.requests import WriteRequest
from envd.net.faults import Faults
from envd.net.grpc_calls import ClientGone, Stopper
from envd.node.writing import Writing
from envd.telemetry.requests import CANCELLED, OK, Requests
from envd.wire.api_errors import code_name

KeyT = TypeVar("KeyT")
Outcome = WriteAnswer | EnvdError
_Begun = tuple[KeyT, Writing | EnvdError, float]
WINDOW: Final = 1024
_CHANGES_A_TURN: Final = 256
"""After so many changes other calls get their turn of the event loop."""


class Pipeline(Generic[KeyT]):
    """The writes of one stream; `begin_write` is `EnvironmentApi.begin_write` for its caller."""

    def __init__(
        self,
        call: str,
        begin_write: Callable[[WriteRequest], Awaitable[Writing]],
        faults: Faults,
        stopper: Stopper,
        *,
        window: int = WINDOW,
        requests: Requests | None = None,
    ) -> None:
        counted = requests or Requests()
        self._clock, self._figures = counted.clock, counted.of(call)
        self._call = call
        self._begin_write = begin_write
        self._faults = faults
        self._stopper = stopper
        self._room = asyncio.Semaphore(window)
        self._under_way: deque[_Begun[KeyT]] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._failure: EnvdError | None = None
        self._changes = 0

    async def run(
        self,
        read: Callable[[], Awaitable[None]],
        answer: Callable[[Sequence[tuple[KeyT, Outcome]]], Awaitable[None]],
    ) -> None:
        """Serve the stream: `read` calls `begin` for each item until the end, `answer` sends.

        What begun is answered also where `read` fails or the node stops; then that error is
        raised. Raises ClientGone where `answer` does.
        """
        gone: ClientGone | None = None
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(read))
                try:
                    await self._answer(answer)
                except ClientGone as error:
                    gone = error
                reader.cancel()
        finally:
            self._let_go()
        if gone is not None:
            raise gone
        if self._failure is not None:
            raise self._failure

    async def begin(self, key: KeyT, write: Callable[[], WriteRequest]) -> None:
        """Begin one write; an error of its own is its answer, and the stream goes on."""
        await self._room.acquire()
        started = self._clock()
        self._under_way.append((key, await self._begun(write), started))
        self._news.set()
        if self._changes > _CHANGES_A_TURN:
            self._changes = 0
            await asyncio.sleep(0)

    async def _begun(self, write: Callable[[], WriteRequest]) -> Writing | EnvdError:
        self._changes += 1
        try:
            request = write()
            self._changes += len(request.puts)
            return await self._begin_write(request)
        except EnvdError as error:
            return error
        except Exception as error:  # noqa: BLE001 - one item must not end the others
            return self._faults.report(self._call, error, writes=True)

    async def _read(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            with self._stopper.ends():
                await read()
        except EnvdError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - the task's outermost guard
            self._failure = self._faults.report(self._call, error)
        finally:
            self._ended = True
            self._news.set()

    async def _answer(
        self, answer: Callable[[Sequence[tuple[KeyT, Outcome]]], Awaitable[None]]
    ) -> None:
        """Send the answers in order, as many at once as there are."""
        while True:
            while not self._under_way:
                if self._ended:
                    return
                self._news.clear()
                await self._news.wait()
            batch = [await self._oldest()]
            while self._under_way and _landed(self._under_way[0][1]):
                batch.append(await self._oldest())
            await answer(batch)
            for _ in batch:
                self._room.release()

    async def _oldest(self) -> tuple[KeyT, Outcome]:
        """Wait for the oldest write under way and take it out."""
        key, writing, started = self._under_way[0]
        outcome = writing if isinstance(writing, EnvdError) else await self._outcome(writing)
        self._under_way.popleft()
        code = code_name(outcome) if isinstance(outcome, EnvdError) else OK
        self._figures.record(code, self._clock() - started)
        return key, outcome

    async def _outcome(self, writing: Writing) -> Outcome:
        try:
            return writing.result() if writing.done() else await writing
        except EnvdError as error:
            return error
        except Exception as error:  # noqa: BLE001 - one item must not end the others
            return self._faults.report(self._call, error, writes=True)

    def _let_go(self) -> None:
        """Wait no longer for writes whose answers nobody takes; they are done all the same."""
        if self._under_way:
            self._figures.count(CANCELLED, len(self._under_way))
        for _, writing, _ in self._under_way:
            if isinstance(writing, Writing):
                writing.forget()
        self._under_way.clear()


def _landed(writing: Writing | EnvdError) -> bool:
    return isinstance(writing, EnvdError) or writing.done()
