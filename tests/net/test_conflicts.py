"""Conflicts over gRPC, HTTP and the Unix socket: listed, masked, settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

import envd
from envd.client.rpc import GrpcConnection
from envd.client.unix import UnixConnection
from envd.core.answers import ConflictPage
from envd.core.errors import Denied, NotFound
from envd.core.requests import ConflictsRequest, ReadRequest, ResolveRequest
from envd.net.unix import UnixServer
from envd.wire import api_conflicts
from envd.wire._pb import environment_pb2 as pb
from envd.wire.plain import to_plain
from tests.conflicting import write_unseen
from tests.net.http_world import Http
from tests.net.world import ADMIN, CANARY, READER_TOKEN, TOKEN, FakeAccess, Node, Rpc, refused

NAME = "web/prod"
PATH = f"/v1/conflicts/{NAME}"


@pytest.fixture
async def contested(node: Node) -> Node:
    """PORT and KEY_SECRET were written elsewhere too."""
    await node.put(NAME, PORT="8080", KEY_SECRET=CANARY)
    await write_unseen(node.store, b"d" * 32, NAME, "PORT", "9090")
    await write_unseen(node.store, b"d" * 32, NAME, "KEY_SECRET", f"{CANARY}2", secret=True)
    return node


async def port_of(node: Node) -> str | None:
    return (await node.api.get(ADMIN, ReadRequest(NAME))).variables["PORT"].value


async def of_node(node: Node, *, reveal: bool = False) -> ConflictPage:
    return await node.api.conflicts(ADMIN, ConflictsRequest(NAME, reveal=reveal))


# -- gRPC ------------------------------------------------------------------------------


async def test_grpc_lists_and_settles(contested: Node, rpc: Rpc) -> None:
    asked = pb.ConflictsRequest(environment=NAME)
    page = await rpc.unary("Conflicts", asked, pb.ConflictsResponse)
    told = api_conflicts.conflict_page_from(page)
    port = next(each for each in told.conflicts if each.variable == "PORT")
    request = pb.ResolveRequest(environment=NAME, variable="PORT", take=port.id)

    written = await rpc.unary("Resolve", request, pb.WriteResponse)

    assert told == await of_node_before(contested, told)
    assert written.environment == NAME
    assert await port_of(contested) == "9090"
    assert CANARY not in str(page)


async def of_node_before(node: Node, told: ConflictPage) -> ConflictPage:
    """What the node still lists, with PORT, which was settled since."""
    left = (await of_node(node)).conflicts
    port = tuple(each for each in told.conflicts if each.variable == "PORT")
    return ConflictPage((*left, *port))


async def test_grpc_reveals_with_the_right_to_alone(contested: Node, rpc: Rpc) -> None:
    asked = pb.ConflictsRequest(prefix="web", reveal=True)
    resolve = pb.ResolveRequest(environment=NAME, variable="PORT", take="kept")

    page = await rpc.unary("Conflicts", asked, pb.ConflictsResponse)
    masked = pb.ConflictsRequest(prefix="web")
    await rpc.unary("Conflicts", masked, pb.ConflictsResponse, token=READER_TOKEN)
    revealed = await refused(
        rpc.unary("Conflicts", asked, pb.ConflictsResponse, token=READER_TOKEN)
    )
    written = await refused(rpc.unary("Resolve", resolve, pb.WriteResponse, token=READER_TOKEN))

    assert page.conflicts[0].lost.value == f"{CANARY}2"
    assert revealed.code() is written.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_grpc_tells_what_is_not_there(contested: Node, rpc: Rpc) -> None:
    resolve = pb.ResolveRequest(environment=NAME, variable="PORT", take="ffffffff")

    error = await refused(rpc.unary("Resolve", resolve, pb.WriteResponse))

    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_envctls_grpc_connection_lists_and_settles(contested: Node, rpc: Rpc) -> None:
    address = f"127.0.0.1:{rpc.port}"
    connection = await asyncio.to_thread(GrpcConnection, [address], token=TOKEN)

    page = await asyncio.to_thread(connection.conflicts, ConflictsRequest(NAME))
    expected = await of_node(contested)
    await asyncio.to_thread(connection.resolve, ResolveRequest(NAME, "PORT", "lost"))
    connection.close()

    assert page == expected
    assert await port_of(contested) == "9090"


async def test_the_client_library_lists_and_settles(contested: Node, rpc: Rpc) -> None:
    async with envd.connect(f"127.0.0.1:{rpc.port}", token=TOKEN, snapshot=False) as client:
        page = await client.conflicts(NAME, reveal=True)
        expected = await of_node(contested, reveal=True)
        port = next(each for each in page.conflicts if each.variable == "PORT")
        written = await client.resolve(NAME, "PORT", port.id, message="why")
        with pytest.raises(NotFound):
            await client.resolve(NAME, "owner", "kept", setting=True)

    assert page == expected
    assert written.environment == NAME
    assert await port_of(contested) == "9090"


# -- HTTP ------------------------------------------------------------------------------


async def test_http_lists_in_the_shape_of_the_contract(contested: Node, http: Http) -> None:
    answer = await http.ask("GET", PATH)
    below = await http.ask("GET", "/v1/conflicts?prefix=web&limit=1")

    assert answer.status == 200
    assert answer.document == to_plain(await of_node(contested))
    assert answer.document["conflicts"][0].keys() >= {
        *("id", "environment", "variable", "kept", "lost")
    }
    assert CANARY not in answer.body.decode()
    assert below.document["conflicts"] == answer.document["conflicts"][:1]
    assert below.document["next"]


async def test_http_settles_on_a_revision(contested: Node, http: Http) -> None:
    port = (await of_node(contested)).conflicts[1]
    body = {"variable": "PORT", "take": port.id, "message": "why"}

    stale = await http.ask("POST", PATH, body, headers={"If-Match": f'"{"0" * 32}"'})
    done = await http.ask("POST", PATH, body)
    again = await http.ask("POST", PATH, body)

    assert (stale.status, stale.reason) == (412, "STALE_REVISION")
    assert done.status == 200
    assert done.headers["ETag"] == f'"{done.document["revision"]}"'
    assert await port_of(contested) == "9090"
    assert (again.status, again.reason) == (404, "CONFLICT_NOT_FOUND")
    history = await http.ask("GET", f"/v1/history/{NAME}?limit=1")
    assert history.document["commits"][0]["resolves"] == [port.id]


async def test_http_keeps_to_rights(contested: Node, http: Http) -> None:
    body = {"variable": "PORT", "take": "kept"}

    listed = await http.ask("GET", PATH, token=READER_TOKEN)
    revealed = await http.ask("GET", f"{PATH}?reveal=true", token=READER_TOKEN)
    written = await http.ask("POST", PATH, body, token=READER_TOKEN)
    by_admin = await http.ask("GET", f"{PATH}?reveal=true")

    assert (listed.status, revealed.status, written.status) == (200, 403, 403)
    assert CANARY in by_admin.body.decode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"variable": "PORT"}, 400),
        ({"variable": "PORT", "take": 1}, 400),
        ({"variable": 1, "take": "kept"}, 400),
        ({"variable": "PORT", "take": "kept", "metadata": "yes"}, 400),
        ({"variable": "PORT", "take": "kept", "value": "x"}, 400),
        ({"variable": "PORT", "take": "other"}, 400),
        ({"variable": "NONE", "take": "kept"}, 404),
        ({"variable": "owner", "take": "kept", "metadata": True}, 404),
    ],
)
async def test_http_refuses_what_settles_nothing(
    contested: Node, http: Http, body: object, status: int
) -> None:
    answer = await http.ask("POST", PATH, body)

    assert answer.status == status
    assert answer.reason
    assert len((await of_node(contested)).conflicts) == 2


async def test_http_takes_no_precondition_that_it_does_not_heed(
    contested: Node, http: Http
) -> None:
    body = {"variable": "PORT", "take": "kept"}

    new = await http.ask("POST", PATH, body, headers={"If-None-Match": "*"})
    anything = await http.ask("POST", PATH, body, headers={"If-Match": "*"})

    assert new.reason == anything.reason == "INVALID_ETAG"


# -- the Unix socket -------------------------------------------------------------------


@pytest.fixture
async def socket(node: Node, tmp_path: Path) -> AsyncIterator[str]:
    server = UnixServer(node.api, FakeAccess(), tmp_path / "s")
    await server.start()
    yield str(tmp_path / "s")
    node.api.stop()
    await server.stop(0)


async def test_the_socket_lists_and_settles(contested: Node, socket: str) -> None:
    connection = UnixConnection(socket, token=TOKEN)

    page = await asyncio.to_thread(connection.conflicts, ConflictsRequest(NAME, reveal=True))
    expected = await of_node(contested, reveal=True)
    request = ResolveRequest(NAME, "PORT", "lost")
    written = await asyncio.to_thread(connection.resolve, request)
    with pytest.raises(NotFound):
        await asyncio.to_thread(connection.resolve, request)
    connection.close()

    assert page == expected
    assert written.environment == NAME
    assert await port_of(contested) == "9090"


async def test_the_socket_keeps_to_rights(contested: Node, socket: str) -> None:
    connection = UnixConnection(socket, token=READER_TOKEN)

    with pytest.raises(Denied):
        await asyncio.to_thread(connection.conflicts, ConflictsRequest(NAME, reveal=True))
    with pytest.raises(Denied):
        await asyncio.to_thread(connection.resolve, ResolveRequest(NAME, "PORT", "kept"))
    connection.close()
