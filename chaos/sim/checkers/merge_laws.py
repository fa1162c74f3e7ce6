"""Invariant 1: merging is commutative, associative and idempotent, with ties too.

The states that nodes really hold are merged with each other in both orders. Stamps of real
nodes never tie, so each state is also tried with all its stamps made one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random
from typing import Final

from chaos.sim import shares
from chaos.sim.checkers import Checker, Sighting, Violation
from envd.core.answers import ListedEnvironment
from envd.core.commit import Kind
from envd.core.entries import Entry
from envd.core.environment import Environment
from envd.core.stamp import Stamp

Merge = Callable[[Environment, Environment], Environment]
_TIE: Final = Stamp(0, 1 << 40, 1)
_AT_ONCE: Final = 3


class MergeLaws(Checker):
    """`merge` is the production function; a control passes in a wrong one."""

    name = "1 merge laws"

    def __init__(self, chance: Random, merge: Merge = Environment.merge) -> None:
        self._chance = chance
        self._merge = merge
        self._touched: dict[str, None] = {}

    def looked(self, nodes: Sequence[Sighting], now_s: float) -> None:
        for name in self._sample(nodes):
            states = [state for node in nodes if (state := _state(node, name)) is not None]
            self.check(states)
            self.check([tied(state) for state in states])

    def ended(self, nodes: Sequence[Sighting]) -> None:
        self.looked(nodes, 0.0)

    def check(self, states: Sequence[Environment]) -> None:
        """Raise Violation where a law does not hold among these states of one environment."""
        merge = self._merge
        for state in states:
            self._equal("a state merged with itself changes", merge(state, state), state)
        for one, other in combinations(states, 2):
            both = merge(one, other)
            self._equal("the order of two states matters", both, merge(other, one))
            self._equal("merging again changes the state", merge(both, other), both)
            for third in states[:_AT_ONCE]:
                left = merge(both, third)
                right = merge(one, merge(other, third))
                self._equal("the grouping of three states matters", left, right)

    def _equal(self, law: str, one: Environment, other: Environment) -> None:
        if one != other:
            raise Violation(self.name, f"{law}: {one.name}, {_difference(one, other)}")

    def _sample(self, nodes: Sequence[Sighting]) -> list[str]:
        ask = nodes[:1] if shares.of(nodes).table is None else nodes
        names = sorted({listed.environment for node in ask for listed in _listed(node)})
        return self._chance.sample(names, min(_AT_ONCE, len(names)))


def tied(state: Environment) -> Environment:
    """The same state with one stamp throughout."""
    variables, metadata = (
        {
            name: Entry(_TIE, entry.overwrites, entry.value, entry.secret)
            for name, entry in state.entries(kind).items()
        }
        for kind in Kind
    )
    return Environment(state.name, variables, metadata)


def _listed(node: Sighting) -> list[ListedEnvironment]:
    return node.store.environments("", "", 1000)


def _state(node: Sighting, name: str) -> Environment | None:
    state = node.store.visible(name)
    return None if state is None else state.environment


def _difference(one: Environment, other: Environment) -> str:
    """What differs, by name; values are not told."""
    if one.deleted_at != other.deleted_at:
        return f"deleted at {one.deleted_at.hex()} or {other.deleted_at.hex()}"
    for kind in Kind:
        mine, theirs = one.entries(kind), other.entries(kind)
        for name in sorted({*mine, *theirs}):
            if mine.get(name) != theirs.get(name):
                return f"{name} is {mine.get(name)!r} or {theirs.get(name)!r}"
    return "nothing that can be named"
