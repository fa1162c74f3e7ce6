"""Choosing by a given source of chance, the same way in every version of Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

ItemT = TypeVar("ItemT")


class Chance(Protocol):
    """As much of `random.Random` as membership needs."""

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""
        ...


def below(bound: int, chance: Chance) -> int:
    """One of 0 to `bound` - 1."""
    return int(chance.random() * bound)


def choose(items: Sequence[ItemT], chance: Chance) -> ItemT:
    """One of `items`, which must not be empty."""
    return items[below(len(items), chance)]


def sample(items: Sequence[ItemT], count: int, chance: Chance) -> list[ItemT]:
    """At most `count` of `items`, in random order (the first steps of Fisher-Yates)."""
    pool = list(items)
    count = min(count, len(pool))
    for at in range(count):
        other = at + below(len(pool) - at, chance)
        pool[at], pool[other] = pool[other], pool[at]
    return pool[:count]
