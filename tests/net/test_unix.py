"""The Unix socket: the client of `envctl` against it, and everything that is no frame."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from envd.client.unix import UnixConnection
from envd.core.answers import Changed, Heartbeat, ListPage, Reset, SnapshotEnd, SnapshotItem
from envd.core.commit import Kind
from envd.core.errors import (
    Conflict,
    EnvdError,
    InvalidRequest,
    NotFound,
    StartupError,
    Unauthenticated,
    Unavailable,
)
from envd.core.requests import (
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
from envd.net.unix import UnixServer
from envd.net.unix_file import bind
from envd.wire.framing import CALLS, LENGTH, MAX_FRAME_BYTES, encode_frame
from tests.net.world import (
    CANARY,
    PATIENCE_S,
    TOKEN,
    FakeAccess,
    HeldStore,
    Node,
    RaisingAuthorizer,
    until,
)

STATUS: dict[str, Any] = {"call": "status", "arguments": None, "token": ""}


@dataclass
class Local:
    """A node behind a Unix socket."""

    node: Node
    server: UnixServer
    path: Path

    async def raw(self, sent: bytes, *, half_close: bool = True) -> list[Any]:
        """The documents that come back for these bytes, until the server closes."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(sent)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            received = await reader.read()
        writer.close()
        await writer.wait_closed()
        return documents(received)

    async def ask(self, call: str, arguments: object, token: str = "") -> Any:
        """The one answer to one request."""
        request = {"call": call, "arguments": arguments, "token": token}
        (answer,) = await self.raw(encode_frame(request))
        return answer


def documents(received: bytes) -> list[Any]:
    found = []
    while received:
        (length,) = LENGTH.unpack(received[: LENGTH.size])
        found.append(json.loads(received[LENGTH.size : LENGTH.size + length]))
        received = received[LENGTH.size + length :]
    return found


