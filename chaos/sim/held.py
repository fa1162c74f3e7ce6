"""What the nodes of a run hold: that is compared before another disk may be lost.

Not by the vectors alone: a node whose disk went back may number other commits as it numbered those
that are gone, and then vectors are equal of stores that are not, until the fingerprints tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from envd.core.stamp import ZERO, Stamp


@dataclass(frozen=True)
class Held:
    """The vectors of a store, the stamps of its commits by environment, and up to which stamp
    they are folded into a base."""

    vectors: Mapping[tuple[int, int], int]
    commits: Mapping[str, frozenset[Stamp]] = field(default_factory=dict)
    bases: Mapping[str, Stamp] = field(default_factory=dict)

    def has(self, wanted: Held) -> bool:
        """Whether nothing of what another one has is lacking."""
        if any(self.vectors.get(key, 0) < seq for key, seq in wanted.vectors.items()):
            return False
        for name, stamps in wanted.commits.items():
            missing = stamps - self.commits.get(name, frozenset())
            if missing and max(missing) > self.bases.get(name, ZERO):
                return False
        return True


def together(parts: Sequence[Held]) -> Held:
    """What at least one of them has."""
    vectors: dict[tuple[int, int], int] = {}
    commits: dict[str, frozenset[Stamp]] = {}
    for part in parts:
        for key, seq in part.vectors.items():
            vectors[key] = max(seq, vectors.get(key, 0))
        for name, stamps in part.commits.items():
            commits[name] = commits.get(name, frozenset()) | stamps
    return Held(vectors, commits)
