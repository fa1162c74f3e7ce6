"""What callers ask of a node, whichever way they come (gRPC, HTTP, Unix socket)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import overload

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


class PutColumns(Sequence[Put]):
    """Puts of variables as columns: the i-th name and value belong together.

    `secret` has the flag of those that state one, by their place; the others stay as they are.
    """

    __slots__ = ("names", "secret", "values")

    def __init__(
        self, names: Sequence[str], values: Sequence[str], secret: Mapping[int, bool]
    ) -> None:
        self.names = names
        self.values = values
        self.secret = secret

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, at: int) -> Put: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Put, ...]: ...
    def __getitem__(self, at: int | slice) -> Put | tuple[Put, ...]:
        return tuple(self)[at]

    def __iter__(self) -> Iterator[Put]:
        for at, (name, value) in enumerate(zip(self.names, self.values, strict=True)):
            yield Put(name, value, self.secret.get(at))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        """Tell how many there are, never a value."""
        return f"PutColumns({len(self.names)} puts)"


@dataclass(frozen=True, slots=True)
class Unset:
    """Remove one variable or metadata key; removing an absent one is NotFound."""

    name: str
    kind: Kind = Kind.VARIABLE


@dataclass(frozen=True, slots=True)
class Seen:
    """The stamp (hex) of the value of a variable that a writer knew, "" where it knew none."""

    name: str
    stamp: str


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """One atomic commit to one environment.

    With `replace`, variables that are not put are unset. With `replace` or `bulk` (an import)
    the limit on operations is that of the environment. `if_revision` is a revision or a
    prefix of at least 8 digits; `must_exist` and `must_not_exist` are about the environment.
    `operation` makes a retry safe for 24 hours. `seen` is for who writes what was decided on an
    older state, as a copy that was edited elsewhere: where a variable had another value since,
    this one replaces it all the same, and that one goes on record as a conflict.
    """

    environment: str
    puts: Sequence[Put] = ()
    unsets: tuple[Unset, ...] = ()
    replace: bool = False
    bulk: bool = False
    if_revision: str = ""
    must_exist: bool = False
    must_not_exist: bool = False
    message: str = ""
    operation: str = ""
    durability: Durability = Durability.DEFAULT
    seen: tuple[Seen, ...] = ()


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
class ConflictsRequest:
    """Unsettled conflicts of one environment, or of all those below `prefix`.

    `after` is `next` of the page before. A conflict has two sides; where one of them is secret, or
    the variable is by now, both values are masked unless `reveal`, which takes the right to.
    """

    environment: str = ""
    prefix: str = ""
    after: str = ""
    limit: int = 100
    reveal: bool = False


@dataclass(frozen=True, slots=True)
class ResolveRequest:
    """Settle all conflicts of one variable, or with `kind` of one setting, by one commit.

    `take` is the id of a conflict or at least 4 first digits of it, which writes its lost side
    again; "lost" does so where there is one conflict only. "kept" leaves everything as it is.
    The stamp of a side, in full, writes that side again.
    """

    environment: str
    variable: str
    take: str
    kind: Kind = Kind.VARIABLE
    if_revision: str = ""
    message: str = ""
    operation: str = ""
    durability: Durability = Durability.DEFAULT


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """Follow the environments below `prefix`.

    Without `token`: a snapshot, then changes. With the token of an earlier event: changes
    after it, or a reset and a snapshot where the node can't resume. `values` adds the new
    state to each change, secrets masked unless `reveal`. With `resolve` every state has the
    variables of what it extends too, and a change of one of those is told as a change of each
    watched environment that extends it. With `exact` only the environment `prefix` is watched,
    not what is below it.
    """

    prefix: str = ""
    token: str = ""
    values: bool = False
    reveal: bool = False
    resolve: bool = False
    exact: bool = False


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Have the node join the cluster that answers at these gossip addresses (HOST:PORT)."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeaveRequest:
    """Have a node leave its cluster for good, gracefully, and stop.

    `member` is its name or uid: the request is refused by every other node. A dry run checks
    only.
    """

    member: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RemoveRequest:
    """Strike a member that is down and won't come back; `member` is its name or uid.

    A dry run checks only.
    """

    member: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class TopologyRequest:
    """Who votes and who holds what; `environment`, where given, is one whose place is wanted."""

    environment: str = ""


@dataclass(frozen=True, slots=True)
class RecoverRequest:
    """Have the node vote alone on serial environments, because the voters are lost.

    Refused while a majority of them can be reached. Where `member` (a name or uid) is given, it is
    refused by every other node. A dry run checks only.
    """

    member: str = ""
    dry_run: bool = False
