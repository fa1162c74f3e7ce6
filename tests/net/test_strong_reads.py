"""Strong reads through every way in: a majority is asked first, of every environment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

import envd
from envd.client.rpc import GrpcConnection
from envd.client.unix import UnixConnection
from envd.core.commit import Kind
from envd.core.errors import Unavailable, Unsupported
from envd.core.requests import Consistency, Put, ReadRequest, WriteRequest
from envd.net.unix import UnixServer
from envd.wire._pb import environment_pb2 as pb
from tests.net.http_world import Http
from tests.net.world import ADMIN, TOKEN, FakeAccess, Node, Rpc, refused

STRONG = ReadRequest("web/prod", consistency=Consistency.STRONG)
ELSEWHERE = "1.7.00000000000000aa.9"


@pytest.fixture
async def node() -> Node:
    """A node with a serial environment, one that extends it, and a plain one."""
    made = Node()
    made.vote()
    serial = Put("mode", "serial", kind=Kind.METADATA)
    extends = Put("extends", "web/prod", kind=Kind.METADATA)
    for name, puts in (("web/prod", (serial,)), ("web/blue", (serial, extends)), ("web/lww", ())):
        await made.api.write(ADMIN, WriteRequest(name, (Put("PORT", "1"), *puts)))
    return made


async def test_grpc_asks_a_majority_for_each(node: Node, rpc: Rpc) -> None:
    strong = pb.CONSISTENCY_STRONG
    one = pb.GetRequest(environment="web/prod", consistency=strong)
    many = pb.BatchGetRequest(
        environments=["web/prod", "web/blue", "web/lww"], consistency=strong, token=ELSEWHERE
    )

    got = await rpc.unary("Get", one, pb.GetResponse)
    asked_by_get = node.confirmed.copy()
    batch = await rpc.unary("BatchGet", many, pb.BatchGetResponse)

    assert got.level == strong
    assert asked_by_get == ["web/prod"]
    assert node.confirmed == ["web/prod", "web/prod", "web/blue", "web/lww"]
    assert [each.WhichOneof("result") for each in batch.results] == ["found", "found", "error"]
    assert batch.results[2].error.reason == "NOT_SERIAL"
    assert "session" in batch.results[2].error.hint


async def test_grpc_asks_nobody_otherwise(node: Node, rpc: Rpc) -> None:
    request = pb.GetRequest(environment="web/prod", consistency=pb.CONSISTENCY_SESSION)

    await rpc.unary("Get", request, pb.GetResponse)

    assert node.confirmed == []


async def test_http_asks_a_majority_and_tells_what_is_no_level(node: Node, http: Http) -> None:
    strong = await http.ask("GET", "/v1/environments/web/prod?consistency=strong")
    plain = await http.ask("GET", "/v1/environments/web/lww?consistency=strong")
    wrong = await http.ask("GET", "/v1/environments/web/prod?consistency=linear")
    weak = await http.ask("GET", "/v1/environments/web/prod?consistency=session")
    node.is_cut_off = True
    cut_off = await http.ask("GET", "/v1/environments/web/prod?consistency=strong")

    assert strong.document["level"] == "strong"
    assert (plain.status, plain.document["reason"]) == (501, "NOT_SERIAL")
    assert "mode=serial" in plain.document["hint"]
    assert (wrong.status, wrong.document["reason"]) == (400, "INVALID_FIELD")
    assert (weak.status, weak.document["level"]) == (200, "session")
    assert (cut_off.status, cut_off.document["reason"]) == (503, "NO_QUORUM")
    assert node.confirmed == ["web/prod", "web/lww", "web/prod"]


async def test_a_tag_is_compared_with_what_a_majority_chose(node: Node, http: Http) -> None:
    path = "/v1/environments/web/prod?consistency=strong"
    first = await http.ask("GET", path)

    again = await http.ask("GET", path, headers={"If-None-Match": first.headers["ETag"]})

    assert again.status == 304
    assert node.confirmed == ["web/prod"] * 2


@pytest.fixture
async def socket(node: Node, tmp_path: Path) -> AsyncIterator[str]:
    server = UnixServer(node.api, FakeAccess(), tmp_path / "s")
    await server.start()
    yield str(tmp_path / "s")
    node.api.stop()
    await server.stop(0)


async def test_envctls_connections_ask_and_raise_what_the_node_says(
    node: Node, rpc: Rpc, socket: str
) -> None:
    over_grpc = await asyncio.to_thread(GrpcConnection, [f"127.0.0.1:{rpc.port}"], token=TOKEN)
    over_socket = UnixConnection(socket, token=TOKEN)

    for get in (over_grpc.get, over_socket.get):
        node.is_cut_off = False
        view = await asyncio.to_thread(get, STRONG)
        with pytest.raises(Unsupported, match="plain") as plain:
            await asyncio.to_thread(get, ReadRequest("web/lww", consistency=Consistency.STRONG))
        node.is_cut_off = True
        with pytest.raises(Unavailable, match="no majority"):
            await asyncio.to_thread(get, STRONG)
        assert view.level is Consistency.STRONG
        assert plain.value.hint

    over_grpc.close()
    over_socket.close()
    assert node.confirmed == ["web/prod", "web/lww", "web/prod"] * 2


async def test_the_python_client_asks_a_majority(node: Node, rpc: Rpc) -> None:
    async with envd.connect(f"127.0.0.1:{rpc.port}", token=TOKEN) as client:
        view = await client.get("web/prod", consistency=Consistency.STRONG)

    assert view.level is Consistency.STRONG
    assert node.confirmed == ["web/prod"]


async def test_a_majority_is_asked_for_every_layer(node: Node) -> None:
    request = ReadRequest("web/blue", resolve=True, consistency=Consistency.STRONG)

    view = await node.api.get(ADMIN, request)

    assert view.bases.keys() == {"web/prod"}
    assert node.confirmed == ["web/blue", "web/prod"]


async def test_a_strong_read_of_what_extends_a_plain_environment_is_refused(node: Node) -> None:
    extends = Put("extends", "web/lww", kind=Kind.METADATA)
    await node.api.write(ADMIN, WriteRequest("web/blue", (extends,)))

    with pytest.raises(Unsupported, match="web/lww is a plain environment"):
        await node.api.get(
            ADMIN, ReadRequest("web/blue", resolve=True, consistency=Consistency.STRONG)
        )


async def test_what_is_not_there_is_not_found_once_a_majority_says_so(rpc: Rpc, node: Node) -> None:
    request = pb.GetRequest(environment="web/none", consistency=pb.CONSISTENCY_STRONG)

    error = await refused(rpc.unary("Get", request, pb.GetResponse))

    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert node.confirmed == ["web/none"]
