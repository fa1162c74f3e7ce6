"""Tells of most histories that no order explains, without looking for one.

A state into which one operation alone changes another one holds for one stretch of time. It has
begun by the first return of that operation and those that need the state, and ends no sooner than
the last of their calls. So where the first return of A is before the last call of B, and the first
return of B before the last call of A, neither stretch can precede the other. These are the zones
of Gibbons & Korach ("Testing shared memories", 1997). For their registers that is the whole truth;
here an operation that needs one state and makes another joins their two stretches as well.

What is left is for the search: operations that several states allow, and states that several
operations make.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Generic

from chaos.sim.linear_search import Model, Operation, PayloadT, StateT


def may_be_explained(
    model: Model[StateT, PayloadT], operations: Sequence[Operation[PayloadT]]
) -> bool:
    """Whether every state that is needed can be had, and all stretches can follow each other."""
    if any(model.makes(one) is None and not model.looks(one) for one in operations):
        return True
    stretches: dict[StateT, _Stretch] = {}
    for state, users in _users(model, operations).items():
        is_initial = state == model.initial
        if not users.make and not is_initial:
            return False
        if len(users.make) + is_initial == 1 and (users.need or users.make[0].must_be_placed):
            members = [*users.need, *users.make]
            begun_by = -inf if is_initial else min(one.until for one in members)
            if users.make and begun_by < users.make[0].called:
                return False
            stretches[state] = _Stretch(begun_by, max(one.called for one in members))
    chains = _chains(model, operations, stretches)
    if chains is None or not all(map(_is_in_order, chains)):
        return False
    return _can_be_disjoint([_joined(chain) for chain in chains])


@dataclass(frozen=True, slots=True)
class _Stretch:
    """It has begun at `begun_by` at the latest, and ends at `ends_after` at the soonest."""

    begun_by: float
    ends_after: float

    def may_precede(self, other: _Stretch) -> bool:
        return self.ends_after <= other.begun_by


@dataclass(frozen=True, slots=True)
class _Users(Generic[PayloadT]):
    """The operations that surely need a state, and all that may make it."""

    need: list[Operation[PayloadT]] = field(default_factory=list)
    make: list[Operation[PayloadT]] = field(default_factory=list)


def _users(
    model: Model[StateT, PayloadT], operations: Sequence[Operation[PayloadT]]
) -> dict[StateT, _Users[PayloadT]]:
    users: dict[StateT, _Users[PayloadT]] = {}
    for operation in operations:
        makes, needs = model.makes(operation), model.needs(operation)
        if makes is not None:
            users.setdefault(makes, _Users()).make.append(operation)
        if needs is not None and operation.must_be_placed:
            users.setdefault(needs, _Users()).need.append(operation)
    return users


def _chains(
    model: Model[StateT, PayloadT],
    operations: Sequence[Operation[PayloadT]],
    stretches: Mapping[StateT, _Stretch],
) -> list[list[_Stretch]] | None:
    """The stretches that surely come right after each other; None where two would after one."""
    following: dict[StateT, StateT] = {}
    for operation in operations:
        needs, makes = model.needs(operation), model.makes(operation)
        if needs is None or makes is None:
            continue
        if needs in stretches and makes in stretches:  # so it has happened, it alone makes that one
            if needs in following:
                return None
            following[needs] = makes
    later = set(following.values())
    chains: list[list[_Stretch]] = []
    for state in stretches:
        if state not in later:
            chain, at = [stretches[state]], state
            while at in following:
                at = following[at]
                chain.append(stretches[at])
            chains.append(chain)
    is_complete = sum(map(len, chains)) == len(stretches)  # a circle has no beginning
    return chains if is_complete else None


def _is_in_order(chain: Sequence[_Stretch]) -> bool:
    ended_after = -inf
    for stretch in chain:
        if stretch.begun_by < ended_after:
            return False
        ended_after = max(ended_after, stretch.ends_after)
    return True


def _joined(chain: Sequence[_Stretch]) -> _Stretch:
    return _Stretch(min(one.begun_by for one in chain), max(one.ends_after for one in chain))


def _can_be_disjoint(stretches: Sequence[_Stretch]) -> bool:
    """Whether of any two one may precede the other; then all may be put in a row.

    For if several had to precede each other in a circle, so had two of them: the one that ends
    last and the one that it had to precede.
    """
    lasting = sorted(
        (one for one in stretches if not one.may_precede(one)), key=lambda one: one.begun_by
    )
    if not all(one.may_precede(following) for one, following in pairwise(lasting)):
        return False
    begins = [one.begun_by for one in lasting]
    for stretch in stretches:
        # What has begun before it can end must precede it; all may if the latest of them may.
        at = bisect_left(begins, stretch.ends_after)
        if at and stretch.may_precede(stretch) and not lasting[at - 1].may_precede(stretch):
            return False
    return True
