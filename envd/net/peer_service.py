"""`envd.v1.PeerService`: channels that other nodes open to this one.

Who a peer is comes from the handshake on the frames, which `serve` does; a client's token is
worth nothing here. What a stranger can cause is bounded: a frame of 64 KiB, and at most so many
channels that are not trusted yet. One more ends the oldest of them, so that a flood of strangers
has to be faster than a handshake to keep members out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc

from envd.core.errors import EnvdError, Unavailable
from envd.logs import get_logger
from envd.net.faults import Faults
from envd.net.grpc_calls import Context, Handler
from envd.net.peer_channel import METHOD, SERVICE, StreamChannel, lost
from envd.net.rarely import Rarely
from envd.ports import PeerChannel

MAX_STRANGERS: Final = 64
Serve = Callable[[PeerChannel], Awaitable[None]]
_log = get_logger(__name__)


class PeerService:
    """Hands each channel to `serve`; `handlers` is what a server registers."""

    def __init__(self, faults: Faults | None = None, *, max_strangers: int = MAX_STRANGERS) -> None:
        self._faults = faults or Faults()
        self._max_strangers = max_strangers
        self._serve: Serve | None = None
        self._stopping = False
        self._channels: dict[StreamChannel, asyncio.Task[None]] = {}
        self._failures = Rarely(lambda: asyncio.get_running_loop().time())

    @property
    def name(self) -> str:
        """The full name of the service."""
        return SERVICE

    @property
    def faults(self) -> int:
        """How many channels ended in an exception that nobody meant to raise."""
        return self._faults.count

    @property
    def open_channels(self) -> int:
        """How many channels others have open to this node."""
        return len(self._channels)

    def on_channel(self, serve: Serve) -> None:
        """Call `serve` for each channel from now on; until then they are refused."""
        self._serve = serve

    def handlers(self) -> Mapping[str, Handler]:
        """One handler for each method of the service."""
        return {METHOD: grpc.stream_stream_rpc_method_handler(self._connect)}

    async def stop(self, grace_s: float) -> None:
        """Take no more channels, end those there are, and let `serve` return in this time."""
        self._stopping = True
        serving = set(self._channels.values())
        for channel in list(self._channels):
            channel.close()
        if serving:
            _, late = await asyncio.wait(serving, timeout=grace_s)
            for task in late:
                task.cancel()

    async def _connect(self, _: object, context: Context) -> None:
        if self._serve is None or self._stopping:
            context.set_code(grpc.StatusCode.UNAVAILABLE)
            context.set_details("this node takes no peers now")
            return
        try:
            await context.send_initial_metadata(())
        except (grpc.aio.InternalError, grpc.aio.UsageError):
            return  # gone already
        channel = StreamChannel(_ContextPipe(context), context.peer())
        self._make_room()
        serving = asyncio.create_task(self._guard(channel, self._serve))
        self._channels[channel] = serving
        serving.add_done_callback(lambda _: self._channels.pop(channel))
        either: set[asyncio.Future[Any]] = {serving, channel.ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the client's stream broke
            channel.end(lost("the connection to the peer broke"))
            raise

    def _make_room(self) -> None:
        strangers = [one for one in self._channels if not (one.is_trusted or one.ended.done())]
        for oldest in strangers[: max(0, len(strangers) + 1 - self._max_strangers)]:
            oldest.close()

    async def _guard(self, channel: StreamChannel, serve: Serve) -> None:
        try:
            await serve(channel)
        except EnvdError as error:
            if times := self._failures.due():
                _log.info(
                    "peer.channel_failed",
                    peer=channel.address,
                    reason=error.reason,
                    detail=error.message,
                    times=times,
                )
        except Exception as error:  # noqa: BLE001 - the channel's outermost guard
            self._faults.report(METHOD, error)
        finally:
            channel.close()


class _ContextPipe:
    """The server's end of a stream."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self) -> bytes:
        try:
            message: object = await self._context.read()  # bytes, or grpc.aio.EOF
        except (grpc.aio.InternalError, grpc.aio.UsageError) as error:
            raise _broken(error) from None
        if not isinstance(message, bytes):
            raise lost("the stream of the peer ended without a goodbye")
        return message

    async def write(self, message: bytes) -> None:
        try:
            await self._context.write(message)
        except (grpc.aio.InternalError, grpc.aio.UsageError) as error:
            raise _broken(error) from None

    def end(self, *, abrupt: bool) -> None:
        """The stream ends as its handler returns; nothing waits for a peer that does not read."""
        if abrupt:
            self._context.set_code(grpc.StatusCode.ABORTED)


def _broken(error: Exception) -> Unavailable:
    return lost(f"the stream of the peer broke ({type(error).__name__})")
