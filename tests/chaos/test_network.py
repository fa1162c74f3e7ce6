"""The simulated network: what is lost, doubled, late, cut, and how streams break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from chaos.sim.chance import Chance
from chaos.sim.channels import (
    BREAKS_AFTER_S,
    CONNECT_TIMEOUT_S,
    STRANGER_FRAME_BYTES,
    WINDOW_BYTES,
    SimTransport,
)
from chaos.sim.loop import Process, SimLoop
from chaos.sim.network import SOCKET_BUFFER, Host, SimNetwork, Weather
from chaos.sim.trace import Trace
from envd.core.errors import Unavailable
from envd.ports import PeerChannel


class Net:
    """Hosts a and b in one region, c in another, each with a process; frames to b are kept."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        self.network = SimNetwork(self.loop, Chance(1).stream("network"), Trace(self.loop.time))
        self.hosts = {name: Host(name, "far" if name == "c" else "near") for name in "abc"}
        self.processes = {name: Process(self.loop, name) for name in "abc"}
        self.transports = {name: self.transport(name) for name in "abc"}
        self.datagrams = {
            name: self.network.datagrams(host, f"{name}:1", self.processes[name])
            for name, host in self.hosts.items()
        }
        self.heard: list[tuple[float, str, bytes]] = []
        self.frames: list[bytes] = []
        self.accepted: list[PeerChannel] = []
        self.ended: list[float] = []
        self.datagrams["b"].on_datagram(self.hear)
        self.transports["b"].on_channel(self.serve)

    def transport(self, name: str) -> SimTransport:
        return SimTransport(self.network, self.hosts[name], f"{name}:2", self.processes[name])

    def hear(self, sender: str, datagram: bytes) -> None:
        self.heard.append((self.loop.time(), sender, datagram))

    async def serve(self, channel: PeerChannel) -> None:
        self.accepted.append(channel)
        channel.trusted()
        try:
            while True:
                self.frames.append(await channel.receive())
        except Unavailable:
            self.ended.append(self.loop.time())

    async def dial(self) -> PeerChannel:
        channel = await self.transports["a"].dial("b:2")
        await asyncio.sleep(0.01)
        return channel

    def kill(self, name: str, *, silently: bool = False) -> None:
        self.network.unplug(self.hosts[name], silently=silently)
        self.processes[name].kill()


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    made.loop.close()


