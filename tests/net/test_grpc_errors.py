"""What errors become over gRPC, whatever is sent, and that they tell no value."""

from __future__ import annotations

from collections.abc import Awaitable

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envd.client.rpc_errors import error_from_rpc
from envd.core.errors import (
    Conflict,
    Corrupt,
    Denied,
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from envd.wire._pb import cluster_pb2 as cluster
from envd.wire._pb import environment_pb2 as pb
from tests.net.world import (
    CANARY,
    READER_TOKEN,
    TOKEN,
    Node,
    RaisingAuthorizer,
    Rpc,
    bearer,
    grpc_to,
    refused,
)

CODE = grpc.StatusCode
UNARY = {
    "Get": pb.GetRequest,
    "BatchGet": pb.BatchGetRequest,
    "List": pb.ListRequest,
    "Write": pb.WriteRequest,
    "Delete": pb.DeleteRequest,
    "History": pb.HistoryRequest,
    "Rollback": pb.RollbackRequest,
    "Status": cluster.StatusRequest,
}


def write_of(environment: str, **values: str) -> pb.WriteRequest:
    puts = [pb.Put(name=name, value=value) for name, value in values.items()]
    return pb.WriteRequest(environment=environment, puts=puts)


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return CODE.OK


# -- errors ------------------------------------------------------------------------

ERRORS: list[tuple[EnvdError, grpc.StatusCode]] = [
    (InvalidRequest("m", hint="h", reason="INVALID_NAME"), CODE.INVALID_ARGUMENT),
    (LimitExceeded("m", hint="h"), CODE.INVALID_ARGUMENT),
    (NotFound("m", reason="VARIABLE_NOT_FOUND"), CODE.NOT_FOUND),
    (Conflict("m", reason="ALREADY_EXISTS"), CODE.ALREADY_EXISTS),
    (Conflict("m", hint="h", reason="STALE_REVISION"), CODE.FAILED_PRECONDITION),
    (Conflict("m", reason="OPERATION_REUSED"), CODE.FAILED_PRECONDITION),
    (Unauthenticated("m"), CODE.UNAUTHENTICATED),
    (Denied("m", reason="REVEAL_NEEDED"), CODE.PERMISSION_DENIED),
    (Unavailable("m", reason="STOPPING", retry_after_ms=1000), CODE.UNAVAILABLE),
    (Unavailable("m", reason="OVERLOADED", retry_after_ms=100), CODE.RESOURCE_EXHAUSTED),
    (Unavailable("m", reason="DISK_FULL"), CODE.RESOURCE_EXHAUSTED),
    (Unavailable("m", reason="TIMEOUT"), CODE.DEADLINE_EXCEEDED),
    (OutcomeUnknown("m", hint="h"), CODE.UNKNOWN),
    (Unsupported("m"), CODE.UNIMPLEMENTED),
    (Corrupt("m"), CODE.DATA_LOSS),
    (EnvdError("m"), CODE.INTERNAL),
]


@pytest.mark.parametrize(
    ("error", "code"), ERRORS, ids=[f"{type(e).__name__}-{e.reason}" for e, _ in ERRORS]
)
async def test_each_error_has_its_code_and_comes_back_as_it_was(
    error: EnvdError, code: grpc.StatusCode
) -> None:
    async with grpc_to(Node(authorizer=RaisingAuthorizer(error))) as rpc:
        found = await refused(rpc.unary("Get", pb.GetRequest(environment="e"), pb.GetResponse))

    again = error_from_rpc(found)
    assert found.code() is code
    assert found.details() == "m"
    assert type(again) is type(error)
    assert (again.message, again.hint, again.reason) == ("m", error.hint, error.reason)
    assert getattr(again, "retry_after_ms", None) == getattr(error, "retry_after_ms", None)


@pytest.mark.parametrize("method", [*UNARY, "Watch", "Export"])
async def test_an_unexpected_exception_is_an_internal_error_and_tells_nothing(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(authorizer=RaisingAuthorizer(RuntimeError(CANARY)))
    requests: dict[str, Message] = {
        **{name: kind() for name, kind in UNARY.items()},
        "BatchGet": pb.BatchGetRequest(environments=["e"]),
        "Watch": pb.WatchRequest(),
        "Export": pb.ExportRequest(),
    }
    if method == "Status":
        node.store.environment_count = _raises  # type: ignore[method-assign]
    async with grpc_to(node) as rpc:
        call = rpc.out_stream(method, requests[method], pb.WatchResponse)
        error = await refused(_drained(call))
        faults = rpc.server.faults

    writes = method in {"Write", "Delete", "Rollback"}
    assert error.code() is (CODE.UNKNOWN if writes else CODE.INTERNAL)
    assert str(error.details()).startswith("internal error")
    assert CANARY not in f"{error}{error.trailing_metadata()}"
    assert CANARY not in caplog.text
    assert "request.failed" in caplog.text
    assert "RuntimeError" in caplog.text
    assert faults == 1


def _raises() -> int:
    raise RuntimeError(CANARY)


async def _drained(call: grpc.aio.UnaryStreamCall[bytes, pb.WatchResponse]) -> None:
    async for _ in call:
        pass


@pytest.mark.parametrize("method", [*UNARY, "Watch", "Export"])
@pytest.mark.parametrize("token", ["", "wrong"])
async def test_nothing_is_told_without_a_credential(rpc: Rpc, method: str, token: str) -> None:
    call = rpc.out_stream(method, pb.GetRequest(environment="e"), pb.WatchResponse, token=token)

    error = await refused(_drained(call))

    assert error.code() is CODE.UNAUTHENTICATED
    assert isinstance(error_from_rpc(error), Unauthenticated)


@pytest.mark.parametrize("method", ["WriteStream", "Import"])
async def test_no_stream_of_writes_opens_without_a_credential(rpc: Rpc, method: str) -> None:
    call = rpc.streams(method, pb.ImportResponse, token="wrong")

    error = await refused(call.read())

    assert error.code() is CODE.UNAUTHENTICATED


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (("authorization", TOKEN),),
        (("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {READER_TOKEN}")),
    ],
)
async def test_an_authorization_that_is_no_single_bearer_token_is_refused(
    rpc: Rpc, metadata: tuple[tuple[str, str], ...]
) -> None:
    error = await refused(rpc.raw("Status", b"", grpc.aio.Metadata(*metadata)))

    assert error.code() is CODE.UNAUTHENTICATED
    assert TOKEN not in (error.details() or "")


