"""Server-sent events over a real server: snapshots, changes, resuming, endings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envd.core.answers import Heartbeat, Identity, SnapshotEnd
from envd.core.errors import Denied
from envd.net.http_watch import event_text
from envd.ports import StoredState
from envd.storage.memory import MemoryStore
from tests.net.http_world import ENVIRONMENT, Events, Http, http_to, watching
from tests.net.world import (
    ADMIN,
    CANARY,
    PATIENCE_S,
    READER_TOKEN,
    TOKEN,
    FakeAuthorizer,
    Node,
    until,
)


async def test_a_watch_begins_with_a_snapshot_and_goes_on_with_changes(http: Http) -> None:
    await http.node.put("web/prod", A="1", SECRET_B=CANARY)
    async with watching(http, "?prefix=web") as events:
        snapshot, end = await events.take(2)
        revision = await http.node.put("web/prod", A="2")
        await http.node.put("other", A="1")
        await http.node.put("web/test", A="3")
        first, second = await events.take(2)

    assert (snapshot.name, snapshot.data["environment"]) == ("snapshot", "web/prod")
    assert snapshot.data["variables"]["A"]["value"] == "1"
    assert snapshot.data["variables"]["SECRET_B"]["value"] is None
    assert snapshot.id == ""
    assert (end.name, end.data) == ("snapshot-end", {"token": end.id})
    assert (first.name, first.data["revision"]) == ("change", revision)
    assert (second.name, second.data["environment"]) == ("change", "web/test")


async def test_a_change_has_the_shape_of_the_contract_and_no_value(http: Http) -> None:
    async with watching(http) as events:
        await events.take(1)
        body = {"set": {"A": CANARY}, "message": "why\nnot"}
        answer = await http.ask("PATCH", ENVIRONMENT, body)
        (change,) = await events.take(1)

    written = answer.document
    assert set(change.data) == {
        "id",
        "time",
        "environment",
        "revision",
        "stamp",
        "node",
        "region",
        "actor",
        "message",
        "changes",
        "deleted",
        "resolves",
        "salvages",
        "token",
        "through",
    }
    assert (change.data["environment"], change.data["actor"]) == ("web/prod", "admin")
    assert (change.data["node"], change.data["region"]) == ("node-1", "eu")
    assert change.data["message"] == "why\nnot"
    assert change.data["stamp"] == written["stamp"]
    assert change.data["changes"] == [{"variable": "A", "kind": "set", "metadata": False}]
    assert change.data["token"] == change.id


async def test_a_change_tells_the_new_state_to_who_asks_for_values(http: Http) -> None:
    async with watching(http, "?values=true") as events:
        await events.take(1)
        await http.node.put("web/prod", A="line\nbreak\r and \u2028", SECRET_B=CANARY)
        (change,) = await events.take(1)
        await http.ask("DELETE", ENVIRONMENT)
        (gone,) = await events.take(1)

    assert change.data["state"]["variables"]["A"]["value"] == "line\nbreak\r and \u2028"
    assert change.data["state"]["variables"]["SECRET_B"]["masked"] is True
    assert gone.data["deleted"] is True
    assert gone.data["state"] is None


async def test_secrets_are_revealed_to_who_asks_and_may(http: Http) -> None:
    await http.node.put("web/prod", SECRET_B=CANARY)

    async with watching(http, "?reveal=true") as events:
        (snapshot,) = await events.take(1)
    refused = await http.ask("GET", "/v1/watch?reveal=true", token=READER_TOKEN)

    assert snapshot.data["variables"]["SECRET_B"]["value"] == CANARY
    assert (refused.status, refused.reason) == (403, "RIGHT_MISSING")


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_client_that_connects_again_misses_nothing(http: Http, by_header: bool) -> None:
    async with watching(http) as events:
        (end,) = await events.take(1)
        await http.node.put("web/prod", A="1")
        (seen,) = await events.take(1)
    await until(lambda: http.node.hub.open_watches == 0)
    missed = [await http.node.put("web/prod", A=text) for text in "23"]

    # A browser asks with the address that it began with, and the id that it saw last.
    query, last_id = (f"?token={end.id}", seen.id) if by_header else (f"?token={seen.id}", "")
    async with watching(http, query, last_id=last_id) as events:
        after = await events.take(2)
        now = await http.node.put("web/prod", A="4")
        (live,) = await events.take(1)

    assert [event.data["revision"] for event in after] == missed
    assert live.data["revision"] == now


async def test_a_watch_resumes_over_a_restart_of_the_server(node: Node) -> None:
    async with http_to(node) as http, watching(http) as events:
        (end,) = await events.take(1)
    again = Node(store=node.store)
    revision = await again.put("web/prod", A="1")

    async with http_to(again) as http, watching(http, last_id=end.id) as events:
        (change,) = await events.take(1)

    assert change.data["revision"] == revision


@pytest.mark.parametrize("token", ["rubbish", "1.00000000000000ff.1", "1.0000000000001234.ff"])
async def test_a_token_that_can_not_be_resumed_resets_and_a_snapshot_follows(
    http: Http, token: str
) -> None:
    await http.node.put("web/prod", A="1")

    async with watching(http, last_id=token) as events:
        reset, snapshot, end = await events.take(3)

    assert (reset.name, set(reset.data), reset.id) == ("reset", {"reason"}, "")
    assert (snapshot.name, end.name) == ("snapshot", "snapshot-end")


async def test_a_heartbeat_is_a_comment_that_moves_the_id_on() -> None:
    node = Node(heartbeat_s=0.01)
    async with http_to(node) as http, watching(http, "?prefix=web") as events:
        (end,) = await events.take(1)
        await node.put("other", A="1")
        beat = await events.next()
        while beat is not None and beat.id == end.id:
            beat = await events.next()

    assert beat is not None
    assert (beat.name, beat.data) == ("", None)
    assert beat.id > end.id


def test_what_is_partial_is_an_event_that_moves_the_id_on() -> None:
    why = "3 of 4096 partitions are missing"

    beat = event_text(Heartbeat("t", partial=True, partial_reason=why), values=False)
    end = event_text(SnapshotEnd("t", partial=True, partial_reason=why), values=False)
    whole = event_text(SnapshotEnd("t"), values=False)

    assert beat == f'event: partial\ndata: {{"partial_reason":"{why}"}}\nid: t\n\n'
    assert f'"partial":true,"partial_reason":"{why}"' in end
    assert whole == 'event: snapshot-end\ndata: {"token":"t"}\nid: t\n\n'


async def test_headers_come_before_the_first_event(http: Http) -> None:
    async with watching(http) as events:
        (end,) = await events.take(1)

    async with watching(http, last_id=end.id) as events:
        assert events.response.status == 200
        assert http.node.hub.open_watches == 1
        assert await events.response.content.readline() == b"retry: 1000\n"


async def test_a_watch_ends_when_the_node_stops(http: Http) -> None:
    async with watching(http) as events:
        await events.take(1)
        http.node.api.stop()
        ended = await events.next()

    refused = await http.ask("GET", "/v1/watch")
    assert ended is None
    assert (refused.status, refused.reason) == (503, "STOPPING")


async def test_a_watch_is_given_back_when_the_client_goes(http: Http) -> None:
    async with watching(http) as events:
        await events.take(1)
        assert http.node.hub.open_watches == 1

    await until(lambda: http.node.hub.open_watches == 0)
    assert http.server.faults == 0


async def test_a_client_that_goes_as_the_node_stops_is_no_fault(http: Http) -> None:
    async with stalled_watch(http):
        http.node.api.stop()

    await until(lambda: http.node.hub.open_watches == 0)
    assert http.server.faults == 0


async def test_one_watch_too_many_is_refused() -> None:
    async with http_to(Node(max_watches=1)) as http, watching(http) as events:
        await events.take(1)

        refused = await http.ask("GET", "/v1/watch")

    assert (refused.status, refused.reason) == (503, "OVERLOADED")
    assert refused.headers["Retry-After"] == "1"


@asynccontextmanager
async def stalled_watch(http: Http) -> AsyncIterator[None]:
    """A watch of 64 MB whose client reads nothing but the first line."""
    for number in range(16):
        await http.node.put(f"e{number}", **{f"X{at}": "v" * 1_000_000 for at in range(4)})
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port, limit=1 << 10)
    head = f"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    writer.write(head.encode())
    try:
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        yield
    finally:
        writer.transport.abort()


async def test_a_client_that_does_not_read_holds_its_watch_back_and_no_other(http: Http) -> None:
    async with stalled_watch(http):
        answer = await http.ask("GET", "/v1/status")
        waiting = http.unsent_bytes()

    await until(lambda: http.node.hub.open_watches == 0)
    assert answer.status == 200
    assert waiting < 16_000_000
    assert http.server.faults == 0


async def test_a_client_that_does_not_read_does_not_keep_the_server_from_stopping(
    node: Node,
) -> None:
    async with http_to(node) as http, stalled_watch(http), asyncio.timeout(PATIENCE_S):
        node.api.stop()
        await http.server.stop(0)

        await until(lambda: node.hub.open_watches == 0)


class BreakingStore(MemoryStore):
    """A store whose reads raise `error` once it is set."""

    error: Exception | None = None

    def visible(self, environment: str) -> StoredState | None:
        if self.error is not None:
            raise self.error
        return super().visible(environment)


@pytest.mark.parametrize(
    ("error", "reason", "faults"),
    [
        (Denied("the right was taken away", reason="RIGHT_MISSING"), "RIGHT_MISSING", 0),
        (RuntimeError(CANARY), "INTERNAL", 1),
    ],
)
async def test_what_ends_a_watch_later_is_told_as_an_event(
    error: Exception, reason: str, faults: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = BreakingStore()
    node = Node(store=store)
    async with http_to(node) as http, watching(http, "?values=true") as events:
        await events.take(1)
        store.error = error
        await node.put("web/prod", A="1")
        (problem,) = await events.take(1)
        ended = await events.next()
        counted = http.server.faults

    assert (problem.name, problem.data["reason"]) == ("problem", reason)
    assert ended is None
    assert counted == faults
    assert CANARY not in str(problem.data)
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/v1/watch?prefix=Not%20One", 400, "INVALID_NAME"),
        ("/v1/watch?prefix=sys", 400, "RESERVED_NAME"),
        ("/v1/watch?values=maybe", 400, "INVALID_FIELD"),
        ("/v1/watch?from=1", 400, "UNKNOWN_PARAMETER"),
        ("/v1/watch/web", 404, "NO_SUCH_RESOURCE"),
    ],
)
async def test_a_watch_that_makes_no_sense_is_a_problem(
    http: Http, path: str, status: int, reason: str
) -> None:
    answer = await http.ask("GET", path)

    assert (answer.status, answer.reason) == (status, reason)


async def test_a_stream_has_no_head(http: Http) -> None:
    answer = await http.ask("HEAD", "/v1/watch")

    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_to_watch_takes_the_right_to_read_below_the_prefix() -> None:
    class ReadOnly(FakeAuthorizer):
        def allows(self, identity: Identity, verb: str, environment: str) -> bool:
            return identity == ADMIN or (verb, environment) == ("read", "web")

    async with http_to(Node(authorizer=ReadOnly())) as http:
        async with watching(http, "?prefix=web", token=READER_TOKEN) as events:
            (end,) = await events.take(1)
        refused = await http.ask("GET", "/v1/watch", token=READER_TOKEN)

    assert end.name == "snapshot-end"
    assert refused.status == 403


POINTS = st.sampled_from(["1.0000000000001234.ffff", "1.00000000000000ff.0", "1..", "1.x.y"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=POINTS | st.text(), prefix=st.sampled_from(["", "web", "web/"]) | st.text(max_size=9))
async def test_whatever_token_comes_a_watch_begins_anew_or_is_refused(
    http: Http, token: str, prefix: str
) -> None:
    query = urlencode({"token": token, "prefix": prefix}, errors="replace")

    async with http.session.get(
        f"/v1/watch?{query}", headers={"Authorization": f"Bearer {TOKEN}"}
    ) as response:
        event = await Events(response).next() if response.status == 200 else None

    assert response.status in {200, 400}
    if response.status == 200:
        assert event is not None
        assert event.name == ("reset" if token else "snapshot-end")
    assert http.server.faults == 0