@asynccontextmanager
async def unix_to(
    node: Node, path: Path, uid: int | None = None, **options: Any
) -> AsyncIterator[Local]:
    """Serve `node` on the socket file `path` while inside."""
    own_uid = os.getuid() if uid is None else uid
    server = UnixServer(node.api, FakeAccess(own_uid), path, **options)
    await server.start()
    try:
        yield Local(node, server, path)
    finally:
        await server.stop(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "envd.sock"


@pytest.fixture
async def local(node: Node, path: Path) -> AsyncIterator[Local]:
    async with unix_to(node, path) as served:
        yield served


# -- the client --------------------------------------------------------------------


async def test_every_call_of_the_client_is_answered(local: Local) -> None:
    def use() -> None:
        connection = UnixConnection(str(local.path))
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
        view = connection.get(ReadRequest("web/prod", reveal=True))
        assert view.revision == written.revision
        assert view.variables["A"].value == "ü"
        assert view.metadata == {"owner": "team"}
        connection.write(WriteRequest("web/prod", unsets=(Unset("B"),)))
        connection.rollback(RollbackRequest("web/prod", written.revision, ("B",)))
        assert connection.history(HistoryRequest("web/prod")).commits[-1].message == "why"
        assert connection.list(ListRequest()).environments[0].variables == 2
        connection.delete(DeleteRequest("web/prod"))
        assert connection.status().identity == f"uid:{os.getuid()}"
        with pytest.raises(NotFound):
            connection.get(ReadRequest("web/prod"))
        with pytest.raises(Conflict) as caught:
            connection.write(WriteRequest("web", (Put("A", "1"),), if_revision="0" * 32))
        assert caught.value.reason == "STALE_REVISION"
        connection.close()

    await asyncio.to_thread(use)


async def test_a_token_counts_for_more_than_the_peer(node: Node, path: Path) -> None:
    def use(token: str) -> str:
        connection = UnixConnection(str(path), token=token)
        try:
            return connection.status().identity
        finally:
            connection.close()

    async with unix_to(node, path, uid=os.getuid() + 1):
        assert await asyncio.to_thread(use, TOKEN) == "admin"
        for token in ("", "wrong"):
            with pytest.raises(Unauthenticated):
                await asyncio.to_thread(use, token)


async def test_requests_sent_at_once_are_answered_in_order(local: Local) -> None:
    several = [writes({"name": "A", "value": str(at)}) for at in range(50)]
    bad = get(environment="no/such")

    answers = await local.raw(
        b"".join(encode_frame(request) for request in [*several, bad, STATUS])
    )

    stamps = [answer["answer"]["stamp"] for answer in answers[:50]]
    assert stamps == sorted(set(stamps))
    assert answers[50]["error"]["reason"] == "ENVIRONMENT_NOT_FOUND"
    assert answers[51]["answer"]["environments"] == 1


async def test_a_large_environment_goes_both_ways(local: Local) -> None:
    puts = [{"name": f"X{at}", "value": '"\n' * 250_000} for at in range(7)]

    written = await local.ask("write", {"environment": "e", "puts": puts})
    read = await local.ask("get", {"environment": "e"})

    assert "answer" in written
    assert read["answer"]["variables"]["X6"]["value"] == '"\n' * 250_000


# -- watches -----------------------------------------------------------------------


async def test_a_watch_tells_the_snapshot_and_then_changes(local: Local) -> None:
    await local.node.put("web/prod", A="1")
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def use() -> list[object]:
        connection = UnixConnection(str(local.path), timeout_s=0.001)
        events = connection.watch(WatchRequest("web", values=True, reveal=True))
        found: list[object] = [next(events), next(events)]
        loop.call_soon_threadsafe(seen.set)
        found.append(next(events))
        events.close()  # type: ignore[attr-defined]
        return found

    using = asyncio.create_task(asyncio.to_thread(use))
    await seen.wait()
    await local.node.put("other", A="1")
    await local.node.put("web/prod", A_SECRET="2")

    snapshot, end, changed = await using
    assert isinstance(snapshot, SnapshotItem)
    assert snapshot.state.variables["A"].value == "1"
    assert isinstance(end, SnapshotEnd)
    assert isinstance(changed, Changed)
    assert changed.state is not None
    assert changed.state.variables["A_SECRET"].value == "2"
    assert [each.variable for each in changed.commit.changes] == ["A_SECRET"]
    await until(lambda: local.server.connections == 0)
    assert local.node.hub.open_watches == 0


async def test_a_watch_resumes_with_its_token(local: Local) -> None:
    await local.node.put("web", A="1")

    def first() -> str:
        events = UnixConnection(str(local.path)).watch(WatchRequest())
        ends = [event.token for event in (next(events), next(events)) if hasattr(event, "token")]
        events.close()  # type: ignore[attr-defined]
        return str(ends[0])

    def second(token: str) -> object:
        events = UnixConnection(str(local.path)).watch(WatchRequest(token=token))
        event = next(events)
        events.close()  # type: ignore[attr-defined]
        return event

    token = await asyncio.to_thread(first)
    await local.node.put("web", B="2")

    changed = await asyncio.to_thread(second, token)
    assert isinstance(changed, Changed)
    assert changed.state is None
    assert [each.variable for each in changed.commit.changes] == ["B"]
    assert isinstance(await asyncio.to_thread(second, "none"), Reset)


async def test_heartbeats_are_told(path: Path) -> None:
    def use() -> object:
        events = UnixConnection(str(path)).watch(WatchRequest())
        found = [next(events), next(events)][-1]
        events.close()  # type: ignore[attr-defined]
        return found

    async with unix_to(Node(heartbeat_s=0.001), path):
        assert isinstance(await asyncio.to_thread(use), Heartbeat)


async def test_a_refused_watch_is_an_error_and_ends_the_connection(path: Path) -> None:
    watch = {"call": "watch", "arguments": {}, "token": ""}

    async with unix_to(Node(max_watches=0), path) as local:
        answers = await local.raw(encode_frame(watch), half_close=False)
        faults = local.server.faults

    assert [answer["error"]["reason"] for answer in answers] == ["OVERLOADED"]
    assert faults == 0


@pytest.mark.parametrize("bad", [{"prefix": 7}, {"prefix": "Bad Name"}, {"after": CANARY}, []])
async def test_a_watch_that_makes_no_sense_is_refused(local: Local, bad: object) -> None:
    request = {"call": "watch", "arguments": bad, "token": ""}

    (answer,) = await local.raw(encode_frame(request), half_close=False)

    assert answer["error"]["kind"] == "InvalidRequest"
    assert CANARY not in json.dumps(answer)


async def test_what_is_sent_during_a_watch_ends_it(local: Local) -> None:
    watch = {"call": "watch", "arguments": {}, "token": ""}

    for answer in await local.raw(encode_frame(watch) + encode_frame(STATUS), half_close=False):
        assert "item" in answer
    assert local.node.hub.open_watches == 0


async def test_a_watch_ends_when_the_server_stops(node: Node, path: Path) -> None:
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def use() -> None:
        events = UnixConnection(str(path)).watch(WatchRequest())
        next(events)
        loop.call_soon_threadsafe(seen.set)
        next(events)

    async with unix_to(node, path):
        using = asyncio.create_task(asyncio.to_thread(use))
        await seen.wait()

    with pytest.raises(Unavailable, match="broke"):
        await using
    assert node.hub.open_watches == 0


# -- rubbish -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "InvalidRequest"),
        (b"rubbish " + CANARY.encode(), "InvalidRequest"),
        (b'{"call": "' + CANARY.encode() + b"\xff", "InvalidRequest"),
        (b"[" * 100_000, "InvalidRequest"),
        (b'{"call":"get","arguments":{"environment":"\\ud800"}}', "InvalidRequest"),
    ],
)
async def test_a_frame_that_is_no_document_is_answered_and_ends_the_connection(
    local: Local, body: bytes, kind: str
) -> None:
    answers = await local.raw(
        LENGTH.pack(len(body)) + body + encode_frame(STATUS), half_close=False
    )

    assert [answer["error"]["kind"] for answer in answers] == [kind]
    assert CANARY not in json.dumps(answers)
    assert local.server.faults == 0


