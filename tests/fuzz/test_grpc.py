"""gRPC with writes that are hostile, and with messages that are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeAlias, TypeVar, cast

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from envd.client.rpc import CLUSTER, SERVICE
from envd.wire import api_errors
from envd.wire._pb import cluster_pb2 as cluster
from envd.wire._pb import environment_pb2 as pb
from tests.fuzz.mutations import near
from tests.fuzz.victim import Victim, fuzzing

AnswerT = TypeVar("AnswerT")
Unary: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, AnswerT]"
Out: TypeAlias = "grpc.UnaryStreamMultiCallable[bytes, AnswerT]"
Both: TypeAlias = "grpc.StreamStreamMultiCallable[bytes, AnswerT]"
CODE = grpc.StatusCode
PATIENCE_S = 30
REFUSALS = {
    CODE.INVALID_ARGUMENT,
    CODE.NOT_FOUND,
    CODE.ALREADY_EXISTS,
    CODE.FAILED_PRECONDITION,
    CODE.PERMISSION_DENIED,
    CODE.UNIMPLEMENTED,
}
ITEM_REFUSALS = {code.value[0] for code in REFUSALS}

# -- what is sent ----------------------------------------------------------------------

TEXT = st.text(max_size=12)
ENVIRONMENTS = st.sampled_from(["web/prod", "web/test", "a", "", "sys/x", "A", "a//b", "a" * 256])
NAMES = st.sampled_from(["A", "KEY", "a.b-c", "", "1", "A=B", "\n", "\x7f", "A" * 300])
SETTINGS = st.sampled_from(["extends", "labels", "mode", "expires", "owner", "created", "x", ""])
BASES = st.sampled_from(["web/prod", "a", "web/prod,a", "web/prod," * 99, "no/such", ",,", " "])
REVISIONS = st.sampled_from(["", "0" * 32, "0" * 8, "zz", "@~1", "@deleted", "@~99999999999"])
VALUES = TEXT | st.sampled_from(["\0", "v" * 1100, "\u2028", "=", "'\"\\", "v" * (1 << 20) + "v"])
OPERATIONS = st.sampled_from(["", "", "op", "op2", "o" * 129, "\0", "\n"])
DURABILITY = st.sampled_from([0, 1, 2, 3, 4, -1, 2**31 - 1])

puts = st.builds(
    pb.Put, name=NAMES | TEXT, value=VALUES, secret=st.sampled_from([None, True, False])
)
writes = st.builds(
    pb.WriteRequest,
    environment=ENVIRONMENTS | TEXT,
    puts=st.lists(puts, max_size=3) | st.just([pb.Put(name="A", value="1")] * 1025),
    unsets=st.lists(NAMES | TEXT, max_size=2),
    metadata_puts=st.dictionaries(SETTINGS | TEXT, BASES | TEXT, max_size=2),
    metadata_unsets=st.lists(SETTINGS | TEXT, max_size=2),
    replace=st.booleans(),
    if_revision=REVISIONS | TEXT,
    must_exist=st.booleans(),
    must_not_exist=st.booleans(),
    message=TEXT | st.just("m" * 5000),
    operation=OPERATIONS | TEXT,
    durability=DURABILITY,
    bulk=st.booleans(),
)
columns = st.builds(
    pb.VariableColumns,
    names=st.lists(NAMES | TEXT, max_size=3),
    values=st.lists(VALUES, max_size=3),
    secret=st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 3), max_size=3),
)
import_items = st.builds(
    pb.ImportRequest.Item,
    environment=ENVIRONMENTS | TEXT,
    variables=columns,
    prune=st.booleans(),
    if_revision=REVISIONS,
    operation=OPERATIONS,
    must_not_exist=st.booleans(),
    metadata=st.dictionaries(SETTINGS | TEXT, BASES | TEXT, max_size=2),
)

WRITE = pb.WriteRequest(environment="web/prod", puts=[pb.Put(name="B", value="2", secret=True)])
IMPORTED = pb.ImportRequest.Item(
    environment="web/imported", variables=pb.VariableColumns(names=["A"], values=["1"], secret=[0])
)
UNARY: dict[str, Sequence[Message]] = {
    "Get": [pb.GetRequest(environment="web/prod", variables=["A"], reveal=True, max_lag_ms=1)],
    "BatchGet": [pb.BatchGetRequest(environments=["web/prod", "a"], resolve=True)],
    "List": [pb.ListRequest(prefix="web", after="web/a", limit=2)],
    "Write": [WRITE],
    "Delete": [pb.DeleteRequest(environment="web/test", operation="d", message="m")],
    "History": [pb.HistoryRequest(environment="web/prod", variable="A", before=b"\0" * 20)],
    "Rollback": [pb.RollbackRequest(environment="web/test", to="@~1", variables=["A"])],
    "Conflicts": [pb.ConflictsRequest(prefix="web", reveal=True, limit=3)],
    "Resolve": [pb.ResolveRequest(environment="web/prod", variable="A", take="kept")],
}
OF_CLUSTER: dict[str, Sequence[Message]] = {
    "Status": [cluster.StatusRequest()],
    "Members": [cluster.MembersRequest()],
    "Join": [cluster.JoinRequest(addresses=["no address"])],
    "Leave": [cluster.LeaveRequest(member="nobody")],
    "Remove": [cluster.RemoveRequest(member="nobody")],
    "Topology": [cluster.TopologyRequest()],
    "Recover": [cluster.RecoverRequest(member="nobody")],
}
UNARY.update(OF_CLUSTER)
OUT: dict[str, Sequence[Message]] = {
    "Watch": [pb.WatchRequest(prefix="web", values=True, resolve=True, token="1.0.0")],
    "Export": [pb.ExportRequest(prefix="web", reveal=True, resolve=True)],
}
BOTH: dict[str, Sequence[Message]] = {
    "WriteStream": [
        pb.WriteStreamRequest(items=[pb.WriteStreamRequest.Item(id=7, write=WRITE)] * 2)
    ],
    "Import": [pb.ImportRequest(environments=[IMPORTED] * 2, message="m")],
}


def raw(messages: Sequence[Message]) -> list[bytes]:
    return [message.SerializeToString(deterministic=True) for message in messages]


# -- sending it ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def channel(daemon: Victim) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(daemon.grpc, options=options) as one:
        yield one


def path_of(method: str) -> str:
    return f"/{CLUSTER if method in OF_CLUSTER else SERVICE}/{method}"


def bearer(daemon: Victim) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {daemon.token}"),)


@contextmanager
def refused_as_told() -> Iterator[None]:
    """Take an error that is one of the API's own refusals; anything else is a defect."""
    refused: grpc.RpcError | None = None
    try:
        yield
    except grpc.RpcError as error:
        refused = error
    if refused is not None:
        pairs = cast("Iterable[tuple[str, bytes]]", refused.trailing_metadata() or ())
        trailers = dict(pairs)
        assert refused.code() in REFUSALS, (refused.code(), refused.details())
        status = api_errors.parse_status(trailers[api_errors.DETAILS_KEY])
        assert status is not None
        assert api_errors.is_ours(status)


