"""A network of loopback with a proxy of ours in front of each node, for TCP and UDP.

Each node listens at an address of its own and is known to the others by another one, with the
same ports, where its proxy listens. A datagram tells by its source which node sent it, since
nodes send from the socket they listen at; whose a TCP connection is, the tables of the system
tell. So each direction between two nodes is a link with faults of its own, drawn from one seed.
The proxy sends a datagram on from the address that its sender is known by, so answers take the
same ways back. Clients go to the nodes' own addresses, past the proxies.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Collection, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Final, cast

from chaos.live.links import Course, Link
from chaos.live.places import Place, Weather
from chaos.live.sockets import owner_of

CHUNK_BYTES: Final = 1 << 16
CHUNKS: Final = 64
_OWN: Final = "127.77.1.{}"
_KNOWN: Final = "127.77.2.{}"


class Links:
    """The links of every ordered pair of nodes, made from one seed."""

    def __init__(self, nodes: int, seed: int) -> None:
        self._links = {
            (source, target): Link(random.Random(f"{seed} {source} {target}"))
            for source in range(nodes)
            for target in range(nodes)
            if source != target
        }

    def get(self, source: int | None, target: int) -> Link | None:
        """The link between two nodes, None for what comes from no node."""
        return None if source is None else self._links.get((source, target))

    def __getitem__(self, pair: tuple[int, int]) -> Link:
        return self._links[pair]

    def between(self, left: Collection[int]) -> Iterator[Link]:
        """The links that lead from one side to the other, both ways."""
        for (source, target), link in self._links.items():
            if (source in left) != (target in left):
                yield link

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links.values())


class ProxyNetwork:
    """The Network of proxies; a cut is between the nodes in `left` and the others."""

    kind = "proxies"

    def __init__(self, nodes: int, left: Collection[int], seed: int) -> None:
        self._left = frozenset(left)
        self.links = Links(nodes, seed)
        self.places: Sequence[Place] = [_place(number) for number in range(nodes)]
        self._streams = [_StreamProxy(self, number) for number in range(nodes)]
        self._datagrams: list[_DatagramProxy] = []
        self._sources = {
            (place.host, place.gossip_port): number for number, place in enumerate(self.places)
        }
        self._pids: dict[int, int] = {}

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for number, place in enumerate(self.places):
            await self._streams[number].start()
            _, proxy = await loop.create_datagram_endpoint(
                lambda number=number: _DatagramProxy(self, number),  # type: ignore[misc]
                local_addr=(place.advertise, place.gossip_port),
            )
            self._datagrams.append(proxy)

    async def close(self) -> None:
        for proxy in self._datagrams:
            proxy.close()
        for stream in self._streams:
            await stream.close()

    def runs(self, node: int, pid: int) -> None:
        self._pids = {old: at for old, at in self._pids.items() if at != node} | {pid: node}

    async def cut(self) -> None:
        for link in self.links.between(self._left):
            link.shut()

    async def block(self, source: int, target: int) -> None:
        self.links[source, target].shut()

    async def mend(self) -> None:
        for link in self.links:
            link.open()

    async def weather(self, weather: Weather) -> None:
        for link in self.links:
            link.weather = weather

    def reset(self) -> None:
        """End every stream between nodes, as a reset would."""
        for stream in self._streams:
            stream.reset()

    # -- for the proxies -----------------------------------------------------------------------

    def sender(self, address: tuple[str, int]) -> int | None:
        """Which node sends datagrams from here."""
        return self._sources.get(address)

    def caller(self, address: tuple[str, int]) -> int | None:
        """Which node has a TCP socket here."""
        pid = owner_of(*address, self._pids)
        return None if pid is None else self._pids[pid]

    def send(self, source: int, target: int, datagram: bytes) -> None:
        """Send on to a node what another one sent."""
        place = self.places[target]
        self._datagrams[source].send((place.host, place.gossip_port), datagram)


class _DatagramProxy(asyncio.DatagramProtocol):
    """Takes what others send to one node."""

    def __init__(self, network: ProxyNetwork, node: int) -> None:
        self._network = network
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        source = self._network.sender(addr[:2])
        link = self._network.links.get(source, self._node)
        if source is None or link is None:
            return
        delay_s = link.datagram_delay_s()
        if delay_s is not None:
            self._loop.call_later(delay_s, self._network.send, source, self._node, data)

    def error_received(self, exc: Exception) -> None:
        """A node that is down refuses what comes; its sender learns of it by silence."""

    def send(self, address: tuple[str, int], datagram: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(datagram, address)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _StreamProxy:
    """Takes the TCP connections that others make to one node."""

    def __init__(self, network: ProxyNetwork, node: int) -> None:
        self._network = network
        self._node = node
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        place = self._network.places[self._node]
        self._server = await asyncio.start_server(self._serve, place.advertise, place.grpc_port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.reset()
        if self._running:
            await asyncio.wait(self._running)

    def reset(self) -> None:
        for task in self._running:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        writers = [writer]
        try:
            caller = self._network.caller(writer.get_extra_info("peername")[:2])
            place = self._network.places[self._node]
            inner_reader, inner_writer = await asyncio.open_connection(place.host, place.grpc_port)
            writers.append(inner_writer)
            await _both(
                _carry(reader, inner_writer, self._link(caller, self._node)),
                _carry(inner_reader, writer, self._link(self._node, caller)),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._running.discard(task)
            for each in writers:
                each.transport.abort()

    def _link(self, source: int | None, target: int | None) -> Link:
        """A stream of nobody we know has a link without faults."""
        found = None if target is None else self._network.links.get(source, target)
        return found or Link(random.Random(0))


async def _both(*ways: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
    """Bring one direction of a stream over, as the link lets it; raises OSError at a break."""
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS)

    async def take_in() -> None:
        course, loop = Course(link), asyncio.get_running_loop()
        while True:
            chunk = await reader.read(CHUNK_BYTES)
            await under_way.put((course.due_s(loop.time(), len(chunk)), chunk))
            if not chunk:
                return

    async def give_out() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, chunk = await under_way.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await link.passable()
            if not chunk:
                with suppress(OSError):
                    writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()

    await _both(take_in(), give_out())


def _place(number: int) -> Place:
    own, known = _OWN.format(number + 1), _KNOWN.format(number + 1)
    taken: set[int] = set()
    grpc, gossip, http = (_free_port((own, known), taken) for _ in range(3))
    return Place(f"n{number + 1}", own, known, grpc, gossip, http)


def _free_port(hosts: Sequence[str], taken: set[int]) -> int:
    """A port that is free at all these hosts, for TCP and UDP, and not in `taken`."""
    while True:
        with socket.socket() as first:
            first.bind((hosts[0], 0))
            port = int(first.getsockname()[1])
        if port not in taken and all(_is_free(host, port) for host in hosts):
            taken.add(port)
            return port


def _is_free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as one:
            try:
                one.bind((host, port))
            except OSError:
                return False
    return True
