"""The network between simulated hosts: datagrams that get lost, and who can reach whom.

Datagrams are lost, doubled and late (so out of order), each by the `Weather`. Links are cut in
one direction or both. Latency is drawn for each message: little within a region, a fixed
distance more between two regions. Streams are in `channels`.

A host is a machine, which outlives the processes that run on it one after the other. Off, it says
nothing; up without its process, it refuses, as an operating system does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from chaos.sim.loop import Process, SimLoop
from chaos.sim.trace import Trace

if TYPE_CHECKING:
    from chaos.sim.channels import End, Listener, Pipe

MAX_DATAGRAM_BYTES: Final = 65_507
SOCKET_BUFFER: Final = 256
"""Datagrams that wait while the process does not run; later ones are lost."""
_NEAR_S: Final = (0.000_1, 0.000_6)
_FAR_S: Final = (0.005, 0.060)


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely (0 to 1) each datagram is lost, doubled, or up to `late_s` late.

    A stream loses nothing, but a lost packet of it costs a retransmission timeout.
    """

    loss: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    late_s: float = 0.3


FAIR: Final = Weather()


@dataclass
class Host:
    """One machine. `addresses` are bound by its process, `slow_s` is added to each message."""

    name: str
    region: str
    process: Process | None = None
    off: bool = False
    slow_s: float = 0.0
    ends: dict[End, None] = field(default_factory=dict)


@dataclass
class _Socket:
    host: Host
    process: Process
    receive: Callable[[str, bytes], None]
    waiting: int = 0


class SimNetwork:
    """All hosts and what lies between them."""

    def __init__(self, loop: SimLoop, chance: Random, trace: Trace) -> None:
        self.loop = loop
        self.chance = chance
        self.trace = trace
        self.weather = FAIR
        self.counts: Counter[str] = Counter()
        self.listeners: dict[str, Listener] = {}
        self._sockets: dict[str, _Socket] = {}
        self._bound: dict[str, Host] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._distances: dict[tuple[str, str], float] = {}
        self._stalled: dict[Pipe, None] = {}

    # -- hosts ---------------------------------------------------------------------

    def bind(self, address: str, host: Host) -> None:
        """An address leads to this host from now on, whatever runs there."""
        self._bound[address] = host

    def host_of(self, address: str) -> Host | None:
        """The machine that an address leads to."""
        return self._bound.get(address)

    def unplug(self, host: Host, *, silently: bool) -> None:
        """The process of a host is about to die: its sockets close, or with `silently` are gone.

        Call before the process is killed.
        """
        host.off = silently
        for address in [at for at, socket in self._sockets.items() if socket.host is host]:
            del self._sockets[address]
        for address in [at for at, one in self.listeners.items() if one.host is host]:
            del self.listeners[address]
        for end in list(host.ends):
            end.lose_process(silently=silently)

    # -- who reaches whom ----------------------------------------------------------

    def cut(self, source: str, target: str) -> None:
        """Let nothing through from one host to another; the way back stays open."""
        self._cuts.add((source, target))

    def partition(self, one: Iterable[str], other: Iterable[str]) -> None:
        """Cut both ways between two sets of hosts."""
        others = list(other)
        for here in one:
            for there in others:
                self._cuts.update(((here, there), (there, here)))

    def mend(self, source: str, target: str) -> None:
        """Take back a cut."""
        self._cuts.discard((source, target))
        self.retry()

    def heal(self) -> None:
        """Take back all cuts, and let the weather be fair."""
        self._cuts.clear()
        self.weather = FAIR
        self.retry()

    def retry(self) -> None:
        """Let streams that were stopped send again what did not arrive."""
        stalled, self._stalled = list(self._stalled), {}
        for pipe in stalled:
            pipe.retry()

    def stall(self, pipe: Pipe) -> None:
        """Remember a stream that waits for its way to be open."""
        self._stalled[pipe] = None

    def is_cut(self, source: Host, target: Host) -> bool:
        """Tell whether nothing gets through from `source` to `target` now."""
        if source.off or target.off:
            return True
        return bool(self._cuts) and (source.name, target.name) in self._cuts

    def latency_s(self, source: Host, target: Host) -> float:
        """The time that the next message takes."""
        near = self.chance.uniform(*_NEAR_S)
        slow = source.slow_s + target.slow_s
        return near + slow + self._distance(source.region, target.region)

    def _distance(self, one: str, other: str) -> float:
        if one == other:
            return 0.0
        pair = (one, other) if one < other else (other, one)
        known = self._distances.get(pair)
        if known is None:
            known = self._distances[pair] = self.chance.uniform(*_FAR_S)
        return known

    # -- datagrams -----------------------------------------------------------------

    def datagrams(self, host: Host, address: str, process: Process) -> SimDatagrams:
        """A socket of `process`, bound to `address`."""
        self.bind(address, host)
        return SimDatagrams(self, host, address, process)

    def open_socket(
        self, host: Host, address: str, process: Process, receive: Callable[[str, bytes], None]
    ) -> None:
        """Hand what comes to `address` to `receive`."""
        self._sockets[address] = _Socket(host, process, receive)

    def send(self, host: Host, sender: str, address: str, datagram: bytes) -> None:
        """Put a datagram on its way, or lose it."""
        self.counts["sent"] += 1
        target = self._bound.get(address)
        weather = self.weather
        if target is None or len(datagram) > MAX_DATAGRAM_BYTES or self.is_cut(host, target):
            self.counts["lost"] += 1
            return
        copies = 1
        if weather is not FAIR:
            if self.chance.random() < weather.loss:
                self.counts["lost"] += 1
                return
            copies += self.chance.random() < weather.doubled
        for _ in range(copies):
            delay = self.latency_s(host, target)
            if weather is not FAIR and self.chance.random() < weather.late:
                delay += self.chance.uniform(0, weather.late_s)
            self.loop.call_later(delay, self._arrive, host, target, sender, address, datagram)

    def _arrive(
        self, source: Host, target: Host, sender: str, address: str, datagram: bytes
    ) -> None:
        socket = self._sockets.get(address)
        if socket is None or not socket.process.alive or self.is_cut(source, target):
            self.counts["lost"] += 1
            return
        if socket.waiting >= SOCKET_BUFFER:
            self.counts["lost"] += 1
            return
        self.counts["delivered"] += 1
        self.trace.note("datagram", f"{sender} {address}", datagram)
        socket.waiting += 1
        socket.process.call_soon(_take, socket, sender, datagram)


def _take(socket: _Socket, sender: str, datagram: bytes) -> None:
    socket.waiting -= 1
    socket.receive(sender, datagram)


class SimDatagrams:
    """The Datagrams port of one run of one node."""

    def __init__(self, network: SimNetwork, host: Host, address: str, process: Process) -> None:
        self._network = network
        self._host = host
        self._process = process
        self.address = address

    def send(self, address: str, datagram: bytes) -> None:
        if self._process.alive:
            self._network.send(self._host, self.address, address, bytes(datagram))

    def on_datagram(self, receive: Callable[[str, bytes], None]) -> None:
        if self._process.alive:
            self._network.open_socket(self._host, self.address, self._process, receive)
