"""What one call writes to one environment, applied and shipped whole, never split.

A commit carries the effect (its changes), who, when and why, and for each change the stamp
that it replaced at its origin (`overwrites`), from which conflicts are told later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, overload

from envd.core.stamp import ZERO, Stamp


class Kind(IntEnum):
    """What a change is about; the numbers are stored."""

    VARIABLE = 0
    METADATA = 1


class Change(NamedTuple):
    """One put, or with `value` None one unset, of a variable or a metadata key.

    `overwrites` is the stamp of the entry that the origin replaced, else the environment's
    `deleted_at`, else ZERO.
    """

    kind: Kind
    name: str
    value: str | None
    secret: bool
    overwrites: Stamp

    def __repr__(self) -> str:
        """Name the change without its value."""
        verb = "unset" if self.value is None else "set"
        return f"Change({verb} {self.kind.name.lower()} {self.name})"


class ChangeColumns(Sequence[Change]):
    """Puts of variables as columns: the i-th of each belong together, `secrets` are 0 or 1.

    Equal to the tuple of the same changes.
    """

    __slots__ = ("names", "overwrites", "secrets", "values")

    def __init__(
        self,
        names: Sequence[str],
        values: Sequence[str],
        secrets: bytes,
        overwrites: Sequence[Stamp],
    ) -> None:
        self.names = names
        self.values = values
        self.secrets = secrets
        self.overwrites = overwrites

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, at: int) -> Change: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Change, ...]: ...
    def __getitem__(self, at: int | slice) -> Change | tuple[Change, ...]:
        if isinstance(at, slice):
            return tuple(self)[at]
        secret = bool(self.secrets[at])
        return Change(Kind.VARIABLE, self.names[at], self.values[at], secret, self.overwrites[at])

    def __iter__(self) -> Iterator[Change]:
        kind = Kind.VARIABLE
        columns = (self.names, self.values, self.secrets, self.overwrites)
        for name, value, secret, overwrites in zip(*columns, strict=True):
            yield Change(kind, name, value, bool(secret), overwrites)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        """Tell how many there are, never a value."""
        return f"ChangeColumns({len(self.names)} puts)"


@dataclass(frozen=True, slots=True)
class Commit:
    """All changes of one call, under one stamp.

    `deletes` raises the environment's `deleted_at` to the stamp; such a commit lists an
    unset for every live variable and metadata key it saw. `revision` is what the origin
    computed after it (16 bytes, empty where `blind`). `operation` is the caller's operation
    id, or "".
    With an operation id goes `request_digest`, by which a repeat is told from another request.
    `time_ms` is the origin's wall clock; the order comes from the stamp alone. `resolves` are
    the ids of conflicts that it settles. `follows` is the position in the chain of a serial
    environment that it was chosen to follow (`core.chain`), ZERO for a plain one. `salvages` is a
    commit that is not applied, because it came too late (`core.floor`) or was made in a store where
    another write won: this one changes nothing, and has what that one wrote on record, as lost.
    """

    environment: str
    stamp: Stamp
    changes: Sequence[Change]
    deletes: bool = False
    author: str = ""
    time_ms: int = 0
    message: str = ""
    operation: str = ""
    blind: bool = False
    node: str = ""
    region: str = ""
    revision: bytes = b""
    request_digest: bytes = b""
    resolves: tuple[str, ...] = ()
    follows: Stamp = ZERO
    salvages: Commit | None = None

    @property
    def floor(self) -> Stamp:
        """What it raises `deleted_at` to: everything at or below it is dropped. ZERO: nothing.

        That is its stamp where it deletes, and the bottom of its era where it is the first commit
        of one, as those are that begin or end a chain.
        """
        return floor_of(self.stamp, self.follows, deletes=self.deletes)


def floor_of(stamp: Stamp, follows: Stamp, *, deletes: bool) -> Stamp:
    """`Commit.floor` of a commit that has these."""
    if deletes:
        return stamp
    begins_era = follows != ZERO and (follows.era < stamp.era or not follows.hlc)
    return Stamp(stamp.era, 0, 0) if begins_era else ZERO


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A commit under the name the whole cluster knows it by: `(partition, origin, seq)`.

    `seq` counts from 1 without gaps for each partition and origin. A commit that came by repair
    has no name here: origin and seq are 0.
    """

    partition: int
    origin: int
    seq: int
    commit: Commit = field(repr=False)
