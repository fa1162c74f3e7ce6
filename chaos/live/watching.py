"""When each node showed each commit: a watch on every node, resumed whenever it breaks.

Where a node can't resume (its data was lost), commits that it shows by way of a snapshot are
found by reading its history; their time is then that of the reading, which is later than true.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from chaos.live.workload import PREFIX
from envd.wire._pb import environment_pb2 as pb

_PATH: Final = "/envd.v1.EnvironmentService/Watch"
_PAUSE_S: Final = 0.05
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.keepalive_time_ms", 10_000),
)


class Watcher:
    """`seen` has the time (of the event loop) at which the node first showed each stamp."""

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel: grpc.aio.Channel | None = None
        self._resume = ""
        self.seen: dict[str, float] = {}
        self.begun = asyncio.Event()
        self.resets = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        method: grpc.aio.UnaryStreamMultiCallable[pb.WatchRequest, pb.WatchResponse]
        method = self._channel.unary_stream(
            _PATH,
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        while True:
            request = pb.WatchRequest(prefix=PREFIX, token=self._resume)
            try:
                async for event in method(request, metadata=self._metadata):
                    self._take(event)
            except grpc.RpcError:
                await asyncio.sleep(_PAUSE_S)

    def _take(self, event: pb.WatchResponse) -> None:
        if event.token:
            self._resume = event.token
        kind = event.WhichOneof("event")
        if kind == "changed":
            self.shows(event.changed.commit.stamp.hex())
        elif kind == "reset":
            self.resets += 1
        elif kind == "snapshot_end":
            self.begun.set()

    def shows(self, stamp: str) -> None:
        """The node shows a commit now, if it did not before."""
        self.seen.setdefault(stamp, asyncio.get_running_loop().time())

    def forget(self) -> None:
        """The node lost its data: what it showed before counts no more."""
        self.seen.clear()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
