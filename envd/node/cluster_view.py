"""The cluster as callers see it and manage it: members, voters, figures, join, leave, remove.

What the node knows of its cluster it is asked through the Protocol `Cluster`; `SoleNode` is that of
a node without one. Words are checked here, and what can't be meant is refused: a node leaves by
itself, and only a member that is down is removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Final, Protocol

from envd.core.answers import (
    ClusterFigures,
    Identity,
    Membership,
    MemberView,
    PeerView,
    PlaceView,
    SeedView,
    Status,
    TopologyView,
    VoterView,
)
from envd.core.errors import Conflict, InvalidRequest, NotFound, Unsupported
from envd.core.members import Member, MemberState
from envd.core.names import check_environment
from envd.core.requests import (
    JoinRequest,
    LeaveRequest,
    RecoverRequest,
    RemoveRequest,
    TopologyRequest,
)
from envd.core.ring import partition_of

MANAGE: Final = "cluster"
"""The right to change who belongs to the cluster."""
MAX_JOIN_ADDRESSES: Final = 64
MIN_UID_DIGITS: Final = 4
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s:/@\[\]]+):([0-9]{1,5})")
_MAX_PORT: Final = 65_535
_MAX_SHOWN: Final = 64


class Cluster(Protocol):
    """What a node knows of its cluster, and what it can do about it."""

    @property
    def own_uid(self) -> int:
        """The uid of this node."""
        ...

    def members(self) -> Sequence[Member]:
        """All members that are known, this node too, those that are down or left for a while."""
        ...

    def peers(self) -> Sequence[PeerView]:
        """How this node stands with each other storage node."""
        ...

    def seeds(self) -> Sequence[SeedView]:
        """The addresses of `--join`, and whether they answer."""
        ...

    def figures(self) -> ClusterFigures:
        """How the cluster does."""
        ...

    def topology(self, environment: str = "") -> TopologyView:
        """Who votes on serial environments, and who holds what; with the place of this one."""
        ...

    async def join(self, addresses: Sequence[str]) -> None:
        """Join the cluster that answers at one of these; raises Unavailable where none does."""
        ...

    async def leave(self) -> None:
        """Leave for good.

        Returns once the others hold what this node acknowledged and know that it left; the node
        then stops by itself. Raises Unavailable where that can't be had now; with the reason
        DRAINING it goes on, and is to be asked again.
        """
        ...

    async def remove(self, member: Member) -> None:
        """Strike a member that is down; returns once this node tells the others."""
        ...

    async def recover(self, *, dry_run: bool) -> None:
        """Vote alone from now on; raises Conflict where a majority of the voters is there."""
        ...


class SoleNode:
    """A node that belongs to no cluster: the one member of its own."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @property
    def own_uid(self) -> int:
        return self._member.uid

    def members(self) -> Sequence[Member]:
        return (self._member,)

    def peers(self) -> Sequence[PeerView]:
        return ()

    def seeds(self) -> Sequence[SeedView]:
        return ()

    def figures(self) -> ClusterFigures:
        return ClusterFigures()

    def topology(self, environment: str = "") -> TopologyView:
        return TopologyView(
            0,
            (voter_view(self._member, "yes", reachable=True),),
            majority=True,
            place=PlaceView(partition_of(environment)) if environment else None,
        )

    async def join(self, addresses: Sequence[str]) -> None:
        raise Unsupported(
            "this node runs without a cluster",
            hint="start it with: envd --join HOST:PORT --cluster-secret-file FILE",
        )

    async def leave(self) -> None:
        raise _only_member()

    async def remove(self, member: Member) -> None:
        raise _only_member()

    async def recover(self, *, dry_run: bool) -> None:
        raise Conflict(
            "this node votes alone, so nothing is lost; nothing was changed", reason="NOT_LOST"
        )


