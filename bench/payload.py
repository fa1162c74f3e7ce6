"""What every peer is given to keep: the same names, sizes and durability in every row.

A variable is 86 bytes of name and value together; an environment has 20 of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

VARIABLES: Final = 20
COMMIT_VARIABLES: Final = 100
BATCH: Final = 100
LOADED: Final = 5_000
"""Environments that every server holds before the reads: 100,000 variables."""
SETS: Final = 1_000
"""Environments that the sets go round in."""
VARIABLE_BYTES: Final = 86
NAMES: Final = tuple(f"VARIABLE_{n:02}" for n in range(VARIABLES))
COMMIT_NAMES: Final = tuple(f"VARIABLE_{n:03}" for n in range(COMMIT_VARIABLES))

Operation: TypeAlias = Callable[[int], Awaitable[int]]
"""Does piece of work number n and answers with how many variables that was."""


def value(name: str, n: int) -> str:
    """The value of a variable; no two neighbours are alike."""
    return f"{n:012}".ljust(VARIABLE_BYTES - len(name), "x")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way in which a peer does what a case asks for; `begin` connects so many callers."""

    label: str
    begin: Callable[[int], Awaitable[Sequence[Operation]]]


class Client(Protocol):
    """What the cases ask of a peer. A kind that `variants` lacks is one the peer can't do."""

    variants: Mapping[str, Sequence[Variant]]

    async def answers(self) -> None:
        """Return once the server answers a call; raises where it does not."""
        ...

    def import_(self, prefix: str, environments: int) -> Callable[[], Awaitable[None]]:
        """Prepare every message of an import, and return what sends them."""
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
