"""The driver of membership over ports in memory, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from envd.core.errors import (
    Corrupt,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from envd.core.members import Member, MemberState
from envd.core.swim.messages import Exchange, Row
from envd.node.membership import EXCHANGE_S, MAX_TASKS, Membership
from envd.ports import Opened
from envd.wire import gossip
from tests.node.virtual_loop import run_virtually

WAY_S = 0.002
ALIVE, SUSPECT, DOWN, LEFT, GONE = MemberState


class SeededRng:
    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def token_bytes(self, size: int) -> bytes:
        return self._random.randbytes(size)


class PlainSealer:
    """Seals by writing down who seals; a datagram that begins with "?" is nobody's."""

    def __init__(self, member: Member) -> None:
        self.start = (member.uid, member.generation, member.boot_id)

    def seal(self, payload: bytes) -> bytes:
        uid, generation, boot_id = self.start
        return b"!" + uid.to_bytes(8) + generation.to_bytes(4) + boot_id + payload

    def open(self, datagram: bytes) -> Opened:
        if datagram[:1] != b"!":
            raise Unauthenticated("not sealed by a member")
        uid, generation = int.from_bytes(datagram[1:9]), int.from_bytes(datagram[9:13])
        return Opened(uid, generation, datagram[13:29], datagram[29:])


class Port:
    """The Datagrams of one node."""

    def __init__(self, network: Network, address: str) -> None:
        self._network = network
        self._address = address
        self.receive: Callable[[str, bytes], None] = lambda _address, _datagram: None
        self.sent = 0

    def send(self, address: str, datagram: bytes) -> None:
        self.sent += 1
        self._network.carry(self._address, address, datagram)

    def on_datagram(self, receive: Callable[[str, bytes], None]) -> None:
        self.receive = receive


class Peer:
    """One node: its membership, and what it was told."""

    def __init__(self, network: Network, name: str, uid: int, generation: int = 1) -> None:
        self.network = network
        self.name = name
        self.boots = 0
        me = Member(
            uid, generation, 0, ALIVE, name, name, name, boot_id=self.new_boot_id(uid, generation)
        )
        self.sealer = PlainSealer(me)
        self.port = Port(network, name)
        self.changes: list[tuple[str, MemberState, MemberState | None]] = []
        self.lost: list[str] = []
        self.renewals: list[int] = []
        self.renewal_fails = 0
        self.membership = Membership(
            me,
            network.cluster,
            datagrams=self.port,
            sealer=self.sealer,
            rng=SeededRng(uid),
            push_pull=self.push_pull,
            stream_ping=self.stream_ping,
            renew=self.renew,
            on_duplicate=self.lost.append,
        )
        self.membership.subscribe(self.changed)

    def new_boot_id(self, uid: int, generation: int) -> bytes:
        return uid.to_bytes(8) + generation.to_bytes(8)

    def changed(self, member: Member, previous: Member | None) -> None:
        self.changes.append((member.name, member.state, previous.state if previous else None))

    async def push_pull(self, address: str, payload: bytes) -> bytes:
        return await self.network.exchange(self.name, address, payload)

    async def stream_ping(self, address: str, uid: int) -> bool:
        other = await self.network.reach(self.name, address)
        return other.membership.me.uid == uid

    async def renew(self, generation: int) -> tuple[int, bytes]:
        await asyncio.sleep(0.01)
        if self.renewal_fails:
            self.renewal_fails -= 1
            raise Unavailable("the disk is full")
        self.renewals.append(generation)
        uid = self.membership.me.uid
        boot_id = self.new_boot_id(uid, generation + 1)
        self.sealer.start = (uid, generation + 1, boot_id)
        return generation + 1, boot_id

    def sees(self) -> dict[str, MemberState]:
        return {member.name: member.state for member in self.membership.members()}


class Network:
    """Who reaches whom: all, but those that are `gone` and ways in `cut`."""

    def __init__(self, cluster: str = "home") -> None:
        self.cluster = cluster
        self.peers: dict[str, Peer] = {}
        self.gone: set[str] = set()
        self.cut: set[tuple[str, str]] = set()
        self.silent = False
        self.sent = 0
        self.exchanges: list[tuple[str, str]] = []

    def add(self, name: str, generation: int = 1) -> Peer:
        peer = Peer(self, name, ord(name), generation)
        self.peers[name] = peer
        self.gone.discard(name)
        return peer

    def passes(self, source: str, target: str) -> bool:
        return not {source, target} & self.gone and (source, target) not in self.cut

    def split(self, one: str, other: str) -> None:
        self.cut |= {(a, b) for a in one for b in other} | {(b, a) for a in one for b in other}

    def carry(self, source: str, target: str, datagram: bytes) -> None:
        self.sent += 1
        if target in self.peers and self.passes(source, target):
            port = self.peers[target].port
            asyncio.get_running_loop().call_later(WAY_S, lambda: port.receive(source, datagram))

    async def reach(self, source: str, target: str) -> Peer:
        if self.silent:
            await asyncio.Event().wait()
        await asyncio.sleep(2 * WAY_S)
        if target not in self.peers or not self.passes(source, target):
            raise Unavailable("no answer")
        return self.peers[target]

    async def exchange(self, source: str, target: str, payload: bytes) -> bytes:
        self.exchanges.append((source, target))
        return (await self.reach(source, target)).membership.receive_push_pull(payload)


