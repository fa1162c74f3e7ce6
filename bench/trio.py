"""Three nodes of one store on loopback, each with a data directory of its own, as one server."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bench.etcd import EtcdClient
from bench.node import NodeClient
from bench.payload import Variant
from bench.servers import QUOTA, Server, find_etcd, free_ports
from bench.spreading import Send
from bench.trio_envd import EnvdTrio
from bench.trio_etcd import EtcdTrio

NODES: Final = 3
Saw = Callable[[int, int], None]
"""(watcher, number of the change), when a watcher sees one."""


class TrioClient(Protocol):
    """What the cases ask of three nodes."""

    variants: Mapping[str, Sequence[Variant]]
    change_ways: Sequence[str]

    async def together(self) -> None:
        """Return once the nodes work as one."""
        ...

    def import_(self, prefix: str, numbers: range) -> Callable[[], Awaitable[None]]:
        """Prepare an import of PREFIX/eN; what sends it returns once every node has it all."""
        ...

    async def holds(self, prefix: str) -> Sequence[int]:
        """How many variables each node has below a prefix, by its own account."""
        ...

    async def changes(self, way: str, saw: Saw) -> Send:
        """Watch on every node, and return what sends changes of these numbers."""
        ...

    def remark(self) -> str:
        """What there is to say of the writes since this was last asked."""
        ...

    async def close(self) -> None:
        """Close every connection; raises what went wrong on one that nobody waited for."""
        ...


@dataclass(slots=True)
class Trio:
    """The nodes and their client; the first one is started before the others."""

    name: str
    home: Path
    nodes: Sequence[Server]
    client: TrioClient
    first_alone: bool

    async def start(self) -> None:
        """Start all, and return once they work as one."""
        first, *others = self.nodes
        if self.first_alone:
            await first.start()
            await asyncio.gather(*(node.start() for node in others))
        else:
            await asyncio.gather(*(node.start() for node in self.nodes))
        await self.client.together()

    def lives(self) -> bool:
        """Whether all processes run."""
        return all(node.lives() for node in self.nodes)

    def last_words(self) -> str:
        """The last line of the log of the first that does not run."""
        return next((node.last_words() for node in self.nodes if not node.lives()), "")

    def stop(self) -> None:
        """Stop all and wait for their end."""
        for node in self.nodes:
            node.stop()

    def cpu_s(self) -> float:
        """Processor seconds so far, of all nodes."""
        return sum(node.cpu_s() for node in self.nodes)

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory of all nodes, and what of it is anonymous."""
        resident, anonymous = zip(*(node.memory_mb() for node in self.nodes), strict=True)
        return sum(resident), sum(anonymous)

    def disk_mb(self) -> float:
        """What the files of all nodes take."""
        return sum(node.disk_mb() for node in self.nodes)


def _envd(home: Path) -> Trio:
    nodes, token = envd_nodes(home, NODES)
    addresses = [node.address for node in nodes]
    return Trio("envd", home, nodes, EnvdTrio(addresses, token), first_alone=True)


def envd_nodes(home: Path, count: int) -> tuple[list[Server], str]:
    """Nodes of one cluster, each in a directory of its own below `home`, and their admin token.

    None runs yet; the first one creates the cluster, so it is started before the others.
    """
    home.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(32)
    config = home / "envd.toml"
    config.touch(mode=0o600)
    config.write_text(f'[security]\nadmin_token = "{token}"\n')
    ports = iter(f"127.0.0.1:{port}" for port in free_ports(2 * count))
    gossip = [f"127.0.0.1:{port}" for port in free_ports(count, socket.SOCK_DGRAM)]
    nodes = []
    for number in range(count):
        data, address, http = home / f"n{number + 1}", next(ports), next(ports)
        flags = ["--config", str(config), "--data-dir", str(data), "--listen", address]
        flags += ["--node-name", f"n{number + 1}", "--http", http, "--gossip", gossip[number]]
        if number:
            flags += ["--join", gossip[0]]
            flags += ["--cluster-secret-file", str(home / "n1" / "cluster.secret")]
        command = [sys.executable, "-m", "envd.daemon", *flags]
        client = NodeClient(address, http, lambda: token)
        nodes.append(Server("envd", data, address, command, [], client))
    return nodes, token


def _etcd(home: Path) -> Trio:
    binary = find_etcd()
    home.mkdir(parents=True, exist_ok=True)
    ports = [f"127.0.0.1:{port}" for port in free_ports(2 * NODES)]
    peers = [f"http://{port}" for port in ports[:NODES]]
    cluster = ",".join(f"n{number + 1}={peer}" for number, peer in enumerate(peers))
    nodes, addresses = [], []
    for number, peer in enumerate(peers):
        data, address = home / f"n{number + 1}", ports[NODES + number]
        command = [str(binary), "--name", f"n{number + 1}", "--data-dir", str(data)]
        command += ["--listen-client-urls", f"http://{address}"]
        command += ["--advertise-client-urls", f"http://{address}"]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", cluster, "--initial-cluster-state", "new"]
        command += ["--log-level", "error", "--quota-backend-bytes", str(QUOTA)]
        nodes.append(Server("etcd", data, address, command, [], EtcdClient(address)))
        addresses.append(address)
    return Trio("etcd", home, nodes, EtcdTrio(addresses), first_alone=False)


TRIOS: Final[Mapping[str, Callable[[Path], Trio]]] = {"envd": _envd, "etcd": _etcd}
