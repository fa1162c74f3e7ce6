"""REST over a real server: everything that it refuses, and that it tells no value."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

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
from envd.net.http_documents import write_of
from envd.net.http_json import parse_object
from tests.net.http_world import ENVIRONMENT, Http, http_to
from tests.net.world import (
    CANARY,
    TOKEN,
    Node,
    RaisingAuthorizer,
)

# -- bodies ----------------------------------------------------------------------------

BAD_BODIES: list[tuple[object, str]] = [
    (b"", "MALFORMED"),
    (b"{", "MALFORMED"),
    (b"[]", "MALFORMED"),
    (b'"text"', "MALFORMED"),
    (b'{"set": {"A": "' + CANARY.encode() + b'\xff"}}', "MALFORMED"),
    (b'{"set": {"A": "1"}, "set": {}}', "MALFORMED"),
    (b'{"set": {"A": "1", "A": "' + CANARY.encode() + b'"}}', "MALFORMED"),
    (b'{"set": NaN}', "MALFORMED"),
    (b'{"set": ' + b"9" * 5000 + b"}", "MALFORMED"),
    (b'{"set": ' * 100_000, "MALFORMED"),
    ({}, "INVALID_REQUEST"),
    ({"set": {}}, "INVALID_REQUEST"),
    ({"sett": {"A": CANARY}}, "UNKNOWN_FIELD"),
    ({"set": {"A": {"value": CANARY, "stamp": "x"}}}, "UNKNOWN_FIELD"),
    ({"set": ["A"]}, "INVALID_FIELD"),
    ({"set": None}, "INVALID_FIELD"),
    ({"set": {"A": 1}}, "INVALID_FIELD"),
    ({"set": {"A": True}}, "INVALID_FIELD"),
    ({"set": {"A": None}}, "INVALID_FIELD"),
    ({"set": {"A": [CANARY]}}, "INVALID_FIELD"),
    ({"set": {"A": {}}}, "INVALID_FIELD"),
    ({"set": {"A": {"value": 7}}}, "INVALID_FIELD"),
    ({"set": {"A": {"value": CANARY, "secret": "yes"}}}, "INVALID_FIELD"),
    ({"set": {"A": {"value": CANARY, "secret": None}}}, "INVALID_FIELD"),
    ({"set": {"A": {"value": None, "secret": True, "masked": True}}}, "MASKED_VALUE"),
    ({"set": {"A": {"value": None}}}, "MASKED_VALUE"),
    ({"set": {"A": {"value": CANARY, "masked": True}}}, "MASKED_VALUE"),
    ({"unset": "A"}, "INVALID_FIELD"),
    ({"metadata": ["owner"]}, "INVALID_FIELD"),
    ({"metadata": {"owner": 1}}, "INVALID_FIELD"),
    ({"metadata": {"owner": {"value": CANARY}}}, "INVALID_FIELD"),
    ({"metadata": {"ownr": CANARY}}, "UNKNOWN_SETTING"),
    ({"metadata": {"created": CANARY}}, "UNKNOWN_SETTING"),
    ({"unset": [1]}, "INVALID_FIELD"),
    ({"unset": {"A": 1}}, "INVALID_FIELD"),
    ({"set": {"A": "1"}, "message": 1}, "INVALID_FIELD"),
    ({"set": {"A": "1"}, "operation": None}, "INVALID_FIELD"),
    ({"set": {"A": "1"}, "unset": ["A"]}, "INVALID_REQUEST"),
    ({"set": {"1A": CANARY}}, "INVALID_NAME"),
    ({"set": {"A": CANARY + "\0"}}, "INVALID_VALUE"),
    (b'{"set": {"A": "' + CANARY.encode() + b'\\ud800"}}', "INVALID_VALUE"),
    (b'{"set": {"A": "1"}, "message": "\\ud800"}', "INVALID_REQUEST"),
    ({"set": {f"A{at}": "" for at in range(1025)}}, "LIMIT_EXCEEDED"),
    ({"set": {"A": "v" * ((1 << 20) + 1)}}, "LIMIT_EXCEEDED"),
    ({"set": {"A": "1"}, "operation": "x" * 129}, "LIMIT_EXCEEDED"),
]


@pytest.mark.parametrize(
    ("body", "reason"), BAD_BODIES, ids=[f"{n}" for n in range(len(BAD_BODIES))]
)
async def test_a_patch_that_makes_no_sense_is_refused_and_quotes_no_value(
    http: Http, body: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await http.ask("PATCH", ENVIRONMENT, body)

    assert (answer.status, answer.reason) == (400, reason)
    assert CANARY.encode() not in answer.body
    assert CANARY not in caplog.text
    assert http.node.store.environment_count() == 0


async def test_a_body_over_eight_mebibytes_is_refused(http: Http) -> None:
    answer = await http.ask("PATCH", ENVIRONMENT, b" " * ((8 << 20) + 1))

    assert (answer.status, answer.reason) == (413, "BODY_TOO_LARGE")


async def test_a_compressed_body_is_read_and_a_bomb_is_not(http: Http) -> None:
    headers = {"Content-Encoding": "gzip"}
    small = gzip.compress(b'{"set": {"A": "1"}}')
    bomb = gzip.compress(b'{"set": ' + b" " * (64 << 20) + b"{}}")

    done = await http.ask("PATCH", ENVIRONMENT, small, headers=headers)
    refused = await http.ask("PATCH", ENVIRONMENT, bomb, headers=headers)

    assert done.status == 200
    assert (refused.status, refused.reason) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("encoding", "status", "reason"), [("br", 415, "UNKNOWN_ENCODING"), ("gzip", 400, "MALFORMED")]
)
async def test_a_body_that_can_not_be_decoded_is_the_clients_mistake_and_not_logged(
    http: Http, encoding: str, status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = CANARY.encode()

    answer = await http.ask("PATCH", ENVIRONMENT, body, headers={"Content-Encoding": encoding})

    assert (answer.status, answer.reason) == (status, reason)
    assert caplog.text == ""
    assert http.server.faults == 0


async def test_a_body_that_never_comes_is_refused_in_time(node: Node) -> None:
    async with http_to(node, body_timeout_s=0.05) as http:
        head = (
            f"PATCH {ENVIRONMENT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"
            f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
        writer.write(head.encode() + b"{")

        line = await reader.readline()

        writer.close()
        await writer.wait_closed()
    assert line == b"HTTP/1.1 408 Request Timeout\r\n"


async def test_a_connection_without_a_request_is_closed_in_time(node: Node) -> None:
    async with http_to(node, idle_timeout_s=0.05) as http:
        received = await http.raw(b"GET /livez HTTP/1.1\r\nHost: loc")

    assert received == b""


async def test_one_connection_too_many_is_hung_up_on(node: Node) -> None:
    async with http_to(node, max_connections=1) as http:
        _, first = await asyncio.open_connection("127.0.0.1", http.port)

        received = await http.raw(b"")

        first.close()
        await first.wait_closed()
    assert received == b""


# -- addresses, methods, queries ---------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v1/environments/no/such", 404, "ENVIRONMENT_NOT_FOUND"),
        ("GET", "/v1/environments/Not%20A%20Name", 400, "INVALID_NAME"),
        ("GET", "/v1/environments/a//b", 400, "INVALID_NAME"),
        ("GET", "/v1/environments/sys/x", 400, "RESERVED_NAME"),
        ("GET", "/v1/environments/%ff", 400, "INVALID_NAME"),
        ("GET", "/v1/environments/a%0d%0ab", 400, "INVALID_NAME"),
        ("GET", "/v1/environments/a%00b", 400, "INVALID_NAME"),
        ("GET", "/v1/environments/" + "a" * 256, 400, "LIMIT_EXCEEDED"),
        ("GET", "/v1/environments/", 404, "NO_SUCH_RESOURCE"),
        ("GET", "/", 404, "NO_SUCH_RESOURCE"),
        ("GET", "/v1/nothing", 404, "NO_SUCH_RESOURCE"),
        ("POST", ENVIRONMENT, 405, "METHOD_NOT_ALLOWED"),
        ("GET", f"{ENVIRONMENT}?reveal=maybe", 400, "INVALID_FIELD"),
        ("GET", f"{ENVIRONMENT}?reveal=true&reveal=false", 400, "UNKNOWN_PARAMETER"),
        ("GET", f"{ENVIRONMENT}?revael=true", 400, "UNKNOWN_PARAMETER"),
        ("GET", f"{ENVIRONMENT}?at=what", 400, "INVALID_REVISION"),
        ("PATCH", f"{ENVIRONMENT}?reveal=true", 400, "UNKNOWN_PARAMETER"),
    ],
)
async def test_a_bad_address_is_a_problem(
    http: Http, method: str, path: str, status: int, reason: str
) -> None:
    answer = await http.ask(method, path)

    assert (answer.status, answer.reason) == (status, reason)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"If-None-Match": "no quotes"}),
        ("PATCH", {"If-Match": "no quotes"}),
        ("PATCH", {"If-None-Match": '"x"'}),
    ],
)
async def test_a_precondition_that_is_none_is_refused(
    http: Http, method: str, headers: dict[str, str]
) -> None:
    await http.node.put("web/prod", A="1")

    answer = await http.ask(method, ENVIRONMENT, {"set": {"A": "1"}}, headers=headers)

    assert (answer.status, answer.reason) == (400, "INVALID_ETAG")


async def test_an_escaped_slash_is_a_slash(http: Http) -> None:
    await http.node.put("web/prod", A="1")

    sent = "GET /v1/environments/web%2Fprod HTTP/1.1\r\nHost: localhost\r\n"
    received = await http.raw(
        f"{sent}Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode()
    )

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


# -- who may speak -----------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_without_a_credential_there_is_only_a_challenge(http: Http, token: str) -> None:
    for method, path in (("GET", ENVIRONMENT), ("PATCH", ENVIRONMENT), ("GET", "/no/such")):
        answer = await http.ask(method, path, token=token)

        assert (answer.status, answer.reason) == (401, "TOKEN_NEEDED")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", TOKEN, "Bearer"])
async def test_another_kind_of_authorization_is_refused(http: Http, value: str) -> None:
    answer = await http.ask("GET", ENVIRONMENT, token="", headers={"Authorization": value})

    assert answer.status == 401
    assert TOKEN.encode() not in answer.body


async def test_the_scheme_of_an_authorization_has_no_case(http: Http) -> None:
    answer = await http.ask(
        "GET", ENVIRONMENT, token="", headers={"Authorization": f"bearer {TOKEN}"}
    )

    assert answer.status == 404


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.:1", "127.0.0.1", "127.9.9.9:80", "[::1]:7422", "envd.example"],
)
async def test_names_of_this_server_are_taken(http: Http, host: str) -> None:
    answer = await http.ask("GET", ENVIRONMENT, headers={"Host": host})

    assert answer.status == 404


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "envd.example.evil",
        "10.0.0.1",
        "a@localhost",
        "localhost/x",
        "localhost:port",
        "[::1",
        "",
    ],
)
async def test_a_foreign_host_is_misdirected(http: Http, host: str) -> None:
    answer = await http.ask("GET", ENVIRONMENT, headers={"Host": host})

    assert (answer.status, answer.reason) == (421, "FOREIGN_HOST")


@pytest.mark.parametrize(
    ("asked", "status"),
    [("http://localhost", b"200"), ("http://evil.example", b"421"), ("http://a@b", b"421")],
)
async def test_a_whole_url_in_the_request_line_beats_the_host_header(
    http: Http, asked: str, status: bytes
) -> None:
    received = await http.raw(
        f"GET {asked}/v1/status HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode()
    )

    assert received.split(b" ")[1] == status


async def test_a_request_without_one_host_is_refused(http: Http) -> None:
    for hosts in ("", "Host: localhost\r\nHost: localhost\r\n"):
        received = await http.raw(
            f"GET {ENVIRONMENT} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode()
        )

        assert received.split(b" ")[1] in {b"400", b"421"}


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:1", "file://", "http://localhost"]
)
async def test_a_request_of_another_site_is_refused(http: Http, origin: str) -> None:
    answer = await http.ask("PATCH", ENVIRONMENT, {"set": {"A": "1"}}, headers={"Origin": origin})

    assert (answer.status, answer.reason) == (403, "FOREIGN_ORIGIN")
    assert http.node.store.environment_count() == 0


async def test_a_page_of_this_server_may_ask(http: Http) -> None:
    await http.node.put("web/prod", A="1")

    origin = f"http://127.0.0.1:{http.port}"
    answer = await http.ask("GET", ENVIRONMENT, headers={"Origin": origin})

    assert answer.status == 200


async def test_probes_are_open_to_any_host_and_follow_readiness(http: Http) -> None:
    other = {"Host": "10.1.2.3:7422"}

    ready = await http.ask("GET", "/readyz", token="", headers=other)
    http.ready[0] = False
    starting = await http.ask("GET", "/readyz", token="", headers=other)
    alive = await http.ask("GET", "/livez", token="", headers=other)

    assert (ready.status, ready.document) == (200, {"status": "ok"})
    assert (starting.status, starting.reason) == (503, "NOT_READY")
    assert starting.headers["Retry-After"] == "1"
    assert alive.status == 200


async def test_a_body_that_is_said_to_be_too_large_is_refused_before_it_comes(http: Http) -> None:
    received = await http.raw(
        f"PATCH {ENVIRONMENT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Length: 99999999999\r\n\r\n{".encode()
    )

    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"BODY_TOO_LARGE" in received


# -- errors and rubbish ------------------------------------------------------------

ERRORS: list[tuple[EnvdError, int]] = [
    (InvalidRequest("m", hint="h"), 400),
    (LimitExceeded("m"), 400),
    (NotFound("m"), 404),
    (Conflict("m", reason="STALE_REVISION"), 412),
    (Conflict("m", reason="OPERATION_REUSED"), 409),
    (Unauthenticated("m"), 401),
    (Denied("m"), 403),
    (Unavailable("m", reason="OVERLOADED", retry_after_ms=1500), 503),
    (Unavailable("m", reason="DISK_FULL"), 507),
    (OutcomeUnknown("m"), 500),
    (Unsupported("m"), 501),
    (Corrupt("m"), 500),
]


@pytest.mark.parametrize(
    ("error", "status"), ERRORS, ids=[f"{type(e).__name__}-{e.reason}" for e, _ in ERRORS]
)
async def test_each_error_has_its_status_and_tells_its_kind(error: EnvdError, status: int) -> None:
    async with http_to(Node(authorizer=RaisingAuthorizer(error))) as http:
        answer = await http.ask("GET", ENVIRONMENT)

    problem = answer.document
    assert (answer.status, answer.reason) == (status, error.reason)
    assert (problem["detail"], problem.get("hint", "")) == ("m", error.hint)
    assert problem["kind"] == type(error).__name__
    assert problem["type"] == f"urn:envd:problem:{error.reason.lower().replace('_', '-')}"
    assert answer.headers.get("Retry-After") == ("2" if error.reason == "OVERLOADED" else None)


async def test_an_unexpected_exception_is_an_internal_error_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with http_to(Node(authorizer=RaisingAuthorizer(RuntimeError(CANARY)))) as http:
        answer = await http.ask("GET", ENVIRONMENT)
        faults = http.server.faults

    assert (answer.status, answer.reason) == (500, "INTERNAL")
    assert answer.document["detail"] == "internal error"
    assert CANARY.encode() not in answer.body
    assert CANARY not in caplog.text
    assert "request.failed" in caplog.text
    assert faults == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"rubbish " + CANARY.encode() + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + CANARY.encode() + b"\x00: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ten\r\n\r\n",
        b"PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_answered_as_a_problem_that_quotes_nothing(
    http: Http, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    received = await http.raw(sent)

    assert b" 400 Bad Request\r\n" in received
    assert b"application/problem+json" in received
    assert CANARY.encode() not in received
    assert CANARY not in caplog.text
    assert http.server.faults == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["A", "value", "secret", "masked", "1", "é"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
bodies = st.binary(max_size=64) | st.dictionaries(
    st.sampled_from(["set", "unset", "message", "operation", "other"]), json_values, max_size=4
).map(lambda document: json.dumps(document).encode())


@settings(max_examples=300)
@given(body=bodies)
@example(body=b"[" * 100_000)
def test_whatever_a_patch_holds_it_is_read_or_refused(body: bytes) -> None:
    try:
        write = write_of("web/prod", parse_object(body))
    except InvalidRequest as error:
        assert error.message  # noqa: PT017 - both ends are right
    else:
        assert write.environment == "web/prod"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
async def test_whatever_a_patch_holds_the_server_has_no_fault(http: Http, body: bytes) -> None:
    answer = await http.ask("PATCH", ENVIRONMENT, body)

    assert answer.status in {200, 400, 404, 409}
    assert http.server.faults == 0