def get(**more: object) -> dict[str, Any]:
    return {"call": "get", "arguments": {"environment": "e", **more}}


def writes(*puts: object) -> dict[str, Any]:
    return {"call": "write", "arguments": {"environment": "e", "puts": puts}}


@pytest.mark.parametrize(
    ("request_document", "kind"),
    [
        ([], "InvalidRequest"),
        ({}, "Unsupported"),
        ({"call": "shutdown"}, "Unsupported"),
        ({"call": ["get"]}, "Unsupported"),
        ({**get(), "token": 7}, "InvalidRequest"),
        ({"call": "get"}, "InvalidRequest"),
        ({"call": "get", "arguments": []}, "InvalidRequest"),
        ({"call": "get", "arguments": {}}, "InvalidRequest"),
        (get(environment=7), "InvalidRequest"),
        (get(environment="Bad Name"), "InvalidRequest"),
        (get(revael=True), "InvalidRequest"),
        (get(reveal=1), "InvalidRequest"),
        (get(consistency=CANARY), "InvalidRequest"),
        ({"call": "list", "arguments": {"limit": "5"}}, "InvalidRequest"),
        ({"call": "list", "arguments": {"limit": -1}}, "InvalidRequest"),
        ({"call": "list", "arguments": {"limit": 1.5}}, "InvalidRequest"),
        ({**get(before=CANARY), "call": "history"}, "InvalidRequest"),
        ({**get(puts={}), "call": "write"}, "InvalidRequest"),
        (writes(CANARY), "InvalidRequest"),
        (writes({"name": "A", "value": [CANARY]}), "InvalidRequest"),
        (writes({"name": "A", "value": "1", "x": CANARY}), "InvalidRequest"),
        (writes({"name": "A", "value": CANARY, "kind": 9}), "InvalidRequest"),
        (writes({"name": "A", "value": CANARY + "\0"}), "InvalidRequest"),
        (writes({"name": "A", "value": "v" * ((1 << 20) + 1)}), "LimitExceeded"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_and_the_next_is_answered(
    local: Local, request_document: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    refused, status = await local.raw(encode_frame(request_document) + encode_frame(STATUS))

    assert refused["error"]["kind"] == kind
    assert CANARY not in json.dumps(refused)
    assert CANARY not in caplog.text
    assert "answer" in status
    assert local.server.faults == 0


async def test_a_huge_length_is_refused_before_anything_is_read(local: Local) -> None:
    for length in (MAX_FRAME_BYTES + 1, 0xFFFFFFFF):
        (answer,) = await local.raw(LENGTH.pack(length), half_close=False)

        assert answer["error"]["kind"] == "LimitExceeded"


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0\0\x10half", encode_frame(STATUS)[:-1]])
async def test_half_a_frame_and_then_the_end_is_answered_with_nothing(
    local: Local, sent: bytes
) -> None:
    assert await local.raw(sent) == []
    await until(lambda: local.server.connections == 0)
    assert local.server.faults == 0


fields = st.sampled_from(
    ["environment", "puts", "unsets", "limit", "to", "at", "before", "reveal", "variables"]
)
some_puts = st.sampled_from([{}, {"name": "A", "value": "1"}, {"name": "A"}, 1, "A"])
some_values = (
    st.none()
    | st.booleans()
    | st.integers(-5, 1 << 70)
    | st.sampled_from(["e", "", "@~1", "\0"])
    | st.lists(some_puts, max_size=2)
)
frames = st.binary(max_size=40) | st.builds(
    lambda call, arguments: encode_frame({"call": call, "arguments": arguments}),
    st.sampled_from([*CALLS, "x"]),
    st.none() | st.dictionaries(fields, some_values, max_size=4),
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=frames)
@example(sent=b"\xff" * 40)
async def test_whatever_is_sent_the_server_has_no_fault(local: Local, sent: bytes) -> None:
    for answer in await local.raw(sent):
        assert answer.keys() in ({"answer"}, {"error"}, {"item"})

    assert local.server.faults == 0


async def test_an_unexpected_exception_is_an_internal_error_and_tells_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(authorizer=RaisingAuthorizer(RuntimeError(CANARY)))
    async with unix_to(node, path) as local:
        answer = await local.ask("get", {"environment": "e"})
        faults = local.server.faults

    assert answer["error"]["kind"] == "EnvdError"
    assert answer["error"]["reason"] == "INTERNAL"
    assert answer["error"]["message"] == "internal error"
    assert CANARY not in json.dumps(answer)
    assert CANARY not in caplog.text
    assert "request.failed" in caplog.text
    assert faults == 1


async def test_nobody_can_tell_what_became_of_a_write_that_failed_unexpectedly(path: Path) -> None:
    node = Node(authorizer=RaisingAuthorizer(RuntimeError(CANARY)))
    async with unix_to(node, path) as local:
        answer = await local.ask("write", {"environment": "e"})

    assert answer["error"]["kind"] == "OutcomeUnknown"
    assert CANARY not in json.dumps(answer)


async def test_a_text_that_is_not_utf_8_is_refused_before_it_is_sent(local: Local) -> None:
    def use() -> None:
        connection = UnixConnection(str(local.path))
        with pytest.raises(InvalidRequest, match="not valid UTF-8") as refused:
            connection.get(ReadRequest("e", at="\udcff"))
        connection.close()
        assert refused.value.__cause__ is None

    await asyncio.to_thread(use)


def test_an_answer_that_comes_too_late_is_not_taken_for_another(path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()
    connection = UnixConnection(str(path), timeout_s=0.001)
    server, _ = listening.accept()

    with pytest.raises(Unavailable, match="too long"):
        connection.status()
    with server, listening, pytest.raises(Unavailable, match="broke"):
        connection.list(ListRequest())


def test_fields_of_a_newer_node_are_passed_over(path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()
    connection = UnixConnection(str(path))
    server, _ = listening.accept()
    server.sendall(encode_frame({"answer": {"environments": [], "next": "", "newer": 1}}))

    with server, listening:
        page = connection.list(ListRequest())
    connection.close()

    assert page == ListPage(())


@pytest.mark.parametrize("error", [NotFound("m", hint="h", reason="R"), EnvdError("m")])
async def test_an_error_arrives_as_it_was(path: Path, error: EnvdError) -> None:
    def use() -> None:
        connection = UnixConnection(str(path))
        try:
            connection.get(ReadRequest("e"))
        finally:
            connection.close()

    async with unix_to(Node(authorizer=RaisingAuthorizer(error)), path):
        with pytest.raises(EnvdError) as caught:
            await asyncio.to_thread(use)

    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint) == ("m", error.hint)
    assert caught.value.reason == error.reason


# -- connections and the socket file -----------------------------------------------


def mode_of(path: Path) -> int:
    return path.lstat().st_mode


def files_beside(path: Path) -> list[Path]:
    return sorted(path.parent.iterdir())


def remove(path: Path) -> None:
    path.unlink()


async def test_one_connection_too_many_is_told_so(node: Node, path: Path) -> None:
    async with unix_to(node, path, max_connections=1) as local:
        _, first = await asyncio.open_unix_connection(path)
        await until(lambda: local.server.connections == 1)

        (answer,) = await local.raw(b"", half_close=False)
        first.close()
        await first.wait_closed()
        await until(lambda: local.server.connections == 0)
        again = await local.ask("status", None)

    assert answer["error"]["reason"] == "OVERLOADED"
    assert "answer" in again


async def test_the_socket_file_is_the_owners_alone_whatever_the_umask(
    node: Node, path: Path
) -> None:
    before = os.umask(0)
    try:
        async with unix_to(node, path):
            mode = mode_of(path)
    finally:
        os.umask(before)

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert files_beside(path) == []


async def test_the_socket_file_of_a_dead_daemon_is_replaced(node: Node, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async with unix_to(node, path) as local:
        answer = await local.ask("status", None)

    assert "answer" in answer


async def test_a_socket_that_somebody_listens_on_is_not_taken(local: Local) -> None:
    second = UnixServer(local.node.api, FakeAccess(), local.path)

    with pytest.raises(StartupError) as caught:
        await second.start()

    assert str(local.path) in caught.value.message
    assert "--socket" in caught.value.hint
    assert "answer" in await local.ask("status", None)


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")

    with pytest.raises(StartupError):
        bind(path)

    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["x" * 200, "no/such/directory/envd.sock"])
async def test_a_path_that_can_not_be_had_is_an_error_with_a_mend(
    node: Node, tmp_path: Path, name: str
) -> None:
    with pytest.raises(StartupError) as caught:
        await UnixServer(node.api, FakeAccess(), tmp_path / name).start()

    assert "--socket" in caught.value.hint


async def test_stopping_does_not_remove_the_socket_of_another(local: Local) -> None:
    remove(local.path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(local.path))

        await local.server.stop(0)

        assert files_beside(local.path) == [local.path]


async def test_stopping_answers_the_call_that_runs_and_closes_idle_connections(path: Path) -> None:
    store = HeldStore()
    async with unix_to(Node(store=store), path) as local:
        idle_reader, idle_writer = await asyncio.open_unix_connection(path)
        arguments = {"environment": "e", "puts": [{"name": "A", "value": "1"}]}
        running = asyncio.create_task(local.ask("write", arguments))
        await until(lambda: store.appended == ["e"] and local.server.connections == 2)

        stop = asyncio.create_task(local.server.stop(PATIENCE_S))
        idle_end = await idle_reader.read()
        store.gate.set()
        answer = await running
        await stop
        idle_writer.close()
        await idle_writer.wait_closed()

    assert idle_end == b""
    assert answer["answer"]["environment"] == "e"


async def test_a_call_that_does_not_end_is_cut_after_the_grace(path: Path) -> None:
    store = HeldStore()
    async with unix_to(Node(store=store), path) as local:
        arguments = {"environment": "e", "puts": [{"name": "A", "value": "1"}]}
        request = encode_frame({"call": "write", "arguments": arguments})
        running = asyncio.create_task(local.raw(request, half_close=False))
        await until(lambda: store.appended == ["e"])

        await local.server.stop(0.01)

        assert await running == []
        store.gate.set()
