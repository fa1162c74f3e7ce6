"""The Protocols through which a node meets the world.

`node/` is written against these alone. The daemon passes in the real ones; the simulator
and the tests pass in theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from envd.core.answers import Identity, ListedEnvironment
from envd.core.commit import Commit, LogRecord
from envd.core.environment import Environment
from envd.core.stamp import Stamp


class Clock(Protocol):
    """Time as the node sees it."""

    def wall_ms(self) -> int:
        """Unix milliseconds; may jump both ways."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds for intervals; never goes back."""
        ...


class Rng(Protocol):
    """Randomness; a real node's is cryptographically strong."""

    def token_bytes(self, size: int) -> bytes:
        """Return `size` random bytes."""
        ...


class Subkey(Protocol):
    """A key for one place (a journal segment, a write transaction), under its own salt."""

    @property
    def header(self) -> bytes:
        """SUBKEY_HEADER_BYTES that `Sealer.subkey` needs to make this key again."""
        ...

    def seal(self, position: int, plaintext: bytes, place: bytes) -> bytes:
        """Encrypt; `position` must be new under this key, `place` is authenticated too."""
        ...

    def open(self, position: int, sealed: bytes, place: bytes) -> bytes:
        """Decrypt what `seal` made; raises Corrupt where a bit or the place differs."""
        ...


SUBKEY_HEADER_BYTES = 18
"""The id of the storage key (2 bytes) and a random salt (16 bytes)."""


class Sealer(Protocol):
    """Keys for everything that a node writes; `purpose` keeps the kinds of places apart."""

    def new_subkey(self, purpose: bytes) -> Subkey:
        """Draw a salt and return the key for it, under the current storage key."""
        ...

    def subkey(self, purpose: bytes, header: bytes) -> Subkey:
        """Return the key that `header` names; raises KeyFileError for an unknown key id."""
        ...


@dataclass(frozen=True, slots=True, weakref_slot=True)
class StoredState:
    """An environment's state with its revision, which takes the digest key to compute."""

    environment: Environment
    revision: bytes


@dataclass(frozen=True, slots=True)
class Applied:
    """A durable commit in the order this node took it in; `lsn` counts from 1.

    `size_bytes` is that of the commit as it is stored.
    """

    lsn: int
    record: LogRecord
    after: StoredState
    size_bytes: int


@dataclass(frozen=True, slots=True)
class OperationResult:
    """What became of an operation id: the commit that carried it."""

    environment: str
    stamp: Stamp
    revision: bytes
    time_ms: int
    request_digest: bytes = b""


class Logged(Protocol):
    """A record on its way; awaiting it gives its lsn once it is durable, as a future does.

    It fails with Unavailable where nothing was written, OutcomeUnknown where a sync failed.
    """

    def __await__(self) -> Generator[Any, None, int]: ...

    def done(self) -> bool: ...

    def result(self) -> int: ...

    def exception(self) -> BaseException | None: ...

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None: ...


class Store(Protocol):
    """The durable state of a node: the commit log, and its materialised view.

    Readers see a commit once it is durable. A writer builds on `head`, which also holds the
    commits on their way; between reading `head` and `append` it must not await.
    """

    def visible(self, environment: str) -> StoredState | None:
        """The durable state, or None where nothing was ever written; raises Corrupt."""
        ...

    def head(self, environment: str) -> StoredState | None:
        """The state that the next commit follows."""
        ...

    def last_seq(self, partition: int, origin: int) -> int:
        """The seq of the last record in the log or on its way, 0 for none."""
        ...

    def last_lsn(self) -> int:
        """The lsn of the last durable record, 0 for none."""
        ...

    def highest_hlc(self) -> int:
        """The durable bound: no stamp of this node was ever given above it."""
        ...

    def admits(self) -> bool:
        """Tell whether `admit` would answer at once."""
        ...

    async def admit(self) -> None:
        """Wait until there is room for a record; raises Unavailable where there won't be."""
        ...

    def append(self, record: LogRecord, after: StoredState) -> Logged:
        """Log `record`, which makes `after`."""
        ...

    def find_operation(self, author: str, operation: str) -> OperationResult | None:
        """The result of an operation id of the last 24 hours, on its way or durable."""
        ...

    def environments(self, prefix: str, after: str, limit: int) -> list[ListedEnvironment]:
        """Existing environments in order of name, after `after`, at most `limit`."""
        ...

    def commits(self, environment: str, before: Stamp | None, limit: int) -> list[Commit]:
        """Durable commits newest first, below the stamp `before`, at most `limit`.

        Large ones come in smaller pages; only an empty page is the end.
        """
        ...

    def base(self, environment: str) -> Environment:
        """The snapshot of what was trimmed from the history; empty where nothing was."""
        ...

    def replay(self, after_lsn: int) -> Iterator[tuple[int, LogRecord]]:
        """Durable records after `after_lsn`, in order; raises NotFound where they are gone."""
        ...

    def subscribe(self, listener: Callable[[Applied], None]) -> None:
        """Call `listener` for each record as it becomes visible, in order."""
        ...

    async def flush(self) -> None:
        """Bring the materialised view up to the log."""
        ...

    async def copy_to(self, directory: Path) -> int:
        """Write a consistent online copy there; return the lsn that it holds."""
        ...

    def environment_count(self) -> int:
        """How many environments exist; one that changed just now may be missing."""
        ...

    def storage_bytes(self) -> int:
        """Bytes on disk."""
        ...

    async def close(self) -> None:
        """Flush and let go."""
        ...


class Authorizer(Protocol):
    """Who may do what."""

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        """Return if allowed, raise Denied if not."""
        ...

    def allows(self, identity: Identity, verb: str, environment: str) -> bool:
        """Tell the same as `check` as a claim."""
        ...
