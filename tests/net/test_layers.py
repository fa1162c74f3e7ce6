"""What an environment extends, over every way into a node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from envd.client.unix import UnixConnection
from envd.core.answers import Changed, WatchEvent
from envd.core.commit import Kind
from envd.core.requests import DeleteRequest, Put, WatchRequest, WriteRequest
from envd.net.unix import UnixServer
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_streams import event_from
from tests.net.http_world import Http, watching
from tests.net.world import ADMIN, FakeAccess, Node, Rpc


async def layered(node: Node) -> None:
    """`web/prod` extends `base`."""
    await node.put("base", A="base", B="base")
    await node.put("web/prod", B="own")
    extends = Put("extends", "base", kind=Kind.METADATA)
    await node.api.write(ADMIN, WriteRequest("web/prod", (extends,)))


async def test_server_sent_events_tell_a_change_of_a_base(http: Http) -> None:
    await layered(http.node)
    async with watching(http, "?prefix=web&resolve=true&values=true") as events:
        snapshot, _ = await events.take(2)
        await http.node.put("base", A="new")
        (change,) = await events.take(1)
        await http.node.api.delete(ADMIN, DeleteRequest("base"))
        (broken,) = await events.take(1)

    assert snapshot.data["variables"]["A"]["source"] == "base"
    assert (change.data["environment"], change.data["through"]) == ("web/prod", "base")
    assert change.data["changes"] == [{"variable": "A", "kind": "set", "metadata": False}]
    assert change.data["state"]["variables"]["A"]["value"] == "new"
    assert (broken.data["through"], broken.data["deleted"]) == ("base", False)
    assert "base" in broken.data["state"]["unresolved"]
    assert set(broken.data["state"]["variables"]) == {"B"}


async def test_a_grpc_watch_tells_a_change_of_a_base(rpc: Rpc) -> None:
    await layered(rpc.node)
    request = pb.WatchRequest(prefix="web", values=True, resolve=True)
    call = rpc.out_stream("Watch", request, pb.WatchResponse)

    async def following() -> WatchEvent:
        message = await call.read()
        assert isinstance(message, pb.WatchResponse)
        return event_from(message)

    await following()
    await following()
    await rpc.node.put("base", A="new")
    changed = await following()

    assert isinstance(changed, Changed)
    assert (changed.commit.environment, changed.through) == ("web/prod", "base")
    assert changed.state is not None
    assert changed.state.variables["A"].value == "new"
    assert list(changed.state.bases) == ["base"]


@pytest.mark.parametrize("resolve", [True, False])
async def test_many_reads_and_an_export_resolve_where_they_are_asked_to(
    rpc: Rpc, resolve: bool
) -> None:
    await layered(rpc.node)
    reads = pb.BatchGetRequest(environments=["web/prod"], resolve=resolve)
    exports = pb.ExportRequest(prefix="web", resolve=resolve)

    batch = await rpc.unary("BatchGet", reads, pb.BatchGetResponse)
    exported = await rpc.out_stream("Export", exports, pb.ExportResponse).read()

    wanted = ["A", "B"] if resolve else ["B"]
    (found,) = batch.results
    assert [one.name for one in found.found.environment.variables] == wanted
    assert isinstance(exported, pb.ExportResponse)
    assert list(exported.environments[0].variables.names) == wanted


async def test_an_export_says_which_environment_lacks_its_base(rpc: Rpc) -> None:
    await layered(rpc.node)
    await rpc.node.put("web/test", C="1")
    await rpc.node.api.delete(ADMIN, DeleteRequest("base"))

    call = rpc.out_stream("Export", pb.ExportRequest(prefix="web", resolve=True), pb.ExportResponse)
    exported = await call.read()

    assert isinstance(exported, pb.ExportResponse)
    prod, test = exported.environments
    assert "base" in prod.unresolved
    assert list(prod.variables.names) == ["B"]
    assert test.unresolved == ""


async def test_a_watch_over_the_unix_socket_tells_a_change_of_a_base(tmp_path: Path) -> None:
    node, path = Node(), tmp_path / "envd.sock"
    await layered(node)
    begun, loop = asyncio.Event(), asyncio.get_running_loop()
    server = UnixServer(node.api, FakeAccess(own_uid=path.parent.stat().st_uid), path)
    await server.start()

    def use() -> WatchEvent:
        events = UnixConnection(str(path)).watch(WatchRequest("web", values=True, resolve=True))
        next(events)
        next(events)
        loop.call_soon_threadsafe(begun.set)
        changed = next(events)
        events.close()  # type: ignore[attr-defined]
        return changed

    using = asyncio.create_task(asyncio.to_thread(use))
    await begun.wait()
    await node.put("base", A="new")
    changed = await using
    await server.stop(0)

    assert isinstance(changed, Changed)
    assert (changed.commit.environment, changed.through) == ("web/prod", "base")
    assert changed.state is not None
    assert changed.state.variables["A"].value == "new"
