"""Who belongs to the cluster, as one node sees it.

A member is known by `(uid, generation)`: the uid of its data directory and the number of its
start. What is said of a member is ordered by generation, then incarnation, then state: the
higher wins, and of one incarnation the worse state does (Das et al. 2002, SWIM, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

BOOT_ID_BYTES = 16


class MemberState(IntEnum):
    """What is believed of a member; the numbers are sent, and grow with what overrules what.

    LEFT stopped in good order and may come back. GONE left for good, or was removed: nothing is
    kept for it, and no write waits for it.
    """

    ALIVE = 0
    SUSPECT = 1
    DOWN = 2
    LEFT = 3
    GONE = 4


@dataclass(frozen=True, slots=True)
class Member:
    """One start of one node.

    `gossip` and `peer` are its "host:port" for datagrams and for gRPC, `http` that of its web
    server ("" for none). `boot_id` are the 16 bytes drawn at this start: a member with a known
    (uid, generation) and another boot id is a clone. `versions` are the lowest and the highest
    peer protocol that it speaks; `release` is its envd version.
    """

    uid: int
    generation: int
    incarnation: int
    state: MemberState
    name: str
    gossip: str
    peer: str
    http: str = ""
    region: str = "default"
    zone: str = "default"
    role: str = "storage"
    boot_id: bytes = b""
    versions: tuple[int, int] = (1, 1)
    release: str = ""

    @property
    def precedence(self) -> tuple[int, int, int]:
        """What is said with a higher one replaces what is said with a lower one."""
        return (self.generation, self.incarnation, int(self.state))

    @property
    def start(self) -> tuple[int, bytes]:
        """Which start of the node this is; of two clones of one generation, one is higher."""
        return (self.generation, self.boot_id)

    def supersedes(self, other: Member) -> bool:
        """Tell whether this replaces `other`, which is said of the same uid.

        As `precedence`, with the boot id behind the generation: all nodes then agree which of two
        clones is the member.
        """
        return (self.start, self.incarnation, self.state) > (
            other.start,
            other.incarnation,
            other.state,
        )

    @property
    def reachable(self) -> bool:
        """Not known to be down or gone."""
        return self.state <= MemberState.SUSPECT