async def test_a_missing_right_is_permission_denied(rpc: Rpc) -> None:
    error = await refused(
        rpc.unary("Write", write_of("web", A="1"), pb.WriteResponse, token=READER_TOKEN)
    )

    assert error.code() is CODE.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("method", "request_message", "reason"),
    [
        ("Get", pb.GetRequest(environment="Not A Name"), "INVALID_NAME"),
        ("Get", pb.GetRequest(environment="sys/x"), "RESERVED_NAME"),
        ("Get", pb.GetRequest(environment="e", variables=["1 bad"]), "INVALID_NAME"),
        ("Get", pb.GetRequest(environment="e", variables=["V" * 300]), "LIMIT_EXCEEDED"),
        ("Get", pb.GetRequest(environment="e", token="no token"), "INVALID_TOKEN"),
        ("Get", pb.GetRequest(environment="e", at="what?"), "INVALID_REVISION"),
        ("List", pb.ListRequest(prefix="NO"), "INVALID_NAME"),
        ("List", pb.ListRequest(after="NO"), "INVALID_NAME"),
        ("History", pb.HistoryRequest(environment="e", before=b"short"), "INVALID_TOKEN"),
        ("History", pb.HistoryRequest(environment="e", variable="no name"), "INVALID_NAME"),
        ("Rollback", pb.RollbackRequest(environment="e", to=""), "INVALID_REVISION"),
        ("Rollback", pb.RollbackRequest(environment="e", variables=["-"]), "INVALID_NAME"),
        ("Write", pb.WriteRequest(environment="e"), "INVALID_REQUEST"),
        ("Write", pb.WriteRequest(environment="e", if_revision="x"), "INVALID_REQUEST"),
        ("Write", write_of("e", A="a\0b"), "INVALID_VALUE"),
        ("Write", write_of("e", **{f"A{at}": "" for at in range(1025)}), "LIMIT_EXCEEDED"),
        ("Write", pb.WriteRequest(environment="e", metadata_puts={"x": "y"}), "UNKNOWN_SETTING"),
        ("Delete", pb.DeleteRequest(environment=""), "INVALID_NAME"),
        ("Watch", pb.WatchRequest(prefix="NO"), "INVALID_NAME"),
        ("Export", pb.ExportRequest(prefix="NO"), "INVALID_NAME"),
    ],
)
async def test_a_request_that_makes_no_sense_is_an_invalid_argument(
    rpc: Rpc, method: str, request_message: Message, reason: str
) -> None:
    error = await refused(_drained(rpc.out_stream(method, request_message, pb.WatchResponse)))

    assert error.code() is CODE.INVALID_ARGUMENT
    assert error_from_rpc(error).reason == reason


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("Get", b"\x28\x63"),  # consistency 99
        ("Write", b"\x0a\x01e\x60\x63"),  # durability 99
        ("Delete", b"\x0a\x01e\x28\x63"),
        ("Rollback", b"\x0a\x01e\x38\x63"),
        ("BatchGet", b"\x18\x63"),
    ],
)
async def test_an_enum_number_that_is_none_is_an_invalid_argument(
    rpc: Rpc, method: str, raw: bytes
) -> None:
    error = await refused(rpc.raw(method, raw, bearer(TOKEN)))

    assert error.code() is CODE.INVALID_ARGUMENT
    assert error_from_rpc(error).reason == "UNKNOWN_ENUM"


