"""The nodes of one scenario, the network between them, and who watches each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import envd
from chaos.live.places import Network
from chaos.live.processes import LiveNode
from chaos.live.watching import Watcher
from envd.security.cluster_secret import create_cluster_secret
from envd.system import SystemRng


@dataclass(frozen=True, slots=True)
class Shape:
    """How a cluster is laid out.

    There are to be `copies` of each partition, 0: what the nodes take by themselves. `zones` has a
    letter for each node, over and over; "": they name none. `spares` more places have no node at
    first. So many nodes are `watched`, None: all.
    """

    copies: int = 0
    zones: str = ""
    spares: int = 0
    watched: int | None = None

    def zone(self, number: int) -> str:
        """Of a node."""
        return self.zones[number % len(self.zones)] if self.zones else ""


class Cluster:
    """`home` is removed by its owner; the logs go to `logs`, one file for each node.

    `here` are the nodes that belong to it, which are asked in the end, by number.
    """

    def __init__(
        self, network: Network, home: Path, logs: Path, shape: Shape | None = None
    ) -> None:
        self.network = network
        shape = shape or Shape()
        secret = home / "secret"
        create_cluster_secret(secret, SystemRng())
        self.nodes = [
            LiveNode(
                place,
                home,
                logs / f"{place.name}.log",
                secret,
                zone=shape.zone(number),
                copies=shape.copies,
            )
            for number, place in enumerate(network.places)
        ]
        self.here = list(range(len(self.nodes) - shape.spares))
        self.clients = [self._client(node) for node in self.nodes]
        self.watched = self.nodes[: len(self.here) if shape.watched is None else shape.watched]
        self.watchers = [Watcher(node.place.client_address, node.token) for node in self.watched]
        self._watching: list[asyncio.Task[None]] = []

    def _client(self, node: LiveNode) -> envd.Client:
        return envd.connect(
            node.place.client_address, token=node.token, snapshot=False, members=False, environ={}
        )

    def knows_all(self) -> envd.Client:
        """A client of the library that knows every node, as a program would make it."""
        addresses = [self.nodes[number].place.client_address for number in self.here]
        return envd.connect(*addresses, token=self.nodes[0].token, snapshot=False, environ={})

    @property
    def size(self) -> int:
        return len(self.here)

    @property
    def asked(self) -> Sequence[tuple[str, envd.Client]]:
        """The name of each node that is here, and a client of that one alone."""
        return [(self.nodes[number].place.name, self.clients[number]) for number in self.here]

    def begin(self, number: int) -> None:
        """Start a node; the first of all founds the cluster."""
        node = self.nodes[number]
        others = [each.place.seed for each in self.nodes if each is not node]
        is_first = number == 0 and node.starts == 0
        node.begin([] if is_first else others)
        self.network.runs(number, node.pid)

    async def start(self, number: int) -> None:
        """Start a node and wait until it serves."""
        self.begin(number)
        await self.nodes[number].ready()

    async def open(self) -> None:
        """Start all nodes; return when each knows all, and is watched."""
        await self.network.open()
        await self.start(0)
        for number in self.here[1:]:
            self.begin(number)
        for number in self.here[1:]:
            await self.nodes[number].ready()
        await self.whole()
        for watcher in self.watchers:
            self._watching.append(asyncio.create_task(watcher.run()))
        for watcher in self.watchers:
            async with asyncio.timeout(10.0):
                await watcher.begun.wait()

    async def whole(self, within_s: float = 60.0) -> None:
        """Wait until every node sees every other alive and connected; raises TimeoutError."""
        async with asyncio.timeout(within_s):
            for _, client in self.asked:
                while not await self._sees_all(client):  # noqa: ASYNC110 - another process tells
                    await asyncio.sleep(0.1)

    async def _sees_all(self, client: envd.Client) -> bool:
        try:
            told = await client.members(timeout_s=5.0)
        except envd.EnvdError:
            return False
        alive = sum(member.state == "alive" for member in told.members)
        return alive == self.size and sum(peer.connected for peer in told.peers) >= self.size - 1

    async def close(self) -> None:
        """End everything; the logs stay."""
        for task in self._watching:
            task.cancel()
        if self._watching:
            await asyncio.wait(self._watching)
        for watcher in self.watchers:
            await watcher.close()
        for client in self.clients:
            await client.close()
        for node in self.nodes:
            await asyncio.to_thread(node.put_down)
        await self.network.close()
