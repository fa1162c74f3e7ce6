"""The proxies between nodes of live chaos, with sockets of the test in the place of nodes."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from chaos.live.links import Course, Link
from chaos.live.places import Weather
from chaos.live.proxies import Links, ProxyNetwork
from chaos.live.sockets import owner_of

PATIENCE_S = 20.0


class Node:
    """Two sockets at a place: datagrams are kept, streams are answered in capitals."""

    def __init__(self, network: ProxyNetwork, number: int) -> None:
        self.place = network.places[number]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setblocking(False)
        self.udp.bind((self.place.host, self.place.gossip_port))
        self.server: asyncio.Server | None = None
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self) -> None:
        self.server = await asyncio.start_server(
            self._answer, self.place.host, self.place.grpc_port
        )

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1000):
            self.heard.put_nowait(chunk)
            writer.write(chunk.upper())
        writer.close()

    def send(self, to: Node, datagram: bytes) -> None:
        self.udp.sendto(datagram, (to.place.advertise, to.place.gossip_port))

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            return await loop.sock_recvfrom(self.udp, 1000)

    async def dial(self, to: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(to.place.advertise, to.place.grpc_port)

    def close(self) -> None:
        self.udp.close()
        if self.server is not None:
            self.server.close()


class World:
    """Three nodes; this process dials as the first of them."""

    def __init__(self) -> None:
        self.network = ProxyNetwork(3, {0}, seed=7)
        self.nodes = [Node(self.network, number) for number in range(3)]
        self.network.runs(0, os.getpid())


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until this holds; a test that waits in vain fails."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.network.open()
    for node in made.nodes:
        await node.serve()
    yield made
    for node in made.nodes:
        node.close()
    await made.network.close()


async def test_a_datagram_comes_from_the_address_that_its_sender_is_known_by(world: World) -> None:
    first, second, _ = world.nodes

    first.send(second, b"hello")
    datagram, sender = await second.receive()

    assert datagram == b"hello"
    assert sender == (first.place.advertise, first.place.gossip_port)


async def test_a_block_holds_back_one_way_only(world: World) -> None:
    first, second, third = world.nodes
    await world.network.block(0, 1)

    first.send(second, b"lost")
    second.send(first, b"back")
    third.send(second, b"aside")

    assert (await first.receive())[0] == b"back"
    assert (await second.receive())[0] == b"aside"
    traffic = world.network.links[0, 1].traffic
    await until(lambda: traffic.shut_out == 1)
    assert traffic.datagrams == 1


async def test_a_stream_stands_still_while_its_link_is_shut_and_goes_on_after(
    world: World,
) -> None:
    first, second, _ = world.nodes
    reader, writer = await first.dial(second)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"ONE"

    await world.network.block(0, 1)
    writer.write(b"two")
    await until(lambda: world.network.links[0, 1].traffic.stream_bytes == 6)
    held_back = second.heard.qsize() == 1
    await world.network.mend()

    assert held_back
    assert await reader.readexactly(3) == b"TWO"
    writer.close()


async def test_a_cut_is_between_the_sides_alone(world: World) -> None:
    await world.network.cut()

    links = world.network.links
    assert [links[pair].is_open for pair in ((0, 1), (1, 0), (0, 2), (2, 0))] == [False] * 4
    assert [links[pair].is_open for pair in ((1, 2), (2, 1))] == [True] * 2

    await world.network.mend()
    assert all(link.is_open for link in links)


async def test_a_reset_ends_the_streams(world: World) -> None:
    first, second, _ = world.nodes
    reader, writer = await first.dial(second)
    writer.write(b"one")
    await reader.readexactly(3)

    world.network.reset()

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
    writer.close()


async def test_the_end_of_a_stream_is_told_to_the_other_side(world: World) -> None:
    first, second, _ = world.nodes
    reader, writer = await first.dial(second)

    writer.write(b"one")
    writer.write_eof()

    assert await reader.read() == b"ONE"
    writer.close()


async def test_a_stranger_has_a_link_without_faults(world: World) -> None:
    first, second, _ = world.nodes
    world.network.runs(0, 1)  # This process is no node any more.
    await world.network.cut()

    reader, writer = await first.dial(second)
    writer.write(b"one")

    assert await reader.readexactly(3) == b"ONE"
    writer.close()


def test_the_owner_of_a_socket_is_found_by_its_process() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as one,
    ):
        host, port = one.getsockname()

        assert owner_of(host, port, [1, os.getpid()]) == os.getpid()
        assert owner_of(host, port, []) is None
        assert owner_of("127.99.99.99", port, [os.getpid()]) is None


def test_the_owner_of_a_socket_for_both_families_is_found_too() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as one,
    ):
        host, port = listening.getsockname()
        one.connect((f"::ffff:{host}", port))

        assert owner_of(host, one.getsockname()[1], [os.getpid()]) == os.getpid()


def test_the_same_seed_loses_the_same_datagrams() -> None:
    def fates(seed: int) -> list[float | None]:
        link = Links(2, seed)[0, 1]
        link.weather = Weather(latency_s=0.1, jitter_s=0.1, loss=0.5)
        return [link.datagram_delay_s() for _ in range(50)]

    assert fates(1) == fates(1)
    assert fates(1) != fates(2)
    assert None in fates(1)


def test_a_thin_link_lets_chunks_through_in_order_and_no_faster_than_it_is() -> None:
    link = Link(random.Random(1))
    link.weather = Weather(latency_s=0.1, bytes_per_s=1000)
    course = Course(link)

    assert course.due_s(0.0, 500) == pytest.approx(0.6)
    assert course.due_s(0.0, 500) == pytest.approx(1.1)
    assert course.due_s(5.0, 500) == pytest.approx(5.6)


def test_jitter_never_turns_the_order_of_a_stream() -> None:
    link = Link(random.Random(1))
    link.weather = Weather(jitter_s=1.0)
    course = Course(link)

    dues = [course.due_s(at / 100, 10) for at in range(100)]

    assert dues == sorted(dues)
