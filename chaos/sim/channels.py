"""Streams between simulated hosts: ordered, with latency, a bounded window, and ways to break.

Each direction of a channel is a `Pipe`: frames arrive in order, later by the latency and by
their size. At most WINDOW_BYTES are sent and not read; then `send` waits. What a cut stops is sent
again after it; who sent it learns of the cut only by time: after BREAKS_AFTER_S his end is broken.
A one-way cut in the way of the acknowledgements does the same, though the data arrived.

When a process dies its end is reset, and the peer learns of it one latency later. When a host goes
off nobody is told: the peer's end stays half open until what it sends is not answered, or until
the host is up again and refuses it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from chaos.sim.loop import Process, SimFuture, SimHandle
from chaos.sim.network import FAIR, Host, SimNetwork
from envd.core.errors import Unavailable
from envd.ports import PeerChannel

WINDOW_BYTES: Final = 256 * 1024
STRANGER_FRAME_BYTES: Final = 16 * 1024
"""The most that a frame may have before the peer is trusted."""
BYTES_PER_S: Final = 50_000_000
BREAKS_AFTER_S: Final = (8.0, 20.0)
CONNECT_TIMEOUT_S: Final = 5.0
_RETRY_CONNECT_S: Final = 0.5
_RETRANSMIT_S: Final = 0.2
Serve = Callable[[PeerChannel], Awaitable[None]]


@dataclass
class Listener:
    """Where channels to an address are served."""

    host: Host
    process: Process
    serve: Serve


class SimTransport:
    """The PeerTransport port of one run of one node, listening at `address`."""

    def __init__(self, network: SimNetwork, host: Host, address: str, process: Process) -> None:
        self._network = network
        self._host = host
        self._process = process
        self.address = address
        network.bind(address, host)

    def on_channel(self, serve: Serve) -> None:
        if self._process.alive:
            listener = Listener(self._host, self._process, serve)
            self._network.listeners[self.address] = listener

    async def dial(self, address: str) -> PeerChannel:
        listener = await self._reach(address)
        ours, theirs = _pair(self._network, (self._host, self._process), listener)
        self._network.trace.note("dial", f"{self._host.name} {address}")
        listener.process.call_soon(_begin, listener, theirs)
        return ours

    async def _reach(self, address: str) -> Listener:
        network, target = self._network, self._network.host_of(address)
        deadline = network.loop.time() + CONNECT_TIMEOUT_S
        if target is None:
            await asyncio.sleep(network.chance.uniform(0, _RETRY_CONNECT_S))
            raise Unavailable(f"nobody knows {address}")
        while True:
            there = network.latency_s(self._host, target)
            await asyncio.sleep(there)
            if not network.is_cut(self._host, target) and not network.is_cut(target, self._host):
                break
            if network.loop.time() >= deadline:
                raise Unavailable(f"{address} did not answer")
            await asyncio.sleep(_RETRY_CONNECT_S)
        listener = network.listeners.get(address)
        await asyncio.sleep(network.latency_s(target, self._host))
        if listener is None or not listener.process.alive:
            raise Unavailable(f"{address} refused")
        return listener


def _begin(listener: Listener, channel: End) -> None:
    listener.process.spawn(_serve(listener.serve, channel), "channel")


async def _serve(serve: Serve, channel: End) -> None:
    try:
        await serve(channel)
    finally:
        channel.close()


def _pair(
    network: SimNetwork, dialler: tuple[Host, Process], listener: Listener
) -> tuple[End, End]:
    ours, theirs = End(network, *dialler), End(network, listener.host, listener.process)
    ours.out = theirs.into = Pipe(network, ours, theirs)
    theirs.out = ours.into = Pipe(network, theirs, ours)
    return ours, theirs


class End:
    """One end of a channel: the PeerChannel port."""

    out: Pipe
    into: Pipe

    def __init__(self, network: SimNetwork, host: Host, process: Process) -> None:
        self.host = host
        self.process = process
        self.broken = ""
        self._network = network
        host.ends[self] = None

    async def send(self, frame: bytes) -> None:
        await self.out.put(bytes(frame))

    async def receive(self) -> bytes:
        return await self.into.take()

    def trusted(self) -> None:
        """Take frames of any size from now on."""
        self.into.max_frame = 0

    def close(self) -> None:
        """Close from here: what was sent still arrives, then the peer sees the end."""
        if not self.broken and self.process.alive:
            self.out.finish()
            self.break_off("this end closed the channel")

    def break_off(self, why: str) -> None:
        """Nothing is sent or received here from now on; who waits here is told."""
        if self.broken:
            return
        self.broken = why
        self.host.ends.pop(self, None)
        self.out.wake_writers()
        self.into.wake_reader()

    def lose_process(self, *, silently: bool) -> None:
        """The process died, or with `silently` the host went off."""
        self.break_off("the process died")
        if silently:
            self.out.vanish()
        else:
            self.out.reset()


class Pipe:
    """One direction of a channel, from the end `source` to the end `target`."""

    def __init__(self, network: SimNetwork, source: End, target: End) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._under_way: deque[tuple[float, bytes | None]] = deque()
        self._inbox: deque[bytes] = deque()
        self._unread = 0
        self._owed = 0
        self._free_at = 0.0
        self._ended = False
        self._reset = False
        self._timer: SimHandle | None = None
        self._doom: SimHandle | None = None
        self._writers: deque[SimFuture[None]] = deque()
        self._reader: SimFuture[None] | None = None
        self.max_frame = STRANGER_FRAME_BYTES

    # -- the sending end -----------------------------------------------------------

    async def put(self, frame: bytes) -> None:
        """Send, once there is room in the window."""
        while True:
            if self._source.broken:
                raise Unavailable(f"the channel is closed: {self._source.broken}")
            if not self._unread or self._unread + len(frame) <= WINDOW_BYTES:
                break
            waiter: SimFuture[None] = self._network.loop.create_future()
            self._writers.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._writers:
                    self._writers.remove(waiter)
        self._unread += len(frame)
        self._dispatch(frame)

    def finish(self) -> None:
        """Send the end of the stream after what was sent."""
        self._dispatch(None)

    def reset(self) -> None:
        """The sending process died: part of what it sent may still arrive, then the reset."""
        if self._under_way:
            survivors = self._network.chance.randrange(len(self._under_way) + 1)
            while len(self._under_way) > survivors:
                self._under_way.pop()
        self._reset = True
        self._dispatch(None)

    def vanish(self) -> None:
        """The sending host went off: nothing of it arrives any more."""
        self._under_way.clear()
        self._cancel_timers()

    def _dispatch(self, frame: bytes | None) -> None:
        """Put on its way; it arrives after what was sent before it."""
        network = self._network
        now = network.loop.time()
        delay = network.latency_s(self._source.host, self._target.host)
        weather = network.weather
        if weather is not FAIR and network.chance.random() < weather.loss:
            delay += _RETRANSMIT_S
        size = len(frame) if frame is not None else 0
        self._free_at = max(self._free_at, now + delay) + size / BYTES_PER_S
        self._under_way.append((self._free_at, frame))
        if self._timer is None:
            self._timer = network.loop.call_at(self._free_at, self._arrive)

    # -- the way -------------------------------------------------------------------

    def _arrive(self) -> None:
        """What is due reaches the other host, unless something is in the way."""
        network, self._timer = self._network, None
        now = network.loop.time()
        while self._under_way and self._under_way[0][0] <= now:
            if network.is_cut(self._source.host, self._target.host):
                self._stall()
                return
            _, frame = self._under_way.popleft()
            if self._target.broken:
                self._refused()
                return
            self._deliver(frame)
        if self._under_way:
            self._timer = network.loop.call_at(self._under_way[0][0], self._arrive)

    def _deliver(self, frame: bytes | None) -> None:
        if frame is None:
            if self._reset:
                self._inbox.clear()
                self._target.break_off("the peer died")
                return
            self._ended = True
        else:
            source, target = self._source.host.name, self._target.host.name
            self._network.trace.note("frame", f"{source} {target}", frame)
            self._network.counts["frames"] += 1
            if self.max_frame and len(frame) > self.max_frame:
                self._target.break_off("a stranger sent too large a frame")
                return
            self._inbox.append(frame)
        if self._network.is_cut(self._target.host, self._source.host):
            self._stall()  # it arrived, and its sender can't know
        self.wake_reader()

    def _refused(self) -> None:
        """The other end is gone while its host is up: the sender is told, if a way leads back."""
        self._under_way.clear()
        if self._network.is_cut(self._target.host, self._source.host):
            self._stall()
            return
        delay = self._network.latency_s(self._target.host, self._source.host)
        self._network.loop.call_later(delay, self._source.break_off, "the peer closed the channel")

    def _stall(self) -> None:
        """Wait for the way to open; the sender's patience begins to run out."""
        self._network.stall(self)
        if self._doom is None and not self._source.broken:
            patience = self._network.chance.uniform(*BREAKS_AFTER_S)
            self._doom = self._network.loop.call_later(patience, self._give_up)

    def _give_up(self) -> None:
        """The sender got no answer for too long. Its reset may not arrive either."""
        self._doom = None
        source = self._source
        source.break_off("the peer does not answer")
        self._under_way.clear()
        self.reset()

    def retry(self) -> None:
        """Something in the network changed: send again, and tell what was read."""
        network = self._network
        there, back = self._source.host, self._target.host
        if network.is_cut(there, back) or network.is_cut(back, there):
            network.stall(self)
            if network.is_cut(there, back):
                return
        elif self._doom is not None:
            self._doom.cancel()
            self._doom = None
        self._credit(0)
        if self._target.broken and not self._under_way:
            self._refused()
        if self._under_way and self._timer is None:
            again = network.loop.time() + network.latency_s(there, back)
            self._timer = network.loop.call_at(again, self._arrive_late)

    def _arrive_late(self) -> None:
        """What had been stopped comes at once, in order."""
        now = self._network.loop.time()
        self._under_way = deque((min(at, now), frame) for at, frame in self._under_way)
        self._arrive()

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._doom):
            if timer is not None:
                timer.cancel()
        self._timer = self._doom = None

    # -- the receiving end ---------------------------------------------------------

    async def take(self) -> bytes:
        """The next frame, once it is there."""
        while True:
            if self._target.broken:
                raise Unavailable(f"the channel is closed: {self._target.broken}")
            if self._inbox:
                frame = self._inbox.popleft()
                self._credit(len(frame))
                return frame
            if self._ended:
                raise Unavailable("the peer closed the channel")
            if self._reader is not None:
                raise RuntimeError("two readers on one channel")
            self._reader = self._network.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    def _credit(self, size: int) -> None:
        """Make room in the sender's window for what was read, if a way leads back."""
        self._owed += size
        if self._owed and not self._network.is_cut(self._target.host, self._source.host):
            self._unread -= self._owed
            self._owed = 0
            self.wake_writers()
        elif self._owed:
            self._stall()

    def wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def wake_writers(self) -> None:
        """Let all who wait look again, in order."""
        for waiter in self._writers:
            if not waiter.done():
                waiter.set_result(None)