def run(net: Net, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    net.loop.simulate(main())


# -- datagrams ---------------------------------------------------------------------------------


def send(net: Net, count: int = 1000, gap_s: float = 0.0001) -> None:
    async def main() -> None:
        for number in range(count):
            net.datagrams["a"].send("b:1", number.to_bytes(2))
            await asyncio.sleep(gap_s)
        await asyncio.sleep(5)

    run(net, main)


def test_in_fair_weather_every_datagram_arrives_once(net: Net) -> None:
    send(net)

    assert sorted(datagram for _, _, datagram in net.heard) == [
        number.to_bytes(2) for number in range(1000)
    ]
    assert {sender for _, sender, _ in net.heard} == {"a:1"}


def test_weather_loses_doubles_and_delays(net: Net) -> None:
    net.network.weather = Weather(loss=0.2, doubled=0.1, late=0.1)

    send(net)
    numbers = [int.from_bytes(datagram) for _, _, datagram in net.heard]

    assert 700 < len(set(numbers)) < 900
    assert 40 < len(numbers) - len(set(numbers)) < 150
    assert numbers != sorted(numbers)


def test_a_cut_stops_one_direction_only(net: Net) -> None:
    back: list[bytes] = []
    net.datagrams["a"].on_datagram(lambda _, datagram: back.append(datagram))
    net.network.cut("a", "b")

    async def main() -> None:
        net.datagrams["a"].send("b:1", b"there")
        net.datagrams["b"].send("a:1", b"back")
        await asyncio.sleep(1)

    run(net, main)

    assert (net.heard, back) == ([], [b"back"])


def test_a_process_that_stands_still_hears_what_fits_its_socket(net: Net) -> None:
    net.processes["b"].pause()

    send(net)
    paused = len(net.heard)

    async def resume() -> None:
        net.processes["b"].resume()
        await asyncio.sleep(1)

    run(net, resume)
    assert (paused, len(net.heard)) == (0, SOCKET_BUFFER)


def test_the_dead_and_the_unknown_hear_nothing_and_say_nothing(net: Net) -> None:
    net.kill("b")

    async def main() -> None:
        net.datagrams["a"].send("b:1", b"x")
        net.datagrams["a"].send("nobody:1", b"x")
        net.datagrams["b"].send("a:1", b"x")
        await asyncio.sleep(1)

    run(net, main)

    assert net.heard == []
    assert net.network.counts["lost"] == 2


# -- channels ----------------------------------------------------------------------------------


def test_frames_arrive_whole_and_in_order(net: Net) -> None:
    net.network.weather = Weather(loss=0.3, doubled=0.3, late=0.3)

    async def main() -> None:
        channel = await net.dial()
        for number in range(300):
            await channel.send(number.to_bytes(2))
        await asyncio.sleep(20)

    run(net, main)

    assert net.frames == [number.to_bytes(2) for number in range(300)]


def test_send_waits_while_the_peer_does_not_read(net: Net) -> None:
    sent: list[int] = []

    async def main() -> None:
        channel = await net.dial()
        net.processes["b"].pause()
        task = net.loop.create_task(fill(channel))
        await asyncio.sleep(60)
        sent.append(len(progress))
        net.processes["b"].resume()
        await task
        sent.append(len(progress))

    progress: list[int] = []

    async def fill(channel: PeerChannel) -> None:
        for number in range(100):
            await channel.send(bytes(WINDOW_BYTES // 10))
            progress.append(number)

    run(net, main)

    assert sent == [10, 100]


def test_a_close_lets_what_was_sent_arrive_first(net: Net) -> None:
    async def main() -> None:
        channel = await net.dial()
        await channel.send(b"last")
        channel.close()
        channel.close()
        with pytest.raises(Unavailable):
            await channel.send(b"too late")
        with pytest.raises(Unavailable):
            await channel.receive()
        await asyncio.sleep(1)

    run(net, main)

    assert net.frames == [b"last"]
    assert len(net.ended) == 1


def test_a_stranger_can_not_send_much(net: Net) -> None:
    async def main() -> None:
        channel = await net.transports["b"].dial("b:2")  # any end that nobody called trusted
        await asyncio.sleep(0.1)
        await net.accepted[0].send(bytes(STRANGER_FRAME_BYTES + 1))
        with pytest.raises(Unavailable):
            await channel.receive()

    run(net, main)


def test_a_short_cut_delays_and_loses_nothing(net: Net) -> None:
    async def main() -> None:
        channel = await net.dial()
        net.network.partition("a", "b")
        await channel.send(b"1")
        await channel.send(b"2")
        await asyncio.sleep(BREAKS_AFTER_S[0] - 1)
        assert net.frames == []
        net.network.heal()
        await channel.send(b"3")
        await asyncio.sleep(1)

    run(net, main)

    assert net.frames == [b"1", b"2", b"3"]


@pytest.mark.parametrize(("source", "target", "arrives"), [("a", "b", False), ("b", "a", True)])
def test_a_long_one_way_cut_breaks_the_senders_end_by_time_alone(
    net: Net, source: str, target: str, arrives: bool
) -> None:
    broke: list[float] = []

    async def main() -> None:
        channel = await net.dial()
        net.network.cut(source, target)
        await channel.send(b"x")
        began = net.loop.time()
        with pytest.raises(Unavailable):
            await channel.receive()
        broke.append(net.loop.time() - began)

    run(net, main)

    assert (net.frames == [b"x"]) is arrives
    assert BREAKS_AFTER_S[0] <= broke[0] <= BREAKS_AFTER_S[1] + 1


def test_a_killed_process_resets_its_channels_one_latency_later(net: Net) -> None:
    async def main() -> None:
        channel = await net.dial()
        net.kill("b")
        with pytest.raises(Unavailable, match="died"):
            await asyncio.wait_for(channel.receive(), 0.1)

    run(net, main)


def test_a_host_without_power_leaves_the_channel_half_open(net: Net) -> None:
    async def main() -> None:
        channel = await net.dial()
        net.kill("b", silently=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.receive(), 1000)
        await channel.send(b"x")
        with pytest.raises(Unavailable):
            await asyncio.wait_for(channel.receive(), BREAKS_AFTER_S[1] + 1)

    run(net, main)


def test_a_host_that_came_back_refuses_what_its_earlier_process_had_open(net: Net) -> None:
    async def main() -> None:
        channel = await net.dial()
        net.kill("b", silently=True)
        await channel.send(b"x")
        await asyncio.sleep(1)
        net.hosts["b"].off = False
        net.network.retry()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(channel.receive(), 0.5)

    run(net, main)


@pytest.mark.parametrize(
    ("make_deaf", "at_most_s"),
    [
        (lambda net: net.kill("b"), 0.1),
        (lambda net: net.kill("b", silently=True), CONNECT_TIMEOUT_S + 1),
        (lambda net: net.network.cut("b", "a"), CONNECT_TIMEOUT_S + 1),
    ],
)
def test_a_dial_that_nobody_answers_is_refused_or_times_out(
    net: Net, make_deaf: Callable[[Net], None], at_most_s: float
) -> None:
    async def main() -> None:
        make_deaf(net)
        began = net.loop.time()
        with pytest.raises(Unavailable):
            await net.transports["a"].dial("b:2")
        assert net.loop.time() - began <= at_most_s

    run(net, main)


def test_regions_are_apart(net: Net) -> None:
    near = net.network.latency_s(net.hosts["a"], net.hosts["b"])
    far = net.network.latency_s(net.hosts["a"], net.hosts["c"])

    assert near < 0.001
    assert 0.005 < far < 0.1


def test_what_served_a_channel_closes_it_when_it_returns(net: Net) -> None:
    async def hang_up(channel: PeerChannel) -> None:
        await channel.send(b"bye")

    net.transports["b"].on_channel(hang_up)
    got: list[bytes] = []

    async def main() -> None:
        channel = await net.transports["a"].dial("b:2")
        got.append(await channel.receive())
        with pytest.raises(Unavailable):
            await channel.receive()

    run(net, main)

    assert got == [b"bye"]
