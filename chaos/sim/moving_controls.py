"""What the controls about partitions on their way do to a node: see `chaos.sim.controls`."""

from __future__ import annotations

from typing import Final

from chaos.sim import shares
from chaos.sim.sabotage import Answering, Channel, Wrap
from envd.core.ring import PARTITIONS, to_bitmap
from envd.ports import PeerChannel, Store
from envd.wire import peers as wire

_ALL: Final = to_bitmap(range(PARTITIONS))


class TakenForGranted(Answering):
    """Says of all that a node hands over that it is pulled, and asks nobody to pull it."""

    def answer(self, said: object) -> bytes | None:
        if not isinstance(said, wire.Call) or said.method != "partitions.take":
            return None
        offered = wire.unpack(wire.TakePartitions, said.body).partitions
        return wire.encode(wire.Reply(said.number, wire.pack(offered)))

    def passes(self, said: object) -> bool:
        return False

    def hides(self, said: object) -> bool:
        return False


class PulledInWords(Channel):
    """Has each node that tells how far it is say that it pulled all it is to have."""

    def __init__(self, inner: PeerChannel) -> None:
        super().__init__(inner, self._note)
        self._asked: set[int] = set()

    def _note(self, frame: bytes) -> bytes:
        said = wire.decode(frame)
        if isinstance(said, wire.Call) and said.method == "partitions.progress":
            self._asked.add(said.number)
        return frame

    async def receive(self) -> bytes:
        frame = await self.inner.receive()
        said = wire.decode(frame)
        if not isinstance(said, wire.Reply) or said.number not in self._asked:
            return frame
        self._asked.remove(said.number)
        progress = wire.unpack(wire.PartitionProgress, said.body)
        told = wire.PartitionProgress(progress.epoch, _ALL, progress.kept)
        return wire.encode(wire.Reply(said.number, wire.pack(told)))


class _AnyEpoch(Channel):
    """Has each proposer say that it counts in the epoch of the node that it asks."""

    def __init__(self, inner: PeerChannel, store: Store) -> None:
        super().__init__(inner, lambda frame: frame)
        self._store = store

    async def receive(self) -> bytes:
        frame = await self.inner.receive()
        said = wire.decode(frame)
        topology = shares.own(self._store).topology
        if not isinstance(said, wire.Call) or topology is None:
            return frame
        match said.method:
            case "serial.prepare" | "serial.look":
                asked = wire.unpack(wire.Prepare, said.body)
                body = wire.pack(wire.Prepare(asked.environment, topology.epoch, asked.ballot))
            case "serial.accept":
                wanted = wire.unpack(wire.Accept, said.body)
                told = (wanted.environment, topology.epoch, wanted.ballot, wanted.value)
                body = wire.pack(wire.Accept(*told))
            case _:
                return frame
        return wire.encode(wire.Call(said.number, said.method, body))


def any_epoch(store: Store) -> Wrap:
    return lambda channel: _AnyEpoch(channel, store)
