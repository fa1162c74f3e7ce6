"""GrpcConnection against real servers, and against servers that fail on purpose."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import pytest

from envd.client.connection import Connection
from envd.client.rpc import CLUSTER, SERVICE, GrpcConnection
from envd.core.answers import Changed, SnapshotEnd
from envd.core.commit import Kind
from envd.core.errors import (
    Conflict,
    EnvdError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from envd.core.requests import (
    Consistency,
    DeleteRequest,
    HistoryRequest,
    ListRequest,
    Put,
    ReadRequest,
    RollbackRequest,
    Unset,
    WatchRequest,
    WriteRequest,
)
from envd.net.grpc_server import GrpcServer
from envd.settings.units import Address
from envd.wire._pb import environment_pb2 as pb
from tests.net.world import CANARY, TOKEN, FakeAccess, Node, Rpc

CODE = grpc.StatusCode
ResultT = TypeVar("ResultT")
WRITE = WriteRequest("web/prod", (Put("A", CANARY),))


async def use(
    addresses: Sequence[str],
    action: Callable[[GrpcConnection], ResultT],
    *,
    token: str = TOKEN,
    timeout_s: float = 30.0,
) -> ResultT:
    """Do something with a connection, in a thread, for it blocks."""

    def run() -> ResultT:
        connection = GrpcConnection(addresses, token=token, timeout_s=timeout_s)
        try:
            return action(connection)
        finally:
            connection.close()

    return await asyncio.to_thread(run)


def address(port: int) -> str:
    return f"127.0.0.1:{port}"


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@dataclass
class Faulty:
    """A gRPC server that answers each call as the next step of its script says."""

    script: list[grpc.StatusCode | bytes | None]
    seen: list[bytes] = field(default_factory=list)
    port: int = 0

    async def answer(self, raw: bytes, context: Any) -> bytes:
        self.seen.append(raw)
        step = self.script.pop(0)
        if step is None:
            await asyncio.Event().wait()
        if isinstance(step, grpc.StatusCode):
            await context.abort(step, "made to fail")
        assert isinstance(step, bytes)
        return step


@asynccontextmanager
async def faulty(*script: grpc.StatusCode | bytes | None) -> AsyncIterator[Faulty]:
    made = Faulty(list(script))
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes]
    handler = grpc.unary_unary_rpc_method_handler(made.answer)
    handlers = dict.fromkeys(("Get", "List", "Write", "Delete", "Rollback", "Status"), handler)
    for service in (SERVICE, CLUSTER):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    made.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield made
    finally:
        await server.stop(0)


DONE = pb.WriteResponse(environment="web/prod", revision="00" * 16, stamp=b"\0" * 20)


# -- calls -------------------------------------------------------------------------


async def test_every_call_works_as_over_the_unix_socket(rpc: Rpc) -> None:
    def act(connection: Connection) -> None:
        written = connection.write(
            WriteRequest(
                "web/prod",
                puts=(
                    Put("A", "ü", secret=True),
                    Put("B", "2"),
                    Put("owner", "team", kind=Kind.METADATA),
                ),
                message="why",
            )
        )
        view = connection.get(
            ReadRequest(
                "web/prod",
                reveal=True,
                consistency=Consistency.SESSION,
                token=written.token,
                max_lag_ms=5,
            )
        )
        assert view.revision == written.revision
        assert view.stamp == written.stamp
        assert view.variables["A"].value == "ü"
        assert view.metadata == {"owner": "team"}
        assert view.level is Consistency.SESSION
        masked = connection.get(ReadRequest("web/prod", ("A",)))
        assert masked.variables["A"].value is None
        connection.write(WriteRequest("web/prod", unsets=(Unset("B"),)))
        connection.rollback(RollbackRequest("web/prod", written.revision, ("B",)))
        page = connection.history(HistoryRequest("web/prod", limit=1))
        rest = connection.history(HistoryRequest("web/prod", before=page.next))
        assert rest.commits[-1].message == "why"
        assert connection.list(ListRequest()).environments[0].variables == 2
        connection.delete(DeleteRequest("web/prod"))
        assert connection.status().identity == "admin"

    await use([address(rpc.port)], act)


async def test_errors_have_the_class_reason_and_hint_of_the_node(rpc: Rpc) -> None:
    await rpc.node.put("web", A="1")

    def act(connection: GrpcConnection) -> None:
        with pytest.raises(NotFound) as missing:
            connection.get(ReadRequest("no/such"))
        assert missing.value.hint == "see what there is with: envctl list"
        with pytest.raises(Conflict) as stale:
            connection.write(WriteRequest("web", (Put("A", "2"),), if_revision="0" * 32))
        assert stale.value.reason == "STALE_REVISION"
        with pytest.raises(InvalidRequest):
            connection.delete(DeleteRequest("Bad Name"))

    await use([address(rpc.port)], act)


async def test_without_the_right_token_nothing_is_told(rpc: Rpc) -> None:
    for token in ("", "wrong"):
        with pytest.raises(Unauthenticated):
            await use([address(rpc.port)], lambda one: one.status(), token=token)


async def test_a_write_carries_its_operation_id_or_a_new_one(rpc: Rpc) -> None:
    def act(connection: GrpcConnection) -> None:
        connection.write(WriteRequest("a", (Put("A", "1"),), operation="mine"))
        connection.write(WriteRequest("a", (Put("A", "2"),)))
        connection.write(WriteRequest("a", (Put("A", "3"),)))

    await use([address(rpc.port)], act)

    third, second, first = rpc.node.store.commits("a", None, 10)
    assert first.operation == "mine"
    assert len(second.operation) == 32
    assert second.operation != third.operation


async def test_a_bulk_write_larger_than_a_write_is_one_commit(rpc: Rpc) -> None:
    puts = tuple(Put(f"A{at}", "v", True if at == 7 else None) for at in range(3000))

    answer = await use(
        [address(rpc.port)],
        lambda one: one.write(WriteRequest("a", puts, bulk=True, message="import")),
    )

    (commit,) = rpc.node.store.commits("a", None, 10)
    assert commit.revision.hex() == answer.revision
    assert (len(commit.changes), commit.message) == (3000, "import")
    assert [change.name for change in commit.changes if change.secret] == ["A7"]


async def test_a_bulk_write_that_fails_raises_as_a_write_does(rpc: Rpc) -> None:
    puts = tuple(Put(f"A{at}", "v") for at in range(3000))
    request = WriteRequest("a", puts, bulk=True, if_revision="0" * 32)

    with pytest.raises(Conflict) as caught:
        await use([address(rpc.port)], lambda one: one.write(request))

    assert caught.value.reason == "STALE_REVISION"


@pytest.mark.parametrize(
    "act",
    [
        lambda one: one.list(ListRequest(limit=-1)),
        lambda one: one.list(ListRequest(limit=1 << 40)),
        lambda one: one.history(HistoryRequest("e", before="no hex")),
        lambda one: one.write(WriteRequest("e", (Put("A", CANARY + "\ud800"),))),
        lambda one: one.write(WriteRequest("e", (Put("A", "x" * (9 << 20)),))),
    ],
)
async def test_what_can_not_be_sent_is_an_invalid_request_that_quotes_nothing(
    rpc: Rpc, act: Callable[[GrpcConnection], object]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await use([address(rpc.port)], act)

    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("token", ["new\nline", "ü"])
def test_a_token_that_can_be_none_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        GrpcConnection(["127.0.0.1:1"], token=token)

    assert token not in str(caught.value)


# -- reaching a node ---------------------------------------------------------------


async def test_addresses_are_tried_in_turn(rpc: Rpc) -> None:
    addresses = [address(unused_port()), address(rpc.port)]

    found = await use(addresses, lambda one: (one.address, one.status().node))

    assert found == (address(rpc.port), "node-1")


def test_where_no_address_answers_all_are_named_with_why() -> None:
    addresses = [address(unused_port()), "[::1]:1", "no-such-host.invalid:7420"]

    with pytest.raises(Unavailable) as caught:
        GrpcConnection(addresses, token=TOKEN)

    assert caught.value.reason == "NO_DAEMON"
    assert all(one in caught.value.message for one in addresses)
    assert "Connection refused" in caught.value.message


@pytest.mark.parametrize("text", ["localhost", "host:port", ":7420", ""])
def test_an_address_that_is_none_is_an_invalid_request(text: str) -> None:
    with pytest.raises(InvalidRequest):
        GrpcConnection([text], token=TOKEN)


async def test_ipv6_is_reached() -> None:
    server = GrpcServer(Node().api, FakeAccess(), Address("::1", 0))
    port = await server.start()

    found = await use([f"[::1]:{port}"], lambda one: one.status().node)

    await server.stop(0)
    assert found == "node-1"


async def test_a_stopping_node_is_left_for_the_next(rpc: Rpc) -> None:
    other = Node()
    server = GrpcServer(other.api, FakeAccess(), Address("127.0.0.1", 0))
    addresses = [address(rpc.port), address(await server.start())]
    rpc.node.api.stop()

    await use(addresses, lambda one: one.write(WRITE))
    with pytest.raises(Unavailable) as alone:
        await use(addresses[:1], lambda one: one.write(WRITE))

    await server.stop(0)
    assert other.store.environment_count() == 1
    assert alone.value.reason == "STOPPING"


async def test_a_read_goes_on_to_the_next_node_where_one_breaks(rpc: Rpc) -> None:
    await rpc.node.put("web/prod", A="1")
    async with faulty(CODE.UNAVAILABLE) as broken:
        view = await use(
            [address(broken.port), address(rpc.port)],
            lambda one: one.get(ReadRequest("web/prod")),
        )

    assert view.variables["A"].value == "1"


# -- what became of a write --------------------------------------------------------


async def test_a_write_whose_answer_was_lost_is_sent_again_with_the_same_id() -> None:
    async with faulty(CODE.UNAVAILABLE, DONE.SerializeToString()) as server:
        answer = await use([address(server.port)], lambda one: one.write(WRITE))

    first, second = server.seen
    assert answer.environment == "web/prod"
    assert first == second
    assert len(pb.WriteRequest.FromString(first).operation) == 32


async def test_a_lost_write_never_goes_to_another_node(rpc: Rpc) -> None:
    async with faulty(CODE.UNAVAILABLE, CODE.UNAVAILABLE) as server:
        with pytest.raises(OutcomeUnknown) as caught:
            await use([address(server.port), address(rpc.port)], lambda one: one.write(WRITE))

    operation = pb.WriteRequest.FromString(server.seen[0]).operation
    assert f"--operation {operation} " in caught.value.hint
    assert rpc.node.store.environment_count() == 0
    assert CANARY not in str(caught.value)


async def test_a_write_that_did_not_leave_goes_to_the_next_node(rpc: Rpc) -> None:
    with socket.socket() as mute:  # takes connections and closes them
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        closing = asyncio.create_task(asyncio.to_thread(_close_each, mute))

        await use([address(mute.getsockname()[1]), address(rpc.port)], lambda one: one.write(WRITE))

        mute.shutdown(socket.SHUT_RDWR)
        await closing
    assert rpc.node.store.environment_count() == 1


def _close_each(listening: socket.socket) -> None:
    while True:
        try:
            listening.accept()[0].close()
        except OSError:
            return


@pytest.mark.parametrize("code", [CODE.CANCELLED, CODE.INTERNAL, CODE.UNKNOWN, CODE.DATA_LOSS])
@pytest.mark.parametrize(
    "act",
    [
        lambda one: one.write(WRITE),
        lambda one: one.delete(DeleteRequest("web", operation="op-1")),
        lambda one: one.rollback(RollbackRequest("web", "@~1")),
    ],
)
async def test_a_write_that_ends_strangely_has_an_unknown_outcome(
    code: grpc.StatusCode, act: Callable[[GrpcConnection], object]
) -> None:
    async with faulty(code) as server:
        with pytest.raises(OutcomeUnknown):
            await use([address(server.port)], act)


async def test_a_call_without_an_answer_in_time() -> None:
    async with faulty(None, None) as server:
        with pytest.raises(OutcomeUnknown):
            await use([address(server.port)], lambda one: one.write(WRITE), timeout_s=0.2)
        with pytest.raises(Unavailable) as caught:
            await use([address(server.port)], lambda one: one.status(), timeout_s=0.2)

    assert caught.value.reason == "TIMEOUT"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CODE.INTERNAL, EnvdError),
        (CODE.UNKNOWN, EnvdError),
        (CODE.CANCELLED, Unavailable),
        (CODE.UNIMPLEMENTED, Unsupported),
        (CODE.RESOURCE_EXHAUSTED, Unavailable),
        (CODE.PERMISSION_DENIED, EnvdError),
        (CODE.ABORTED, Conflict),
    ],
)
async def test_a_read_that_something_else_refuses_is_an_error_of_ours(
    code: grpc.StatusCode, kind: type[EnvdError]
) -> None:
    async with faulty(code) as server:
        with pytest.raises(kind):
            await use([address(server.port)], lambda one: one.status())


async def test_an_internal_error_of_the_node_leaves_a_write_unknown(rpc: Rpc) -> None:
    def fails(author: str, operation: str) -> None:
        raise RuntimeError(CANARY)

    rpc.node.store.find_operation = fails  # type: ignore[method-assign]

    with pytest.raises(OutcomeUnknown) as caught:
        await use([address(rpc.port)], lambda one: one.write(WRITE))

    assert CANARY not in str(caught.value)


# -- watches -----------------------------------------------------------------------


async def test_a_watch_tells_changes_and_ends_with_the_node(rpc: Rpc) -> None:
    seen = asyncio.Queue[object]()
    loop = asyncio.get_running_loop()

    def act(connection: Connection) -> None:
        for event in connection.watch(WatchRequest("web")):
            loop.call_soon_threadsafe(seen.put_nowait, event)

    using = asyncio.create_task(use([address(rpc.port)], act, timeout_s=0.5))
    begun = await seen.get()
    await rpc.node.put("web/prod", A="1")
    changed = await seen.get()
    rpc.node.api.stop()
    with pytest.raises(Unavailable):
        await using

    assert isinstance(begun, SnapshotEnd)
    assert isinstance(changed, Changed)
    assert changed.commit.environment == "web/prod"


async def test_a_watch_goes_to_the_first_node_that_can_be_reached(rpc: Rpc) -> None:
    def act(connection: Connection) -> object:
        events = connection.watch(WatchRequest())
        event = next(events)
        events.close()  # type: ignore[attr-defined]
        return event

    addresses = [address(unused_port()), address(rpc.port)]

    assert isinstance(await use(addresses, act), SnapshotEnd)


async def test_a_refused_watch_is_the_error_of_the_node(rpc: Rpc) -> None:
    with pytest.raises(Unauthenticated):
        await use([address(rpc.port)], lambda one: next(one.watch(WatchRequest())), token="wrong")
