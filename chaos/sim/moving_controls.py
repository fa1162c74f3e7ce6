"""What the controls about partitions on their way do to a node: see `chaos.sim.controls`."""

from __future__ import annotations

from typing import Final

from chaos.sim.sabotage import Answering, Channel
from envd.core.ring import PARTITIONS
from envd.core.shares import to_bitmap
from envd.ports import PeerChannel
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
