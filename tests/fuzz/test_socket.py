"""Frames of the Unix socket: documents that are hostile, and bytes that are none."""

from __future__ import annotations

import json
import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from envd.core import errors
from envd.core.errors import EnvdError, InvalidRequest, LimitExceeded, Unsupported
from envd.wire.framing import CALLS, LENGTH
from tests.fuzz.mutations import near
from tests.fuzz.victim import Victim, fuzzing

PATIENCE_S = 30
ANSWERED = sorted({*CALLS} - {"backup", "backups"})
FIELDS = [
    *("environment", "puts", "unsets", "replace", "bulk", "if_revision", "must_exist", "message"),
    *("operation", "durability", "variables", "reveal", "at", "consistency", "token", "resolve"),
    *("max_lag_ms", "prefix", "after", "limit", "before", "variable", "to", "values", "other"),
    *("take", "kind", "member", "addresses"),
]
TEXTS = ["", "web/prod", "A", "@~1", "strong", "local", "\ud800", "\0", "a" * 300, "1.0.0"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(TEXTS)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "value", "secret", "kind", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
PUTS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["A", "1", ""]) | JSON, "value": JSON}),
    max_size=2,
)
arguments = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4).flatmap(
    lambda rest: PUTS.map(lambda puts: {"environment": "web/fuzz", "puts": puts, **rest})
) | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4)
requests = st.fixed_dictionaries(
    {"call": st.sampled_from(ANSWERED) | JSON, "arguments": arguments | JSON},
    optional={"token": st.just("") | JSON, "traceparent": JSON, "more": JSON},
)
RIGHT = [
    {"call": "get", "arguments": {"environment": "web/prod", "reveal": True}},
    {"call": "write", "arguments": {"environment": "b", "puts": [{"name": "A", "value": "1"}]}},
    {"call": "watch", "arguments": {"prefix": "web", "values": True}},
    {"call": "status", "arguments": None},
]


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def framed(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


def exchange(daemon: Victim, sent: bytes) -> list[Any]:
    """All that comes back for these bytes: every frame is whole and holds a JSON object."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(PATIENCE_S)
        one.connect(str(daemon.node.socket))
        try:
            one.sendall(sent)
            one.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has hung up already; what it said stands all the same
        received = bytearray()
        try:
            while piece := one.recv(1 << 16):
                received += piece
        except ConnectionError:
            pass
    answers = []
    while received:
        (length,) = LENGTH.unpack(received[: LENGTH.size])
        body = received[LENGTH.size : LENGTH.size + length]
        assert len(body) == length
        answers.append(json.loads(body))
        del received[: LENGTH.size + length]
    return answers


def is_told(answer: dict[str, Any]) -> None:
    """Assert that an answer is one, or an error that the API knows, and no fault."""
    assert answer.keys() <= {"answer", "error", "item"}
    if "error" in answer:
        kind = getattr(errors, answer["error"]["kind"])
        assert issubclass(kind, EnvdError)
        assert answer["error"]["reason"] != "INTERNAL"
        assert kind is not errors.OutcomeUnknown


def test_whatever_a_request_holds_it_is_answered(daemon: Victim) -> None:
    @fuzzing(everyday=200)
    @given(request=requests)
    def check(request: dict[str, Any]) -> None:
        for answer in exchange(daemon, framed(encoded(request))):
            is_told(answer)

    check()

    daemon.answers()


def test_whatever_bytes_a_frame_holds_it_is_answered(daemon: Victim) -> None:
    @fuzzing(everyday=120)
    @given(bodies=st.lists(near([encoded(one) for one in RIGHT]), max_size=3))
    def check(bodies: list[bytes]) -> None:
        for answer in exchange(daemon, b"".join(map(framed, bodies))):
            is_told(answer)

    check()

    daemon.answers()


def test_whatever_bytes_come_the_connection_ends(daemon: Victim) -> None:
    whole = framed(encoded(RIGHT[0]))

    @fuzzing(everyday=120)
    @given(sent=near([whole, whole * 3, whole[:-1], LENGTH.pack(0), LENGTH.pack(2**32 - 1)]))
    def check(sent: bytes) -> None:
        for answer in exchange(daemon, sent):
            is_told(answer)

    check()

    daemon.answers()


def test_what_is_said_to_be_long_takes_no_room_before_it_comes(daemon: Victim) -> None:
    before = daemon.resident_bytes
    waiting = []
    for _ in range(50):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.connect(str(daemon.node.socket))
        one.sendall(LENGTH.pack(64 << 20) + b"{")
        waiting.append(one)

    daemon.answers()
    grown = daemon.resident_bytes - before
    for one in waiting:
        one.close()

    assert grown < 16 << 20


def test_deep_long_and_wide_documents_are_refused(daemon: Victim) -> None:
    for body, kinds in (
        (b"[" * 5_000_000, {InvalidRequest}),
        (b'{"call":"get","arguments":' + b'{"a":' * 1_000_000, {InvalidRequest}),
        (b'{"call":"' + b"x" * 5_000_000 + b'"}', {Unsupported}),
        (b'{"call":"list","arguments":{"limit":' + b"9" * 1_000_000 + b"}}", {InvalidRequest}),
        (
            b'{"call":"list","arguments":{"prefix":"' + b"a" * 5_000_000 + b'"}}',
            {InvalidRequest, LimitExceeded},
        ),
    ):
        (answer,) = exchange(daemon, framed(body))

        is_told(answer)
        assert getattr(errors, answer["error"]["kind"]) in kinds
        assert len(encoded(answer)) < 1000
