"""A replicated register in a few lines, so that the simulator is tested without envd's node.

Each node keeps key -> (counter, node, value); the greater wins. A write is synced here, sent to all
peers on channels that are dialled again when they break, and answered once one peer has synced it.
Beats go by datagram, so that these are used too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from chaos.sim.chance import Chance
from chaos.sim.cluster import Boot, Cluster, Machine
from chaos.sim.disk import SimDisk
from chaos.sim.loop import SimLoop
from chaos.sim.trace import Trace
from envd.core.errors import Unavailable
from envd.ports import PeerChannel

Value = tuple[int, str, str]


class ToyNode:
    """One run; `sync_before_answer` False is a fault that the tests look for."""

    def __init__(self, boot: Boot, disk: SimDisk[bytes], peers: list[Machine], sound: bool) -> None:
        self.state: dict[str, Value] = {}
        self.beats = 0
        self._boot = boot
        self._disk = disk
        self._peers = peers
        self._sound = sound
        self._queues: dict[str, asyncio.Queue[bytes]] = {}
        self._acked: dict[str, asyncio.Future[None]] = {}
        for row in disk.durable:
            self._take(*json.loads(row))

    def run(self) -> None:
        boot = self._boot
        boot.datagrams.on_datagram(self._beat)
        boot.transport.on_channel(self._serve)
        boot.process.spawn(self._beats())
        for peer in self._peers:
            self._queues[peer.name] = asyncio.Queue()
            boot.process.spawn(self._ship(peer))

    async def write(self, key: str, value: str) -> Value:
        counter = self.state.get(key, (0, "", ""))[0] + 1
        written = (counter, self._boot.machine.name, value)
        row = json.dumps([key, list(written)]).encode()
        self._take(key, list(written))
        durable = self._disk.append(row)
        if not self._sound:
            return written
        await durable
        acked = self._acked.setdefault(row.decode(), asyncio.get_running_loop().create_future())
        for queue in self._queues.values():
            queue.put_nowait(row)
        await asyncio.wait_for(acked, 5.0)
        return written

    async def stop(self) -> None:
        await asyncio.sleep(0.01)

    async def leave(self) -> None:
        await asyncio.sleep(0.01)

    def _take(self, key: str, written: list[object]) -> bool:
        value: Value = (int(str(written[0])), str(written[1]), str(written[2]))
        if value <= self.state.get(key, (0, "", "")):
            return False
        self.state[key] = value
        return True

    def _beat(self, sender: str, datagram: bytes) -> None:
        self.beats += 1

    async def _beats(self) -> None:
        while True:
            for peer in self._peers:
                self._boot.datagrams.send(peer.gossip, self._boot.rng.token_bytes(8))
            await asyncio.sleep(0.2)

    async def _serve(self, channel: PeerChannel) -> None:
        try:
            while True:
                row = await channel.receive()
                if self._take(*json.loads(row)):
                    await self._disk.append(row)
                await channel.send(row)
        except Unavailable:
            return

    async def _ship(self, peer: Machine) -> None:
        while True:
            try:
                channel = await self._boot.transport.dial(peer.peer)
                await self._ship_on(peer, channel)
            except Unavailable:
                await asyncio.sleep(0.3)

    async def _ship_on(self, peer: Machine, channel: PeerChannel) -> None:
        queue = self._queues[peer.name] = asyncio.Queue()
        for key, value in sorted(self.state.items()):
            queue.put_nowait(json.dumps([key, list(value)]).encode())
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read_acks(channel))
                reading.add_done_callback(lambda _: queue.put_nowait(b""))
                while row := await queue.get():
                    await channel.send(row)
        except* Unavailable:
            pass
        channel.close()
        raise Unavailable("the channel broke")

    async def _read_acks(self, channel: PeerChannel) -> None:
        while True:
            acked = self._acked.pop((await channel.receive()).decode(), None)
            if acked is not None and not acked.done():
                acked.set_result(None)


class ToyFactory:
    """Nodes that know each other from the start."""

    def __init__(self, loop: SimLoop, chance: Chance, *, sound: bool = True) -> None:
        self.cluster: Cluster[ToyNode]
        self.disks: dict[str, SimDisk[bytes]] = {}
        self._loop = loop
        self._chance = chance
        self._sound = sound

    def disk(self, machine: Machine) -> SimDisk[bytes]:
        if machine.name not in self.disks:
            stream = self._chance.stream(f"disk {machine.name}")
            self.disks[machine.name] = SimDisk(self._loop, stream)
        return self.disks[machine.name]

    async def start(self, boot: Boot) -> ToyNode:
        peers = [one for one in self.cluster.machines.values() if one is not boot.machine]
        node = ToyNode(boot, self.disk(boot.machine), peers, self._sound)
        node.run()
        return node

    def crashed(self, machine: Machine) -> None:
        self.disk(machine).crash()

    def wipe(self, machine: Machine) -> None:
        self.disk(machine).wipe()


class ToyWorld:
    """A loop with a cluster of toys named n1, n2, ..."""

    def __init__(self, seed: int = 1, nodes: int = 3, *, sound: bool = True) -> None:
        self.loop = SimLoop()
        self.chance = Chance(seed)
        self.trace = Trace(self.loop.time)
        self.factory = ToyFactory(self.loop, self.chance, sound=sound)
        self.cluster = Cluster(self.loop, self.chance, self.trace, self.factory)
        self.factory.cluster = self.cluster
        for number in range(1, nodes + 1):
            self.cluster.add(f"n{number}", "here" if number < 4 else "there")

    @property
    def machines(self) -> list[Machine]:
        return list(self.cluster.machines.values())

    async def start_all(self) -> None:
        for machine in self.machines:
            await self.cluster.start(machine)

    async def write(self, name: str, key: str, value: str) -> Value:
        machine = self.cluster.machines[name]
        assert machine.boot is not None
        node = self.cluster.nodes[name]
        return await self.cluster.call(machine.boot.process, node.write(key, value))

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await main()

        try:
            self.loop.simulate(whole())
        finally:
            self.loop.close()
