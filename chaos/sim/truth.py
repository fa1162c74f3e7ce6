"""What there is at or below a committed floor, told from all that was ever written anywhere.

A model that forgets nothing: each commit that any node made durable counts as on its way until a
floor is committed that is not below it. Then it is settled: it is in where a node of that topology
had it, and else, as is one that shows up only afterwards, it comes too late, whatever becomes of
it. What is in is merged without collecting anything; so what a floor leaves of an environment is
what a node at that floor has to show of it, but for tombstones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from envd.core.commit import Commit
from envd.core.environment import Environment
from envd.core.floor import covers
from envd.core.sealing import NO_FLOOR, Floor
from envd.core.stamp import Stamp
from envd.ports import Store

_ALL: Final = 1_000_000


class Taken(NamedTuple):
    """A commit that is in, and who had it when the floor was committed."""

    commit: Commit
    uids: frozenset[int]


class Truth:
    """Told of each durable commit (`took`) and of each floor as it is committed (`settle`)."""

    def __init__(self) -> None:
        self.floor: Floor = NO_FLOOR
        self.counts: Counter[str] = Counter()
        self._open: dict[str, dict[Stamp, Commit]] = {}
        self._settled: dict[str, set[Stamp]] = {}
        self._late: dict[str, dict[Stamp, Commit]] = {}
        self._states: dict[str, Environment] = {}
        self._salvaging: dict[tuple[str, Stamp], set[Stamp]] = {}

    def took(self, commit: Commit) -> None:
        """A node has this commit durably."""
        name, stamp = commit.environment, commit.stamp
        if commit.salvages is not None:
            self._note_salvage(name, commit.salvages.stamp, stamp)
        if stamp in self._settled.get(name, ()) or stamp in self._late.get(name, ()):
            return
        if stamp.hlc > self.floor.hlc:
            self._open.setdefault(name, {})[stamp] = commit
        else:
            self._late.setdefault(name, {})[stamp] = commit
            self.counts["too late"] += 1

    def _note_salvage(self, name: str, late: Stamp, stamp: Stamp) -> None:
        known = self._salvaging.setdefault((name, late), set())
        if not known:
            self.counts["salvaged"] += 1
        known.add(stamp)

    def settle(self, floor: Floor, disks: Mapping[int, Store]) -> list[Taken]:
        """A floor is committed, and these are the disks of its topology's nodes, by uid.

        Returns the commits that are in, and were not before.
        """
        self.floor = floor
        self.counts["floors"] += 1
        for disk in disks.values():
            self._read(disk)
        taken: list[Taken] = []
        for name, commits in self._open.items():
            below = sorted(stamp for stamp in commits if stamp.hlc <= floor.hlc)
            holders = [_Holder(uid, disk, name) for uid, disk in disks.items() if below]
            for stamp in below:
                commit = commits.pop(stamp)
                uids = frozenset(holder.uid for holder in holders if holder.has(commit))
                if uids:
                    taken.append(Taken(commit, uids))
                    self._settled.setdefault(name, set()).add(stamp)
                    self._states[name] = self.state(name).apply(commit)
                else:
                    self._late.setdefault(name, {})[stamp] = commit
                    self.counts["too late"] += 1
        return taken

    def _read(self, disk: Store) -> None:
        """Power loss leaves some commits that nobody was told of."""
        for name in sorted({*self._open, *_names_on(disk)}):
            for commit in disk.commits(name, None, _ALL):
                if commit.stamp.hlc > self.floor.hlc:
                    continue
                if commit.stamp in self._settled.get(name, ()):
                    continue
                if commit.stamp in self._late.get(name, ()):
                    continue
                self._open.setdefault(name, {}).setdefault(commit.stamp, commit)

    # -- what is known -------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The environments that something is settled of."""
        return sorted(self._states)

    def state(self, name: str) -> Environment:
        """All that is in of an environment, merged."""
        return self._states.get(name) or Environment(name)

    def late(self, name: str, stamp: Stamp) -> Commit | None:
        """The commit that came too late under this stamp, None where it did not."""
        return self._late.get(name, {}).get(stamp)

    def is_settled(self, name: str, stamp: Stamp) -> bool:
        """Whether a commit at or below the floor is in."""
        return stamp in self._settled.get(name, ())

    def salvaging(self, name: str, late: Stamp) -> Collection[Stamp]:
        """The stamps of the commits that put on record what this one wrote."""
        return self._salvaging.get((name, late), set())

    def overwrites(self, late: Commit) -> bool:
        """Whether all that a commit wrote was overwritten since: it tells nothing any more."""
        name = late.environment
        state = self.state(name)
        for commit in self._open.get(name, {}).values():
            state = state.apply(commit)
        return covers(state, late)


class _Holder:
    """A disk, read once for an environment."""

    def __init__(self, uid: int, disk: Store, name: str) -> None:
        self.uid = uid
        self._stamps = frozenset(stamp for stamp, _ in disk.commit_rows(name))
        self._base = disk.base(name)

    def has(self, commit: Commit) -> bool:
        """Whether a commit is in the history, or folded into its base.

        One that has another on record changes nothing, so that a base tells nothing of it.
        """
        if commit.stamp in self._stamps or covers(self._base, commit):
            return True
        oldest = min(self._stamps, default=self._base.highest_stamp)
        return commit.salvages is not None and commit.stamp < oldest


def _names_on(disk: Store) -> list[str]:
    """The environments of which a disk has something."""
    named = {partition for partition, _ in disk.vectors()}
    there = {at for at, root in enumerate(disk.roots().partitions) if root}
    return sorted({name for at in named | there for name, _ in disk.digests(at)})
