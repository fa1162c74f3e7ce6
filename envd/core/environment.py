"""An environment as a last-writer-wins map, and the laws by which two of them merge.

The map is a state-based CRDT (Shapiro et al. 2011, LWW-element-set generalised to a map):
`merge` is commutative, associative and idempotent, so replicas that saw the same commits in
any order, and any number of times, hold the same state. A tombstone is an entry without a
value. Deleting the environment raises `deleted_at`, which drops every entry at or below it.

States are values: `apply` and `merge` return new ones and share what did not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from envd.core.commit import Change, Commit, Kind
from envd.core.stamp import ZERO, Stamp


class Entry(NamedTuple):
    """What is known of one variable or metadata key; a tombstone has no value."""

    stamp: Stamp
    overwrites: Stamp
    value: str | None
    secret: bool

    def __repr__(self) -> str:
        """Tell the stamp and whether there is a value, never the value."""
        return f"Entry({self.stamp.hex()}, {'tombstone' if self.value is None else 'value'})"

    def supersedes(self, other: Entry) -> bool:
        """Tell whether this entry wins over `other`.

        The higher stamp wins. On equal stamps a tombstone beats a value, then the larger
        value wins (text compares as its UTF-8 bytes do); what is left decides only between
        entries of equal effect, so that the order is total.
        """
        if self.stamp != other.stamp:
            return self.stamp > other.stamp
        return self._tie_rank() > other._tie_rank()

    def _tie_rank(self) -> tuple[bool, str, bool, Stamp]:
        return (self.value is None, self.value or "", self.secret, self.overwrites)


@dataclass(frozen=True, slots=True)
class Environment:
    """The state of one environment: entries by name, and when it was last deleted."""

    name: str
    variables: Mapping[str, Entry] = field(default_factory=dict, repr=False)
    metadata: Mapping[str, Entry] = field(default_factory=dict, repr=False)
    deleted_at: Stamp = ZERO

    @property
    def exists(self) -> bool:
        """An environment exists while it has a live variable or live metadata."""
        return any(True for _ in self.live(Kind.VARIABLE)) or any(
            True for _ in self.live(Kind.METADATA)
        )

    @property
    def highest_stamp(self) -> Stamp:
        """The highest stamp that this state shows, ZERO for an empty one."""
        highest = self.deleted_at
        for entries in (self.variables, self.metadata):
            for entry in entries.values():
                if entry.stamp > highest:
                    highest = entry.stamp
        return highest

    def entries(self, kind: Kind) -> Mapping[str, Entry]:
        """All entries of one kind, tombstones included."""
        return self.variables if kind is Kind.VARIABLE else self.metadata

    def live(self, kind: Kind) -> Iterable[tuple[str, Entry]]:
        """The (name, entry) pairs of one kind that have a value."""
        return (item for item in self.entries(kind).items() if item[1].value is not None)

    def live_count(self) -> int:
        """How many variables have a value."""
        return sum(entry.value is not None for entry in self.variables.values())

    def overwritten_by(self, kind: Kind, name: str) -> Stamp:
        """The `overwrites` of a change to `name` that this state's holder makes now."""
        entry = self.entries(kind).get(name)
        return self.deleted_at if entry is None else entry.stamp

    def apply(self, commit: Commit) -> Environment:
        """Return this state with `commit` merged in; names must be equal."""
        if commit.environment != self.name:
            raise ValueError("a commit to another environment does not apply")
        return self.apply_changes(commit.stamp, commit.changes, deletes=commit.deletes)

    def apply_changes(
        self, stamp: Stamp, changes: Iterable[Change], *, deletes: bool = False
    ) -> Environment:
        """Return this state with changes under one stamp merged in."""
        variables: dict[str, Entry] = {}
        metadata: dict[str, Entry] = {}
        for kind, name, value, secret, overwrites in changes:
            side = metadata if kind else variables
            side[name] = Entry(stamp, overwrites, value, secret)
        deleted_at = stamp if deletes else ZERO
        return self.merge(Environment(self.name, variables, metadata, deleted_at))

    def merge(self, other: Environment) -> Environment:
        """Return the least state that holds both; names must be equal."""
        if self.name != other.name:
            raise ValueError("states of different environments do not merge")
        deleted_at = max(self.deleted_at, other.deleted_at)
        return Environment(
            self.name,
            _merge_entries(self.variables, other.variables, deleted_at),
            _merge_entries(self.metadata, other.metadata, deleted_at),
            deleted_at,
        )


def _merge_entries(
    ours: Mapping[str, Entry], theirs: Mapping[str, Entry], deleted_at: Stamp
) -> Mapping[str, Entry]:
    if not theirs:
        merged = ours
    elif not ours:
        merged = theirs
    else:
        merged = dict(ours)
        for name, entry in theirs.items():
            known = merged.get(name)
            if known is None or entry.supersedes(known):
                merged[name] = entry
    if deleted_at == ZERO or all(entry.stamp > deleted_at for entry in merged.values()):
        return merged
    return {name: entry for name, entry in merged.items() if entry.stamp > deleted_at}
