"""A client uses the members that servers tell of, beside the servers that it was given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import envd
from envd.client import members as module
from envd.client.client import Options
from envd.client.discovery import usable_members
from envd.client.members import Members
from envd.client.picking import Server
from envd.client.servers import Servers, World
from envd.core.answers import MemberView
from envd.core.members import MemberState
from envd.node.cluster_view import Cluster
from tests.client.world import options, scripted, serving, unused_port
from tests.clustering import FakeCluster, member
from tests.net.world import Node, until


@dataclass
class Clock:
    """A steady clock that is moved by hand."""

    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class World3:
    """Three nodes that are served, and a cluster that tells of them."""

    clock: Clock
    addresses: list[str]
    cluster: FakeCluster
    nodes: list[Node] = field(default_factory=list)

    def options(self, *given: str, learn: bool = True) -> Options:
        made = options(given)
        world = World(self.clock, made.world.wall_ms, made.world.sleep)
        return replace(made, world=world, learn=learn)

    def becomes(self, at: int, **more: object) -> None:
        self.cluster.known[at] = replace(self.cluster.known[at], **more)  # type: ignore[arg-type]


@asynccontextmanager
async def three() -> AsyncIterator[World3]:
    async with AsyncExitStack() as stack:
        cluster = FakeCluster()
        nodes = [Node(cluster=as_port(cluster)) for _ in range(3)]
        addresses = [await stack.enter_async_context(serving(node)) for node in nodes]
        cluster.known = [
            replace(member(uid, f"n{uid}"), peer=address)
            for uid, address in zip((7, 8, 9), addresses, strict=True)
        ]
        for node in nodes:
            await node.put("web", A="1")
        yield World3(Clock(), addresses, cluster, nodes)


def as_port(cluster: FakeCluster) -> Cluster:
    return cluster


def known(client: envd.Client) -> set[str]:
    return set(client._servers.addresses)


async def test_the_members_are_learnt_beside_the_first_call() -> None:
    async with three() as world, envd.Client(world.options(world.addresses[0])) as client:
        before = known(client)
        await client.get("web")
        await until(lambda: len(known(client)) == 3)

        assert before == {world.addresses[0]}
        assert known(client) == set(world.addresses)


async def test_calls_go_to_members_once_the_given_server_is_gone() -> None:
    async with three() as world:
        node = Node(cluster=world.cluster)
        await node.put("web", A="1")
        async with AsyncExitStack() as serving_it:
            given = await serving_it.enter_async_context(serving(node))
            world.becomes(0, peer=given)
            client = envd.Client(world.options(given))
            await client.get("web")
            await until(lambda: len(known(client)) == 3)
        answers = [await client.get("web", "A") for _ in range(8)]
        written = await client.set("web", {"A": "2"})
        await client.close()

    assert {answer.variables["A"].value for answer in answers} == {"1"}
    assert written.environment == "web"


async def test_what_was_given_stays_whatever_is_told() -> None:
    async with three() as world:
        world.cluster.known = [each for each in world.cluster.known if each.uid != 8]
        absent = f"127.0.0.1:{unused_port()}"
        async with envd.Client(world.options(*world.addresses[:2], absent)) as client:
            await client.get("web")
            await until(lambda: len(known(client)) == 4)

            assert known(client) == {absent, *world.addresses}


@pytest.mark.parametrize(
    ("told", "given", "used"),
    [
        ("127.0.0.1:7420", "127.0.0.1:17420", ["10.0.0.2:7420"]),
        ("0.0.0.0:7420", "127.0.0.1:17420", ["10.0.0.2:7420"]),
        ("[::1]:7420", "10.0.0.1:7420", ["10.0.0.2:7420"]),
        ("127.0.0.1:7420", "127.0.0.1:7420", ["127.0.0.1:7420", "10.0.0.2:7420"]),
        ("10.0.0.1:7420", "lb.example:7420", ["10.0.0.1:7420", "10.0.0.2:7420"]),
    ],
)
def test_a_local_address_that_is_told_through_a_tunnel_is_not_taken_for_this_machines(
    told: str, given: str, used: list[str]
) -> None:
    answering = MemberView("n1", "1", told, "r", "z", "storage", "alive", 1, answering=True)
    other = MemberView("n2", "2", "10.0.0.2:7420", "r", "z", "storage", "alive", 1)

    usable = usable_members([answering, other], {given})

    assert [each.address for each in usable] == used


async def test_a_member_that_this_machine_does_not_reach_is_not_used() -> None:
    async with three() as world:
        world.becomes(1, peer=f"127.0.0.1:{unused_port()}")
        async with envd.Client(world.options(world.addresses[0])) as client:
            await client.get("web")
            await until(lambda: len(known(client)) == 2)

            assert known(client) == {world.addresses[0], world.addresses[2]}


async def test_members_come_and_go_as_they_are_told_of_later() -> None:
    async with three() as world:
        world.becomes(2, state=MemberState.DOWN)
        async with envd.Client(world.options(world.addresses[0])) as client:
            await client.get("web")
            await until(lambda: len(known(client)) == 2)
            world.becomes(2, state=MemberState.ALIVE)
            world.becomes(1, state=MemberState.DOWN)
            await client.get("web")
            unchanged = known(client)
            world.clock.now_s += module.REFRESH_S
            await client.get("web")
            await until(lambda: len(known(client)) == 3)
            world.becomes(1, state=MemberState.LEFT)
            world.clock.now_s += module.REFRESH_S
            await client.get("web")
            await until(lambda: len(known(client)) == 2)

            assert unchanged == set(world.addresses[:2])
            assert known(client) == {world.addresses[0], world.addresses[2]}


async def test_a_failure_has_them_asked_for_sooner() -> None:
    async with three() as world:
        world.becomes(1, state=MemberState.DOWN)
        world.becomes(2, state=MemberState.DOWN)
        async with envd.Client(world.options(world.addresses[0])) as client:
            await client.get("web")
            await until(lambda: client._members is not None and client._members._due_s > 0)
            world.becomes(1, state=MemberState.ALIVE)
            client._servers.failed(world.addresses[0])
            world.clock.now_s += module.SOON_S
            await client.get("web")
            await until(lambda: len(known(client)) == 2)


async def test_a_zone_is_learnt_with_its_member() -> None:
    async with three() as world, envd.Client(world.options(world.addresses[0])) as client:
        await client.get("web")
        await until(lambda: len(known(client)) == 3)

        zones = [link.server.zone for link in client._servers._links.values()]
        assert sorted(zones) == ["", "a", "a"]


async def test_servers_that_can_not_tell_are_left_in_peace() -> None:
    async with scripted() as old:
        clock = Clock()
        made = options([old.address])
        world = World(clock, made.world.wall_ms, made.world.sleep)
        async with envd.Client(replace(made, world=world, learn=True)) as client:
            await client.set("web", {"A": "1"})
            await until(lambda: client._members is not None and not client._members._looking)
            assert client._members is not None

            assert known(client) == {old.address}
            assert client._members._due_s == clock.now_s + module.UNTOLD_S


async def test_without_learning_nothing_is_asked() -> None:
    async with three() as world:
        only = world.options(world.addresses[0], learn=False)
        async with envd.Client(only) as client:
            await client.get("web")

            assert client._members is None
            assert known(client) == {world.addresses[0]}


async def test_the_offline_snapshot_is_named_by_what_was_given(tmp_path: Path) -> None:
    async with three() as world:
        kept = replace(world.options(world.addresses[0]), snapshots=tmp_path)
        async with envd.Client(kept) as client:
            await client.get("web")
            await until(lambda: len(known(client)) == 3)
            await client.environment("web")
    async with envd.Client(kept) as again:
        live = await again.environment("web")

        assert live["A"] == "1"
        assert live.stale


async def test_there_is_a_bound_on_what_is_learnt() -> None:
    async def always(_: str) -> bool:
        return True

    told = [replace(member(uid, f"n{uid}"), peer=f"h{uid}:1") for uid in range(100)]
    async with three() as world:
        world.cluster.known = told
        made = world.options(world.addresses[0])
        servers = Servers(made.servers, made.picker, made.backoff, made.world, token=made.token)
        Members(servers, [Server(world.addresses[0])], always)
        await servers.call("/envd.v1.ClusterService/Status", b"", timeout_s=30)
        await until(lambda: len(servers.addresses) > 1)

        assert len(servers.addresses) == 1 + module.MAX_LEARNT
        await servers.close()


@pytest.mark.parametrize("address", ["", "nowhere", "h:x", "127.0.0.1:99999", "\0:1"])
async def test_what_is_no_address_is_not_reached(address: str) -> None:
    assert not await module.reachable(address)


async def test_members_can_be_asked_for() -> None:
    async with three() as world:
        async with envd.Client(world.options(world.addresses[0], learn=False)) as client:
            found = await client.members()
        twin = await asyncio.to_thread(ask_in_sync, world)

    assert [each.address for each in found.members] == world.addresses
    assert twin == found


def ask_in_sync(world: World3) -> object:
    with envd.SyncClient(world.options(world.addresses[0], learn=False)) as client:
        return client.members()


def test_connect_learns_unless_it_is_told_not_to() -> None:
    assert envd.connect("a:1", environ={})._members is not None
    assert envd.connect("a:1", environ={}, members=False)._members is None