def test_every_method_is_fuzzed() -> None:
    services = [
        pb.DESCRIPTOR.services_by_name["EnvironmentService"],
        cluster.DESCRIPTOR.services_by_name["ClusterService"],
    ]

    methods = {method.name for service in services for method in service.methods}
    assert methods == {*UNARY, *OUT, *BOTH}


@pytest.mark.parametrize("method", UNARY)
def test_whatever_bytes_a_call_gets_it_answers_or_refuses(
    daemon: Victim, channel: grpc.Channel, method: str
) -> None:
    call: Unary[bytes] = channel.unary_unary(path_of(method), None, None)

    @fuzzing(everyday=40)
    @given(sent=near(raw(UNARY[method])))
    def check(sent: bytes) -> None:
        with refused_as_told():
            call(sent, timeout=PATIENCE_S, metadata=bearer(daemon))

    check()

    daemon.answers()


@pytest.mark.parametrize("method", OUT)
def test_whatever_bytes_begin_a_stream_it_answers_or_refuses(
    daemon: Victim, channel: grpc.Channel, method: str
) -> None:
    call: Out[bytes] = channel.unary_stream(path_of(method), None, None)

    @fuzzing(everyday=40)
    @given(sent=near(raw(OUT[method])))
    def check(sent: bytes) -> None:
        with refused_as_told():
            answers = call(sent, timeout=PATIENCE_S, metadata=bearer(daemon))
            next(answers, None)
            answers.cancel()

    check()

    daemon.answers()


