"""A node that reaches none of those that hold some of what is asked for, over gRPC and HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

import envd
from envd.core.errors import Unavailable
from envd.core.requests import Put, WriteRequest
from envd.wire._pb import environment_pb2 as pb
from tests.client.world import client_of
from tests.net.http_world import http_to
from tests.net.world import ADMIN, Node, grpc_to

LOST = "web/lost"


@pytest.fixture
async def node() -> Node:
    node = Node()
    for name in (LOST, "web/a", "web/z"):
        await node.put(name, A="1")
    node.cut_off.lose([LOST])
    return node


async def test_lists_and_exports_over_grpc_say_that_they_are_not_whole(node: Node) -> None:
    async with grpc_to(node) as rpc:
        listed = await rpc.unary("List", pb.ListRequest(prefix="web"), pb.ListResponse)
        call = rpc.out_stream("Export", pb.ExportRequest(prefix="web"), pb.ExportResponse)
        (exported,) = [message async for message in call]
        conflicts = await rpc.unary("Conflicts", pb.ConflictsRequest(), pb.ConflictsResponse)

    assert [item.environment for item in listed.environments] == ["web/a", "web/z"]
    assert [item.environment for item in exported.environments] == ["web/a", "web/z"]
    for answer in (listed, exported, conflicts):
        assert answer.partial
        assert answer.partial_reason.startswith("1 of 4096 partitions are missing")


async def test_an_export_with_nothing_in_it_says_that_it_is_not_whole(node: Node) -> None:
    node.cut_off.lose(everything=True)

    async with grpc_to(node) as rpc:
        call = rpc.out_stream("Export", pb.ExportRequest(), pb.ExportResponse)
        (exported,) = [message async for message in call]

    assert exported.partial
    assert not exported.environments


async def test_a_client_that_exports_what_is_not_whole_gets_an_error_at_the_end(
    node: Node, tmp_path: Path
) -> None:
    found: list[str] = []

    async def everything(client: envd.Client) -> None:
        async for exported in client.export("web"):
            found.append(exported.environment)  # noqa: PERF401 - what came before the error

    async with grpc_to(node) as rpc, client_of(rpc, tmp_path / "snapshots") as client:
        with pytest.raises(Unavailable) as error:
            await everything(client)
        page = await client.list("web")

    assert found == ["web/a", "web/z"]
    assert error.value.reason == "PARTIAL"
    assert page.partial


async def test_many_reads_are_answered_one_by_one(node: Node) -> None:
    request = pb.BatchGetRequest(environments=["web/a", LOST, "web/z"])
    token = (await node.api.write(ADMIN, WriteRequest("web/a", (Put("A", "2"),)))).token

    async with grpc_to(node) as rpc:
        for given in ("", token):
            request.token = given
            answer = await rpc.unary("BatchGet", request, pb.BatchGetResponse)
            kinds = [result.WhichOneof("result") for result in answer.results]
            assert kinds == ["found", "error", "found"]
            assert answer.results[1].error.reason == "NO_HOLDER"


async def test_http_tells_of_what_is_missing_and_gives_a_blind_write_no_tag(node: Node) -> None:
    async with http_to(node) as http:
        listed = await http.ask("GET", "/v1/environments?prefix=web")
        conflicts = await http.ask("GET", "/v1/conflicts")
        lost = await http.ask("GET", f"/v1/environments/{LOST}")
        written = await http.ask("PATCH", f"/v1/environments/{LOST}", {"set": {"A": "2"}})
        replaced = await http.ask("PUT", f"/v1/environments/{LOST}", {"variables": {"A": "2"}})

    assert listed.document["partial"] is True
    assert conflicts.document["partial"] is True
    assert (lost.status, lost.document["reason"]) == (503, "NO_HOLDER")
    assert written.status == 200
    assert written.document["revision"] == ""
    assert "ETag" not in written.headers
    assert (replaced.status, replaced.document["reason"]) == (503, "NO_HOLDER")