class ClusterApi:
    """The cluster, for callers with their rights."""

    def __init__(self, cluster: Cluster, allow: Callable[[Identity, str, str], None]) -> None:
        """`allow` raises where an identity lacks a right, or the node stops."""
        self._cluster = cluster
        self._allow = allow

    def status(self, status: Status) -> Status:
        """A status with the figures of the cluster."""
        figures = self._cluster.figures()
        told = {field.name: getattr(figures, field.name) for field in fields(figures)}
        return replace(status, **told)

    async def members(self, identity: Identity) -> Membership:
        """Who belongs to the cluster; every identity may ask."""
        del identity
        return self._membership()

    async def join(self, identity: Identity, request: JoinRequest) -> Membership:
        """Have this node join a cluster; see JoinRequest."""
        self._allow(identity, MANAGE, "")
        if not 0 < len(request.addresses) <= MAX_JOIN_ADDRESSES:
            raise InvalidRequest(
                f"{len(request.addresses)} addresses to join; 1 to {MAX_JOIN_ADDRESSES} are taken"
            )
        for address in request.addresses:
            _check_address(address)
        await self._cluster.join(request.addresses)
        return self._membership()

    async def leave(self, identity: Identity, request: LeaveRequest) -> Membership:
        """Have this node leave its cluster and stop; see LeaveRequest."""
        self._allow(identity, MANAGE, "")
        own = self._cluster.own_uid
        self._check_self(request.member, "leave")
        others = [each for each in self._cluster.members() if each.uid != own and each.reachable]
        if not others:
            raise _only_member()
        if not request.dry_run:
            await self._cluster.leave()
        return self._membership()

    async def remove(self, identity: Identity, request: RemoveRequest) -> Membership:
        """Strike a member that is down; see RemoveRequest."""
        self._allow(identity, MANAGE, "")
        member = self._named(request.member, meant=lambda each: each.state is MemberState.DOWN)
        if member.reachable:
            raise Conflict(
                f"{member.name} is {member.state.name.lower()}, and only what is down is removed; "
                "nothing was changed",
                hint=f"have it leave: envctl --server {member.peer} cluster leave",
                reason="MEMBER_ALIVE",
            )
        if not request.dry_run:
            await self._cluster.remove(member)
        return self._membership()

    async def topology(
        self, identity: Identity, request: TopologyRequest | None = None
    ) -> TopologyView:
        """Who votes on serial environments, and who holds what; every identity may ask."""
        del identity
        environment = request.environment if request is not None else ""
        return self._cluster.topology(check_environment(environment) if environment else "")

    async def recover(self, identity: Identity, request: RecoverRequest) -> TopologyView:
        """Have this node vote alone, because the voters are lost; see RecoverRequest."""
        self._allow(identity, MANAGE, "")
        if request.member:
            self._check_self(request.member, "recover")
        await self._cluster.recover(dry_run=request.dry_run)
        return self._cluster.topology()

    def _check_self(self, named: str, part: str) -> None:
        """Raise Conflict where another node than this one is named."""
        member = self._named(named)
        if member.uid != self._cluster.own_uid:
            raise Conflict(
                f"this is another node than {member.name}; nothing was changed",
                hint=f"ask that one: envctl --server {member.peer} cluster {part}",
                reason="WRONG_NODE",
            )

    def _membership(self) -> Membership:
        own = self._cluster.own_uid
        members = [_member_view(each, own) for each in self._cluster.members()]
        return Membership(
            tuple(sorted(members, key=lambda each: (each.name, each.uid))),
            tuple(sorted(self._cluster.peers(), key=lambda each: (each.name, each.uid))),
            tuple(self._cluster.seeds()),
        )

    def _named(
        self, text: str, meant: Callable[[Member], bool] = lambda member: member.reachable
    ) -> Member:
        """The member with this name, uid, or beginning of one; of several the one that is `meant`.

        A node with a new disk has the name of the one that it replaces.
        """
        members = self._cluster.members()
        named = [each for each in members if each.name == text]
        if not named and len(text) >= MIN_UID_DIGITS:
            named = [each for each in members if uid_text(each).startswith(text.lower())]
        if not named:
            raise NotFound(
                f"the cluster has no member {text[:_MAX_SHOWN]!a}",
                hint="see: envctl cluster members",
                reason="MEMBER_NOT_FOUND",
            )
        if len(named) > 1:
            named = [each for each in named if meant(each)] or named
        if len(named) > 1:
            raise Conflict(
                f"{len(named)} members are called {text[:_MAX_SHOWN]!a}",
                hint="say which by its uid: " + ", ".join(map(_told_apart, named[:5])),
                reason="AMBIGUOUS_MEMBER",
            )
        return named[0]


def sole_member(uid: int, name: str, region: str) -> Member:
    """The member that a node without a cluster is; its addresses are not known."""
    return Member(uid, 0, 0, MemberState.ALIVE, name, "", "", region=region)


def shown_state(state: MemberState) -> str:
    """alive, suspect, down or left; who left for good has left, too."""
    return "left" if state >= MemberState.LEFT else state.name.lower()


def uid_text(member: Member) -> str:
    """The uid of a member as it is shown: 16 hexadecimal digits."""
    return f"{member.uid:016x}"


def _told_apart(member: Member) -> str:
    return f"{uid_text(member)} ({shown_state(member.state)})"


def _member_view(member: Member, own: int) -> MemberView:
    return MemberView(
        name=member.name,
        uid=uid_text(member),
        address=member.peer,
        region=member.region,
        zone=member.zone,
        role=member.role,
        state=shown_state(member.state),
        generation=member.generation,
        gossip=member.gossip,
        http=member.http,
        release=member.release,
        answering=member.uid == own,
    )


def voter_view(member: Member, votes: str, *, reachable: bool, leaving: bool = False) -> VoterView:
    """A member as a node of the topology."""
    return VoterView(
        name=member.name,
        uid=uid_text(member),
        region=member.region,
        zone=member.zone,
        state=shown_state(member.state),
        votes=votes,
        reachable=reachable,
        leaving=leaving,
    )


def _check_address(address: str) -> None:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[2]) <= _MAX_PORT:
        raise InvalidRequest(
            f"{address[:_MAX_SHOWN]!a} is no address of a node",
            hint="name the gossip address of a member: HOST:PORT (7421 by default)",
            reason="INVALID_ADDRESS",
        )


def _only_member() -> Conflict:
    return Conflict(
        "this node is the only member of its cluster that can be reached; nothing was changed",
        hint="to stop it, send it SIGTERM: its data stay",
        reason="ONLY_MEMBER",
    )
