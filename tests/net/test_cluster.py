"""The cluster over gRPC, HTTP and the Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from envd.client.rpc import GrpcConnection
from envd.client.unix import UnixConnection
from envd.core.answers import ClusterFigures, Membership, SeedView, TopologyView
from envd.core.errors import Conflict, Denied
from envd.core.members import MemberState
from envd.core.requests import JoinRequest, LeaveRequest, RecoverRequest, RemoveRequest
from envd.net.unix import UnixServer
from envd.wire import api, api_cluster, plain
from envd.wire._pb import cluster_pb2 as pb
from envd.wire.plain import to_plain
from tests.clustering import FakeCluster, peer
from tests.net.http_world import Http
from tests.net.world import ADMIN, READER_TOKEN, TOKEN, FakeAccess, Node, Rpc, refused


@pytest.fixture
async def cluster() -> FakeCluster:
    return FakeCluster(
        links=[
            peer(9, "n3", phi=0.25, acknowledged=70, handoff=3, lag_ms=20),
            peer(8, "n2", clock_offset_ms=None, heard_ms=None, problem="refused"),
        ],
        told_seeds=[SeedView("127.0.0.1:7431", True), SeedView("h:1", False, "no answer")],
        now=ClusterFigures(4, 3, 4096, 1, 20, 300, 2, 5),
    )


@pytest.fixture
async def node(cluster: FakeCluster) -> Node:
    return Node(cluster=cluster)


async def told(node: Node) -> Membership:
    return await node.api.cluster.members(ADMIN)


async def test_grpc_tells_members_and_figures(node: Node, rpc: Rpc) -> None:
    members = await rpc.unary(
        "Members", pb.MembersRequest(), pb.MembersResponse, token=READER_TOKEN
    )
    status = await rpc.unary("Status", pb.StatusRequest(), pb.StatusResponse)

    assert api_cluster.membership_from(members) == await told(node)
    assert api.status_from(status) == await node.api.status(ADMIN)
    assert (status.members, status.under_replicated, status.detached) == (3, 1, 5)


async def test_grpc_manages_with_the_right_to_alone(
    node: Node, rpc: Rpc, cluster: FakeCluster
) -> None:
    cluster.become(8, MemberState.DOWN)
    calls = [
        ("Join", pb.JoinRequest(addresses=["h:1"])),
        ("Remove", pb.RemoveRequest(member="n2")),
        ("Leave", pb.LeaveRequest(member="n1")),
    ]

    denied = [
        await refused(rpc.unary(method, request, pb.MembersResponse, token=READER_TOKEN))
        for method, request in calls
    ]
    answers = [await rpc.unary(method, request, pb.MembersResponse) for method, request in calls]

    assert {error.code() for error in denied} == {grpc.StatusCode.PERMISSION_DENIED}
    assert cluster.asked == [("join", ("h:1",)), ("remove", 8), ("leave", None)]
    assert [len(answer.members) for answer in answers] == [3, 2, 2]


async def test_envctls_grpc_connection_speaks_it(
    node: Node, rpc: Rpc, cluster: FakeCluster
) -> None:
    connection = await asyncio.to_thread(GrpcConnection, [f"127.0.0.1:{rpc.port}"], token=TOKEN)

    assert await asyncio.to_thread(connection.members) == await told(node)
    with pytest.raises(Conflict):
        await asyncio.to_thread(connection.leave, LeaveRequest("n2"))
    await asyncio.to_thread(connection.join, JoinRequest(("h:1",)))
    left = await asyncio.to_thread(connection.leave, LeaveRequest("n1"))
    connection.close()

    assert left == await told(node)
    assert cluster.asked == [("join", ("h:1",)), ("leave", None)]


async def topology(node: Node) -> TopologyView:
    return await node.api.cluster.topology(ADMIN)


async def test_every_door_tells_who_votes_to_whoever_asks(
    node: Node, rpc: Rpc, http: Http, socket: str, cluster: FakeCluster
) -> None:
    cluster.become(8, MemberState.DOWN)
    cluster.voters[9] = "next"
    expected = await topology(node)
    message = await rpc.unary(
        "Topology", pb.TopologyRequest(), pb.TopologyResponse, token=READER_TOKEN
    )
    answer = await http.ask("GET", "/v1/topology", token=READER_TOKEN)
    reader = UnixConnection(socket, token=READER_TOKEN)
    connection = await asyncio.to_thread(
        GrpcConnection, [f"127.0.0.1:{rpc.port}"], token=READER_TOKEN
    )

    assert api_cluster.topology_from(message) == expected
    assert answer.document == to_plain(expected)
    assert await asyncio.to_thread(reader.topology) == expected
    assert await asyncio.to_thread(connection.topology) == expected
    assert (expected.epoch, expected.majority) == (7, False)
    assert [each.votes for each in expected.nodes] == ["yes", "yes", "next"]
    reader.close()
    connection.close()


async def test_every_door_recovers_with_the_right_to_alone(
    node: Node, rpc: Rpc, socket: str, cluster: FakeCluster
) -> None:
    sockets = [UnixConnection(socket, token=token) for token in (READER_TOKEN, TOKEN)]
    grpcs = [
        await asyncio.to_thread(GrpcConnection, [f"127.0.0.1:{rpc.port}"], token=token)
        for token in (READER_TOKEN, TOKEN)
    ]

    for reader, admin in (sockets, grpcs):
        cluster.epoch, cluster.voters = 7, {8: "yes", 9: "yes"}
        cluster.become(8, MemberState.DOWN)
        cluster.become(9, MemberState.DOWN)
        with pytest.raises(Denied):
            await asyncio.to_thread(reader.recover, RecoverRequest())
        tried = await asyncio.to_thread(admin.recover, RecoverRequest("n1", dry_run=True))
        recovered = await asyncio.to_thread(admin.recover, RecoverRequest("n1"))
        with pytest.raises(Conflict, match="nothing is lost"):
            await asyncio.to_thread(admin.recover, RecoverRequest())
        assert (tried.epoch, recovered.epoch) == (7, 1007)
        assert recovered == await topology(node)

    assert cluster.asked == [("recover", None)] * 2
    for one in sockets:
        one.close()
    for other in grpcs:
        other.close()


async def test_http_tells_members_and_figures(node: Node, http: Http) -> None:
    members = await http.ask("GET", "/v1/members", token=READER_TOKEN)
    status = await http.ask("GET", "/v1/status")

    assert members.document == to_plain(await told(node))
    assert members.document["members"][0].keys() >= {
        *("name", "uid", "address", "region", "zone", "role", "state", "generation"),
    }
    assert status.document.items() >= {
        ("epoch", 4),
        ("members", 3),
        ("partitions", 4096),
        ("under_replicated", 1),
        ("handoff", 20),
        ("lag_ms", 300),
        ("quarantined", 2),
        ("detached", 5),
    }


@pytest.fixture
async def socket(node: Node, tmp_path: Path) -> AsyncIterator[str]:
    server = UnixServer(node.api, FakeAccess(), tmp_path / "s")
    await server.start()
    yield str(tmp_path / "s")
    node.api.stop()
    await server.stop(0)


async def test_the_socket_tells_and_manages(node: Node, socket: str, cluster: FakeCluster) -> None:
    cluster.become(8, MemberState.DOWN)
    admin, reader = (UnixConnection(socket, token=token) for token in (TOKEN, READER_TOKEN))

    members = await asyncio.to_thread(reader.members)
    expected = await told(node)
    with pytest.raises(Denied):
        await asyncio.to_thread(reader.leave, LeaveRequest("n1"))
    await asyncio.to_thread(admin.join, JoinRequest(("h:1", "h:2")))
    await asyncio.to_thread(admin.remove, RemoveRequest("n2"))
    left = await asyncio.to_thread(admin.leave, LeaveRequest("n1"))
    status = await asyncio.to_thread(admin.status)
    admin.close()
    reader.close()

    assert members == expected
    assert left == await told(node)
    assert status.handoff == 20
    assert cluster.asked == [("join", ("h:1", "h:2")), ("remove", 8), ("leave", None)]


def test_a_node_of_before_there_were_clusters_is_one_member() -> None:
    old = pb.StatusResponse(node="n1", generation=3)
    document = to_plain(api.status_from(old))
    for name in ("epoch", "members", "partitions", "handoff"):
        del document[name]

    assert (api.status_from(old).members, api.status_from(old).partitions) == (1, 4096)
    assert plain.status(document).members == 1