async def test_text_that_is_not_utf8_is_an_invalid_argument_and_quotes_nothing(rpc: Rpc) -> None:
    raw = b"\x0a\x01e\x12" + bytes([len(CANARY) + 6]) + b"\x0a\x01A\x12"
    raw += bytes([len(CANARY) + 1]) + CANARY.encode() + b"\xff"

    error = await refused(rpc.raw("Write", raw, bearer(TOKEN)))

    assert error.code() is CODE.INVALID_ARGUMENT
    assert error_from_rpc(error).reason == "MALFORMED"
    assert CANARY not in str(error)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(sorted(UNARY)), raw=st.binary(max_size=64))
async def test_whatever_bytes_come_the_server_answers_without_a_fault(
    rpc: Rpc, method: str, raw: bytes
) -> None:
    code = await code_of(rpc.raw(method, raw, bearer(TOKEN)))

    assert code in {CODE.OK, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND}
    assert rpc.server.faults == 0


async def test_a_message_over_eight_mebibytes_is_refused(rpc: Rpc) -> None:
    huge = pb.WriteRequest(environment="e", message="x" * (8 << 20))

    error = await refused(rpc.unary("Write", huge, pb.WriteResponse))

    assert error.code() is CODE.RESOURCE_EXHAUSTED
    assert isinstance(error_from_rpc(error), LimitExceeded)


async def test_long_texts_are_cut_so_that_the_error_arrives() -> None:
    node = Node(authorizer=RaisingAuthorizer(NotFound("é" * 5000, hint="ü" * 5000)))
    async with grpc_to(node) as rpc:
        error = await refused(rpc.unary("Get", pb.GetRequest(environment="e"), pb.GetResponse))

    assert error.code() is CODE.NOT_FOUND
    assert error_from_rpc(error).message == "é" * 500
