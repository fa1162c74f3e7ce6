"""One module for each thing that must hold after a scenario, each able to fail.

A checker gets what was seen (`Evidence`) and gives a `Verdict`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from chaos.live.reading import Whole
from chaos.live.workload import Records


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one thing holds, and what was seen, in a sentence."""

    what: str
    holds: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Apart:
    """How nodes were apart: `sides` are the uids of the nodes on each, from and until then."""

    sides: tuple[frozenset[str], ...]
    from_s: float
    until_s: float


@dataclass(frozen=True)
class Evidence:
    """What was seen in a scenario. Nodes are told by name; times are those of the event loop.

    `wholes` is what each node had in the end. `lost_disks` are the uids of nodes whose data was
    taken from them, with the time: what only they had is gone with it.
    """

    records: Records
    wholes: Mapping[str, Whole]
    apart: Apart | None = None
    lost_disks: Mapping[str, float] = field(default_factory=dict)


def some(things: Collection[str], most: int = 3) -> str:
    """A few of them, for a sentence."""
    shown = ", ".join(sorted(things)[:most])
    return f"{shown} and {len(things) - most} more" if len(things) > most else shown
