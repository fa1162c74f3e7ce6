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
from envd.core.ring import partition_of
from envd.core.stamp import ZERO, Stamp
from envd.ports import Store
from envd.wire import records

Commits = Mapping[str, frozenset[Stamp]]
"""Their stamps by environment."""


@dataclass(frozen=True)
class Held:
    """The vectors of a store, the stamps of its commits by environment, those in quarantine too,
    and up to which stamp they are folded into a base.

    `partitions` are those of which its node is to have all; None: every one. At or below its
    `floor` (hlc) it has all that there is, as far as it is to be had. `origins` are those whose
    numbers count; None: every one's.
    """

    vectors: Mapping[tuple[int, int], int]
    commits: Commits = field(default_factory=dict)
    bases: Mapping[str, Stamp] = field(default_factory=dict)
    partitions: frozenset[int] | None = None
    floor: int = 0
    origins: frozenset[int] | None = None

    def has(self, wanted: Held) -> bool:
        """Whether nothing of what another one has is lacking, of what is to be here."""
        for (partition, origin), seq in wanted.vectors.items():
            if self.origins is not None and origin not in self.origins:
                continue  # It was given up: what it has left comes without its numbers.
            if self.vectors.get((partition, origin), 0) < seq and self.is_to_have(partition):
                return False
        return all(
            self.has_all(name, stamps)
            for name, stamps in wanted.commits.items()
            if self.is_to_have(partition_of(name))
        )

    def is_to_have(self, partition: int) -> bool:
        """Whether all of a partition is to be here."""
        return self.partitions is None or partition in self.partitions

    def has_all(self, name: str, stamps: frozenset[Stamp]) -> bool:
        """Whether these commits to an environment are here, or may be folded into its base."""
        missing = stamps - self.commits.get(name, frozenset())
        missing = frozenset(stamp for stamp in missing if stamp.hlc > self.floor)
        return not missing or max(missing) <= self.bases.get(name, ZERO)


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


def are_enough(parts: Sequence[Held], wanted: Held, copies: int) -> bool:
    """Whether each of them has what it is to have of this, and so many are to have each part."""
    places = {partition for partition, _ in wanted.vectors}
    places |= {partition_of(name) for name in wanted.commits}
    return all(part.has(wanted) for part in parts) and all(
        sum(part.is_to_have(place) for part in parts) >= copies for place in places
    )


def held_back(quarantined: Iterable[bytes]) -> list[Commit]:
    """The commits of records in quarantine."""
    return [records.decode_log_record(row).commit for row in quarantined]


def newest_ms(store: Store) -> int:
    """The time of the newest stamp of what there is now, and of what is in quarantine; else 0."""
    states = [store.visible(one.environment) for one in store.environments("", "", 1_000_000)]
    stamps = [state.environment.highest_stamp for state in states if state is not None]
    stamps += [commit.stamp for commit in held_back(store.quarantined())]
    return max((stamp.time_ms for stamp in stamps), default=0)
