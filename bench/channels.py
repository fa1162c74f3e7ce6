"""Raw gRPC: the same client shape for every peer that speaks it.

Requests are built before they are counted where that is possible, and answers stay bytes, so
that the generator takes as little as it can of the processors it shares with the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import grpc

Unary: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
ServerStream: TypeAlias = "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]"
BothStreams: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"
Metadata: TypeAlias = tuple[tuple[str, str], ...]
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # else channels to one address share a connection
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)


class Channels:
    """The open connections to one server."""

    def __init__(self, address: str, metadata: Metadata = ()) -> None:
        self.metadata = metadata
        self._address = address
        self._open: list[grpc.aio.Channel] = []

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        self._open.append(channel)
        return channel

    async def unary(self, method: str, callers: int) -> Sequence[Unary]:
        """The method over so many independent connections."""
        calls: list[Unary] = []
        for _ in range(callers):
            channel = self.channel()
            await channel.channel_ready()
            calls.append(channel.unary_unary(method))
        return calls

    def server_stream(self, method: str) -> ServerStream:
        """The method over a connection of its own."""
        call: ServerStream = self.channel().unary_stream(method)
        return call

    def both_streams(self, method: str) -> BothStreams:
        """The method over a connection of its own."""
        call: BothStreams = self.channel().stream_stream(method)
        return call

    async def close(self) -> None:
        for channel in self._open:
            await channel.close()
        self._open.clear()
