"""Consent on what follows: Paxos for the chain of a serial environment, without I/O.

A register holds a value that only changes by a majority of its acceptors, and every change is made
of the value before: CASPaxos (Rystsov 2018, "CASPaxos: Replicated State Machines without
logs"). Here the value is the environment as it stands in the replicated log, a change is one
commit, and the place of a change is the position that it follows (`core.chain`). For each place it
is Paxos of one decree (Lamport 2001, "Paxos Made Simple"), and a promise holds for all places
from there on, so who has a majority's promise writes with one round trip.

Rules:

1. An acceptor promises a ballot that is greater than every one it promised, and accepts a value
   under a ballot that is not smaller.
2. It accepts at the place where its own log stands durably, and nowhere else: who lacks something
   gets it first, who is further tells so. So whatever is accepted stands on what is chosen, and
   what it replaces is in the log.
3. What it promised and accepted is durable before it answers.
4. A proposer asks a quorum for its promise first. Of what was accepted at the farthest place that
   one of them holds it must propose the value of the highest ballot again; only where there is none
   may it propose its own. Under one ballot it proposes one value at a place.
5. What a quorum accepted is chosen; it goes into the log of whoever knows, and so to all nodes.

A value accepted at an earlier place than the acceptor's position says nothing: what was chosen
there stands in the log. So an acceptor may forget it, and a register of which it holds nothing but
a promise may be forgotten altogether, if one low ballot for all that is forgotten is raised to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from envd.core.stamp import ZERO, Stamp


class Ballot(NamedTuple):
    """A proposer's try: the counter, then the proposer's uid, which no two have in common."""

    counter: int
    node_uid: int

    def above(self, node_uid: int) -> Ballot:
        """The least ballot of that proposer that is greater than this one."""
        return Ballot(self.counter + (node_uid <= self.node_uid), node_uid)


NEVER = Ballot(0, 0)
"""Below every ballot that a proposer uses."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A commit in its stored bytes, proposed under a ballot at the place that it follows."""

    ballot: Ballot
    place: Stamp
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Acceptor:
    """What one acceptor keeps of one register."""

    promised: Ballot = NEVER
    accepted: Proposal | None = None

    def open_at(self, position: Stamp) -> Proposal | None:
        """What it accepted that its log does not hold yet; None for nothing."""
        accepted = self.accepted
        return accepted if accepted is not None and accepted.place >= position else None

    def pruned(self, position: Stamp) -> Acceptor:
        """The same without what the log holds."""
        return self if self.open_at(position) is self.accepted else Acceptor(self.promised)


class Verdict(Enum):
    """What an acceptor says to a proposal, and to who asks for its promise."""

    YES = "yes"
    OUTBID = "outbid"
    BEHIND = "behind"
    PAST = "past"


def prepare(acceptor: Acceptor, ballot: Ballot) -> tuple[Verdict, Acceptor]:
    """Ask for a promise: YES with what is to be kept, or OUTBID."""
    if ballot <= acceptor.promised:
        return Verdict.OUTBID, acceptor
    return Verdict.YES, replace(acceptor, promised=ballot)


def accept(acceptor: Acceptor, proposal: Proposal, position: Stamp) -> tuple[Verdict, Acceptor]:
    """Ask to accept, where the acceptor's own log stands at `position`.

    YES with what is to be kept; OUTBID; BEHIND where the acceptor lacks something of what the
    proposal follows; PAST where something else was chosen there, or this very value.
    """
    if proposal.ballot < acceptor.promised:
        return Verdict.OUTBID, acceptor
    if position != proposal.place:
        return Verdict.BEHIND if position < proposal.place else Verdict.PAST, acceptor
    return Verdict.YES, Acceptor(proposal.ballot, proposal)


class Quorum(NamedTuple):
    """Which acceptors are enough: a majority of each of these groups.

    Two groups while a register goes over from one to the other (a joint quorum, as in Ongaro and
    Ousterhout 2014, section 6).
    """

    groups: tuple[frozenset[int], ...]

    @property
    def members(self) -> frozenset[int]:
        """All acceptors."""
        return frozenset().union(*self.groups)

    def is_met(self, uids: Collection[int]) -> bool:
        """Tell whether these are enough. Without a group nobody is."""
        return bool(self.groups) and all(
            2 * len(group.intersection(uids)) > len(group) for group in self.groups
        )

    def can_be_met(self, lost: Collection[int]) -> bool:
        """Tell whether those that are left without `lost` would be enough."""
        return self.is_met(self.members.difference(lost))


@dataclass(frozen=True, slots=True)
class Held:
    """What an acceptor said of itself: its position, and what it accepted that is open there."""

    position: Stamp = ZERO
    accepted: Proposal | None = None


def farthest(held: Mapping[int, Held]) -> int:
    """Whose log stands farthest, the least uid of several; raises ValueError for nobody."""
    return min(held, key=lambda uid: (_descending(held[uid].position), uid))


def to_finish(held: Iterable[Held], position: Stamp) -> Proposal | None:
    """What must be proposed at `position` before anything else: rule 4.

    `position` is not below any that a quorum told. What was accepted farther on stands on nothing
    that was chosen, and was answered to nobody.
    """
    found = [each.accepted for each in held if each.accepted is not None]
    at_place = [proposal for proposal in found if proposal.place == position]
    return max(at_place, key=lambda proposal: proposal.ballot, default=None)


def never_chosen(quorum: Quorum, held: Mapping[int, Held], place: Stamp) -> bool:
    """Whether nothing was chosen at `place`, nor will be under a lower ballot than was promised.

    `held` is of those that promised: who of them holds nothing open there accepts nothing any more.
    So nothing is chosen where the others are no majority, of none of the groups: a group alone may
    have been enough before.
    """
    empty = {uid for uid, at in held.items() if at.accepted is None or at.accepted.place != place}
    return all(2 * len(group - empty) <= len(group) for group in quorum.groups)


def _descending(stamp: Stamp) -> tuple[int, int, int]:
    return (-stamp.era, -stamp.hlc, -stamp.node_uid)
