"""Live environments at a node that holds nothing of what is asked, and partial watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import envd
from envd.core.answers import Changed, SnapshotEnd, SnapshotItem
from envd.core.commit import Kind
from envd.core.errors import Unavailable
from envd.core.members import Member
from envd.core.partitions import ANYWHERE, PartitionTable
from envd.core.requests import Put, WatchRequest, WriteRequest
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION
from envd.node.api import EnvironmentApi
from envd.node.feeds import Feeds
from envd.node.gathering import Gathering
from envd.node.handshake import Peer
from envd.node.held import Held
from envd.node.holdings import Holdings
from envd.node.peer import PeerLink
from envd.node.routing import Routing
from envd.node.spread import SpreadWatches
from envd.node.watch_pages import WatchPages
from envd.wire._pb import environment_pb2 as pb
from tests.client.watches import HEARTBEAT, SNAPSHOT_END, Script, snapshot_of, watched
from tests.client.world import next_of, options, serving
from tests.net.world import ADMIN, Node, until

HOLDER_UID, OTHER_UID = 0x11, 0x22


class Draws:
    def token_bytes(self, size: int) -> bytes:
        return b"r" * size


class Direct:
    """The other node as a peer, without a network between."""

    def __init__(self) -> None:
        self.parts: Parts | None = None
        self.is_there = True

    def links(self) -> Iterable[tuple[Member, PeerLink]]:
        return ()

    def answering(self) -> Sequence[int]:
        return (HOLDER_UID, OTHER_UID) if self.is_there else ()

    async def ask(self, uid: int, method: str, body: bytes, timeout_s: float, /) -> bytes:
        assert self.parts is not None
        if not self.is_there:
            raise Unavailable("nobody answers", reason="PEER_GONE")
        methods = {**self.parts.held.methods(), **self.parts.pages.methods()}
        peer = Peer(OTHER_UID, 1, b"b" * 16, "", "call", 1, b"")
        async with asyncio.timeout(timeout_s):
            return await methods[method](peer, body)


@dataclass
class Parts:
    """One of the two nodes."""

    node: Node
    held: Held
    pages: WatchPages
    feeds: Feeds


def parts(uid: int, peers: Direct) -> Parts:
    node = Node(uid=uid)
    holdings = Holdings(uid)
    routing = Routing(uid, holdings, lambda: peers, Draws())
    held = Held(uid, node.store, node.coordinator, routing)
    gathering = Gathering(uid, node.coordinator, held, routing)
    pages = WatchPages(node.store, routing, held)
    feeds = Feeds(uid, node.store, held, routing, Draws())
    watches = SpreadWatches(node.hub, gathering, feeds, pages)
    node.api = EnvironmentApi(
        node.coordinator, node.hub, node.authorizer, node._status, None, gathering, watches
    )
    rows: list[tuple[int, ...]] = [(HOLDER_UID,)] * PARTITIONS
    rows[SYSTEM_PARTITION] = ()
    holdings.follow(PartitionTable({ANYWHERE: 1}, tuple(rows)))
    return Parts(node, held, pages, feeds)


@dataclass
class Pair:
    """One node that holds everything, and another one that asks it."""

    holder: Node
    other: Node
    way: Direct


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    way = Direct()
    holder, other = parts(HOLDER_UID, way), parts(OTHER_UID, way)
    way.parts = holder
    feeding = asyncio.ensure_future(other.feeds.run())
    try:
        yield Pair(holder.node, other.node, way)
    finally:
        holder.node.api.stop()
        other.node.api.stop()
        feeding.cancel()
        await asyncio.wait((feeding,))


async def test_a_live_environment_follows_what_another_node_holds() -> None:
    async with pair() as two, serving(two.other) as address:
        await two.holder.put("base", A="base", B="base")
        await two.holder.put("web/prod", A="1")
        extends = Put("extends", "base", kind=Kind.METADATA)
        await two.holder.api.write(ADMIN, WriteRequest("web/prod", (extends,)))
        async with envd.Client(options([address])) as client:
            env = await client.environment("web/prod")
            changes = env.changes()
            assert dict(env) == {"A": "1", "B": "base"}

            await two.holder.put("web/prod", A="2")
            own = await next_of(changes)
            assert env["A"] == "2"
            await two.holder.put("base", B="new")
            of_base = await next_of(changes)

            assert dict(env) == {"A": "2", "B": "new"}
            assert (own.source, of_base.source) == ("web/prod", "base")
            assert not env.stale


async def test_a_live_environment_goes_on_where_it_was_when_the_client_was_cut_off() -> None:
    async with pair() as two:
        await two.holder.put("web/prod", A="1")
        async with serving(two.other) as address:
            client = envd.Client(options([address]))
            env = await client.environment("web/prod")
            changes = env.changes()
        revision = await two.holder.put("web/prod", A="2")
        async with serving(two.other, address), client:
            change = await next_of(changes)

            assert env["A"] == "2"
            assert (change.revision, change.caught_up) == (revision, False)


async def test_the_api_tells_what_another_node_holds() -> None:
    async with pair() as two:
        await two.holder.put("web/prod", A="1")
        events = two.other.api.watch(ADMIN, WatchRequest("web", values=True))

        first = [await anext(events), await anext(events)]
        await two.holder.put("web/prod", A="2")
        change = await anext(events)
        await events.aclose()

        assert [type(event) for event in first] == [SnapshotItem, SnapshotEnd]
        assert isinstance(change, Changed)
        assert change.state is not None
        assert change.state.variables["A"].value == "2"


# -- where the node says that it does not know all ------------------------------------------


async def test_a_live_environment_is_stale_while_its_watch_is_partial() -> None:
    script = Script(())
    async with watched(script) as address, envd.Client(options([address])) as client:
        script.tell(snapshot_of(A="1"))
        script.tell(SNAPSHOT_END)
        env = await client.environment("web/prod")

        script.tell(_beat("1 of 4096 partitions are missing"))
        await until(lambda: env.stale)
        assert env["A"] == "1"
        assert env.error is not None
        assert (env.error.reason, env.error.message) == (
            "PARTIAL",
            "1 of 4096 partitions are missing",
        )
        script.tell(HEARTBEAT)
        await until(lambda: not env.stale)
        script.go_on()


async def test_what_a_partial_snapshot_does_not_have_is_not_taken_for_deleted() -> None:
    end = pb.WatchResponse(
        snapshot_end=pb.WatchResponse.SnapshotEnd(partial=True, partial_reason="n3"), token="t"
    ).SerializeToString()
    script = Script((end,), (snapshot_of(A="1"), SNAPSHOT_END))
    async with watched(script) as address, envd.Client(options([address, address])) as client:
        env = await client.environment("web/prod")

        assert env["A"] == "1"
        assert len(script.accepted) >= 2


def _beat(why: str) -> bytes:
    beat = pb.WatchResponse.Heartbeat(partial=True, partial_reason=why)
    return pb.WatchResponse(heartbeat=beat, token="t").SerializeToString()