@asynccontextmanager
async def running(*peers: Peer) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(peer.membership.run()) for peer in peers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results


@asynccontextmanager
async def cluster(network: Network, names: str) -> AsyncIterator[list[Peer]]:
    """Nodes that found each other by the first one as their seed."""
    peers = [network.add(name) for name in names]
    async with running(*peers):
        for peer in peers[1:]:
            await peer.membership.join([names[0]])
        await asyncio.sleep(3)
        assert all(set(peer.sees().values()) == {ALIVE} for peer in peers)
        assert all(len(peer.sees()) == len(names) for peer in peers)
        yield peers


Scene = Callable[[Network], Awaitable[None]]


def virtually(scene: Scene) -> Callable[[], None]:
    def test() -> None:
        async def play() -> None:
            await scene(Network())

        run_virtually(play())

    test.__name__ = scene.__name__
    return test


@virtually
async def test_nodes_find_each_other_by_a_seed(network: Network) -> None:
    async with cluster(network, "abc") as (a, b, c):
        assert ("b", ALIVE, None) in a.changes
        assert ("c", ALIVE, None) in b.changes
        assert [member.name for member in c.membership.alive_storage()] == ["a", "b", "c"]


@virtually
async def test_a_seed_that_comes_late_is_found(network: Network) -> None:
    b = network.add("b")
    async with running(b):
        await b.membership.join(["a"])
        await asyncio.sleep(3600)
        a = network.add("a")
        async with running(a):
            await asyncio.sleep(30)
            assert b.sees() == {"a": ALIVE, "b": ALIVE}


@virtually
async def test_a_killed_node_is_declared_down_and_its_restart_is_seen(network: Network) -> None:
    async with cluster(network, "abc") as (a, b, _):
        network.gone.add("c")
        await asyncio.sleep(15)
        assert a.sees()["c"] is DOWN
        assert b.changes[-2:] == [("c", SUSPECT, ALIVE), ("c", DOWN, SUSPECT)]
        assert [member.name for member in a.membership.alive_storage()] == ["a", "b"]

        again = network.add("c", generation=2)
        async with running(again):
            await again.membership.join(["a"])
            await asyncio.sleep(2)
            assert a.membership.member(ord("c")) == again.membership.me
            assert b.sees()["c"] is ALIVE


@virtually
async def test_healed_sides_find_each_other_and_renew_their_generations(network: Network) -> None:
    async with cluster(network, "abcde") as peers:
        network.split("ab", "cde")
        await asyncio.sleep(60)
        assert [peer.sees()["a"] for peer in peers] == [ALIVE, ALIVE, DOWN, DOWN, DOWN]

        network.cut.clear()
        await asyncio.sleep(5)

        assert all(set(peer.sees().values()) == {ALIVE} for peer in peers)
        renewed = [peer for peer in peers if peer.renewals]
        assert renewed
        for peer in renewed:
            mine = peer.membership.me
            assert mine.generation == 2
            assert all(one.membership.member(mine.uid) == mine for one in peers)


@virtually
async def test_a_renewal_that_fails_is_tried_until_it_is_durable(network: Network) -> None:
    async with cluster(network, "ab") as (a, b):
        b.renewal_fails = 3
        a.membership.remove(b.membership.me.uid)
        await asyncio.sleep(2)
        assert a.sees()["b"] is GONE

        await asyncio.sleep(5)

        assert b.membership.me.generation == 2
        assert a.sees()["b"] is ALIVE


@virtually
async def test_who_leaves_is_gone_at_once_and_stays_so(network: Network) -> None:
    async with cluster(network, "abc") as (a, b, c):
        before = asyncio.get_running_loop().time()
        await c.membership.leave()
        took_s = asyncio.get_running_loop().time() - before
        await asyncio.sleep(0.01)
        assert took_s < 1.5
        assert (a.sees()["c"], b.sees()["c"]) == (LEFT, LEFT)

        await asyncio.sleep(120)

        assert (a.sees()["c"], b.sees()["c"]) == (LEFT, LEFT)
        assert ("c", SUSPECT, ALIVE) not in a.changes


@virtually
async def test_leaving_alone_takes_no_time_to_speak_of(network: Network) -> None:
    a = network.add("a")
    async with running(a):
        await asyncio.sleep(1)
        await asyncio.wait_for(a.membership.leave(), 0.5)


@virtually
async def test_leaving_before_running_returns(network: Network) -> None:
    await network.add("a").membership.leave()