@pytest.mark.parametrize("method", BOTH)
def test_whatever_bytes_a_stream_of_writes_gets_it_answers_or_refuses(
    daemon: Victim, channel: grpc.Channel, method: str
) -> None:
    call: Both[bytes] = channel.stream_stream(path_of(method), None, None)

    @fuzzing(everyday=40)
    @given(sent=st.lists(near(raw(BOTH[method])), max_size=5))
    def check(sent: list[bytes]) -> None:
        with refused_as_told():
            list(call(iter(sent), timeout=PATIENCE_S, metadata=bearer(daemon)))

    check()

    daemon.answers()


OPEN = ("grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch")
REFLECTION = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def test_whatever_bytes_come_without_a_credential_nothing_is_logged_as_our_error(
    daemon: Victim, channel: grpc.Channel
) -> None:
    check_call: Unary[bytes] = channel.unary_unary(f"/{OPEN[0]}", None, None)
    watch_call: Out[bytes] = channel.unary_stream(f"/{OPEN[1]}", None, None)
    reflection_call: Both[bytes] = channel.stream_stream(f"/{REFLECTION}", None, None)

    @fuzzing(everyday=40)
    @given(sent=near([b"", b"\x0a\x19envd.v1.EnvironmentService", b"\x3a\x01*"]))
    def check(sent: bytes) -> None:
        code: CODE | None = None
        try:
            next(watch := watch_call(sent, timeout=PATIENCE_S))
            watch.cancel()
            list(reflection_call(iter([sent]), timeout=PATIENCE_S))
            check_call(sent, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            code = error.code()
        assert code in {None, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND}

    check()

    daemon.answers()


@fuzzing(everyday=150)
@given(write=writes)
def test_a_hostile_write_is_done_or_refused_whole(
    daemon: Victim, channel: grpc.Channel, write: pb.WriteRequest
) -> None:
    call: Unary[pb.WriteResponse]
    call = channel.unary_unary(path_of("Write"), None, pb.WriteResponse.FromString)

    with refused_as_told():
        sent = write.SerializeToString()
        done = call(sent, timeout=PATIENCE_S, metadata=bearer(daemon))

        assert done.environment == write.environment
        assert len(done.stamp) == 20


@fuzzing(everyday=60)
@given(batches=st.lists(st.lists(writes, max_size=4), max_size=3))
def test_each_of_many_hostile_writes_has_its_answer(
    daemon: Victim, channel: grpc.Channel, batches: list[list[pb.WriteRequest]]
) -> None:
    call: Both[pb.WriteStreamResponse]
    call = channel.stream_stream(path_of("WriteStream"), None, pb.WriteStreamResponse.FromString)
    ids = iter(range(1000))
    messages = [
        pb.WriteStreamRequest(
            items=[pb.WriteStreamRequest.Item(id=next(ids), write=write) for write in batch]
        ).SerializeToString()
        for batch in batches
    ]

    answers = call(iter(messages), timeout=PATIENCE_S, metadata=bearer(daemon))

    items = [item for answer in answers for item in answer.items]
    assert [item.id for item in items] == list(range(sum(map(len, batches))))
    assert {item.error.code for item in items if item.HasField("error")} <= ITEM_REFUSALS


@fuzzing(everyday=60)
@given(items=st.lists(import_items, max_size=6), message=TEXT)
def test_each_of_many_hostile_imports_has_its_answer(
    daemon: Victim, channel: grpc.Channel, items: list[pb.ImportRequest.Item], message: str
) -> None:
    call: Both[pb.ImportResponse]
    call = channel.stream_stream(path_of("Import"), None, pb.ImportResponse.FromString)
    sent = pb.ImportRequest(environments=items, message=message).SerializeToString()

    answers = call(iter([sent]), timeout=PATIENCE_S, metadata=bearer(daemon))

    results = [result for answer in answers for result in answer.results]
    assert [result.environment for result in results] == [item.environment for item in items]
    assert {one.error.code for one in results if one.HasField("error")} <= ITEM_REFUSALS


def test_all_that_was_written_can_be_read(daemon: Victim, channel: grpc.Channel) -> None:
    call: Out[pb.ExportResponse]
    call = channel.unary_stream(path_of("Export"), None, pb.ExportResponse.FromString)
    sent = pb.ExportRequest(reveal=True, resolve=True).SerializeToString()

    answers = islice(call(sent, timeout=PATIENCE_S, metadata=bearer(daemon)), 10_000)

    assert any(answer.environments for answer in answers)
    daemon.answers()
