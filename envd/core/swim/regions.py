"""Who speaks for a region with the other regions: its gateways.

The gateways of a region are its reachable storage members of the lowest uids, up to and including
the third that is not suspected; of a region without reachable storage members, its others. This
is a function of the table alone, so nodes that believe the same name the same gateways, without an
agreement; where they don't yet, a datagram more or less is sent, for whoever is asked answers.

Three: one may be down and another just restarting, and one still speaks. And where there are two
regions, three is what it takes for one accuser of the other region to be confirmed by two
(Lifeguard's k = 2). More would only cost more traffic between regions.

A suspect counts for nothing, but stays a gateway: its successor speaks beside it until it has
answered, or is down. So nothing waits for a suspicion to end, and where a whole region is silent,
its members become gateways, are asked and found silent, three by three, while the suspicions of
those before them run.

The WAN pool of hashicorp/consul, in which the servers of a datacenter stand for it, is the
precedent; there, operators say who they are.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from typing import Final

from envd.core.members import Member, MemberState

GATEWAYS: Final = 3


class Regions:
    """The reachable ones of `members` by region; `update` tells it of each change."""

    __slots__ = ("_members", "_ranks")

    def __init__(self, members: Mapping[int, Member]) -> None:
        self._members = members
        self._ranks: dict[str, list[tuple[bool, int]]] = {}

    def update(self, previous: Member | None, member: Member | None) -> None:
        """What was known as `previous` is known as `member` from now on; None is not known."""
        if previous is not None and previous.reachable:
            ranks = self._ranks[previous.region]
            del ranks[bisect_left(ranks, _rank(previous))]
            if not ranks:
                del self._ranks[previous.region]
        if member is not None and member.reachable:
            insort(self._ranks.setdefault(member.region, []), _rank(member))

    def reachable_count(self, region: str) -> int:
        """How many members of a region are neither down nor gone."""
        return len(self._ranks.get(region, ()))

    def gateways(self, region: str) -> list[Member]:
        """Who speaks for a region, in order."""
        found: list[Member] = []
        alive = 0
        for is_agent, uid in self._ranks.get(region, ()):
            if alive == GATEWAYS or (found and is_agent != _is_agent(found[0])):
                break
            member = self._members[uid]
            found.append(member)
            alive += member.state is MemberState.ALIVE
        return found

    def gateways_outside(self, region: str) -> Iterator[Member]:
        """Who speaks for the other regions, in order of the regions' names."""
        for other in sorted(self._ranks):
            if other != region:
                yield from self.gateways(other)

    def speaks(self, member: Member) -> bool:
        """Tell whether `member` is a gateway, or would be one if it were reachable."""
        before = [each for each in self.gateways(member.region) if _rank(each) < _rank(member)]
        alive = sum(each.state is MemberState.ALIVE for each in before)
        same_role = all(_is_agent(each) == _is_agent(member) for each in before)
        return same_role and alive < GATEWAYS

    @property
    def gateway_count(self) -> int:
        """How many speak, for all regions."""
        return sum(len(self.gateways(region)) for region in self._ranks)


def _is_agent(member: Member) -> bool:
    return member.role != "storage"


def _rank(member: Member) -> tuple[bool, int]:
    return (_is_agent(member), member.uid)
