"""Datagrams over real UDP sockets of the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from envd.core.errors import StartupError
from envd.net.gossip_socket import MAX_WAITING, GossipSocket
from envd.net.seeds import LookUp, look_up
from envd.settings.units import Address
from tests.net.world import PATIENCE_S, until


@dataclass
class End:
    """A socket and what came to it."""

    socket: GossipSocket
    port: int
    came: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def listening(host: str = "127.0.0.1", *, names: LookUp = look_up) -> AsyncIterator[End]:
    one = GossipSocket(Address(host, 0), look_up=names)
    end = End(one, await one.start())
    one.on_datagram(lambda address, datagram: end.came.append((address, datagram)))
    try:
        yield end
    finally:
        await one.close()


async def test_datagrams_go_both_ways_and_tell_where_from() -> None:
    async with listening() as a, listening() as b:
        a.socket.send(b.address, b"there")
        await until(lambda: bool(b.came))
        b.socket.send(b.came[0][0], b"back")
        await until(lambda: bool(a.came))

    assert b.came == [(a.address, b"there")]
    assert a.came == [(b.address, b"back")]
    assert (a.socket.traffic.sent, a.socket.traffic.received) == (1, 1)


@pytest.mark.parametrize(
    ("host", "to", "seen"),
    [
        ("::1", "[::1]", "[::1]"),
        ("::", "[::1]", "[::1]"),
        ("::", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "[::ffff:127.0.0.1]", "127.0.0.1"),
        ("localhost", "127.0.0.1", "127.0.0.1"),
    ],
)
async def test_both_families_have_the_addresses_that_people_write(
    host: str, to: str, seen: str
) -> None:
    async with listening(host) as a, listening(host) as b:
        a.socket.send(f"{to}:{b.port}", b"x")
        await until(lambda: bool(b.came))
        b.socket.send(b.came[0][0], b"y")
        await until(lambda: bool(a.came))

    assert b.came == [(f"{seen}:{a.port}", b"x")]
    assert a.came == [(f"{seen}:{b.port}", b"y")]


async def test_the_largest_datagram_comes_whole_and_a_larger_one_is_dropped() -> None:
    largest = bytes(range(256)) * 255

    async with listening() as a, listening() as b:
        a.socket.send(b.address, bytes(65_536))
        a.socket.send(b.address, largest)
        await until(lambda: bool(b.came))

    assert b.came == [(a.address, largest)]
    assert (a.socket.traffic.sent, a.socket.traffic.dropped) == (1, 1)


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "[::1:5", "[::1]:7", ":1"],
)
async def test_what_cannot_be_sent_is_counted_and_never_raised(address: str) -> None:
    async with listening() as a:
        a.socket.send(address, b"x")

        assert (a.socket.traffic.sent, a.socket.traffic.dropped) == (0, 1)


async def test_a_full_socket_drops_and_does_not_wait() -> None:
    async with listening() as a, listening() as b:
        for _ in range(20_000):
            a.socket.send(b.address, bytes(1400))

        traffic = a.socket.traffic
        assert traffic.sent + traffic.dropped == 20_000
        assert b.socket.traffic.received == 0


async def test_a_flood_leaves_others_their_turn() -> None:
    async with listening() as a, listening() as b:
        for _ in range(100):
            a.socket.send(b.address, b"x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert 0 < len(b.came) < 100
        await until(lambda: len(b.came) == 100)


async def test_a_receiver_that_fails_gets_the_next_one_too() -> None:
    async with listening() as a, listening() as b:
        came: list[bytes] = []

        def receive(_: str, datagram: bytes) -> None:
            came.append(datagram)
            if datagram == b"bad":
                raise RuntimeError("a mistake")

        b.socket.on_datagram(receive)
        a.socket.send(b.address, b"bad")
        a.socket.send(b.address, b"good")
        await until(lambda: len(came) == 2)

        assert (came, b.socket.faults) == ([b"bad", b"good"], 1)


async def test_after_the_close_everything_is_dropped() -> None:
    async with listening() as a, listening() as b:
        await a.socket.close()
        a.socket.send(b.address, b"x")
        await a.socket.close()

        assert a.socket.traffic.dropped == 1


async def test_an_address_that_is_taken_is_an_error_with_its_mend() -> None:
    async with listening() as a:
        with pytest.raises(StartupError) as caught:
            await GossipSocket(Address("127.0.0.1", a.port)).start()

    assert caught.value.reason == "ADDRESS_IN_USE"
    assert "ss -lunp" in caught.value.hint
    assert "--gossip" in caught.value.hint


async def test_a_port_is_free_again_after_the_close() -> None:
    async with listening() as a:
        port = a.port

    again = GossipSocket(Address("127.0.0.1", port))
    assert await again.start() == port
    await again.close()


# -- names -----------------------------------------------------------------------------


class Names:
    """Resolves as the test says, when it says so."""

    def __init__(self, found: list[str] | None = None) -> None:
        self.found = found
        self.asked: list[tuple[str, int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        await self.gate.wait()
        if self.found is None:
            raise socket.gaierror("Name or service not known")
        return self.found


async def test_datagrams_to_a_name_wait_for_its_address_a_few_of_them() -> None:
    names = Names()
    async with listening(names=names) as a, listening() as b:
        names.found = ["[::1]:9", b.address]
        for number in range(MAX_WAITING + 2):
            a.socket.send("node-2:7421", b"%d" % number)
        names.gate.set()
        await until(lambda: len(b.came) == MAX_WAITING)
        a.socket.send("node-2:7421", b"later")
        await until(lambda: len(b.came) == MAX_WAITING + 1)

        assert [datagram for _, datagram in b.came] == [b"0", b"1", b"2", b"3", b"later"]
        assert names.asked == [("node-2", 7421)]
        assert a.socket.traffic.dropped == 2


async def test_datagrams_to_a_name_that_does_not_resolve_are_dropped() -> None:
    names = Names()
    names.gate.set()
    async with listening(names=names) as a:
        a.socket.send("nobody:7421", b"x")
        await until(lambda: a.socket.traffic.dropped == 1)
        a.socket.send("nobody:7421", b"y")

        assert (a.socket.traffic.dropped, len(names.asked)) == (2, 1)


async def test_a_look_up_under_way_ends_with_the_socket() -> None:
    names = Names()
    async with listening(names=names) as a:
        a.socket.send("node-2:7421", b"x")
        await until(lambda: bool(names.asked))

        async with asyncio.timeout(PATIENCE_S):
            await a.socket.close()
