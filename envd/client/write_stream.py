"""Writes that are made at the same time go over one stream, many in a message.

Whatever was queued within one turn of the event loop is sent as one message, and while that is
on its way the next one gathers. Each write keeps its operation id, under which a node does it
once. Where the stream breaks, what was not answered is sent again to the same server first, at
most once; then, if it has no precondition, to the others in turn, at most twice to each: there
it may be done a second time, which changes nothing unless someone else wrote in between. The
outcome of what stays unanswered is unknown.

At most `window` writes are under way; the callers of others wait for their turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from envd.client.rpc_errors import is_without_answer
from envd.client.servers import REPEAT, Servers, closed
from envd.client.tasks import end
from envd.core.answers import WriteAnswer
from envd.core.errors import EnvdError, OutcomeUnknown, Unavailable
from envd.wire import api
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_errors import INTERNAL_REASON, error_of_item
from envd.wire.write_items import item_bytes

WINDOW: Final = 1024
"""As many as a node takes from one stream (net.pipeline)."""

_MAX_MESSAGE: Final = 1 << 20
_NEVER: Final = float("inf")
_MAX_SENDS: Final = 2
_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"


class _Write:
    """One write under way.

    `bound` is the server that may have done it without an answer, `sends` how often it was sent
    there; `tried` are the servers that had it often enough. Once it was `unclear` what became
    of it, only an answer makes it clear again: that it is done, or, unless it is `elsewhere`
    than where it may have been done, that it is refused.
    """

    __slots__ = (
        "anywhere",
        "bound",
        "deadline_s",
        "elsewhere",
        "operation",
        "outcome",
        "raw",
        "sends",
        "tried",
        "unclear",
    )

    def __init__(
        self,
        raw: bytes,
        operation: str,
        deadline_s: float,
        outcome: asyncio.Future[pb.WriteResponse],
        *,
        anywhere: bool,
    ) -> None:
        self.raw = raw
        self.operation = operation
        self.deadline_s = deadline_s
        self.outcome = outcome
        self.anywhere = anywhere
        self.bound = ""
        self.sends = 0
        self.tried: AbstractSet[str] = frozenset()
        self.unclear = False
        self.elsewhere = False

    def fail(self, error: EnvdError, *, why: str = "the connection broke") -> None:
        """End with `error`, which says that nothing was done, or OutcomeUnknown if unclear."""
        if self.outcome.done():
            return
        if self.unclear:
            cause = error
            error = OutcomeUnknown(
                f"no answer to the write ({why}); it may or may not be done",
                hint=f"repeat it with: {REPEAT.format(self.operation)}   It is done at most once",
            )
            error.__cause__ = cause
        self.outcome.set_exception(error)

    def leave(self, others: AbstractSet[str]) -> None:
        """Give up on the server that it is bound to; go on with `others`, if it may."""
        self.tried = self.tried | {self.bound}
        if not self.anywhere or not others - self.tried:
            self.fail(_no_daemon())
        self.bound = ""
        self.sends = 0
        self.elsewhere = True


class WriteStream:
    """The writes of one client, over one stream to one server at a time."""

    def __init__(self, servers: Servers, path: str, *, window: int = WINDOW) -> None:
        self._servers = servers
        self._path = path
        self._room = asyncio.Semaphore(window)
        self._queue: deque[_Write] = deque()
        self._under_way: dict[int, _Write] = {}
        self._news = asyncio.Event()
        self._next_id = 0
        self._answered = 0
        self._at = ""
        self._failed_at = ""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = _NEVER
        self._runner: asyncio.Task[None] | None = None
        self._call: _Call | None = None
        self._hangs = False
        self._closed = False

    async def write(
        self, raw: bytes, operation: str, *, timeout_s: float, anywhere: bool
    ) -> WriteAnswer:
        """Write one encoded WriteRequest; `anywhere` says that it has no precondition.

        Raises what the node answered, Unavailable where it was not done within `timeout_s` or
        the attempts of the backoff, OutcomeUnknown where that is not clear.
        """
        deadline_s = self._servers.world.monotonic_s() + timeout_s
        if self._room.locked():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._room.acquire()
            except TimeoutError:
                raise _too_late() from None
        else:
            await self._room.acquire()
        try:
            if self._closed:
                raise closed()
            outcome: asyncio.Future[pb.WriteResponse] = asyncio.get_running_loop().create_future()
            self._queue.append(_Write(raw, operation, deadline_s, outcome, anywhere=anywhere))
            self._news.set()
            if self._runner is None or self._runner.done():
                self._runner = asyncio.create_task(self._run(), name="envd writes")
            if deadline_s < self._timer_s:
                self._arm(deadline_s)
            return api.written_from(await outcome)
        finally:
            self._room.release()

    async def close(self) -> None:
        """Fail what is under way; its outcome is unknown where it was sent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await end(self._runner)
        for write in self._under_way.values():
            write.unclear = True
        self._fail_all(closed(), why="the client was closed")

    # -- deadlines ---------------------------------------------------------------------

    def _arm(self, deadline_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_s = max(0.0, deadline_s - self._servers.world.monotonic_s())
        self._timer_s = deadline_s
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._expire)

    def _expire(self) -> None:
        """Fail what is past its deadline, and come back when the next one is."""
        now_s = self._servers.world.monotonic_s()
        overdue = False
        for write in self._under_way.values():
            if write.deadline_s <= now_s:
                write.unclear = True
                overdue = overdue or not write.outcome.done()
        soonest_s = _NEVER
        for write in (*self._under_way.values(), *self._queue):
            if write.deadline_s <= now_s:
                write.fail(_too_late(), why="it took too long")
            elif not write.outcome.done():
                soonest_s = min(soonest_s, write.deadline_s)
        self._queue = deque(write for write in self._queue if not write.outcome.done())
        self._timer, self._timer_s = None, _NEVER
        if soonest_s < _NEVER:
            self._arm(soonest_s)
        if overdue and self._call is not None:
            self._no_answer(self._call)

    def _no_answer(self, call: _Call) -> None:
        """Leave a server that keeps the connection and answers nothing, time after time."""
        self._servers.failed(self._at)
        if self._servers.is_left_alone(self._at):
            self._hangs = True
            call.cancel()

    # -- one stream after the other ----------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while True:
            while not self._queue:
                self._news.clear()
                await self._news.wait()
            answered = self._answered
            error = await self._attempt()
            if self._answered > answered:
                failures = 0
            failures += 1
            rounds = failures - len(self._servers.addresses) + 1
            if self._servers.backoff.gives_up(rounds):
                self._fail_all(error)
                failures = 0
            elif rounds > 0:
                after_ms = error.retry_after_ms if isinstance(error, Unavailable) else 0
                await self._servers.rest(self._servers.backoff.delay_s(rounds, after_ms))

    async def _attempt(self) -> EnvdError:
        """Connect and send until it fails; returns why, and settles what was under way."""
        avoid = {self._failed_at} | (self._queue[0].tried if self._queue else frozenset())
        try:
            self._at = self._servers.choose(avoid=avoid, prefer=self._at)
            channel = await self._servers.ready(self._at)
        except Unavailable as error:
            self._leave(self._at)
            self._at, self._failed_at = "", self._at
            return error
        except EnvdError as error:  # closed
            self._fail_all(error)
            return error
        self._failed_at = ""
        failure = await self._serve(channel)
        found = self._servers.outcome(self._at, channel, failure)
        if is_without_answer(failure) or found.reason == INTERNAL_REASON:
            self._lost()
        else:
            self._again()
            if isinstance(found, Unavailable):
                self._at, self._failed_at = "", self._at
            else:
                self._fail_all(found)
        return found

    async def _serve(self, channel: grpc.aio.Channel) -> grpc.RpcError:
        """Send what is queued and take answers until the stream ends; returns how it did."""
        open_stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        open_stream = channel.stream_stream(self._path, None, None)
        call = open_stream(metadata=self._servers.metadata())
        self._call, self._hangs = call, False
        sender = asyncio.create_task(self._send(call), name="envd writes out")
        try:
            with suppress(DecodeError):  # It is not envd that answers.
                await self._receive(call)
        except grpc.aio.AioRpcError as error:
            return error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._hangs or (task is not None and task.cancelling()):
                raise
        finally:
            self._call = None
            call.cancel()
            await end(sender)
        nothing = grpc.aio.Metadata()
        return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "it ended")

    async def _send(self, call: _Call) -> None:
        # Where the stream has ended, `_receive` says how.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                while not self._queue:
                    self._news.clear()
                    await self._news.wait()
                if message := self._message():
                    await call.write(message)

    def _message(self) -> bytes:
        """As much of the queue as goes into one message."""
        parts: list[bytes] = []
        size = 0
        queue, under_way, at = self._queue, self._under_way, self._at
        while queue and size < _MAX_MESSAGE:
            write = queue.popleft()
            if write.outcome.done():  # cancelled, or too late
                continue
            if write.bound != at and not self._bind(write, at):
                continue
            write.sends += 1
            self._next_id += 1
            under_way[self._next_id] = write
            parts.append(item_bytes(self._next_id, write.raw))
            size += len(parts[-1])
        return b"".join(parts)

    def _bind(self, write: _Write, address: str) -> bool:
        """Send it to this server from now on; False where it may not leave the one it is at."""
        if write.bound and write.unclear:
            write.leave(frozenset(self._servers.addresses))
        write.bound, write.sends = address, 0
        return not write.outcome.done()

    async def _receive(self, call: _Call) -> None:
        parse = pb.WriteStreamResponse.FromString
        while isinstance(raw := await call.read(), bytes):
            self._servers.answered(self._at)
            for item in parse(raw).items:
                write = self._under_way.pop(item.id, None)
                if write is None:
                    continue
                self._answered += 1
                if write.outcome.done():
                    continue
                if item.HasField("done"):
                    write.outcome.set_result(item.done)
                else:
                    _refuse(write, error_of_item(item.error))

    # -- what becomes of writes where a stream fails -----------------------------------

    def _lost(self) -> None:
        """Nobody knows what became of those under way: once more to the same server, or on."""
        others = frozenset(self._servers.addresses)
        writes = list(self._under_way.values())
        self._under_way.clear()
        for write in writes:
            write.unclear = True
            if write.sends >= _MAX_SENDS:
                write.leave(others)
                self._at = ""
        self._queue.extendleft(reversed(writes))

    def _again(self) -> None:
        """The server has not begun those under way: they count as not sent."""
        writes = list(self._under_way.values())
        self._under_way.clear()
        for write in writes:
            write.sends -= 1
        self._queue.extendleft(reversed(writes))

    def _leave(self, address: str) -> None:
        """A server can't be reached: what is bound to it goes elsewhere, if there is any."""
        others = frozenset(self._servers.addresses)
        if len(others) < 2:
            return  # It may come back before the deadline.
        for write in self._queue:
            if address and write.bound == address and write.unclear:
                write.leave(others)

    def _fail_all(self, error: EnvdError, *, why: str = "the connection broke") -> None:
        for write in (*self._under_way.values(), *self._queue):
            write.fail(error, why=why)
        self._under_way.clear()
        self._queue.clear()


def _refuse(write: _Write, error: EnvdError) -> None:
    if isinstance(error, Unavailable) or write.elsewhere:
        write.fail(error)  # Says nothing of what was sent before.
    else:
        write.outcome.set_exception(error)


def _no_daemon() -> Unavailable:
    return Unavailable("no envd answers", hint="see that envd runs", reason="NO_DAEMON")


def _too_late() -> Unavailable:
    return Unavailable(
        "no answer from the node (it took too long); nothing was sent",
        hint="try again, or with a longer timeout",
        reason="TIMEOUT",
    )
