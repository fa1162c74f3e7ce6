"""What the nodes of a run hold: that is compared before another disk may be lost.

Not by the vectors alone: a node whose disk went back may number other commits as it numbered those
that are gone, and then vectors are equal of stores that are not, until the fingerprints tell.
What is in quarantine is held: nobody sees it before its time, but it is on that disk, and may be on
no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from envd.core.commit import Commit
from envd.core.stamp import ZERO, Stamp
from envd.ports import Store
from envd.wire import records


@dataclass(frozen=True)
class Held:
    """The vectors of a store, the stamps of its commits by environment, those in quarantine too,
    and up to which stamp they are folded into a base."""

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


def held_back(quarantined: Iterable[bytes]) -> list[Commit]:
    """The commits of records in quarantine."""
    return [records.decode_log_record(row).commit for row in quarantined]


def newest_ms(store: Store) -> int:
    """The time of the newest stamp of what there is now, and of what is in quarantine; else 0."""
    states = [store.visible(one.environment) for one in store.environments("", "", 1_000_000)]
    stamps = [state.environment.highest_stamp for state in states if state is not None]
    stamps += [commit.stamp for commit in held_back(store.quarantined())]
    return max((stamp.time_ms for stamp in stamps), default=0)
