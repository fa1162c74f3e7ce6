"""What the reconciler needs of the node it runs in. `node.syncing` is the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from envd.core.answers import WriteAnswer
from envd.core.requests import WriteRequest
from envd.core.stamp import ZERO, Stamp


@dataclass(frozen=True, slots=True)
class Local:
    """One variable here: its stamp, value and flag."""

    stamp: Stamp
    value: str = field(repr=False)
    secret: bool


@dataclass(frozen=True, slots=True)
class LocalState:
    """An environment here: what has a value, by name. `revision` is "" where it does not exist.

    What has none was removed, or it has not come here yet. `unset` tells when variables were unset
    that have no value, and `deleted` when all of it was; up to the time `floor` (hlc) everything is
    here that was ever written. `unset` is None where nobody can tell, as another node was asked.
    """

    environment: str
    revision: str
    variables: dict[str, Local]
    unset: Mapping[str, Stamp] | None = field(default=None, compare=False)
    deleted: Stamp = field(default=ZERO, compare=False)
    floor: int = field(default=0, compare=False)

    def has_seen(self, name: str, stamp: Stamp) -> bool:
        """Whether a write of this variable was seen here; if not, it is still to come."""
        local = self.variables.get(name)
        if local is not None:
            return local.stamp >= stamp
        if self.unset is None or stamp.hlc <= self.floor:
            return True
        return stamp <= max(self.deleted, self.unset.get(name, ZERO))


@dataclass(frozen=True, slots=True)
class Lost:
    """A write that is put on record as lost: what the store had, or what was here.

    `value` None is an unset. `stamp` is its place in the order of writes: that of the write itself
    where it was made here, else one of the store's own actor (`actor_uid`), by the store's time.
    """

    variable: str
    value: str | None = field(repr=False)
    secret: bool
    stamp: Stamp
    author: str
    time_ms: int


class Environments(Protocol):
    """Environments as the cluster has them, wherever they are held.

    All raise EnvdError: Unavailable where nobody that holds it can be reached.
    """

    async def names(self, prefix: str) -> Sequence[str]:
        """All environments at and below a prefix ("" for all), in order."""
        ...

    async def read(self, environment: str) -> LocalState:
        """The whole state, values included; empty where it does not exist."""
        ...

    async def write(self, request: WriteRequest, author: str) -> WriteAnswer:
        """Write one commit; Conflict where `if_revision` does not hold."""
        ...

    async def put_on_record(self, environment: str, lost: Sequence[Lost]) -> Sequence[str]:
        """Have these be conflicts, lost against what stands here now; return the conflicts' ids.

        They are in the order of `lost`: "" for one that is no conflict, as what stands here has
        seen it or is equal, and for one that is settled. Doing it again with equal stamps makes no
        second record.
        """
        ...

    async def open_conflicts(self, environment: str) -> frozenset[str]:
        """The ids of the conflicts that nobody has settled."""
        ...

    def changes(self, prefix: str) -> AsyncIterator[str]:
        """Names of environments at and below a prefix as they change, at least once each.

        Begins with nothing; where changes may have been missed, it yields "".
        """
        ...


class Records(Protocol):
    """Small documents that all nodes hold, below `sys/sync/`: bindings, anchors, status.

    A document is a map of text to text, `name` is segments joined by `/`, keys are legal names of
    variables. They are replicated as environments are, and nobody sees them.
    """

    async def names(self, prefix: str) -> Sequence[str]:
        """The documents at and below a prefix, in order."""
        ...

    async def read(self, name: str) -> dict[str, str]:
        """A document; empty where there is none."""
        ...

    async def update(self, name: str, puts: dict[str, str], unsets: Sequence[str] = ()) -> None:
        """Set and remove keys in one commit, durably; equal values and absent keys are no change.

        More than 1,024 of them are more than one commit.
        """
        ...

    def changes(self, prefix: str) -> AsyncIterator[str]:
        """As `Environments.changes`, for documents."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that this node holds. `token` grows with each holder."""

    name: str
    token: int


class Leading(Protocol):
    """One node at a time, in the whole cluster."""

    async def lead(self, name: str, ttl_s: float, work: Callable[[Held], Awaitable[None]]) -> None:
        """Do `work` whenever this node holds the lease, for ever; it is cancelled once it is lost.

        Where no majority can be reached nobody leads.
        """
        ...

    async def leader(self, name: str) -> tuple[str, int]:
        """Who leads: (the node's name, its uid); ("", 0) for nobody."""
        ...


class Clock(Protocol):
    """Time and chance for the reconciler, so that tests and the simulator have their own."""

    def wall_ms(self) -> int: ...

    def monotonic_s(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...

    def random(self) -> float:
        """From 0.0 up to, but never, 1.0."""
        ...


class Fingerprint(Protocol):
    """A keyed hash of a value: equal for equal values on all nodes, and betraying none."""

    def __call__(self, value: str) -> str:
        """32 hexadecimal digits."""
        ...
