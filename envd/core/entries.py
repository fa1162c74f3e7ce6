"""What is known of one name, and the entries of one side of an environment in columns.

Most environments are read, written and stored whole, name by name in the same order, so their
entries stay the columns they came as: a list of names, a list of values and so on. Only who
asks for a single entry turns them into rows. Both forms are equal mappings of name to entry.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from typing import NamedTuple

from envd.core.stamp import Stamp


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


class EntryColumns(Mapping[str, Entry]):
    """Entries as columns of equal length: the i-th of each belong together.

    Names are distinct; `secrets` holds 0 or 1 for each. The columns must not change any more.
    """

    __slots__ = ("_rows", "names", "overwrites", "secrets", "stamps", "values_or_none")

    def __init__(
        self,
        names: Sequence[str],
        values: Sequence[str | None],
        secrets: bytes,
        stamps: Sequence[Stamp],
        overwrites: Sequence[Stamp],
    ) -> None:
        self.names = names
        self.values_or_none = values
        self.secrets = secrets
        self.stamps = stamps
        self.overwrites = overwrites
        self._rows: dict[str, Entry] | None = None

    @property
    def rows(self) -> dict[str, Entry]:
        """The entries by name; made when first asked for. Not to be changed."""
        rows = self._rows
        if rows is None:
            columns = (self.stamps, self.overwrites, self.values_or_none, map(bool, self.secrets))
            rows = self._rows = dict(zip(self.names, map(Entry, *columns), strict=True))
        return rows

    def __getitem__(self, name: str) -> Entry:
        return self.rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self.rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def items(self) -> ItemsView[str, Entry]:
        return self.rows.items()

    def __repr__(self) -> str:
        """Tell how many there are, never a value."""
        return f"EntryColumns({len(self.names)} entries)"


def rows_of(entries: Mapping[str, Entry]) -> Mapping[str, Entry]:
    """The same entries in the form that is fast to look names up in, and to copy."""
    return entries.rows if type(entries) is EntryColumns else entries


def columns_of(entries: Mapping[str, Entry]) -> EntryColumns:
    """The same entries in columns."""
    if type(entries) is EntryColumns:
        return entries
    rows = entries.values()
    return EntryColumns(
        list(entries),
        [entry.value for entry in rows],
        bytes([entry.secret for entry in rows]),
        [entry.stamp for entry in rows],
        [entry.overwrites for entry in rows],
    )


def same_for_all(column: Sequence[Stamp]) -> bool:
    """Tell whether a column holds one stamp throughout; an empty one does."""
    return not column or column.count(column[0]) == len(column)
