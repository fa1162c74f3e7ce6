"""What callers ask of a node, whichever way they come (gRPC, HTTP, Unix socket)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from envd.core.commit import Kind


class Consistency(Enum):
    """How fresh a read must be; ARCHITECTURE tells what each level promises."""

    EVENTUAL = "eventual"
    SESSION = "session"
    STRONG = "strong"


class Durability(Enum):
    """How many synced copies a write waits for: one, the usual two, or two or nothing."""

    LOCAL = "local"
    DEFAULT = "default"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Put:
    """Set one variable or metadata key.

    `secret` None keeps the flag as it is (not secret for a new one); False lowers it, which
    takes the right to reveal.
    """

    name: str
    value: str = field(repr=False)
    secret: bool | None = None
    kind: Kind = Kind.VARIABLE


@dataclass(frozen=True, slots=True)
class Unset:
    """Remove one variable or metadata key; removing an absent one is NotFound."""

    name: str
    kind: Kind = Kind.VARIABLE


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """One atomic commit to one environment.

    With `replace`, variables that are not put are unset. With `replace` or `bulk` (an import)
    the limit on operations is that of the environment. `if_revision` is a revision or a
    prefix of at least 8 digits; `must_exist` and `must_not_exist` are about the environment.
    `operation` makes a retry safe for 24 hours.
    """

    environment: str
    puts: tuple[Put, ...] = ()
    unsets: tuple[Unset, ...] = ()
    replace: bool = False
    bulk: bool = False
    if_revision: str = ""
    must_exist: bool = False
    must_not_exist: bool = False
    message: str = ""
    operation: str = ""
    durability: Durability = Durability.DEFAULT


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """Delete one environment; its history stays, and `Rollback` brings it back."""

    environment: str
    if_revision: str = ""
    message: str = ""
    operation: str = ""
    durability: Durability = Durability.DEFAULT


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    """Write the state recorded by commit `to` again, as a new commit.

    `to` is a revision, a unique prefix of one, `@~N` for N commits before the newest, or
    `@deleted` for what the last deletion removed. `variables` limits it to these names.
    """

    environment: str
    to: str
    variables: tuple[str, ...] = ()
    if_revision: str = ""
    message: str = ""
    operation: str = ""
    durability: Durability = Durability.DEFAULT


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Read one environment, now or as it was `at` a revision.

    With `resolve` its layers are read too: what it extends, itself on top. A revision is of
    one environment, so `at` and `resolve` exclude each other.
    `variables` limits the answer to these names (an absent one is NotFound). Secret values
    are masked unless `reveal`, which takes the right to.
    """

    environment: str
    variables: tuple[str, ...] = ()
    reveal: bool = False
    at: str = ""
    consistency: Consistency = Consistency.EVENTUAL
    token: str = ""
    max_lag_ms: int | None = None
    resolve: bool = False


@dataclass(frozen=True, slots=True)
class ListRequest:
    """List environments whose names have `prefix`, after the name `after`, in order."""

    prefix: str = ""
    after: str = ""
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Commits of one environment, newest first; `before` is the stamp (hex) of the last seen.

    `variable` limits it to commits that touched this name.
    """

    environment: str
    variable: str = ""
    before: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """Follow the environments below `prefix`.

    Without `token`: a snapshot, then changes. With the token of an earlier event: changes
    after it, or a reset and a snapshot where the node can't resume. `values` adds the new
    state to each change, secrets masked unless `reveal`.
    """

    prefix: str = ""
    token: str = ""
    values: bool = False
    reveal: bool = False
