"""Serial environments: each write follows the one before, by consent of a majority.

The commits of a serial environment form a chain: each names the stamp that it `follows`, and of
two commits that follow the same one only one is ever chosen (`core.paxos`). A chain lives within
one era. The commit that begins it, the opening, and the one that ends it, the closing or a
deletion, begin an era: both raise `deleted_at` to the bottom of it and state again what goes on.
So a write of an older era, made where nobody knew of the change, can't get in: it is a conflict
on record instead.

What a node holds of a chain is its position: the stamp of the last commit, or, where there is no
chain, the bottom of the era that the next one begins. Positions only grow, and a commit of a chain
applies exactly where the position is the one that it follows.
"""

from __future__ import annotations

from typing import Final

from envd.core.environment import Environment
from envd.core.stamp import Stamp

MODE: Final = "mode"
PLAIN: Final = "lww"
SERIAL: Final = "serial"


def is_serial(environment: Environment) -> bool:
    """Tell whether the writes of an environment form a chain.

    Not where its setting is of an older era than its newest entry: then the chain was ended by
    a commit that is not here yet.
    """
    mode = environment.metadata.get(MODE)
    if mode is None or mode.value != SERIAL:
        return False
    return mode.stamp.era == environment.highest_stamp.era


def position(environment: Environment) -> Stamp:
    """What the next commit of a chain follows here.

    Example: (3, 0, 0) for an environment whose highest stamp is of era 2 and that is plain.
    """
    highest = environment.highest_stamp
    return highest if is_serial(environment) else bottom(highest.era + 1)


def bottom(era: int) -> Stamp:
    """Below every stamp of an era, above every stamp of those before."""
    return Stamp(era, 0, 0)


def is_behind(environment: Environment, follows: Stamp) -> bool:
    """Tell whether a commit that `follows` this can't be applied yet, for want of those before.

    What begins a chain states all that there is, so it waits for nothing.
    """
    return bool(follows.hlc) and position(environment) < follows
