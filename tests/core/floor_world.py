"""Replicas that trim and collect, and the histories that laws of the floor are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from hypothesis import strategies as st

from envd.core import digest
from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Environment
from envd.core.floor import collected, guarded
from envd.core.history import DAY_MS, Retention
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp

NAME = "team/app"
KEY = b"k" * 32
DAYS = 9
KEPT = Retention(2, 1)


def at_day(day: float) -> int:
    return int(day * DAY_MS) << COUNTER_BITS


def stamp(day: float, uid: int = 1, era: int = 0) -> Stamp:
    return Stamp(era, at_day(day), uid)


def write(
    day: float, values: dict[str, str | None], *, deletes: bool = False, uid: int = 1
) -> Commit:
    changes = tuple(
        Change(Kind.VARIABLE, name, value, False, ZERO) for name, value in values.items()
    )
    return Commit(NAME, stamp(day, uid), changes, deletes, author="ann")


@dataclass
class Replica:
    """What one node holds, which trims at once, and collects when it is told to."""

    retention: Retention = KEPT
    state: Environment = field(default_factory=lambda: Environment(NAME))
    base: Environment = field(default_factory=lambda: Environment(NAME))
    history: list[Commit] = field(default_factory=list)
    floor: int = 0

    def take(self, commit: Commit) -> None:
        known = {each.stamp for each in self.history}
        if commit.stamp.hlc <= self.floor or commit.stamp in known:
            return  # Held before, or a zombie.
        self.state = self.state.apply(commit)
        self.history = sorted([*self.history, commit], key=lambda each: each.stamp)
        folded, kept = self.retention.split(self.history)
        self.base = reduce(Environment.apply, folded, self.base)
        self.history = list(kept)

    def collect(self) -> bool:
        done = collected(self.state, self.base, self.history, self.floor, self.retention)
        self.state, self.base = done.environment, done.base
        self.history = [each for each in self.history if each.stamp not in set(done.folded)]
        return done.changes

    def pull(self, peer: Replica) -> None:
        known = {each.stamp for each in self.history}
        theirs = peer.base
        if self.floor:
            theirs = guarded(theirs, self.base, known, self.floor)
        self.base, self.state = self.base.merge(theirs), self.state.merge(theirs)
        for commit in peer.history:
            self.take(commit)

    def held(self) -> object:
        return (self.state, self.base, self.history)


names = st.sampled_from(("a", "b"))
values = st.sampled_from((None, None, "x", "y"))
days = st.integers(1, DAYS).map(lambda n: n / 2) | st.integers(1, DAYS)


@st.composite
def histories(draw: st.DrawFn, *, stragglers: bool = True) -> list[Commit]:
    """Commits of era 0, and of era 1 from some day on, where one began it; each stamp once.

    `stragglers` are of era 0 after that day: by who did not know. Retention goes by time as well as
    by stamps, so with those it depends on the order in which commits came.
    """
    begins = draw(st.integers(1, 2 * DAYS))
    found: dict[Stamp, Commit] = {}
    for _ in range(draw(st.integers(0, 8))):
        day, uid = draw(days), draw(st.integers(1, 2))
        written = draw(st.dictionaries(names, values, max_size=2))
        changes = tuple(
            Change(Kind.VARIABLE, name, value, False, draw(st.sampled_from((ZERO, stamp(1)))))
            for name, value in written.items()
        )
        straggles = stragglers and draw(st.integers(0, 3)) == 0
        era = int(day >= begins and not straggles)
        deletes = draw(st.sampled_from((False, False, True)))
        if deletes:
            changes = tuple(each._replace(value=None) for each in changes)
        made = Commit(NAME, stamp(day, uid, era), changes, deletes)
        found[made.stamp] = made
    later = [made for made in found.values() if made.stamp.era]
    if later:
        first = min(later, key=lambda made: made.stamp)
        mode = Change(Kind.METADATA, "mode", "serial", False, ZERO)
        found[first.stamp] = replace(
            first, changes=(*first.changes, mode), deletes=False, follows=Stamp(1, 0, 0)
        )
    return sorted(found.values(), key=lambda made: made.stamp)


retentions = st.builds(Retention, st.integers(1, 3), st.integers(0, 2))
floors = days.map(at_day)


def replica_of(commits: Sequence[Commit], retention: Retention = KEPT) -> Replica:
    made = Replica(retention)
    for commit in commits:
        made.take(commit)
    return made


def revision(environment: Environment) -> bytes:
    return digest.revision(environment, KEY)
