"""A node whose cluster has a partition table, and which reaches nobody else of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from envd.core.errors import Unavailable
from envd.core.members import Member
from envd.core.partitions import ANYWHERE, PartitionTable
from envd.core.ring import PARTITIONS, SYSTEM_PARTITION, partition_of
from envd.node.coordinator import Coordinator
from envd.node.gathering import Gathering
from envd.node.held import Held
from envd.node.holdings import Holdings
from envd.node.peer import PeerLink
from envd.node.routing import Routing
from envd.ports import Store

OTHER = 0xABCD


class Nobody:
    """Peers of which none is known."""

    def links(self) -> Iterable[tuple[Member, PeerLink]]:
        return ()

    def answering(self) -> Sequence[int]:
        return ()

    async def ask(self, uid: int, method: str, body: bytes, timeout_s: float, /) -> bytes:
        raise Unavailable(f"{uid:x} is not there for {method}", reason="PEER_UNREACHABLE")


class _Draws:
    def token_bytes(self, size: int) -> bytes:
        return b"r" * size


class CutOff:
    """What asks others for a node; `lose` has another one hold what this one does not."""

    def __init__(self, coordinator: Coordinator, store: Store) -> None:
        uid = coordinator.node.uid
        self._uid = uid
        self._holdings = Holdings(uid)
        routing = Routing(uid, self._holdings, Nobody, _Draws())
        self.gathering = Gathering(
            uid, coordinator, Held(uid, store, coordinator, routing), routing
        )
        coordinator.routing = routing
        coordinator.layers_checked = self.gathering.check_layers

    def lose(self, names: Collection[str] = (), *, everything: bool = False) -> None:
        """These environments, or all, are held by a node that can't be reached."""
        lost = {partition_of(name) for name in names}
        rows: list[tuple[int, ...]] = [
            (OTHER,) if everything or partition in lost else (self._uid,)
            for partition in range(PARTITIONS)
        ]
        rows[SYSTEM_PARTITION] = ()
        self._holdings.follow(PartitionTable({ANYWHERE: 1}, tuple(rows)))

    def regain(self) -> None:
        """This node holds everything again."""
        self._holdings.follow(None)
