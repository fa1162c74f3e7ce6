"""Every call of EnvironmentService over a real server; deadlines, health, reflection."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from envd.client.rpc_errors import error_from_rpc
from envd.core.errors import (
    LimitExceeded,
    OutcomeUnknown,
    StartupError,
    Unavailable,
)
from envd.net.cluster_service import SERVICE as CLUSTER
from envd.net.environment_service import MAX_BATCH_GET, SERVICE
from envd.net.grpc_server import GrpcLimits, GrpcServer
from envd.net.health import SERVICE as HEALTH
from envd.settings.units import Address
from envd.wire._pb import cluster_pb2 as cluster
from envd.wire._pb import environment_pb2 as pb
from tests.net.world import (
    ANY_PORT,
    CANARY,
    READER_TOKEN,
    TOKEN,
    FakeAccess,
    HeldStore,
    Node,
    Rpc,
    bearer,
    grpc_to,
    refused,
    stream_call,
    unary_call,
    until,
)

CODE = grpc.StatusCode


def write_of(environment: str, **values: str) -> pb.WriteRequest:
    puts = [pb.Put(name=name, value=value) for name, value in values.items()]
    return pb.WriteRequest(environment=environment, puts=puts)


async def write(rpc: Rpc, environment: str, **values: str) -> pb.WriteResponse:
    return await rpc.unary("Write", write_of(environment, **values), pb.WriteResponse)


# -- the calls ---------------------------------------------------------------------


async def test_what_was_written_is_read_with_its_stamp_and_origin(rpc: Rpc) -> None:
    written = await write(rpc, "web/prod", PORT="8080")

    answer = await rpc.unary("Get", pb.GetRequest(environment="web/prod"), pb.GetResponse)

    (variable,) = answer.environment.variables
    assert answer.environment.revision == written.revision
    assert (variable.name, variable.value, variable.stamp) == ("PORT", "8080", written.stamp)
    assert (variable.node, variable.region, variable.masked) == ("node-1", "eu", False)
    assert answer.level == pb.CONSISTENCY_EVENTUAL
    assert len(written.stamp) == 20
    assert written.acknowledged == 1


async def test_a_secret_is_masked_unless_revealed(rpc: Rpc) -> None:
    await rpc.node.put("web/prod", SECRET_KEY=CANARY)

    masked = await rpc.unary("Get", pb.GetRequest(environment="web/prod"), pb.GetResponse)
    shown = await rpc.unary(
        "Get", pb.GetRequest(environment="web/prod", reveal=True), pb.GetResponse
    )

    assert not masked.environment.variables[0].HasField("value")
    assert masked.environment.variables[0].masked
    assert CANARY.encode() not in masked.SerializeToString()
    assert shown.environment.variables[0].value == CANARY


async def test_a_write_sets_and_unsets_variables_and_settings_at_once(rpc: Rpc) -> None:
    await write(rpc, "web/prod", A="1", B="2")
    request = pb.WriteRequest(
        environment="web/prod",
        puts=[pb.Put(name="C", value="3", secret=True)],
        unsets=["A"],
        metadata_puts={"owner": "team-web"},
    )

    await rpc.unary("Write", request, pb.WriteResponse)

    answer = await rpc.unary("Get", pb.GetRequest(environment="web/prod"), pb.GetResponse)
    assert [variable.name for variable in answer.environment.variables] == ["B", "C"]
    assert dict(answer.environment.metadata) == {"owner": "team-web"}
    assert answer.environment.variables[1].secret


async def test_a_batch_answers_for_each_environment_in_the_order_asked(rpc: Rpc) -> None:
    await write(rpc, "b", X="1")
    await write(rpc, "a", X="2")

    answer = await rpc.unary(
        "BatchGet", pb.BatchGetRequest(environments=["b", "no/such", "a"]), pb.BatchGetResponse
    )

    found, missing, other = answer.results
    assert found.found.environment.environment == "b"
    assert missing.error.code == CODE.NOT_FOUND.value[0]
    assert missing.error.reason == "ENVIRONMENT_NOT_FOUND"
    assert other.found.environment.environment == "a"


async def test_a_batch_that_would_not_fit_into_a_message_says_so_per_environment(rpc: Rpc) -> None:
    for name in ("a", "b", "c"):
        await rpc.node.put(name, **{f"X{at}": "v" * 1_000_000 for at in range(3)})

    answer = await rpc.unary(
        "BatchGet", pb.BatchGetRequest(environments=["a", "b", "c"]), pb.BatchGetResponse
    )

    kinds = [result.WhichOneof("result") for result in answer.results]
    assert kinds == ["found", "error", "error"]
    assert answer.results[1].error.reason == "ANSWER_FULL"


async def test_a_batch_of_too_many_is_refused(rpc: Rpc) -> None:
    names = ["a"] * (MAX_BATCH_GET + 1)

    error = await refused(
        rpc.unary("BatchGet", pb.BatchGetRequest(environments=names), pb.BatchGetResponse)
    )

    assert error.code() is CODE.INVALID_ARGUMENT
    assert isinstance(error_from_rpc(error), LimitExceeded)


async def test_a_list_goes_on_page_by_page(rpc: Rpc) -> None:
    for name in ("a", "b/c", "b/d"):
        await write(rpc, name, X="1")

    first = await rpc.unary("List", pb.ListRequest(limit=2), pb.ListResponse)
    second = await rpc.unary("List", pb.ListRequest(after=first.next), pb.ListResponse)
    below = await rpc.unary("List", pb.ListRequest(prefix="b"), pb.ListResponse)

    assert [item.environment for item in first.environments] == ["a", "b/c"]
    assert [item.environment for item in second.environments] == ["b/d"]
    assert second.next == ""
    assert [item.environment for item in below.environments] == ["b/c", "b/d"]
    assert below.environments[0].variables == 1


async def test_a_deleted_environment_comes_back_by_rollback(rpc: Rpc) -> None:
    await write(rpc, "web", X="1")

    deleted = await rpc.unary("Delete", pb.DeleteRequest(environment="web"), pb.WriteResponse)
    gone = await refused(rpc.unary("Get", pb.GetRequest(environment="web"), pb.GetResponse))
    back = await rpc.unary(
        "Rollback", pb.RollbackRequest(environment="web", to="@deleted"), pb.WriteResponse
    )

    assert gone.code() is CODE.NOT_FOUND
    assert back.revision != deleted.revision
    answer = await rpc.unary("Get", pb.GetRequest(environment="web"), pb.GetResponse)
    assert answer.environment.variables[0].value == "1"


async def test_history_tells_commits_newest_first_page_by_page(rpc: Rpc) -> None:
    for number in range(3):
        await write(rpc, "web", X=str(number))

    first = await rpc.unary(
        "History", pb.HistoryRequest(environment="web", limit=2), pb.HistoryResponse
    )
    rest = await rpc.unary(
        "History", pb.HistoryRequest(environment="web", before=first.next), pb.HistoryResponse
    )

    assert len(first.commits) == 2
    assert first.commits[0].stamp > first.commits[1].stamp > rest.commits[0].stamp
    assert first.commits[0].actor == "admin"
    assert first.commits[0].changes[0].variable == "X"
    assert first.commits[0].changes[0].kind == pb.Change.KIND_SET
    assert rest.next == b""


async def test_an_earlier_state_is_read_at_its_revision(rpc: Rpc) -> None:
    old = await write(rpc, "web", X="old")
    await write(rpc, "web", X="new")

    answer = await rpc.unary(
        "Get", pb.GetRequest(environment="web", at=old.revision[:8]), pb.GetResponse
    )

    assert answer.environment.variables[0].value == "old"


async def test_status_tells_who_asks(rpc: Rpc) -> None:
    answer = await rpc.unary(
        "Status", cluster.StatusRequest(), cluster.StatusResponse, token=READER_TOKEN
    )

    assert (answer.identity, answer.authenticated_by) == ("reader", "token")
    assert (answer.node, answer.generation, answer.storage_bytes) == ("node-1", 3, 77)


async def test_an_export_streams_every_environment_below_a_prefix(rpc: Rpc) -> None:
    for number in range(300):
        await rpc.node.put(f"web/e{number:03}", PLAIN="v", SECRET_X="s")
    await rpc.node.put("other", A="1")

    call = rpc.out_stream("Export", pb.ExportRequest(prefix="web"), pb.ExportResponse)
    messages = [message async for message in call]

    items = [item for message in messages for item in message.environments]
    assert [item.environment for item in items] == [f"web/e{number:03}" for number in range(300)]
    assert len(messages) == 2
    assert list(items[0].variables.names) == ["PLAIN", "SECRET_X"]
    assert list(items[0].variables.values) == ["v", ""]
    assert list(items[0].variables.secret) == [1]
    assert items[0].masked


async def test_an_export_keeps_its_messages_below_four_mebibytes(rpc: Rpc) -> None:
    for name in ("a", "b", "c"):
        await rpc.node.put(name, **{f"X{at}": "é" * 500_000 for at in range(2)})

    call = rpc.out_stream("Export", pb.ExportRequest(reveal=True), pb.ExportResponse)
    sizes = [message.ByteSize() async for message in call]

    assert len(sizes) == 3
    assert max(sizes) < 4 << 20


# -- deadlines and bounds ----------------------------------------------------------


async def test_a_write_past_its_deadline_has_an_unknown_outcome_and_is_whole() -> None:
    store = HeldStore()
    async with grpc_to(Node(store=store)) as rpc:
        request = write_of("web", A="1", B="2")
        error = await refused(rpc.unary("Write", request, pb.WriteResponse, deadline_s=0.2))
        store.gate.set()
        answer = await rpc.unary("Get", pb.GetRequest(environment="web"), pb.GetResponse)

    assert error.code() is CODE.DEADLINE_EXCEEDED
    assert isinstance(error_from_rpc(error, operation="op-1"), OutcomeUnknown)
    assert [variable.name for variable in answer.environment.variables] == ["A", "B"]


async def test_a_call_too_many_is_refused_at_once_and_health_is_told_all_the_same() -> None:
    store = HeldStore()
    async with grpc_to(Node(store=store), GrpcLimits(concurrent_calls=1)) as rpc:
        first = asyncio.create_task(write(rpc, "web", A="1"))
        await until(lambda: store.appended == ["web"])
        error = await refused(rpc.unary("Status", cluster.StatusRequest(), cluster.StatusResponse))
        checked = await health(rpc)
        store.gate.set()
        await first
        again = await rpc.unary("Status", cluster.StatusRequest(), cluster.StatusResponse)

    found = error_from_rpc(error)
    assert checked
    assert again.node == "node-1"
    assert error.code() is CODE.RESOURCE_EXHAUSTED
    assert isinstance(found, Unavailable)
    assert found.reason == "OVERLOADED"


async def test_in_a_burst_every_call_is_answered(rpc: Rpc) -> None:
    calls = [
        rpc.unary("Status", cluster.StatusRequest(), cluster.StatusResponse) for _ in range(4000)
    ]

    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert [answer for answer in answers if isinstance(answer, BaseException)] == []


async def test_a_stopping_node_says_so(rpc: Rpc) -> None:
    rpc.node.api.stop()

    error = await refused(rpc.unary("List", pb.ListRequest(), pb.ListResponse))

    assert error.code() is CODE.UNAVAILABLE
    assert error_from_rpc(error).reason == "STOPPING"


# -- health, reflection, the address ------------------------------------------------


async def health(rpc: Rpc, service: str = "") -> int:
    call = unary_call(rpc.channel, f"/{HEALTH}/Check", health_pb2.HealthCheckResponse.FromString)
    answer = await call(health_pb2.HealthCheckRequest(service=service).SerializeToString())
    return int(answer.status)


async def test_health_is_open_and_tells_whether_the_node_serves(rpc: Rpc) -> None:
    statuses = health_pb2.HealthCheckResponse

    serving = [await health(rpc), await health(rpc, SERVICE)]
    rpc.server.set_serving(False)
    not_serving = await health(rpc, SERVICE)
    unknown = await refused(health(rpc, "no.such.Service"))

    assert serving == [statuses.SERVING, statuses.SERVING]
    assert not_serving == statuses.NOT_SERVING
    assert unknown.code() is CODE.NOT_FOUND


async def test_a_server_is_not_serving_until_it_is_told_to() -> None:
    server = GrpcServer(Node().api, FakeAccess(), ANY_PORT)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = unary_call(channel, f"/{HEALTH}/Check", health_pb2.HealthCheckResponse.FromString)

        answer = await call(b"")

    await server.stop(0)
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_watch_of_health_tells_changes_and_ends_with_the_server(rpc: Rpc) -> None:
    statuses = health_pb2.HealthCheckResponse
    call = stream_call(rpc.channel, f"/{HEALTH}/Watch", statuses.FromString)(b"")
    told = aiter(call)

    first = await anext(told)
    stop = asyncio.create_task(rpc.server.stop(60))
    rest = [message.status async for message in told]
    await stop

    assert first.status == statuses.SERVING
    assert rest == [statuses.NOT_SERVING]


async def test_reflection_lists_the_services(rpc: Rpc) -> None:
    reflect: grpc.aio.StreamStreamMultiCallable[bytes, Any] = rpc.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        bytes,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = reflect()
    asked = reflection_pb2.ServerReflectionRequest(list_services="*")
    await call.write(asked.SerializeToString())
    answer: Any = await call.read()
    await call.done_writing()
    end = await call.read()

    listed = answer.list_services_response.service
    assert {SERVICE, CLUSTER, HEALTH} <= {service.name for service in listed}
    assert end is grpc.aio.EOF


async def test_a_used_port_is_an_error_that_names_it_and_the_mend() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = GrpcServer(Node().api, FakeAccess(), Address("127.0.0.1", port))

        with pytest.raises(StartupError) as caught:
            await server.start()

    assert f"127.0.0.1:{port}" in caught.value.message
    assert "--listen" in caught.value.hint
    assert caught.value.reason == "ADDRESS_IN_USE"


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
async def test_an_address_that_is_not_here_is_a_startup_error(host: str) -> None:
    server = GrpcServer(Node().api, FakeAccess(), Address(host, 0))

    with pytest.raises(StartupError) as caught:
        await server.start()

    assert caught.value.reason == "ADDRESS_UNUSABLE"


async def test_the_server_listens_on_ipv6() -> None:
    node = Node()
    server = GrpcServer(node.api, FakeAccess(), Address("::1", 0))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
        call = unary_call(channel, f"/{CLUSTER}/Status", cluster.StatusResponse.FromString)

        answer = await call(b"", metadata=bearer(TOKEN))

    await server.stop(0)
    assert answer.identity == "admin"
