"""The Protocols through which a node meets the world.

`node/` is written against these alone. The daemon passes in the real ones; the simulator
and the tests pass in theirs.
"""

from __future__ import annotations

from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from envd.core.answers import Identity, ListedEnvironment
from envd.core.commit import Commit, LogRecord
from envd.core.environment import Environment
from envd.core.history import ConflictRecord
from envd.core.paxos import Acceptor
from envd.core.stamp import Stamp
from envd.core.versions import Cursor, Roots


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

    `size_bytes` is that of the commit as it is stored; `row` are the bytes of the whole record,
    as they stand in the log and go to peers, empty for a base.
    """

    lsn: int
    record: LogRecord
    after: StoredState
    size_bytes: int
    row: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class OperationResult:
    """What became of an operation id: the commit that carried it."""

    environment: str
    stamp: Stamp
    revision: bytes
    time_ms: int
    request_digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was collected below the floor: tombstones, and the commits of lives that ended.

    `environments` are those of which nothing is left. `busy` are those that may have something to
    collect and had writes on their way: the next time.
    """

    tombstones: int = 0
    commits: int = 0
    environments: int = 0
    busy: int = 0

    def __add__(self, other: Forgotten) -> Forgotten:
        return Forgotten(
            self.tombstones + other.tombstones,
            self.commits + other.commits,
            self.environments + other.environments,
            self.busy + other.busy,
        )


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

    def vectors(self) -> Mapping[tuple[int, int], int]:
        """The last durable seq by (partition, origin): all records up to it are held."""
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

    def append(self, record: LogRecord, after: StoredState, encoded: bytes = b"") -> Logged:
        """Log `record`, which makes `after`.

        `encoded` are the stored bytes of its commit, where they are known: a peer's are kept
        as they came, so that histories agree over versions. A record of origin 0 was repaired:
        it has no name, and vectors stay.
        """
        ...

    def append_base(self, base: Environment, after: StoredState) -> Logged:
        """Log that the base snapshot of a history has `base` merged in, which makes `after`."""
        ...

    def find_operation(self, author: str, operation: str) -> OperationResult | None:
        """The result of an operation id of the last 24 hours, on its way or durable."""
        ...

    def environments(
        self, prefix: str, after: str, limit: int, partitions: Collection[int] | None = None
    ) -> list[ListedEnvironment]:
        """Existing environments in order of name, after `after`, at most `limit`.

        Only those of these `partitions`; None: of all.
        """
        ...

    def commits(self, environment: str, before: Stamp | None, limit: int) -> list[Commit]:
        """Durable commits newest first, below the stamp `before`, at most `limit`.

        Large ones come in smaller pages; only an empty page is the end.
        """
        ...

    def commit_rows(self, environment: str) -> list[tuple[Stamp, bytes]]:
        """All durable commits in their stored bytes, oldest first."""
        ...

    def base(self, environment: str) -> Environment:
        """The snapshot of what was trimmed from the history; empty where nothing was."""
        ...

    def conflicts(self, prefix: str, after: str, limit: int) -> list[ConflictRecord]:
        """Unresolved conflicts of the environments below `prefix`, in order of their names.

        Only of environments after the name `after`; whole environments, until there are
        `limit` conflicts or more.
        """
        ...

    def replay(self, after_lsn: int) -> Iterator[tuple[int, LogRecord]]:
        """What `subscribe` told after `after_lsn`, in order; raises NotFound where it is gone."""
        ...

    async def rows(self, after_lsn: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Durable log records after `after_lsn` in their stored bytes, in order.

        As many as fit `max_bytes`, at least one where there is one; raises NotFound where they
        are gone. Those that only repair made, and bases, are left out: the lsn may jump.
        """
        ...

    def oldest_lsn(self) -> int:
        """The first lsn that `rows` still has; one more than `last_lsn` where there is none."""
        ...

    def hold(self, after_lsn: int | None) -> None:
        """Keep the log after `after_lsn` for peers; None: as much as readers here need."""
        ...

    # What peers know of each other, and what tells that their states are equal.

    def advance(
        self, vectors: Mapping[tuple[int, int], int], cursors: Mapping[int, Cursor]
    ) -> None:
        """Raise vectors (never lower them) and set cursors; durable with the next flush."""
        ...

    def cursor(self, uid: int) -> Cursor:
        """How far the logs of the node `uid` were taken in."""
        ...

    def forget_origin(self, origin: int) -> None:
        """Drop the vectors of an origin; durable with the next flush.

        Relays begin anew: what senders passed over, because it was the origin's own, is wanted now.
        """
        ...

    def roots(self) -> Roots:
        """Fingerprints of all partitions, as of the last flush."""
        ...

    def digests(self, partition: int) -> list[tuple[str, bytes]]:
        """(name, 16 bytes) for each environment of a partition, in order, as of the last flush.

        The bytes cover state, history and base: equal bytes, nothing to repair.
        """
        ...

    async def quarantine(self, row: bytes) -> None:
        """Keep a log record durably, outside of the state, the vectors and the fingerprints."""
        ...

    def quarantined(self) -> Sequence[bytes]:
        """The records in quarantine, in order of their names."""
        ...

    async def release(self, row: bytes) -> None:
        """Take a record out of quarantine."""
        ...

    def subscribe(self, listener: Callable[[Applied], None]) -> None:
        """Call `listener` for each record as it becomes visible, in order.

        A base is told as a commit of origin 0 that sets what it holds.
        """
        ...

    async def drop(self, partition: int, last_lsn: int, keep_origin: int) -> bool:
        """Let go of all that this node has of a partition, but for the vector of `keep_origin`.

        `last_lsn` is what `last_lsn()` told, since this start: others hold the partition up to
        there. False, and nothing is done, where a record of the partition with a later lsn is in
        the log or on its way, or one is in quarantine (one of a newer version whose partition can't
        be told does not count). Else it returns once all is gone, durably: environments, histories,
        bases, conflicts, digests, vectors; after a crash meanwhile either all is there or nothing.

        The log keeps its records, and so does what was told of them: operation ids (until their
        24 hours are over), cursors. While it is written, records of the partition may be refused
        (Unavailable); those that come later begin with an empty state. Raises StorageError or
        Unavailable where nothing can be written; again, it does what is left to do.
        """
        ...

    # What may be forgotten (`core.floor`).

    def floor(self) -> int:
        """The durable time (hlc) up to which this node has all commits there are; 0: unknown."""
        ...

    async def raise_floor(self, hlc: int) -> None:
        """Raise the floor, never lower it; durable once it returns.

        From then on no commit at or below it may be appended, and no base that has not been
        `core.floor.guarded`. Raises StorageError, Unavailable.
        """
        ...

    def gathered(self) -> int:
        """The last round (`core.sealing`) for which this node gathered what there was; 0: none."""
        ...

    async def note_gathered(self, round_: int) -> None:
        """Note that it did so for this round; durable once it returns, with all that was logged.

        Raises StorageError, Unavailable.
        """
        ...

    async def collect(self, partition: int) -> Forgotten:
        """Let go of what may be forgotten of a partition, at the floor, bit by bit.

        What readers see of it is the same but for tombstones, and histories that ended long before.
        After a crash meanwhile each environment is as before or as after. Where there is nothing to
        collect it costs a look. Raises StorageError, Unavailable; again, it does what is left.
        """
        ...

    async def flush(self) -> None:
        """Bring the materialised view up to the log."""
        ...

    async def sync(self) -> None:
        """See to it that what was flushed survives a power cut."""
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


class Registers(Protocol):
    """What this node promised and accepted as an acceptor, by the name of the register."""

    def get(self, register: str) -> Acceptor:
        """As it is, with what is on its way to the disk."""
        ...

    def save(self, register: str, acceptor: Acceptor) -> Awaitable[None]:
        """Keep it from now on; what it returns is done once that is durable.

        Raises Unavailable where there is no room, and then it is again what was durable;
        OutcomeUnknown where the disk failed.
        """
        ...

    def prune(self, register: str, position: Stamp) -> None:
        """Forget what was accepted there below `position`: the log holds it."""
        ...

    def accepted(self) -> Mapping[str, Acceptor]:
        """Those that accepted something that may not be in the log yet, in order of name."""
        ...


class Authorizer(Protocol):
    """Who may do what."""

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        """Return if allowed, raise Denied if not."""
        ...

    def allows(self, identity: Identity, verb: str, environment: str) -> bool:
        """Tell the same as `check` as a claim."""
        ...


# -- the other nodes -----------------------------------------------------------------------


class Datagrams(Protocol):
    """Datagrams to and from addresses ("host:port"): may be lost, doubled or come in any order."""

    def send(self, address: str, datagram: bytes) -> None:
        """Try to send; never waits, never raises."""
        ...

    def on_datagram(self, receive: Callable[[str, bytes], None]) -> None:
        """Call `receive(address, datagram)` for each that comes from now on."""
        ...


class PeerChannel(Protocol):
    """Frames to and from one peer, in order, none lost until either side closes."""

    async def send(self, frame: bytes) -> None:
        """Send; waits while the peer does not read. Raises Unavailable once closed."""
        ...

    async def receive(self) -> bytes:
        """The next frame; raises Unavailable once the channel is closed and read to its end."""
        ...

    def trusted(self) -> None:
        """The peer proved who it is: its frames may be large from now on."""
        ...

    def close(self) -> None:
        """End the channel, both ways; again, it does nothing."""
        ...


class PeerTransport(Protocol):
    """Channels to other nodes, and from them."""

    async def dial(self, address: str) -> PeerChannel:
        """Open a channel to the node at `address`; raises Unavailable where none answers."""
        ...

    def on_channel(self, serve: Callable[[PeerChannel], Awaitable[None]]) -> None:
        """Call `serve` for each channel that a peer opens; it is closed when `serve` returns."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A datagram that a member of the cluster sealed, and which start of which node it was.

    `boot_id` are 16 bytes drawn at that start.
    """

    uid: int
    generation: int
    boot_id: bytes
    payload: bytes = field(repr=False)


class DatagramSealer(Protocol):
    """Seals what this start of this node sends; each datagram is opened at most once."""

    def seal(self, payload: bytes) -> bytes:
        """The datagram for `payload`."""
        ...

    def open(self, datagram: bytes) -> Opened:
        """What a peer sealed; raises Unauthenticated for anything else, and for a repeat."""
        ...


class ClusterSecret(Protocol):
    """What all nodes of a cluster, and nobody else, know."""

    def proof(self, purpose: bytes, transcript: bytes) -> bytes:
        """32 bytes that only who knows the secret can make (HMAC); `proves` checks them."""
        ...

    def proves(self, purpose: bytes, transcript: bytes, proof: bytes) -> bool:
        """Tell, in constant time, whether who made `proof` knows the secret.

        While a secret is exchanged for another, nodes prove with different keys of it.
        """
        ...

    def seal(self, purpose: bytes, transcript: bytes, plaintext: bytes) -> bytes:
        """Encrypt under a key that the secret and this transcript, which is new, give."""
        ...

    def open(self, purpose: bytes, transcript: bytes, sealed: bytes) -> bytes:
        """Decrypt what `seal` made; raises Unauthenticated."""
        ...
