"""What is asked of stores over gRPC and over the Unix socket, through the clients of envctl."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from envd.backends.errors import Forbidden, Throttled
from envd.client.connection import Connection
from envd.client.rpc import GrpcConnection
from envd.client.unix import UnixConnection
from envd.core.errors import (
    Conflict,
    Denied,
    EnvdError,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    Unsupported,
)
from envd.core.syncing import (
    ApplyRequest,
    BindingsRequest,
    BindRequest,
    CheckRequest,
    FetchRequest,
    PauseRequest,
    PlanRequest,
    UnbindRequest,
)
from envd.net.grpc_server import GrpcServer
from envd.net.sync_service import SERVICE
from envd.net.unix import UnixServer
from envd.sync.api import SyncApi
from envd.wire._pb import sync_pb2 as pb
from envd.wire.framing import LENGTH, encode_frame
from tests.net.world import ANY_PORT, READER_TOKEN, TOKEN, FakeAccess, Node, bearer, until
from tests.syncing import BACKENDS, BATCH, COST, PAYMENTS, PLAN, STATUS, FakeSync

ResultT = TypeVar("ResultT")
WAYS = ["grpc", "unix"]
ALL: dict[str, Callable[[Connection], object]] = {
    "bind": lambda connection: connection.sync.bind(BindRequest(BATCH)),
    "unbind": lambda connection: connection.sync.unbind(UnbindRequest("payments")),
    "bindings": lambda connection: connection.sync.bindings(BindingsRequest()),
    "pause": lambda connection: connection.sync.pause(PauseRequest(("payments",))),
    "status": lambda connection: connection.sync.status(BindingsRequest()),
    "plan": lambda connection: connection.sync.plan(PlanRequest()),
    "apply": lambda connection: connection.sync.apply(ApplyRequest(("payments",), "p", 7)),
    "cost": lambda connection: connection.sync.cost(BindingsRequest()),
    "backends": lambda connection: connection.sync.backends(),
    "check": lambda connection: connection.sync.check(CheckRequest(("file:/x",), "profile:p")),
    "fetch": lambda connection: connection.sync.fetch(FetchRequest("file:/x", "", reveal=True)),
}
CHANGES = ("bind", "unbind", "pause", "apply")


@dataclass
class Served:
    """A node with a reconciler, and the way to it."""

    connect: Callable[[str], Connection]

    async def use(self, action: Callable[[Connection], ResultT], token: str = TOKEN) -> ResultT:
        """Do something with a connection, in a thread, for it blocks."""

        def run() -> ResultT:
            connection = self.connect(token)
            try:
                return action(connection)
            finally:
                connection.close()

        return await asyncio.to_thread(run)


@asynccontextmanager
async def served(way: str, sync: SyncApi | None, path: Path) -> AsyncIterator[Served]:
    node = Node()
    server: GrpcServer | UnixServer
    connect: Callable[[str], Connection]
    if way == "grpc":
        server = GrpcServer(node.api, FakeAccess(), ANY_PORT, sync=sync)
        port = await server.start()

        def connect(token: str) -> Connection:
            return GrpcConnection([f"127.0.0.1:{port}"], token=token)
    else:
        server = UnixServer(node.api, FakeAccess(), path / "s", sync=sync)
        await server.start()

        def connect(token: str) -> Connection:
            return UnixConnection(str(path / "s"), token=token)

    try:
        yield Served(connect)
    finally:
        node.api.stop()
        await server.stop(0)


@pytest.mark.parametrize("way", WAYS)
async def test_every_request_arrives_and_every_answer_comes_back(way: str, tmp_path: Path) -> None:
    sync = FakeSync()

    async with served(way, sync, tmp_path) as node:
        answers = {name: await node.use(action) for name, action in ALL.items() if name != "unbind"}
        unbound = await node.use(ALL["unbind"])

    assert [call for call, _ in sync.asked] == [
        *(name for name in ALL if name != "unbind"),
        "unbind",
    ]
    requests: dict[str, Any] = dict(sync.asked)
    assert requests["bind"] == BindRequest(BATCH)
    assert requests["apply"] == ApplyRequest(("payments",), "p", 7)
    assert requests["check"] == CheckRequest(("file:/x",), "profile:p")
    assert requests["fetch"] == FetchRequest("file:/x", "", reveal=True)
    assert (answers["status"], answers["plan"], answers["cost"]) == (STATUS, PLAN, COST)
    assert answers["backends"] == BACKENDS
    assert answers["fetch"] == sync.found
    assert isinstance(unbound, type(PAYMENTS))
    assert (unbound.name, unbound.paused_by) == ("payments", "admin")


@pytest.mark.parametrize("way", WAYS)
async def test_a_node_without_a_reconciler_says_how_to_have_one(way: str, tmp_path: Path) -> None:
    async with served(way, None, tmp_path) as node:
        for action in ALL.values():
            with pytest.raises(Unsupported, match="keeps nothing in step") as refused:
                await node.use(action)

            assert "cloud.enabled = true" in refused.value.hint


@pytest.mark.parametrize("way", WAYS)
async def test_who_lacks_the_right_gets_nothing(way: str, tmp_path: Path) -> None:
    sync = FakeSync()

    async with served(way, sync, tmp_path) as node:
        for action in ALL.values():
            with pytest.raises(Denied):
                await node.use(action, READER_TOKEN)

    assert not sync.asked


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "error",
    [
        NotFound("there is no binding x", reason="BINDING_NOT_FOUND"),
        Conflict("the state moved on", hint="plan again", reason="PLAN_MOVED"),
        Throttled("the store has enough of us", retry_after_s=2.5),
        Forbidden("the role may not read", hint="give it ssm:GetParameters"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_arrives_as_it_was_raised(
    way: str, error: EnvdError, tmp_path: Path
) -> None:
    async with served(way, FakeSync(error=error), tmp_path) as node:
        with pytest.raises(type(error)) as raised:
            await node.use(ALL["apply"])

    assert (raised.value.message, raised.value.hint) == (error.message, error.hint)
    assert raised.value.reason == error.reason
    assert getattr(raised.value, "retry_after_s", 0) == getattr(error, "retry_after_s", 0)


async def test_the_socket_refuses_what_a_binding_does_not_have(tmp_path: Path) -> None:
    sync = FakeSync()
    binding = {"name": "b", "environment": "e", "prefix": None, "targets": ["file:/x"], "colour": 1}
    arguments = {"binding": binding}
    frame = encode_frame({"call": "sync_bind", "arguments": arguments, "token": TOKEN})

    async with served("unix", sync, tmp_path):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(frame)
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        answer = await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()

    assert b"'colour' is no argument" in answer
    assert not sync.asked


async def test_a_message_without_a_binding_is_refused(tmp_path: Path) -> None:
    node = Node()
    server = GrpcServer(node.api, FakeAccess(), ANY_PORT, sync=FakeSync())
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            call = channel.unary_unary(f"/{SERVICE}/Bind", bytes, bytes)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(pb.BindRequest().SerializeToString(), metadata=bearer(TOKEN))
    finally:
        await server.stop(0)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_reflection_lists_the_service() -> None:
    server = GrpcServer(Node().api, FakeAccess(), ANY_PORT)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            reflect: grpc.aio.StreamStreamMultiCallable[bytes, Any] = channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                bytes,
                reflection_pb2.ServerReflectionResponse.FromString,
            )
            call = reflect()
            asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
            await call.write(asked.SerializeToString())
            answer: Any = await call.read()
            await call.done_writing()
            await call.read()
    finally:
        await server.stop(0)

    assert answer.HasField("file_descriptor_response")


# -- an answer that never comes ----------------------------------------------------------


class Stuck(FakeSync):
    """Takes a change, and never answers."""

    async def apply(self, identity: Any, request: ApplyRequest) -> Any:
        self.asked.append(("apply", request))
        await asyncio.Event().wait()

    async def status(self, identity: Any, request: BindingsRequest) -> Any:
        self.asked.append(("status", request))
        await asyncio.Event().wait()


@pytest.mark.parametrize("way", WAYS)
async def test_a_change_whose_answer_is_lost_may_be_done_and_is_not_sent_again(
    way: str, tmp_path: Path
) -> None:
    sync = Stuck()

    async with served(way, sync, tmp_path) as node:
        asking = asyncio.create_task(node.use(ALL["apply"]))
        await until(lambda: bool(sync.asked))
    with pytest.raises(OutcomeUnknown) as lost:
        await asking

    assert "may or may not be done" in lost.value.message
    assert lost.value.hint == "see what is left to do: envctl sync plan"
    assert len(sync.asked) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_of_a_question_whose_answer_is_lost_nothing_is_unclear(
    way: str, tmp_path: Path
) -> None:
    sync = Stuck()

    async with served(way, sync, tmp_path) as node:
        asking = asyncio.create_task(node.use(ALL["status"]))
        await until(lambda: bool(sync.asked))
    with pytest.raises(Unavailable):
        await asking
