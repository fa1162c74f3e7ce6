"""Empty nodes that look for a cluster, over datagrams in memory, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from envd.core.errors import Unavailable
from envd.node.handshake import Introduction
from envd.node.joining import Joiner
from envd.ports import PeerChannel
from envd.security.cluster_secret import SharedSecret
from tests.node.channels import CountingRng
from tests.node.virtual_loop import run_virtually

_LONG_S = 30.0


class Air:
    """Carries datagrams between addresses, at once and in order."""

    def __init__(self) -> None:
        self.receivers: dict[str, Callable[[str, bytes], None]] = {}


class Antenna:
    """The Datagrams port, and a transport that reaches nobody, of one address."""

    def __init__(self, air: Air, address: str) -> None:
        self._air = air
        self._address = address

    def send(self, address: str, datagram: bytes) -> None:
        if receive := self._air.receivers.get(address):
            asyncio.get_running_loop().call_soon(receive, self._address, datagram)

    def on_datagram(self, receive: Callable[[str, bytes], None]) -> None:
        self._air.receivers[self._address] = receive

    async def dial(self, address: str) -> PeerChannel:
        raise Unavailable(f"{address} does not answer")

    def on_channel(self, serve: object) -> None:
        """Nobody dials."""


async def founders(expected: Sequence[int]) -> Sequence[int]:
    """Who founds a cluster of empty nodes that ask each other; `expected` of each of them."""
    air = Air()
    addresses = [str(at) for at in range(len(expected))]

    async def seeds() -> Sequence[str]:
        return addresses

    async def found(at: int) -> int:
        antenna = Antenna(air, addresses[at])
        joiner = Joiner(
            Introduction("c", "", at + 1, 0, bytes(16)),
            antenna,
            antenna,
            SharedSecret.insecure("c"),
            CountingRng(),
            seeds,
            expected[at],
        )
        assert await joiner.run() is None
        return at

    tasks = [asyncio.ensure_future(found(at)) for at in range(len(expected))]
    done, waiting = await asyncio.wait(tasks, timeout=_LONG_S)
    for task in waiting:
        task.cancel()
    return sorted(task.result() for task in done)


def test_one_of_enough_empty_nodes_founds_the_cluster() -> None:
    assert run_virtually(founders([3, 3, 3])) == [0]


def test_too_few_empty_nodes_found_nothing() -> None:
    assert run_virtually(founders([3, 3])) == []


def test_empty_nodes_that_only_want_to_join_keep_nobody_from_founding() -> None:
    assert run_virtually(founders([0, 3, 3, 0, 3])) == [1]


def test_nodes_that_disagree_on_how_many_found_it_found_nothing() -> None:
    assert run_virtually(founders([3, 3, 3, 4, 4, 4, 4])) == []
