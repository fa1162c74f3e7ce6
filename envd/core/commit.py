"""What one call writes to one environment, applied and shipped whole, never split.

A commit carries the effect (its changes), who, when and why, and for each change the stamp
that it replaced at its origin (`overwrites`), from which conflicts are told later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from envd.core.stamp import Stamp


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


@dataclass(frozen=True, slots=True)
class Commit:
    """All changes of one call, under one stamp.

    `deletes` raises the environment's `deleted_at` to the stamp; such a commit lists an
    unset for every live variable and metadata key it saw. `revision` is what the origin
    computed after it (16 bytes, empty where `blind`). `operation` is the caller's operation
    id, or "".
    With an operation id goes `request_digest`, by which a repeat is told from another request.
    `time_ms` is the origin's wall clock; the order comes from the stamp alone.
    """

    environment: str
    stamp: Stamp
    changes: tuple[Change, ...]
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


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A commit under the name the whole cluster knows it by: `(partition, origin, seq)`.

    `seq` counts from 1 without gaps for each partition and origin.
    """

    partition: int
    origin: int
    seq: int
    commit: Commit = field(repr=False)
