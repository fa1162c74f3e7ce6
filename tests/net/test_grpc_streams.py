"""Watches, pipelined writes and imports over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from google.protobuf.message import Message

from envd.client.rpc_errors import error_from_rpc
from envd.core.answers import Changed, Heartbeat, Reset, SnapshotEnd, SnapshotItem, WatchEvent
from envd.core.errors import Unavailable
from envd.core.requests import DeleteRequest
from envd.net.grpc_server import GrpcLimits
from envd.net.outbox import MOST_BYTES
from envd.wire._pb import cluster_pb2 as cluster
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_streams import event_from, events_from
from tests.net.world import (
    ADMIN,
    CANARY,
    READER_TOKEN,
    HeldStore,
    Node,
    Rpc,
    grpc_to,
    refused,
    until,
)

CODE = grpc.StatusCode
Watching = grpc.aio.UnaryStreamCall[bytes, pb.WatchResponse]
Writing = grpc.aio.StreamStreamCall[Message, pb.WriteStreamResponse]
Importing = grpc.aio.StreamStreamCall[Message, pb.ImportResponse]


# -- watches -----------------------------------------------------------------------


def watch(rpc: Rpc, request: pb.WatchRequest) -> Watching:
    return rpc.out_stream("Watch", request, pb.WatchResponse)


async def next_of(call: Watching) -> WatchEvent:
    message = await call.read()
    assert isinstance(message, pb.WatchResponse)
    assert not message.more
    return event_from(message)


async def next_batch(call: Watching) -> Sequence[WatchEvent]:
    message = await call.read()
    assert isinstance(message, pb.WatchResponse)
    return events_from(message)


async def test_what_is_there_at_once_comes_in_one_message_for_who_asks_for_it(
    rpc: Rpc,
) -> None:
    for number in range(40):
        await rpc.node.put(f"web/e{number:02}", A=str(number))
    together = watch(rpc, pb.WatchRequest(prefix="web", values=True, batched=True))
    apart = watch(rpc, pb.WatchRequest(prefix="web", values=True))

    snapshot: list[WatchEvent] = []
    messages = 0
    while not (snapshot and isinstance(snapshot[-1], SnapshotEnd)):
        snapshot += await next_batch(together)
        messages += 1

    assert messages < 5
    assert snapshot == [await next_of(apart) for _ in range(41)]
    await asyncio.gather(*(rpc.node.put(f"web/e{n:02}", A="new") for n in range(40)))
    changes: list[WatchEvent] = []
    while len(changes) < 40:
        changes += await next_batch(together)
    assert changes == [await next_of(apart) for _ in range(40)]


async def test_a_large_event_goes_alone(rpc: Rpc) -> None:
    large = "x" * (MOST_BYTES // 2)
    for number in range(6):
        await rpc.node.put(f"web/e{number}", A=large)
    call = watch(rpc, pb.WatchRequest(prefix="web", batched=True))

    sizes: list[int] = []
    while sum(sizes) < 7:
        sizes.append(len(await next_batch(call)))

    assert sizes == [1, 1, 1, 1, 1, 2]  # with the mark of the end


async def events(call: Watching, count: int) -> list[WatchEvent]:
    return [await next_of(call) for _ in range(count)]


async def test_a_watch_tells_a_snapshot_then_changes(rpc: Rpc) -> None:
    await rpc.node.put("web/a", A="1")
    await rpc.node.put("other", A="1")
    call = watch(rpc, pb.WatchRequest(prefix="web"))

    item, end = await events(call, 2)
    await rpc.node.put("web/b", B="2")
    change = await next_of(call)

    assert isinstance(item, SnapshotItem)
    assert item.state.environment == "web/a"
    assert item.state.variables["A"].value == "1"
    assert isinstance(end, SnapshotEnd)
    assert isinstance(change, Changed)
    assert change.commit.environment == "web/b"
    assert change.state is None


async def test_a_watch_with_values_tells_states_masked_and_what_is_gone(rpc: Rpc) -> None:
    call = watch(rpc, pb.WatchRequest(values=True))
    await events(call, 1)

    await rpc.node.put("web", SECRET_KEY=CANARY, A="1")
    changed = await call.read()
    await rpc.node.api.delete(ADMIN, DeleteRequest("web"))
    gone = await call.read()

    assert isinstance(changed, pb.WatchResponse)
    assert isinstance(gone, pb.WatchResponse)
    assert [variable.masked for variable in changed.changed.state.variables] == [False, True]
    assert CANARY.encode() not in changed.SerializeToString()
    assert not changed.changed.gone
    assert gone.changed.gone
    assert not gone.changed.HasField("state")
    assert gone.changed.commit.deleted


async def test_a_watch_goes_on_from_its_token(rpc: Rpc) -> None:
    await rpc.node.put("web", A="1")
    first = watch(rpc, pb.WatchRequest())
    _, end = await events(first, 2)
    first.cancel()
    await rpc.node.put("web", A="2")
    assert isinstance(end, SnapshotEnd)

    second = watch(rpc, pb.WatchRequest(token=end.token))
    change = await next_of(second)

    assert isinstance(change, Changed)
    assert change.commit.changes[0].variable == "A"


@pytest.mark.parametrize("token", ["rubbish", "00000000000000ff.1", "0000000000001234.ff"])
async def test_a_token_that_does_not_resume_gives_a_reset_and_a_snapshot(
    rpc: Rpc, token: str
) -> None:
    await rpc.node.put("web", A="1")

    reset, item, end = await events(watch(rpc, pb.WatchRequest(token=token)), 3)

    assert isinstance(reset, Reset)
    assert reset.reason
    assert isinstance(item, SnapshotItem)
    assert isinstance(end, SnapshotEnd)


async def test_a_quiet_watch_beats_with_a_token_that_resumes() -> None:
    async with grpc_to(Node(heartbeat_s=0.001)) as rpc:
        await rpc.node.put("web", A="1")
        _, _, beat = await events(watch(rpc, pb.WatchRequest()), 3)
        assert isinstance(beat, Heartbeat)

        (again,) = await events(watch(rpc, pb.WatchRequest(token=beat.token)), 1)

    assert isinstance(again, Heartbeat)


async def test_a_cancelled_watch_is_let_go_at_once(rpc: Rpc) -> None:
    call = watch(rpc, pb.WatchRequest())
    await events(call, 1)
    assert rpc.node.hub.open_watches == 1

    call.cancel()

    await until(lambda: rpc.node.hub.open_watches == 0)


async def test_a_watch_whose_client_does_not_read_holds_no_queue_and_is_let_go(rpc: Rpc) -> None:
    for number in range(40):
        await rpc.node.put(f"e{number:02}", A="v" * 500_000)
    call = watch(rpc, pb.WatchRequest())
    await until(lambda: rpc.node.hub.open_watches == 1)

    call.cancel()

    await until(lambda: rpc.node.hub.open_watches == 0)


async def test_one_watch_too_many_is_refused_with_a_delay() -> None:
    async with grpc_to(Node(max_watches=1)) as rpc:
        await events(watch(rpc, pb.WatchRequest()), 1)

        error = await refused(watch(rpc, pb.WatchRequest()).read())

    found = error_from_rpc(error)
    assert error.code() is CODE.RESOURCE_EXHAUSTED
    assert isinstance(found, Unavailable)
    assert found.retry_after_ms == 1000


async def test_a_stopping_node_ends_its_watches_and_says_why(rpc: Rpc) -> None:
    call = watch(rpc, pb.WatchRequest())
    await events(call, 1)

    rpc.node.api.stop()
    error = await refused(call.read())

    assert error.code() is CODE.UNAVAILABLE
    assert error_from_rpc(error).reason == "STOPPING"


async def test_an_export_that_is_cancelled_leaves_nothing_behind(rpc: Rpc) -> None:
    for number in range(40):
        await rpc.node.put(f"e{number:02}", A="v" * 500_000)
    call = rpc.out_stream("Export", pb.ExportRequest(reveal=True), pb.ExportResponse)
    await call.read()

    call.cancel()
    status = await rpc.unary("Status", cluster.StatusRequest(), cluster.StatusResponse)

    assert status.environments == 40
    assert rpc.server.faults == 0


# -- pipelined writes --------------------------------------------------------------


def item(number: int, environment: str, **values: str) -> pb.WriteStreamRequest.Item:
    puts = [pb.Put(name=name, value=value) for name, value in values.items()]
    request = pb.WriteRequest(environment=environment, puts=puts)
    return pb.WriteStreamRequest.Item(id=number, write=request)


async def answers(call: Writing, count: int) -> list[pb.WriteStreamResponse.Item]:
    found: list[pb.WriteStreamResponse.Item] = []
    while len(found) < count:
        message = await call.read()
        assert isinstance(message, pb.WriteStreamResponse)
        found += message.items
    return found


def write_stream(rpc: Rpc) -> Writing:
    return rpc.streams("WriteStream", pb.WriteStreamResponse)


async def test_a_stream_of_writes_is_answered_item_by_item_in_order(rpc: Rpc) -> None:
    call = write_stream(rpc)

    for start in range(0, 100, 10):
        items = [item(at, f"e{at % 3}", A=str(at)) for at in range(start, start + 10)]
        await call.write(pb.WriteStreamRequest(items=items))
    await call.done_writing()
    found = await answers(call, 100)

    assert [answer.id for answer in found] == list(range(100))
    assert all(answer.HasField("done") for answer in found)
    assert await call.code() is CODE.OK


async def test_writes_to_one_environment_are_applied_in_the_order_sent(rpc: Rpc) -> None:
    call = write_stream(rpc)
    items = [item(at, "e", A=str(at)) for at in range(200)]
    for at in range(0, 200, 2):  # some with an operation id, which takes another way
        items[at].write.operation = f"op-{at}"

    await call.write(pb.WriteStreamRequest(items=items))
    await call.done_writing()
    await answers(call, 200)

    commits = rpc.node.store.commits("e", None, 1000)
    assert [commit.changes[0].value for commit in reversed(commits)][-100:] == [
        str(at) for at in range(100, 200)
    ]


async def test_an_item_that_fails_does_not_stop_the_rest(rpc: Rpc) -> None:
    bad = item(2, "e", A="1")
    bad.write.if_revision = "00000000"
    worse = pb.WriteStreamRequest.Item(id=3, write=pb.WriteRequest(environment="e", durability=99))  # type: ignore[arg-type]
    call = write_stream(rpc)

    await call.write(
        pb.WriteStreamRequest(items=[item(1, "e", A="1"), bad, worse, item(4, "e", A="4")])
    )
    await call.done_writing()
    found = await answers(call, 4)

    assert [answer.WhichOneof("result") for answer in found] == ["done", "error", "error", "done"]
    assert found[1].error.reason == "STALE_REVISION"
    assert found[1].error.code == CODE.FAILED_PRECONDITION.value[0]
    assert found[2].error.reason == "UNKNOWN_ENUM"


async def test_a_write_repeated_with_its_operation_id_is_done_once(rpc: Rpc) -> None:
    first, second = item(1, "e", A="1"), item(2, "e", A="1")
    first.write.operation = second.write.operation = "op-1"
    call = write_stream(rpc)

    await call.write(pb.WriteStreamRequest(items=[first, second]))
    await call.done_writing()
    one, other = await answers(call, 2)

    assert one.done == other.done
    assert len(rpc.node.store.commits("e", None, 10)) == 1


async def test_no_more_than_the_window_is_under_way_whatever_is_sent() -> None:
    store = HeldStore()
    async with grpc_to(Node(store=store), GrpcLimits(window=4)) as rpc:
        call = write_stream(rpc)
        for at in range(20):
            await call.write(pb.WriteStreamRequest(items=[item(at, f"e{at:02}", A="1")]))
        await call.done_writing()
        await until(lambda: len(store.appended) == 4)
        for _ in range(20):  # what was sent before has arrived when this is answered
            await rpc.unary("Status", cluster.StatusRequest(), cluster.StatusResponse)
        held = len(store.appended)
        store.gate.set()
        found = await answers(call, 20)

    assert held == 4
    assert [answer.id for answer in found] == list(range(20))


async def test_writes_are_begun_without_waiting_for_the_ones_before() -> None:
    store = HeldStore()
    async with grpc_to(Node(store=store)) as rpc:
        call = write_stream(rpc)
        await call.write(
            pb.WriteStreamRequest(items=[item(at, "same", A=str(at)) for at in range(50)])
        )

        await until(lambda: len(store.appended) == 50)

        store.gate.set()
        assert len(await answers(call, 50)) == 50


async def test_a_client_that_goes_away_leaves_only_whole_commits() -> None:
    store = HeldStore()
    async with grpc_to(Node(store=store)) as rpc:
        call = write_stream(rpc)
        items = [item(at, f"e{at}", A="1", B="2") for at in range(3)]
        await call.write(pb.WriteStreamRequest(items=items))
        await until(lambda: len(store.appended) == 3)

        call.cancel()
        store.gate.set()
        await until(lambda: len(store.environments("", "", 10)) == 3)

        for listed in store.environments("", "", 10):
            assert listed.variables == 2
        assert rpc.server.faults == 0


async def test_a_stopping_server_answers_what_is_under_way_and_ends_the_stream() -> None:
    store = HeldStore()
    async with grpc_to(Node(store=store)) as rpc:
        call = write_stream(rpc)
        await call.write(pb.WriteStreamRequest(items=[item(1, "e", A="1")]))
        await until(lambda: store.appended == ["e"])

        stop = asyncio.create_task(rpc.server.stop(60))
        store.gate.set()
        (answer,) = await answers(call, 1)
        error = await refused(call.read())
        await stop

    assert answer.HasField("done")
    assert error.code() is CODE.UNAVAILABLE
    assert error_from_rpc(error).reason == "STOPPING"


async def test_a_message_that_can_not_be_read_ends_the_stream_after_the_answers(rpc: Rpc) -> None:
    stream: grpc.aio.StreamStreamMultiCallable[bytes, pb.WriteStreamResponse]
    stream = rpc.channel.stream_stream(
        "/envd.v1.EnvironmentService/WriteStream", bytes, pb.WriteStreamResponse.FromString
    )
    call = stream(metadata=grpc.aio.Metadata(("authorization", "Bearer token-of-the-admin")))

    good = pb.WriteStreamRequest(items=[item(1, "e", A="1")])
    await call.write(good.SerializeToString())
    await call.write(b"\xff\xff")
    answer = await call.read()
    error = await refused(call.read())

    assert isinstance(answer, pb.WriteStreamResponse)
    assert answer.items[0].HasField("done")
    assert error.code() is CODE.INVALID_ARGUMENT


async def test_a_missing_right_is_told_per_item(rpc: Rpc) -> None:
    call: Writing = rpc.streams("WriteStream", pb.WriteStreamResponse, token=READER_TOKEN)

    await call.write(pb.WriteStreamRequest(items=[item(1, "e", A="1")]))
    (answer,) = await answers(call, 1)

    assert answer.error.code == CODE.PERMISSION_DENIED.value[0]


# -- imports -----------------------------------------------------------------------


def columns(**values: str) -> pb.VariableColumns:
    return pb.VariableColumns(names=list(values), values=list(values.values()))


async def imported(rpc: Rpc, *requests: pb.ImportRequest) -> Sequence[pb.ImportResponse.Result]:
    call: Importing = rpc.streams("Import", pb.ImportResponse)
    for request in requests:
        await call.write(request)
    await call.done_writing()
    results: list[pb.ImportResponse.Result] = []
    while isinstance(message := await call.read(), pb.ImportResponse):
        results += message.results
    assert await call.code() is CODE.OK
    return results


async def test_an_import_writes_whole_environments_and_keeps_the_order(rpc: Rpc) -> None:
    items = [
        pb.ImportRequest.Item(environment=f"e{at:03}", variables=columns(A=str(at), B="x"))
        for at in range(300)
    ]

    results = await imported(rpc, pb.ImportRequest(environments=items, message="moved"))

    assert [result.environment for result in results] == [f"e{at:03}" for at in range(300)]
    assert all(result.HasField("done") for result in results)
    (commit,) = rpc.node.store.commits("e007", None, 10)
    assert commit.message == "moved"
    assert [change.value for change in commit.changes] == ["7", "x"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pb.ImportRequest.Item(environment="Bad Name", variables=columns(A="1")), "INVALID_NAME"),
        (pb.ImportRequest.Item(environment="e"), "INVALID_REQUEST"),
        (
            pb.ImportRequest.Item(environment="e", variables=pb.VariableColumns(names=["A"])),
            "INVALID_COLUMNS",
        ),
        (
            pb.ImportRequest.Item(
                environment="e",
                variables=pb.VariableColumns(names=["A"], values=[CANARY], secret=[1]),
            ),
            "INVALID_COLUMNS",
        ),
        (
            pb.ImportRequest.Item(
                environment="e",
                variables=pb.VariableColumns(names=["A", "A"], values=[CANARY, CANARY]),
            ),
            "INVALID_REQUEST",
        ),
        (
            pb.ImportRequest.Item(environment="e", variables=columns(A=CANARY + "\0")),
            "INVALID_VALUE",
        ),
        (
            pb.ImportRequest.Item(
                environment="first", variables=columns(A="1"), must_not_exist=True
            ),
            "ALREADY_EXISTS",
        ),
    ],
)
async def test_a_bad_item_in_the_middle_of_an_import_stops_nothing_else(
    rpc: Rpc, bad: pb.ImportRequest.Item, reason: str
) -> None:
    first = pb.ImportRequest.Item(environment="first", variables=columns(A="1"))
    last = pb.ImportRequest.Item(environment="last", variables=columns(A="1"))

    results = await imported(rpc, pb.ImportRequest(environments=[first, bad, last]))

    assert [result.WhichOneof("result") for result in results] == ["done", "error", "done"]
    assert results[1].environment == bad.environment
    assert results[1].error.reason == reason
    assert CANARY not in str(results[1])


async def test_an_import_may_be_larger_than_a_write_and_marks_secrets(rpc: Rpc) -> None:
    names = [f"A{at:04}" for at in range(2000)]
    variables = pb.VariableColumns(names=names, values=["v"] * 2000, secret=[0, 1999])
    request = pb.ImportRequest.Item(environment="e", variables=variables)

    await imported(rpc, pb.ImportRequest(environments=[request]))

    answer = await rpc.unary("Get", pb.GetRequest(environment="e"), pb.GetResponse)
    secret = [variable.name for variable in answer.environment.variables if variable.secret]
    assert len(answer.environment.variables) == 2000
    assert secret == ["A0000", "A1999"]


async def test_a_pruning_import_unsets_what_is_not_listed(rpc: Rpc) -> None:
    await rpc.node.put("e", OLD="1", SECRET_KEY="s")
    request = pb.ImportRequest.Item(
        environment="e", variables=columns(SECRET_KEY="new"), prune=True
    )

    await imported(rpc, pb.ImportRequest(environments=[request]))

    answer = await rpc.unary("Get", pb.GetRequest(environment="e"), pb.GetResponse)
    (variable,) = answer.environment.variables
    assert (variable.name, variable.secret) == ("SECRET_KEY", True)


async def test_what_an_export_gives_an_import_takes(rpc: Rpc) -> None:
    await rpc.node.put("a", A="1", SECRET_B="2")
    call = rpc.out_stream("Export", pb.ExportRequest(reveal=True), pb.ExportResponse)
    (exported,) = [message async for message in call]
    (source,) = exported.environments

    await imported(
        rpc,
        pb.ImportRequest(
            environments=[pb.ImportRequest.Item(environment="b", variables=source.variables)]
        ),
    )

    a, b = [
        await rpc.unary("Get", pb.GetRequest(environment=name, reveal=True), pb.GetResponse)
        for name in ("a", "b")
    ]
    assert contents(a) == contents(b) == [("A", "1", False), ("SECRET_B", "2", True)]


def contents(answer: pb.GetResponse) -> list[tuple[str, str, bool]]:
    variables = answer.environment.variables
    return [(variable.name, variable.value, variable.secret) for variable in variables]
