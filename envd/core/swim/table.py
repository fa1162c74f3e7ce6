"""The members that one node knows, each in the highest state that was said of it.

Merging is a join: `put` keeps what supersedes, so the order and the number of times in which
things are heard don't matter (the laws are in tests/core/test_swim_table.py). Facts such as
addresses are constant for one start of a member; only a new start brings new ones.

The table also answers the two questions that SWIM asks by chance: whom to probe next (round
robin over a shuffled list, so that the time to the next probe of a member is bounded: SWIM,
section 4.3), and who are k others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from envd.core.members import Member, MemberState
from envd.core.swim.chance import Chance, below, sample

_TRIES = 3


class MemberTable:
    """At most `max_members` members by uid, the node itself among them."""

    __slots__ = ("_at", "_max", "_members", "_order", "_since", "_uid", "reachable_count")

    def __init__(self, me: Member, max_members: int) -> None:
        self._uid = me.uid
        self._max = max_members
        self._members: dict[int, Member] = {me.uid: me}
        self._since: dict[int, int] = {}
        self._order: list[int] = []
        self._at = 0
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
            self._insert(told.uid, chance)
        elif not told.supersedes(known):
            return False
        self._members[told.uid] = told
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

    def next_to_probe(self, chance: Chance) -> Member | None:
        """The next reachable member but this node itself; shuffled again after each round."""
        for _ in range(len(self._order) + 1):
            if self._at >= len(self._order):
                self._at = 0
                self._order = sample(self._order, len(self._order), chance)
            if not self._order:
                return None
            member = self._members[self._order[self._at]]
            self._at += 1
            if member.reachable:
                return member
        return None

    def pick(self, count: int, chance: Chance, accept: Callable[[Member], bool]) -> list[Member]:
        """At most `count` different others that `accept` takes, at random.

        Small tables are sampled exactly; of large ones a bounded number is tried, and it may give
        fewer (memberlist `kRandomNodes`).
        """
        order = self._order
        if len(order) <= 16 * count:
            fit = [member for uid in order if accept(member := self._members[uid])]
            return sample(fit, count, chance)
        picked: dict[int, Member] = {}
        for _ in range(_TRIES * len(order)):
            member = self._members[order[below(len(order), chance)]]
            if member.uid not in picked and accept(member):
                picked[member.uid] = member
                if len(picked) == count:
                    break
        return list(picked.values())

    def _insert(self, uid: int, chance: Chance) -> None:
        """Into a random place of the round: its end would give joiners a fixed order."""
        at = below(len(self._order) + 1, chance)
        self._order.insert(at, uid)
        if at < self._at:
            self._at += 1

    def _drop_oldest(self) -> bool:
        oldest = min(self._since, key=lambda uid: (self._since[uid], uid), default=None)
        if oldest is None or oldest == self._uid:
            return False
        self._drop(oldest)
        return True

    def _drop(self, uid: int) -> None:
        at = self._order.index(uid)
        del self._order[at]
        if at < self._at:
            self._at -= 1
        del self._members[uid]
        self._since.pop(uid, None)
