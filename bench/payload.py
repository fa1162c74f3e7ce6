"""What every peer is given to keep: the same names, sizes and durability in every row.

A variable is 86 bytes of name and value together; an environment has 20 of them.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from bench.compiled import Compiled

VARIABLES: Final = 20
COMMIT_VARIABLES: Final = 100
BATCH: Final = 100
LOADED: Final = 5_000
"""Environments that every server holds before the reads: 100,000 variables."""
SETS: Final = 1_000
"""Environments that the sets go round in."""
VARIABLE_BYTES: Final = 86
SEED: Final = 7
NAMES: Final = tuple(f"VARIABLE_{n:02}" for n in range(VARIABLES))
COMMIT_NAMES: Final = tuple(f"VARIABLE_{n:03}" for n in range(COMMIT_VARIABLES))

Operation: TypeAlias = Callable[[int], Awaitable[int]]
"""Does piece of work number n and answers with how many variables that was."""


def value(name: str, n: int) -> str:
    """The value of a variable; no two neighbours are alike."""
    return f"{n:012}".ljust(VARIABLE_BYTES - len(name), "x")


def drawn(environments: int) -> Callable[[], int]:
    """Draws numbers of environments at random; the same ones for every peer."""
    chance = random.Random(SEED)
    return lambda: chance.randrange(environments)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way in which a peer does what a case asks for; `begin` connects so many callers.

    `compiled` does the same from a compiled generator, where there is one.
    """

    label: str
    begin: Callable[[int], Awaitable[Sequence[Operation]]]
    compiled: Compiled | None = None


class NotReady(Exception):
    """The server listens, but does not serve yet."""


class Client(Protocol):
    """What the cases ask of a peer. A kind that `variants` lacks is one the peer can't do."""

    variants: Mapping[str, Sequence[Variant]]
    lacks: Mapping[str, str]
    """Cases that the peer can't do, and why."""

    async def answers(self) -> None:
        """Return once the server answers a call; raises NotReady where it does not yet."""
        ...

    def import_(self, prefix: str, numbers: range) -> Callable[[], Awaitable[None]]:
        """Prepare every message of an import of PREFIX/eN, and return what sends them."""
        ...

    def random_sets(self, prefix: str, environments: int) -> Variant:
        """Sets of one variable each, of environments PREFIX/eN drawn at random."""
        ...

    async def flush_lag_s(self) -> float | None:
        """How old the oldest write is that only the journal has; None where it is not told."""
        ...

    async def export(self, prefix: str) -> int:
        """Read everything below a prefix; the number of variables."""
        ...

    async def propagation(self, count: int) -> Sequence[float]:
        """Seconds from a write's start to its event, once each; empty where there is none."""
        ...

    async def close(self) -> None:
        """Close every connection; a later call opens its own."""
        ...
