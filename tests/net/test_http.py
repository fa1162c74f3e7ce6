"""REST over a real server: what is read and changed, how it starts and stops."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from envd.core.commit import Kind
from envd.core.errors import StartupError
from envd.core.requests import Put, WriteRequest
from envd.net.http import HttpServer
from envd.settings.units import Address
from tests.net.http_world import ENVIRONMENT, Http, http_to
from tests.net.world import (
    ADMIN,
    CANARY,
    PATIENCE_S,
    READER_TOKEN,
    FakeAccess,
    HeldStore,
    Node,
    until,
)

# -- reading -----------------------------------------------------------------------


async def test_an_environment_is_answered_in_the_shape_of_the_contract(http: Http) -> None:
    revision = await http.node.put("web/prod", PORT="8080", SECRET_KEY=CANARY)

    answer = await http.ask("GET", ENVIRONMENT)

    assert answer.status == 200
    assert answer.headers["ETag"] == f'"{revision}"'
    assert answer.headers["Content-Type"] == "application/json"
    document = answer.document
    assert document["environment"] == "web/prod"
    assert document["revision"] == revision
    assert document["metadata"] == {}
    plain, masked = document["variables"]["PORT"], document["variables"]["SECRET_KEY"]
    assert (plain["value"], plain["secret"]) == ("8080", False)
    assert (plain["node"], plain["region"], len(plain["stamp"])) == ("node-1", "eu", 40)
    assert (masked["value"], masked["secret"], masked["masked"]) == (None, True, True)
    assert CANARY.encode() not in answer.body


async def test_secrets_are_revealed_to_who_asks_and_may(http: Http) -> None:
    await http.node.put("web/prod", SECRET_KEY=CANARY)

    shown = await http.ask("GET", f"{ENVIRONMENT}?reveal=true")
    refused = await http.ask("GET", f"{ENVIRONMENT}?reveal=true", token=READER_TOKEN)

    assert shown.document["variables"]["SECRET_KEY"]["value"] == CANARY
    assert (refused.status, refused.reason) == (403, "RIGHT_MISSING")


async def test_a_large_environment_is_answered_whole(http: Http) -> None:
    await http.node.put("web/prod", **{f"X{at}": "v" * 1_000_000 for at in range(4)})

    answer = await http.ask("GET", ENVIRONMENT)

    assert len(answer.document["variables"]["X3"]["value"]) == 1_000_000


async def test_an_earlier_revision_is_read_with_at(http: Http) -> None:
    old = await http.node.put("web/prod", A="old")
    await http.node.put("web/prod", A="new")

    answer = await http.ask("GET", f"{ENVIRONMENT}?at={old}")

    assert answer.document["variables"]["A"]["value"] == "old"
    assert answer.headers["ETag"] == f'"{old}"'


async def test_layers_are_resolved_for_who_asks_and_have_no_tag_of_their_own(http: Http) -> None:
    await http.node.put("base", A="base", B="base")
    await http.node.put("web/prod", A="own")
    extends = Put("extends", "base", kind=Kind.METADATA)
    revision = (await http.node.api.write(ADMIN, WriteRequest("web/prod", (extends,)))).revision

    own = await http.ask("GET", ENVIRONMENT)
    resolved = await http.ask(
        "GET", f"{ENVIRONMENT}?resolve=true", headers={"If-None-Match": f'"{revision}"'}
    )
    past = await http.ask("GET", f"{ENVIRONMENT}?resolve=true&at={revision}")

    shown = resolved.document["variables"]
    assert own.document["variables"].keys() == {"A"}
    assert (resolved.status, "ETag" in resolved.headers) == (200, False)
    assert {name: (one["value"], one["source"]) for name, one in shown.items()} == {
        "A": ("own", "web/prod"),
        "B": ("base", "base"),
    }
    assert past.status == 400


async def test_nothing_may_be_cached_and_no_version_is_told(http: Http) -> None:
    for path in (ENVIRONMENT, "/livez", "/no/such"):
        answer = await http.ask("GET", path)

        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Server"] == "envd"


@pytest.mark.parametrize("tags", ['"{}"', 'W/"{}"', '"x", "{}"', "*"])
async def test_a_revision_that_the_client_has_is_not_sent_again(http: Http, tags: str) -> None:
    revision = await http.node.put("web/prod", A="1")

    answer = await http.ask("GET", ENVIRONMENT, headers={"If-None-Match": tags.format(revision)})

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == f'"{revision}"'


async def test_a_head_has_the_headers_and_no_body(http: Http) -> None:
    revision = await http.node.put("web/prod", A="1")

    answer = await http.ask("HEAD", ENVIRONMENT)

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["ETag"] == f'"{revision}"'


# -- changing ----------------------------------------------------------------------


async def test_a_patch_is_one_commit_answered_in_the_shape_of_the_contract(http: Http) -> None:
    await http.node.put("web/prod", C="old", SECRET_D="old")

    answer = await http.ask(
        "PATCH",
        ENVIRONMENT,
        {
            "set": {"A": "1", "B": {"value": "x", "secret": True}, "SECRET_D": "as it was"},
            "unset": ["C"],
            "message": "why",
            "operation": "op-1",
        },
    )

    document = answer.document
    assert answer.status == 200
    assert set(document) == {
        "environment",
        "revision",
        "stamp",
        "token",
        "acknowledged",
        "detached",
        "precondition",
    }
    assert answer.headers["ETag"] == f'"{document["revision"]}"'
    (commit, _) = http.node.store.commits("web/prod", None, 10)
    assert (commit.message, commit.operation, commit.author) == ("why", "op-1", "admin")
    secret = {change.name: change.secret for change in commit.changes}
    assert secret == {"A": False, "B": True, "SECRET_D": True, "C": False}


async def test_a_patch_repeated_with_its_operation_is_done_once(http: Http) -> None:
    body = {"set": {"A": "1"}, "operation": "op-1"}

    first = await http.ask("PATCH", ENVIRONMENT, body)
    second = await http.ask("PATCH", ENVIRONMENT, body)

    assert first.document == second.document
    assert len(http.node.store.commits("web/prod", None, 10)) == 1


@pytest.mark.parametrize("tags", ['"{}"', '"x", "{}"', "*"])
async def test_a_patch_is_made_on_the_revision_that_if_match_names(http: Http, tags: str) -> None:
    revision = await http.node.put("web/prod", A="1")

    answer = await http.ask(
        "PATCH", ENVIRONMENT, {"set": {"A": "2"}}, headers={"If-Match": tags.format(revision)}
    )

    assert answer.status == 200


@pytest.mark.parametrize(
    "tags",
    [
        '"00000000000000000000000000000000"',
        'W/"{}"',  # comparing is strong
        '"{short}"',  # and whole
        '"00", "11"',
        '""',
    ],
)
async def test_a_patch_on_another_revision_is_stale(http: Http, tags: str) -> None:
    revision = await http.node.put("web/prod", A="1")
    header = tags.format(revision, short=revision[:12])

    answer = await http.ask("PATCH", ENVIRONMENT, {"set": {"A": "2"}}, headers={"If-Match": header})

    assert (answer.status, answer.reason) == (412, "STALE_REVISION")
    assert len(http.node.store.commits("web/prod", None, 10)) == 1


@pytest.mark.parametrize(
    "tags", ["*", '"00000000000000000000000000000000"', '"00000000000000000000000000000000", "1"']
)
async def test_if_match_never_holds_for_what_does_not_exist(http: Http, tags: str) -> None:
    answer = await http.ask("PATCH", ENVIRONMENT, {"set": {"A": "2"}}, headers={"If-Match": tags})

    assert (answer.status, answer.reason) == (412, "STALE_REVISION")
    assert http.node.store.environment_count() == 0


async def test_if_none_match_creates_only_what_is_new(http: Http) -> None:
    headers = {"If-None-Match": "*"}

    created = await http.ask("PATCH", ENVIRONMENT, {"set": {"A": "1"}}, headers=headers)
    again = await http.ask("PATCH", ENVIRONMENT, {"set": {"A": "2"}}, headers=headers)

    assert created.status == 200
    assert (again.status, again.reason) == (412, "STALE_REVISION")


async def test_what_unsets_an_absent_variable_is_not_found(http: Http) -> None:
    await http.node.put("web/prod", A="1")

    answer = await http.ask("PATCH", ENVIRONMENT, {"unset": ["B"]})

    assert (answer.status, answer.reason) == (404, "VARIABLE_NOT_FOUND")


# -- starting and stopping ---------------------------------------------------------


async def test_a_used_port_is_an_error_that_names_it_and_the_mend(node: Node) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = Address("127.0.0.1", other.getsockname()[1])
        server = HttpServer(node.api, FakeAccess(), address, [], lambda: True)

        with pytest.raises(StartupError) as caught:
            await server.start()

    assert str(address) in caught.value.message
    assert "--http" in caught.value.hint


async def test_a_name_with_two_addresses_gets_one_port_on_both(node: Node) -> None:
    server = HttpServer(node.api, FakeAccess(), Address("localhost", 0), [], lambda: True)
    port = await server.start()

    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://localhost:{port}/livez") as response,
    ):
        status = response.status

    await server.stop(0)
    assert status == 200


async def test_a_request_that_runs_ends_within_the_grace() -> None:
    store = HeldStore()
    node = Node(store=store)
    async with http_to(node) as http:
        running = asyncio.create_task(http.ask("PATCH", ENVIRONMENT, {"set": {"A": "1"}}))
        await until(lambda: store.appended == ["web/prod"])

        stop = asyncio.create_task(http.server.stop(PATIENCE_S))
        store.gate.set()
        answer = await running
        await stop

    assert answer.status == 200


async def test_a_client_that_goes_away_leaves_a_whole_commit() -> None:
    store = HeldStore()
    async with http_to(Node(store=store)) as http:
        running = asyncio.create_task(http.ask("PATCH", ENVIRONMENT, {"set": {"A": "1", "B": "2"}}))
        await until(lambda: store.appended == ["web/prod"])

        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        store.gate.set()
        await until(lambda: store.environment_count() == 1)

        (listed,) = store.environments("", "", 10)
        assert listed.variables == 2
        assert http.server.faults == 0