@virtually
async def test_a_node_whose_datagrams_are_lost_lives_by_its_channel(network: Network) -> None:
    async with cluster(network, "ab") as (a, b):
        a.port.receive = b.port.receive = lambda _address, _datagram: None
        await asyncio.sleep(60)

        assert a.sees() == b.sees() == {"a": ALIVE, "b": ALIVE}


@virtually
async def test_a_channel_that_works_brings_back_who_is_down_at_once(network: Network) -> None:
    async with cluster(network, "ab") as (a, b):
        network.gone.add("b")
        await asyncio.sleep(20)
        network.gone.clear()
        a.port.receive = b.port.receive = lambda _address, _datagram: None

        a.membership.heard_from(b.membership.me.uid)
        await asyncio.sleep(0.1)

        assert a.sees()["b"] is ALIVE or b.membership.me.generation == 2
        a.membership.heard_from(12345)


@virtually
async def test_rubbish_and_strangers_are_counted_and_change_nothing(network: Network) -> None:
    async with cluster(network, "ab") as (a, _):
        a.port.receive("x", b"?rubbish")
        a.port.receive("x", b"!" + bytes(28) + b"\x01\xc1")
        a.port.receive("x", b"!" + bytes(28) + b"\x02")
        a.port.receive("x", b"")

        assert dict(a.membership.refused) == {
            "unauthenticated": 2,
            "corrupt": 1,
            "version_skew": 1,
        }
        assert a.sees() == {"a": ALIVE, "b": ALIVE}


@virtually
async def test_another_cluster_is_refused(network: Network) -> None:
    other = Network("other")
    z = other.add("z")
    theirs = gossip.encode_exchange(Exchange("other", 1, (Row(z.membership.me),)))
    async with cluster(network, "ab") as (a, _):
        with pytest.raises(InvalidRequest) as caught:
            a.membership.receive_push_pull(theirs)
        with pytest.raises(Corrupt):
            a.membership.receive_push_pull(b"\x01rubbish")

        assert caught.value.reason == "OTHER_CLUSTER"
        assert set(a.sees()) == {"a", "b"}


@virtually
async def test_a_clone_with_a_higher_boot_id_makes_this_node_yield(network: Network) -> None:
    async with cluster(network, "abc") as (a, b, _):
        me = a.membership.me
        twin = replace(me, boot_id=b"\xff" * 16, gossip="x", peer="x")
        rows = (Row(twin), Row(b.membership.me))

        a.membership.receive_push_pull(gossip.encode_exchange(Exchange("home", ord("b"), rows)))
        sent = a.port.sent
        await asyncio.sleep(60)

        assert len(a.lost) == 1
        assert "in use elsewhere" in a.lost[0]
        assert a.port.sent == sent


@virtually
async def test_a_clone_with_a_lower_boot_id_changes_nothing(network: Network) -> None:
    async with cluster(network, "ab") as (a, b):
        me = a.membership.me
        twin = replace(me, boot_id=bytes(16), gossip="x", peer="x")

        b.membership.receive_push_pull(
            gossip.encode_exchange(Exchange("home", me.uid, (Row(twin),)))
        )
        await asyncio.sleep(5)

        assert b.membership.member(me.uid) == me
        assert a.lost == []


@virtually
async def test_a_removed_member_must_be_a_known_other_one(network: Network) -> None:
    async with cluster(network, "ab") as (a, _):
        with pytest.raises(NotFound):
            a.membership.remove(1)
        with pytest.raises(InvalidRequest):
            a.membership.remove(a.membership.me.uid)


@virtually
async def test_a_peer_that_never_answers_holds_up_nobody(network: Network) -> None:
    async with cluster(network, "abc") as (a, _, _c):
        network.silent = True
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable):
            await a.membership.exchange("b")
        assert asyncio.get_running_loop().time() - began == pytest.approx(EXCHANGE_S)

        network.gone.add("c")
        await asyncio.sleep(600)

        assert a.sees() == {"a": ALIVE, "b": ALIVE, "c": DOWN}
        assert len(asyncio.all_tasks()) <= 3 * (MAX_TASKS + 1) + 1


@virtually
async def test_listeners_hear_of_this_node_too(network: Network) -> None:
    async with cluster(network, "ab") as (_, b):
        await b.membership.leave()

        assert ("b", LEFT, ALIVE) in b.changes


def test_the_same_chance_gives_the_same_run() -> None:
    async def play() -> tuple[object, ...]:
        network = Network()
        async with cluster(network, "abcde") as peers:
            network.gone.add("e")
            await asyncio.sleep(30)
            return network.sent, network.exchanges, [peer.changes for peer in peers]

    assert run_virtually(play()) == run_virtually(play())


async def test_a_member_whose_addresses_do_not_fit_a_datagram_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="don't fit"):
        Peer(Network(), "n" * 600, 5)
