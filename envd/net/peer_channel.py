"""A channel of frames to one peer, over either end of a gRPC stream.

gRPC takes one read and one write at a time, and where the task that waits for one is cancelled,
the stream is lost. A channel has neither edge: sends queue up in order, and who stops waiting
for a frame loses nothing, since the read goes on and the next `receive` gets what it brings. A
send that is cancelled before its turn is not sent, one that has begun goes out.

Frames are cut into messages of at most 1 MiB, so that a large one needs no larger messages
than the server's clients may send. Until the peer is `trusted` a frame has at most 64 KiB: that
is what a stranger can make this node keep.

Every end has its reason: CHANNEL_CLOSED by this side, PEER_CLOSED by the other one, PEER_LOST
where the connection broke, PEER_GARBLED for what is no frame or too large a one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.message import DecodeError

from envd.core.errors import Unavailable
from envd.wire._pb import peer_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["PeerService"].full_name
METHOD: Final = "Connect"
MESSAGE_BYTES: Final = 1 << 20
MAX_FRAME_BYTES: Final = 64 << 20
MAX_STRANGER_FRAME_BYTES: Final = 64 << 10
GOODBYE: Final = pb.Frame(goodbye=True).SerializeToString()
ResultT = TypeVar("ResultT")


class Pipe(Protocol):
    """One end of a stream of messages; never two reads or two writes at a time."""

    async def read(self) -> bytes:
        """The next message; raises Unavailable at the end."""
        ...

    async def write(self, message: bytes) -> None:
        """Send; waits while the other end does not read. Raises Unavailable at the end."""
        ...

    def end(self, *, abrupt: bool) -> None:
        """End the stream, after what was written unless `abrupt`. Called once."""
        ...


class StreamChannel:
    """The PeerChannel over a pipe; `ended` gets the reason once it is over."""

    def __init__(self, pipe: Pipe, address: str) -> None:
        self.address: Final = address
        self.ended: asyncio.Future[Unavailable] = asyncio.get_running_loop().create_future()
        self.is_trusted = False
        self._pipe = pipe
        self._turn = asyncio.Lock()
        self._reading: asyncio.Task[bytes] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def send(self, frame: bytes) -> None:
        if len(frame) > MAX_FRAME_BYTES:
            raise ValueError(f"a frame has at most {MAX_FRAME_BYTES} bytes")
        async with self._turn:
            if self._writing is not None and not self._writing.done():
                await self._settled(self._writing)  # of a send that was cancelled
            self._check_open()
            self._writing = _task(self._write(frame))
            await self._settled(self._writing)
            self._outcome(self._writing)

    async def receive(self) -> bytes:
        if self._reading is None:
            self._check_open()
            self._reading = _task(self._read())
        reading = self._reading
        await self._settled(reading)
        if self._reading is reading:
            self._reading = None
        return self._outcome(reading)

    def trusted(self) -> None:
        self.is_trusted = True

    def close(self) -> None:
        self.end(Unavailable("this node closed the channel", reason="CHANNEL_CLOSED"))

    def end(self, why: Unavailable) -> None:
        """End the channel for this reason, unless it has ended before."""
        if not self.ended.done():
            self.ended.set_result(why)
            self._pipe.end(abrupt=self._writing is not None and not self._writing.done())

    async def _settled(self, task: asyncio.Task[ResultT]) -> None:
        """Wait until the task is done or the channel over; a waiter that goes harms neither."""
        if not task.done():
            waiting: set[asyncio.Future[Any]] = {task, self.ended}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    def _outcome(self, task: asyncio.Task[ResultT]) -> ResultT:
        if not task.done() or task.cancelled():  # gRPC cancels who waits as a stream breaks
            self._check_open()
            self.end(lost("the connection to the peer broke"))
            self._check_open()
        return task.result()

    def _check_open(self) -> None:
        if self.ended.done():
            why = self.ended.result()
            raise Unavailable(why.message, hint=why.hint, reason=why.reason)

    async def _write(self, frame: bytes) -> None:
        for start in range(0, max(len(frame), 1), MESSAGE_BYTES):
            end = start + MESSAGE_BYTES
            message = pb.Frame(data=frame[start:end], more=end < len(frame))
            await self._pipe.write(message.SerializeToString())

    async def _read(self) -> bytes:
        try:
            return await self._read_frame()
        except Unavailable as error:
            self.end(error)
            raise

    async def _read_frame(self) -> bytes:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = _parsed(await self._pipe.read())
            if message.goodbye:
                raise closed_by_peer()
            size, more = size + len(message.data), message.more
            if size > (MAX_FRAME_BYTES if self.is_trusted else MAX_STRANGER_FRAME_BYTES):
                raise _garbled("too large a frame")
            if more and not message.data:
                raise _garbled("a part of a frame with nothing in it")
            parts.append(message.data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def lost(what: str) -> Unavailable:
    """The end of a channel that neither side meant."""
    return Unavailable(what, reason="PEER_LOST")


def closed_by_peer() -> Unavailable:
    """The end of a channel that the other side closed."""
    return Unavailable("the peer closed the channel", reason="PEER_CLOSED")


def _garbled(what: str) -> Unavailable:
    return Unavailable(f"the peer sent {what}", reason="PEER_GARBLED")


def _parsed(raw: bytes) -> pb.Frame:
    try:
        return pb.Frame.FromString(raw)
    except DecodeError:
        raise _garbled("what is no frame") from None


def _task(work: Coroutine[object, object, ResultT]) -> asyncio.Task[ResultT]:
    """Run it; its error is for who waits, and nobody may."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
