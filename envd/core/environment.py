"""An environment as a last-writer-wins map, and the laws by which two of them merge.

The map is a state-based CRDT (Shapiro et al. 2011, LWW-element-set generalised to a map):
`merge` is commutative, associative and idempotent, so replicas that saw the same commits in
any order, and any number of times, hold the same state. A tombstone is an entry without a
value. Deleting the environment raises `deleted_at`, which drops every entry at or below it.

States are values: `apply` and `merge` return new ones and share what did not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from envd.core.commit import Change, ChangeColumns, Commit, Kind
from envd.core.entries import Entry, EntryColumns, columns_of, rows_of, same_for_all
from envd.core.stamp import ZERO, Stamp

__all__ = ["Entry", "Environment", "Summary"]


class Summary(NamedTuple):
    """What a state comes to; tombstones count as names.

    `highest` is the highest stamp that it shows, `live` and `settings` count variables and
    metadata with a value, `characters` are those of all names and values.
    """

    highest: Stamp
    live: int
    settings: int
    names: int
    characters: int


@dataclass(frozen=True, slots=True)
class Environment:
    """The state of one environment: entries by name, and when it was last deleted."""

    name: str
    variables: Mapping[str, Entry] = field(default_factory=dict, repr=False)
    metadata: Mapping[str, Entry] = field(default_factory=dict, repr=False)
    deleted_at: Stamp = ZERO
    _summary: Summary | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def summary(self) -> Summary:
        """What this state comes to; computed once."""
        return self._summary or self._remember(_summarize(self))

    def _remember(self, summary: Summary) -> Summary:
        object.__setattr__(self, "_summary", summary)
        return summary

    @property
    def exists(self) -> bool:
        """An environment exists while it has a live variable or live metadata."""
        summary = self.summary
        return bool(summary.live or summary.settings)

    @property
    def highest_stamp(self) -> Stamp:
        """The highest stamp that this state shows, ZERO for an empty one."""
        return self.summary.highest

    def entries(self, kind: Kind) -> Mapping[str, Entry]:
        """All entries of one kind, tombstones included."""
        return self.metadata if kind else self.variables

    def live(self, kind: Kind) -> Iterable[tuple[str, Entry]]:
        """The (name, entry) pairs of one kind that have a value."""
        return (item for item in self.entries(kind).items() if item[1].value is not None)

    def live_count(self) -> int:
        """How many variables have a value."""
        return self.summary.live

    def overwritten_by(self, kind: Kind, name: str) -> Stamp:
        """The `overwrites` of a change to `name` that this state's holder makes now."""
        entry = self.entries(kind).get(name)
        return self.deleted_at if entry is None else entry.stamp

    def apply(self, commit: Commit) -> Environment:
        """Return this state with `commit` merged in; names must be equal."""
        if commit.environment != self.name:
            raise ValueError("a commit to another environment does not apply")
        return self.apply_changes(commit.stamp, commit.changes, floor=commit.floor)

    def apply_changes(
        self, stamp: Stamp, changes: Iterable[Change], *, floor: Stamp = ZERO
    ) -> Environment:
        """Return this state with changes under one stamp merged in.

        Everything at or below `floor` is dropped, the changes too where that is their stamp.
        """
        if floor == stamp > self.summary.highest:
            return Environment(self.name, deleted_at=stamp)
        if stamp > self.summary.highest and floor == ZERO:
            return self._succeeded(stamp, changes)
        variables: dict[str, Entry] = {}
        metadata: dict[str, Entry] = {}
        for kind, name, value, secret, overwrites in changes:
            side = metadata if kind else variables
            side[name] = Entry(stamp, overwrites, value, secret)
        return self.merge(Environment(self.name, variables, metadata, floor))

    def _succeeded(self, stamp: Stamp, changes: Iterable[Change]) -> Environment:
        """Merge in changes under a stamp above all that there is: they win, one by one."""
        if type(changes) is ChangeColumns and _holds_only(self.variables, changes.names):
            whole = EntryColumns(
                changes.names,
                changes.values,
                changes.secrets,
                [stamp] * len(changes.names),
                changes.overwrites,
            )
            return Environment(self.name, whole, self.metadata, self.deleted_at)
        highest, live, settings, names, characters = self.summary
        variables: dict[str, Entry] | None = None
        metadata: dict[str, Entry] | None = None
        for kind, name, value, secret, overwrites in changes:
            if kind:
                side = metadata = dict(rows_of(self.metadata)) if metadata is None else metadata
            else:
                side = variables = dict(rows_of(self.variables)) if variables is None else variables
            known = side.get(name)
            side[name] = Entry(stamp, overwrites, value, secret)
            if known is None:
                names += 1
                characters += len(name)
                gained = int(value is not None)
            else:
                characters -= len(known.value or "")
                gained = (value is not None) - (known.value is not None)
            characters += len(value or "")
            if kind:
                settings += gained
            else:
                live += gained
        changed = variables is not None or metadata is not None
        after = Environment(
            self.name,
            self.variables if variables is None else variables,
            self.metadata if metadata is None else metadata,
            self.deleted_at,
        )
        highest = stamp if changed else highest
        after._remember(Summary(highest, live, settings, names, characters))
        return after

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


def _holds_only(entries: Mapping[str, Entry], names: Sequence[str]) -> bool:
    """Tell whether there are no entries, or just these, in this order."""
    return not entries or (len(entries) == len(names) and list(entries) == list(names))


def _summarize(environment: Environment) -> Summary:
    highest, names, characters = environment.deleted_at, 0, 0
    lives: list[int] = []
    for entries in (environment.variables, environment.metadata):
        if not entries:
            lives.append(0)
            continue
        columns = columns_of(entries)
        values, stamps = columns.values_or_none, columns.stamps
        highest = max(highest, stamps[0] if same_for_all(stamps) else max(stamps))
        present = [value for value in values if value is not None]
        lives.append(len(present))
        names += len(columns.names)
        characters += len("".join(columns.names)) + len("".join(present))
    live, settings = lives
    return Summary(highest, live, settings, names, characters)
