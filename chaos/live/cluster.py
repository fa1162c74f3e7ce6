"""The nodes of one scenario, the network between them, and who watches each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import envd
from chaos.live.places import Network
from chaos.live.processes import LiveNode
from chaos.live.watching import Watcher
from envd.security.cluster_secret import create_cluster_secret
from envd.system import SystemRng


class Cluster:
    """`home` is removed by its owner; the logs go to `logs`, one file for each node."""

    def __init__(self, network: Network, home: Path, logs: Path) -> None:
        self.network = network
        secret = home / "secret"
        create_cluster_secret(secret, SystemRng())
        self.nodes = [
            LiveNode(place, home, logs / f"{place.name}.log", secret) for place in network.places
        ]
        self.clients = [self._client(node) for node in self.nodes]
        self.watchers = [Watcher(node.place.client_address, node.token) for node in self.nodes]
        self._watching: list[asyncio.Task[None]] = []

    def _client(self, node: LiveNode) -> envd.Client:
        return envd.connect(
            node.place.client_address, token=node.token, snapshot=False, members=False, environ={}
        )

    def knows_all(self) -> envd.Client:
        """A client of the library that knows every node, as a program would make it."""
        addresses = [node.place.client_address for node in self.nodes]
        return envd.connect(*addresses, token=self.nodes[0].token, snapshot=False, environ={})

    @property
    def size(self) -> int:
        return len(self.nodes)

    @property
    def addresses(self) -> Sequence[str]:
        return [node.place.client_address for node in self.nodes]

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
        for number in range(1, self.size):
            self.begin(number)
        for node in self.nodes[1:]:
            await node.ready()
        await self.whole()
        for watcher in self.watchers:
            self._watching.append(asyncio.create_task(watcher.run()))
        for watcher in self.watchers:
            async with asyncio.timeout(10.0):
                await watcher.begun.wait()

    async def whole(self, within_s: float = 60.0) -> None:
        """Wait until every node sees every other alive and connected; raises TimeoutError."""
        async with asyncio.timeout(within_s):
            for client in self.clients:
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
