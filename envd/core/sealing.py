"""How the floor is raised: all commits up to a time are sealed, gathered, and then it is agreed.

The floor (`core.floor`) is one time for the whole cluster, a part of its topology. It goes up in
rounds; each step is a change of the topology, and needs all storage nodes that are in it:

 1. seal: a node stamps nothing at or below the time any more, not even after a restart (it knows
    the topology then), accepts no such proposal, and takes no such commit from who is not in the
    topology. What it had on its way is settled, and nothing that it accepted is open.
 2. gather: when all have done so, nothing new can come to be there. Each pulls what it lacks of
    what is to be with it, from each other: first from those that are not to have it, since what
    they have they hand over to those that are, and drop.
 3. raise: when all have gathered, each has all that there is, and may forget.

A node that joins ends the round, because nobody asked that one; so does a partition that moves. Who
is away is waited for until it is given up: then what it alone had comes too late. So is a node that
is seen and not in the topology yet, because who governs can't reach it. Only one of which that one
has not heard is left behind when the floor is raised, and begins anew.

Of the rounds each node remembers the last in which it gathered. A node below the floor that did not
gather for it was away, or put back: what it has may be what all others deleted and forgot. It must
not keep it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from envd.core.stamp import COUNTER_BITS


class Floor(NamedTuple):
    """The time (hlc) at or below which nothing new can come, and the round that raised it."""

    hlc: int
    round: int


class Sealing(NamedTuple):
    """A round under way, named by the epoch in which it began: up to which time, how far."""

    hlc: int
    round: int
    gathering: bool


NO_FLOOR: Final = Floor(0, 0)


class Sealed(NamedTuple):
    """What a node tells of itself: its floor (hlc), and the rounds in which it last did each step.

    0 for none.
    """

    floor: int
    sealed: int = 0
    gathered: int = 0


class FloorPace(NamedTuple):
    """When the floor goes up: to `age_ms` ago, every `every_ms`.

    A node that is away for `gives_up_s` seconds is given up.
    """

    age_ms: int = 3_600_000
    every_ms: int = 3_600_000
    gives_up_s: float = 7 * 86_400.0


DEFAULT_FLOOR_PACE: Final = FloorPace()


def next_floor(floor: Floor, pace: FloorPace, now_ms: int) -> int | None:
    """Up to where the next round is to seal; None where it is not time.

    Example: with the default pace, at 14:10 it is 13:10 where the floor is at 12:00.
    """
    to_ms = now_ms - pace.age_ms
    if to_ms - (floor.hlc >> COUNTER_BITS) < pace.every_ms:
        return None
    return to_ms << COUNTER_BITS


def may_begin(floor: Floor, hlc: int, nodes: Collection[int], told: Mapping[int, Sealed]) -> bool:
    """Whether a round that seals up to `hlc` may begin: all nodes answer, each is at the floor.

    Or above it: where the voters were lost, their last floor may be.
    """
    return all(uid in told and floor.hlc <= told[uid].floor < hlc for uid in nodes)


def is_done(sealing: Sealing, nodes: Collection[int], told: Mapping[int, Sealed]) -> bool:
    """Whether all nodes have done the step that a round is in."""

    def done(said: Sealed) -> int:
        return said.gathered if sealing.gathering else said.sealed

    return all(uid in told and done(told[uid]) == sealing.round for uid in nodes)
