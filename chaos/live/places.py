"""Where the nodes of a run live, and what can be done to the network between them.

There are two kinds of networks: `namespaces` (the kernel's, one network namespace for each node)
and `proxies` (loopback, a proxy of ours in front of each node). A scenario says what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class CannotRun(Exception):
    """This machine or this network lacks what a scenario needs; the text says what."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one node lives. It listens at `host`; other nodes know it as `advertise`.

    `enter` is what a command line begins with that runs there. `insecure`: its address is not of
    loopback, so it runs without TLS and authentication.
    """

    name: str
    host: str
    advertise: str
    grpc_port: int
    gossip_port: int
    http_port: int
    enter: tuple[str, ...] = ()
    insecure: bool = False

    @property
    def client_address(self) -> str:
        """Where clients of this run reach it, whatever is cut between the nodes."""
        return f"{self.host}:{self.grpc_port}"

    @property
    def seed(self) -> str:
        """The gossip address that other nodes are told."""
        return f"{self.advertise}:{self.gossip_port}"


@dataclass(frozen=True, slots=True)
class Weather:
    """How a directed link does. Each datagram is lost with probability `loss`.

    What is sent arrives after `latency_s`, plus up to `jitter_s`; `bytes_per_s` bounds a stream,
    0 for no bound.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    bytes_per_s: float = 0.0


class Network(Protocol):
    """The network of one scenario, between nodes that are told by their number from 0 on."""

    kind: str
    places: Sequence[Place]

    async def open(self) -> None:
        """Build it; raises CannotRun where this machine can't have it."""

    async def close(self) -> None:
        """Take it down; whatever was built is gone."""

    def runs(self, node: int, pid: int) -> None:
        """A node runs as this process from now on."""

    async def cut(self) -> None:
        """Nothing goes between the left and the right side any more."""

    async def block(self, source: int, target: int) -> None:
        """Nothing goes from `source` to `target` any more; the other way all goes on."""

    async def mend(self) -> None:
        """Undo every cut and block."""

    async def weather(self, weather: Weather) -> None:
        """All links are like this from now on; raises CannotRun where that can't be had."""
