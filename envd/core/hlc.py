"""The hybrid logical clock of a node, without a clock of its own.

Rules (Kulkarni et al. 2014, with bounds that keep one wrong clock from pulling the rest):

* a local tick is `max(wall, last + 1)` and always allowed, also after the wall clock
  stepped back;
* a stamp seen from elsewhere moves the clock at most `MAX_PULL_MS` past the wall clock;
* where an environment already holds a stamp that is not below the tick, the new commit goes
  right above that stamp, and the clock follows.

A start draws a salt: a data directory that was put back, on a machine whose clock was too, would
else give the very stamps again that the life which is lost gave, to other commits.

So the stamps of one node strictly grow. `bound_for` names the durable upper bound that
a node writes down ahead of its stamps, so that they grow over restarts too.
"""

from __future__ import annotations

from envd.core.stamp import COUNTER_BITS, Stamp

MAX_PULL_MS = 500
BOUND_AHEAD_MS = 1000
SALT_BITS = 13
_APART_BITS = 12
"""Two starts from one bound are so far apart, at most half a second together."""


class HybridClock:
    """`last` is the greatest hlc that this node gave or accepted."""

    __slots__ = ("_salt", "last", "node_uid")

    def __init__(self, node_uid: int, last: int = 0, *, salt: int = 0) -> None:
        """`salt` is below 2^SALT_BITS, another one at each start; all readings come from it."""
        self.node_uid = node_uid
        self.last = last + (salt << _APART_BITS)
        self._salt = salt

    def tick(self, now_ms: int) -> int:
        """Return the next hlc: at the wall clock, or right after the last one."""
        self.last = max(self.reading(now_ms), self.last + 1)
        return self.last

    def ahead_ms(self, now_ms: int) -> int:
        """How far the next stamp is ahead of the wall clock.

        Example: 7,200,000 on a node whose wall clock was two hours fast and is right again.
        """
        return max(0, (self.last >> COUNTER_BITS) - now_ms)

    def stamp_above(self, highest: Stamp, now_ms: int) -> Stamp:
        """Return a stamp of this node above `highest`, the environment's highest so far.

        Example: at 5 ms on node 7, over a highest stamp of (0, 9 << 16, 3), which a node
        with a faster clock gave, the answer is (0, (9 << 16) + 1, 7), and `last` follows.
        """
        hlc = self.tick(now_ms)
        if highest.hlc >= hlc:
            hlc = self.last = highest.hlc + 1
        return Stamp(highest.era, hlc, self.node_uid)

    def reading(self, now_ms: int) -> int:
        """The hlc that this node is at: the wall clock, or what it gave or accepted last."""
        return max((now_ms << COUNTER_BITS) + self._salt, self.last)

    def raise_to(self, hlc: int) -> None:
        """Give no stamp at or below `hlc` any more."""
        self.last = max(self.last, hlc)

    def observe(self, remote: Stamp, now_ms: int) -> None:
        """Take note of a stamp from elsewhere, at most `MAX_PULL_MS` past the wall clock."""
        limit = (now_ms + MAX_PULL_MS) << COUNTER_BITS
        self.last = max(self.last, min(remote.hlc, limit))


def bound_for(hlc: int) -> int:
    """The durable bound to write down when `hlc` passed the last one: a second ahead.

    Example: bound_for(0) is 1000 << 16.
    """
    return hlc + (BOUND_AHEAD_MS << COUNTER_BITS)
