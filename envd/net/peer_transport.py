"""Channels to other nodes over gRPC, and from them.

Each dial has a connection of its own, fails at once where nobody listens, and says nothing of
when to try again: backing off is for who dials. No proxy stands between nodes. A connection
that goes silent is found out by pings; long before, the peers' heartbeats tell.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypeAlias

import grpc

from envd.core.errors import Unavailable
from envd.net.peer_channel import (
    GOODBYE,
    METHOD,
    SERVICE,
    StreamChannel,
    closed_by_peer,
    lost,
)
from envd.net.peer_service import PeerService, Serve
from envd.ports import PeerChannel
from envd.settings.units import Address

CONNECT_S: Final = 3.0
LINGER_S: Final = 1.0
_MESSAGE_BYTES: Final = 8 << 20
_MAX_DETAIL: Final = 200
_PATH: Final = f"/{SERVICE}/{METHOD}"
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    # Above the shortest interval that the server allows, so that no ping counts as a strike.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # of the pings that measure the connection, too
    ("grpc.http2.max_pings_without_data", 0),
)
_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"


class GrpcPeerTransport:
    """The PeerTransport; `service` is what the node's gRPC server registers."""

    def __init__(self, service: PeerService | None = None, *, connect_s: float = CONNECT_S) -> None:
        self.service: Final = service or PeerService()
        self._connect_s = connect_s
        self._dialed: set[StreamChannel] = set()
        self._ending: set[asyncio.Task[None]] = set()

    def on_channel(self, serve: Serve) -> None:
        self.service.on_channel(serve)

    async def dial(self, address: str) -> PeerChannel:
        try:
            place = Address.parse(address)
        except ValueError as error:
            raise _unreachable("the peer", f"its address is none: {error}") from None
        connection = grpc.aio.insecure_channel(f"dns:///{place}", options=_OPTIONS)
        call: _Call = connection.stream_stream(_PATH)()
        pipe = _CallPipe(connection, call, self._ending)
        try:
            async with asyncio.timeout(self._connect_s):
                await call.initial_metadata()
            if call.done():
                raise _refused(address, await call.code(), await call.details())
        except TimeoutError:
            pipe.end(abrupt=True)
            raise _unreachable(address, f"no answer within {self._connect_s:g} s") from None
        except BaseException:
            pipe.end(abrupt=True)
            raise
        channel = StreamChannel(pipe, address)
        self._dialed.add(channel)
        channel.ended.add_done_callback(lambda _: self._dialed.discard(channel))
        return channel

    async def close(self) -> None:
        """Close all channels that this node dialed, and let them end."""
        for channel in list(self._dialed):
            channel.close()
        while self._ending:
            await asyncio.wait(self._ending)


class _CallPipe:
    """The dialer's end of a stream, and its connection."""

    def __init__(
        self, connection: grpc.aio.Channel, call: _Call, ending: set[asyncio.Task[None]]
    ) -> None:
        self._connection = connection
        self._call = call
        self._ending = ending

    async def read(self) -> bytes:
        try:
            message: object = await self._call.read()  # bytes, or grpc.aio.EOF
        except grpc.aio.AioRpcError as error:
            raise _broken(error) from None
        if not isinstance(message, bytes):
            raise closed_by_peer()
        return message

    async def write(self, message: bytes) -> None:
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise _broken(error) from None
        except asyncio.InvalidStateError:
            raise closed_by_peer() from None

    def end(self, *, abrupt: bool) -> None:
        task = asyncio.create_task(self._end(abrupt))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, abrupt: bool) -> None:
        """Let what was written arrive, if the peer takes it soon, and hang up."""
        try:
            if not abrupt:
                async with asyncio.timeout(LINGER_S):
                    await self._call.write(GOODBYE)
                    await self._call.done_writing()
                    await self._call.code()
        except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # The peer does not read, or has hung up.
        finally:
            self._call.cancel()
            await self._connection.close()


def _unreachable(address: str, why: str) -> Unavailable:
    return Unavailable(f"{address} can't be reached: {why}", reason="PEER_UNREACHABLE")


def _refused(address: str, code: grpc.StatusCode, details: str | None) -> Unavailable:
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unreachable(address, (details or "")[:_MAX_DETAIL])
    return Unavailable(
        f"{address} takes no peers: {code.name}",
        hint="peers dial the gRPC address (--listen) of a node of this cluster",
        reason="PEER_REFUSED",
    )


def _broken(error: grpc.aio.AioRpcError) -> Unavailable:
    return lost(f"the connection to the peer broke: {(error.details() or '')[:_MAX_DETAIL]}")
