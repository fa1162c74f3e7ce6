"""What a simulated machine's disk holds of a node besides its platter: the data directory."""

from __future__ import annotations

from dataclasses import dataclass, field

from envd.core.members import Member
from envd.core.paxos import Acceptor
from envd.storage.memory import Durable


@dataclass
class Directory:
    """What one machine's disk holds."""

    uid: int
    generation: int = 0
    cluster_id: str = ""
    digest_key: bytes = b""
    former_uids: tuple[int, ...] = ()
    replaced_uids: frozenset[int] = frozenset()
    joined: bool = False
    known: tuple[Member, ...] = ()
    durable: Durable = field(default_factory=Durable)
    registers: dict[str, Acceptor] = field(default_factory=dict)
    synced_at: list[float] = field(default_factory=list)
    saved_s: float = 0.0
    empties: bool = False

    def empty(self) -> None:
        """Do what was noted: let go of the store, and of what was promised."""
        if self.empties:
            self.durable, self.registers, self.synced_at = Durable(), {}, []
            self.empties = False
