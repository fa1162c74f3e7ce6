"""The members that one node knows, each in the highest state that was said of it.

Merging is a join: `put` keeps what supersedes, so the order and the number of times in which
things are heard don't matter (the laws are in tests/core/test_swim_table.py). Facts such as
addresses are constant for one start of a member; only a new start brings new ones.

It keeps the others in two rounds, those of this node's region and those of the other regions, and
counts the reachable ones by region.
"""

from __future__ import annotations

from collections.abc import Iterator

from envd.core.members import Member, MemberState
from envd.core.swim.chance import Chance
from envd.core.swim.regions import Regions
from envd.core.swim.rounds import Round


class MemberTable:
    """At most `max_members` members by uid, the node itself among them."""

    __slots__ = ("_max", "_members", "_since", "_uid", "far", "near", "reachable_count", "regions")

    def __init__(self, me: Member, max_members: int) -> None:
        self._uid = me.uid
        self._max = max_members
        self._members: dict[int, Member] = {me.uid: me}
        self._since: dict[int, int] = {}
        self.near = Round(self._members)
        self.far = Round(self._members)
        self.regions = Regions(self._members)
        self.regions.update(None, me)
        self.reachable_count = 1

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        """All, in order of their uids."""
        return (self._members[uid] for uid in sorted(self._members))

    @property
    def me(self) -> Member:
        return self._members[self._uid]

    def get(self, uid: int) -> Member | None:
        return self._members.get(uid)

    def put(self, told: Member, now_ms: int, chance: Chance) -> bool:
        """Take in what supersedes what is known; tell whether it did.

        False also where the table is full of members that are not down.
        """
        known = self._members.get(told.uid)
        if known is None:
            if len(self._members) >= self._max and not self._drop_oldest():
                return False
            self._round_of(told).insert(told.uid, chance)
        elif not told.supersedes(known):
            return False
        elif told.region != known.region:
            self._round_of(known).drop(told.uid)
            self._round_of(told).insert(told.uid, chance)
        self._members[told.uid] = told
        self.regions.update(known, told)
        self.reachable_count += told.reachable - (known is not None and known.reachable)
        if told.reachable:
            self._since.pop(told.uid, None)
        elif known is None or known.state is not told.state or told.uid not in self._since:
            self._since[told.uid] = now_ms
        return True

    def age_ms(self, uid: int, now_ms: int) -> int:
        """For how long a member is down or gone; 0 for others."""
        return max(0, now_ms - self._since.get(uid, now_ms))

    def make_older(self, uid: int, age_ms: int, now_ms: int) -> None:
        """Another node knows for longer that this member is down or gone."""
        if uid in self._since:
            self._since[uid] = min(self._since[uid], now_ms - age_ms)

    def down(self) -> list[Member]:
        """The members that are down, in order of their uids."""
        gone = (self._members[uid] for uid in sorted(self._since))
        return [member for member in gone if member.state is MemberState.DOWN]

    @property
    def has_unreachable(self) -> bool:
        """Whether anybody is down or gone."""
        return bool(self._since)

    def forget(self, down_kept_ms: int, left_kept_ms: int, now_ms: int) -> list[Member]:
        """Drop members that are down, or gone, for so long; return them."""
        dropped = []
        for uid in sorted(self._since):
            member = self._members[uid]
            kept_ms = down_kept_ms if member.state is MemberState.DOWN else left_kept_ms
            if uid != self._uid and now_ms - self._since[uid] >= kept_ms:
                self._drop(uid)
                dropped.append(member)
        return dropped

    def _round_of(self, member: Member) -> Round:
        return self.near if member.region == self.me.region else self.far

    def _drop_oldest(self) -> bool:
        oldest = min(self._since, key=lambda uid: (self._since[uid], uid), default=None)
        if oldest is None or oldest == self._uid:
            return False
        self._drop(oldest)
        return True

    def _drop(self, uid: int) -> None:
        member = self._members[uid]
        self._round_of(member).drop(uid)
        self.regions.update(member, None)
        del self._members[uid]
        self._since.pop(uid, None)
