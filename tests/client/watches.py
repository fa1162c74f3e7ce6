"""A server whose watches say what a script tells them to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from envd.core.errors import Denied
from envd.net.environment_service import SERVICE
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_errors import DETAILS_KEY, status_of

HEARTBEAT = pb.WatchResponse(heartbeat=pb.WatchResponse.Heartbeat(), token="t").SerializeToString()
SNAPSHOT_END = pb.WatchResponse(
    snapshot_end=pb.WatchResponse.SnapshotEnd(), token="t"
).SerializeToString()


def snapshot_of(**values: str | None) -> bytes:
    """The state of web/prod; None is masked."""
    variables = [
        pb.Variable(name=name, value=value, secret=value is None, masked=value is None)
        for name, value in values.items()
    ]
    state = pb.Environment(environment="web/prod", revision="ab", variables=variables)
    return pb.WatchResponse(snapshot=state).SerializeToString()


class Script:
    """What each watch after the other is told, the last one's for all that follow.

    Each ends then; one that is told nothing, and each where rights are refused, waits for what
    `tell` says and ends at `go_on`. A watch of `refuses_to_reveal` is refused where it asks for
    real values.
    """

    def __init__(self, *watches: Sequence[bytes], refuses_to_reveal: Collection[int] = ()) -> None:
        self._watches = list(watches)
        self._refuses = refuses_to_reveal
        self._more: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.accepted: list[pb.WatchRequest] = []
        self._waits = bool(refuses_to_reveal) or not watches[0]

    def tell(self, event: bytes) -> None:
        """Say one thing more."""
        self._more.put_nowait(event)

    def go_on(self) -> None:
        """End the watch."""
        self._more.put_nowait(None)

    async def watch(self, raw: bytes, context: Any) -> AsyncIterator[bytes]:
        request = pb.WatchRequest.FromString(raw)
        number = len(self.accepted)
        if request.reveal and number in self._refuses:
            status = status_of(Denied("may not reveal"))
            context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "denied")
        self.accepted.append(request)
        for event in self._watches[min(number, len(self._watches) - 1)]:
            yield event
        while self._waits and (more := await self._more.get()) is not None:
            yield more


@asynccontextmanager
async def watched(script: Script) -> AsyncIterator[str]:
    """Serve it while inside, and give the address."""
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes]
    handler = grpc.unary_stream_rpc_method_handler(script.watch)
    handlers = {"Watch": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
