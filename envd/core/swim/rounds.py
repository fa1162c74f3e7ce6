"""Choosing among members by chance: whom to ask next, and who are k others.

Round robin over a shuffled list bounds the time until a member is asked again (SWIM, section
4.3); it is shuffled again after each round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from envd.core.members import Member
from envd.core.swim.chance import Chance, below, sample

_TRIES = 3


class Round:
    """Some of `members`, by uid, in the order in which they are asked."""

    __slots__ = ("_at", "_members", "_order")

    def __init__(self, members: Mapping[int, Member]) -> None:
        self._members = members
        self._order: list[int] = []
        self._at = 0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Member]:
        return (self._members[uid] for uid in self._order)

    def insert(self, uid: int, chance: Chance) -> None:
        """Into a random place of the round: its end would give joiners a fixed order."""
        at = below(len(self._order) + 1, chance)
        self._order.insert(at, uid)
        if at < self._at:
            self._at += 1

    def drop(self, uid: int) -> None:
        """Take a member out."""
        at = self._order.index(uid)
        del self._order[at]
        if at < self._at:
            self._at -= 1

    def next(self, chance: Chance, accept: Callable[[Member], bool]) -> Member | None:
        """The next one that `accept` takes."""
        for _ in range(len(self._order) + 1):
            if self._at >= len(self._order):
                self._at = 0
                self._order = sample(self._order, len(self._order), chance)
            if not self._order:
                return None
            member = self._members[self._order[self._at]]
            self._at += 1
            if accept(member):
                return member
        return None

    def pick(self, count: int, chance: Chance, accept: Callable[[Member], bool]) -> list[Member]:
        """At most `count` different ones that `accept` takes, at random.

        Small rounds are sampled exactly; of large ones a bounded number is tried, and it may give
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
