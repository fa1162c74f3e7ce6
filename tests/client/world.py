"""Clients for tests: of servers on free ports, with waits that take no time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

import envd
from envd.client.backoff import Backoff
from envd.client.client import Options
from envd.client.live import Changes
from envd.client.picking import RoundRobin, Server
from envd.client.servers import World
from envd.net.environment_service import SERVICE
from envd.net.grpc_server import GrpcServer
from envd.settings.units import Address
from envd.wire._pb import environment_pb2 as pb
from tests.net.world import PATIENCE_S, TOKEN, FakeAccess, Node, Rpc


async def no_wait(_: float) -> None:
    """Let others run, and go on at once."""
    await asyncio.sleep(0)


async def next_of(changes: Changes) -> envd.Change:
    """The next change, which must come."""
    async with asyncio.timeout(PATIENCE_S):
        return await anext(changes)


def options(
    addresses: Sequence[str],
    snapshots: Path | None = None,
    *,
    token: str = TOKEN,
    timeout_s: float = 30.0,
    attempts: int = 50,
    wall_ms: Callable[[], int] = lambda: 1_700_000_000_000,
    sleep: Callable[[float], Awaitable[None]] = no_wait,
) -> Options:
    return Options(
        servers=[Server(address) for address in addresses],
        picker=RoundRobin(),
        backoff=Backoff(attempts=attempts),
        world=World(time.monotonic, wall_ms, sleep),
        token=token,
        timeout_s=timeout_s,
        snapshots=snapshots,
    )


def client_of(rpc: Rpc, snapshots: Path | None = None, *, token: str = TOKEN) -> envd.Client:
    return envd.Client(options([f"127.0.0.1:{rpc.port}"], snapshots, token=token))


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@asynccontextmanager
async def serving(node: Node, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serve a node while inside, and give the address; it may be served there again."""
    host, _, port = address.rpartition(":")
    server = GrpcServer(node.api, FakeAccess(), Address(host, int(port)))
    served = await server.start()
    server.set_serving(True)
    try:
        yield f"{host}:{served}"
    finally:
        await server.stop(0)


@dataclass
class Scripted:
    """A server that answers single calls as its script says, and streams of writes by `serve`."""

    serve: Callable[[pb.WriteStreamRequest.Item, Any], Awaitable[pb.WriteStreamResponse.Item]]
    script: list[grpc.StatusCode | bytes] = field(default_factory=list)
    seen: list[pb.WriteStreamRequest] = field(default_factory=list)
    calls: list[bytes] = field(default_factory=list)
    address: str = ""

    async def stream(self, _: object, context: Any) -> None:
        while isinstance(raw := await context.read(), bytes):
            message = pb.WriteStreamRequest.FromString(raw)
            self.seen.append(message)
            answers = [await self.serve(item, context) for item in message.items]
            await context.write(pb.WriteStreamResponse(items=answers).SerializeToString())

    async def single(self, raw: bytes, context: Any) -> bytes:
        self.calls.append(raw)
        step = self.script.pop(0)
        if isinstance(step, grpc.StatusCode):
            await context.abort(step, "made to fail")
        assert isinstance(step, bytes)
        return step

    @property
    def items(self) -> list[pb.WriteStreamRequest.Item]:
        """Every item that came, in order."""
        return [item for message in self.seen for item in message.items]


async def done(item: pb.WriteStreamRequest.Item, _: object = None) -> pb.WriteStreamResponse.Item:
    """Say that it is written."""
    answer = pb.WriteResponse(environment=item.write.environment, stamp=b"\0" * 20)
    return pb.WriteStreamResponse.Item(id=item.id, done=answer)


@asynccontextmanager
async def scripted(
    serve: Callable[
        [pb.WriteStreamRequest.Item, Any], Awaitable[pb.WriteStreamResponse.Item]
    ] = done,
    script: Sequence[grpc.StatusCode | bytes] = (),
) -> AsyncIterator[Scripted]:
    made = Scripted(serve, list(script))
    server = grpc.aio.server()
    single: grpc.RpcMethodHandler[bytes, bytes]
    single = grpc.unary_unary_rpc_method_handler(made.single)
    stream: grpc.RpcMethodHandler[bytes, bytes]
    stream = grpc.stream_stream_rpc_method_handler(made.stream)
    handlers = dict.fromkeys(("Get", "Delete", "Rollback"), single) | {"WriteStream": stream}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield made
    finally:
        await server.stop(0)
