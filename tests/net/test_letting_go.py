"""What a call held is let go as it ends, and not when the cycle collector comes by.

That one counts objects. Requests of megabytes in circles of a few objects would be gigabytes
before it looks.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import grpc
import pytest

from envd.net.health import SERVICE as HEALTH
from envd.wire._pb import environment_pb2 as pb
from envd.wire.framing import encode_frame
from tests.net.http_world import ENVIRONMENT, Http, http_to
from tests.net.test_unix import Local, unix_to
from tests.net.world import TOKEN, Node, Rpc, bearer, grpc_to, refused, unary_call, until

_OURS = ("/envd/net/", "/envd/node/", "/envd/core/", "/envd/wire/", "/envd/storage/")
RUBBISH = b"\xff" * 100


@dataclass
class Served:
    """A node behind every way in."""

    rpc: Rpc
    http: Http
    local: Local


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Served]:
    node = Node()
    async with grpc_to(node) as rpc, http_to(node) as http, unix_to(node, path) as local:
        yield Served(rpc, http, local)


@contextmanager
def circles() -> Iterator[list[str]]:
    """The functions of the node whose frames only the collector would have let go."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        frames = [one for one in gc.garbage if isinstance(one, FrameType)]
        files = [(one.f_code.co_filename, one.f_code.co_qualname) for one in frames]
        found += [name for file, name in files if any(part in file for part in _OURS)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def write(to: Served) -> None:
    message = pb.WriteRequest(environment="Bad Name", puts=[pb.Put(name="A", value="1")])
    await refused(to.rpc.unary("Write", message, pb.WriteResponse))


async def stale_write(to: Served) -> None:
    message = pb.WriteRequest(
        environment="a", puts=[pb.Put(name="A", value="1")], if_revision="12345678"
    )
    await refused(to.rpc.unary("Write", message, pb.WriteResponse))


async def unknown_caller(to: Served) -> None:
    await refused(to.rpc.unary("Write", pb.WriteRequest(), pb.WriteResponse, token="no"))


async def unreadable_call(to: Served) -> None:
    await refused(to.rpc.raw("Write", RUBBISH, bearer(TOKEN)))


async def unreadable_stream(to: Served) -> None:
    call = to.rpc.channel.stream_stream("/envd.v1.EnvironmentService/Import", bytes, bytes)(
        metadata=bearer(TOKEN)
    )
    await call.write(RUBBISH)
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def refused_item(to: Served) -> None:
    call = to.rpc.streams("WriteStream", pb.WriteStreamResponse)
    item = pb.WriteStreamRequest.Item(id=1, write=pb.WriteRequest(environment="Bad Name"))
    await call.write(pb.WriteStreamRequest(items=[item]))
    await call.done_writing()
    await call.read()
    assert await call.code() is grpc.StatusCode.OK


async def unreadable_health(to: Served) -> None:
    call = unary_call(to.rpc.channel, f"/{HEALTH}/Check", bytes)
    await refused(call(RUBBISH))


async def cancelled_watch(to: Served) -> None:
    call = to.rpc.out_stream("Watch", pb.WatchRequest(), pb.WatchResponse)
    await call.read()
    call.cancel()
    await until(lambda: to.rpc.node.hub.open_watches == 0)


async def cancelled_import(to: Served) -> None:
    call = to.rpc.streams("Import", pb.ImportResponse)
    item = pb.ImportRequest.Item(environment="a", variables=pb.VariableColumns())
    await call.write(pb.ImportRequest(environments=[item]))
    await call.read()
    call.cancel()


async def http_patch(to: Served) -> None:
    answer = await to.http.ask("PATCH", ENVIRONMENT, {"set": {"1 is no name": "x"}})
    assert answer.status == 400


async def http_rubbish(to: Served) -> None:
    answer = await to.http.ask("PUT", ENVIRONMENT, RUBBISH)
    assert answer.status == 400


async def socket_write(to: Served) -> None:
    assert "error" in await to.local.ask("write", {"environment": "Bad Name"})


async def socket_rubbish(to: Served) -> None:
    (answer,) = await to.local.raw(encode_frame({}))
    assert "error" in answer


@pytest.mark.parametrize(
    "fail",
    [
        write,
        stale_write,
        unknown_caller,
        unreadable_call,
        unreadable_stream,
        refused_item,
        cancelled_watch,
        cancelled_import,
        unreadable_health,
        http_patch,
        http_rubbish,
        socket_write,
        socket_rubbish,
    ],
    ids=lambda fail: fail.__name__,
)
async def test_a_call_that_fails_leaves_no_circle_behind(
    fail: Callable[[Served], Awaitable[None]], tmp_path: Path
) -> None:
    async with served(tmp_path / "envd.sock") as to:
        await fail(to)  # what is made once is made now

        with circles() as found:
            await fail(to)
            await asyncio.sleep(0)

    assert found == []
