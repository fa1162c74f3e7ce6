"""A cluster as a node tells of it, made up for tests: three members, and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from envd.core.answers import ClusterFigures, PeerView, SeedView, TopologyView
from envd.core.errors import Conflict, Unavailable
from envd.core.members import Member, MemberState
from envd.node.cluster_view import voter_view


def member(uid: int, name: str, state: MemberState = MemberState.ALIVE, port: int = 7420) -> Member:
    """A member whose addresses are all of loopback."""
    return Member(
        uid=uid,
        generation=3,
        incarnation=1,
        state=state,
        name=name,
        gossip=f"127.0.0.1:{port + 1}",
        peer=f"127.0.0.1:{port}",
        http=f"127.0.0.1:{port + 2}",
        region="eu",
        zone="a",
        release="0.1.0",
    )


def peer(uid: int, name: str, **more: object) -> PeerView:
    """A peer that all is well with."""
    told: dict[str, object] = {"connected": True, "clock_offset_ms": 4, "heard_ms": 80, **more}
    return PeerView(name, f"{uid:016x}", "127.0.0.1:7430", **told)  # type: ignore[arg-type]


@dataclass
class FakeCluster:
    """Does what it is told to, and notes it."""

    own_uid: int = 7
    known: list[Member] = field(
        default_factory=lambda: [
            member(9, "n3", port=7440),
            member(7, "n1", port=7420),
            member(8, "n2", port=7430),
        ]
    )
    links: list[PeerView] = field(default_factory=lambda: [peer(9, "n3"), peer(8, "n2")])
    told_seeds: list[SeedView] = field(default_factory=list)
    now: ClusterFigures = field(default_factory=lambda: ClusterFigures(members=3))
    asked: list[tuple[str, object]] = field(default_factory=list)
    unreachable: bool = False
    epoch: int = 7
    voters: dict[int, str] = field(default_factory=lambda: dict.fromkeys((7, 8, 9), "yes"))
    spread: dict[str, Any] = field(default_factory=dict)
    """Who holds which partition: fields of TopologyView."""
    drains: list[str] = field(default_factory=list)
    """What is told, one after the other, before a node that is to leave has left."""

    def members(self) -> Sequence[Member]:
        return self.known

    def peers(self) -> Sequence[PeerView]:
        return self.links

    def seeds(self) -> Sequence[SeedView]:
        return self.told_seeds

    def figures(self) -> ClusterFigures:
        return self.now

    def topology(self, environment: str = "") -> TopologyView:
        nodes = [
            voter_view(each, self.voters.get(each.uid, "no"), reachable=each.reachable)
            for each in sorted(self.known, key=lambda each: each.name)
        ]
        voting = [each.reachable for each in nodes if each.votes == "yes"]
        majority = 2 * sum(voting) > len(voting)
        return TopologyView(self.epoch, tuple(nodes), majority, **self.spread)

    async def recover(self, *, dry_run: bool) -> None:
        if self.topology().majority:
            raise Conflict("nothing is lost", hint="see", reason="NOT_LOST")
        if not dry_run:
            self.asked.append(("recover", None))
            self.epoch, self.voters = self.epoch + 1000, {self.own_uid: "yes"}

    async def join(self, addresses: Sequence[str]) -> None:
        self.asked.append(("join", tuple(addresses)))
        if self.unreachable:
            raise Unavailable("no member answers", hint="name another", reason="NO_SEED")

    async def leave(self) -> None:
        self.asked.append(("leave", None))
        if self.drains:
            raise Unavailable(self.drains.pop(0), reason="DRAINING", retry_after_ms=1)
        self.become(self.own_uid, MemberState.LEFT)

    async def remove(self, member: Member) -> None:
        self.asked.append(("remove", member.uid))
        self.known = [each for each in self.known if each.uid != member.uid]

    def become(self, uid: int, state: MemberState) -> None:
        """Have a member be in another state."""
        self.known = [
            replace(each, state=state) if each.uid == uid else each for each in self.known
        ]
