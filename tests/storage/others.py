"""What comes from other nodes: their commits, repaired ones, bases."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import replace

from envd.core import digest
from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.ring import partition_of
from envd.core.stamp import COUNTER_BITS, ZERO, Stamp
from envd.ports import Store, StoredState
from envd.wire import records
from tests.storage.world import DIGEST_KEY, START_MS

PEER = 9


def at(n: int, node: int = PEER) -> Stamp:
    """The n-th stamp of a node."""
    return Stamp(0, (START_MS + n) << COUNTER_BITS, node)


def commit_at(
    stamp: Stamp,
    environment: str,
    values: Mapping[str, str | None],
    *,
    saw: Stamp | Mapping[str, Stamp] = ZERO,
    deletes: bool = False,
    resolves: tuple[str, ...] = (),
    kind: Kind = Kind.VARIABLE,
) -> Commit:
    """A commit of a node that had seen `saw` of each value, or of all."""
    changes = tuple(
        Change(kind, name, value, False, saw if isinstance(saw, Stamp) else saw.get(name, ZERO))
        for name, value in values.items()
    )
    return Commit(
        environment,
        stamp,
        changes,
        deletes=deletes,
        author=f"n{stamp.node_uid}",
        time_ms=stamp.time_ms,
        resolves=resolves,
    )


def state_of(environment: Environment) -> StoredState:
    return StoredState(environment, digest.revision(environment, DIGEST_KEY))


def head_of(store: Store, name: str) -> Environment:
    head = store.head(name)
    return head.environment if head else Environment(name)


def shipped(
    store: Store, commit: Commit, *, seq: int = 0, encoded: bytes = b"", origin: int = 0
) -> Awaitable[int]:
    """Append a commit as it comes from the node that gave its stamp."""
    origin = origin or commit.stamp.node_uid
    partition = partition_of(commit.environment)
    seq = seq or store.last_seq(partition, origin) + 1
    record = LogRecord(partition, origin, seq, commit)
    after = state_of(head_of(store, commit.environment).apply(commit))
    return store.append(record, after, encoded or records.encode_commit(commit))


def repaired(store: Store, commit: Commit) -> Awaitable[int]:
    """Append a commit that a repair brought."""
    record = LogRecord(partition_of(commit.environment), 0, 0, commit)
    after = state_of(head_of(store, commit.environment).apply(commit))
    return store.append(record, after, records.encode_commit(commit))


def merged(store: Store, base: Environment) -> Awaitable[int]:
    """Append a peer's base."""
    return store.append_base(base, state_of(head_of(store, base.name).merge(base)))


def base_of(name: str, commits: Iterable[Commit]) -> Environment:
    """The base into which these commits were folded."""
    base = Environment(name)
    for commit in commits:
        base = base.apply(replace(commit, environment=name))
    return base


def later_encoding(commit: Commit) -> bytes:
    """The bytes of a commit as a later version may write them: with one more field."""
    longest = replace(commit, resolves=("x",), follows=Stamp(0, 1, 1), salvages=commit)
    encoded = bytearray(records.encode_commit(longest))
    fields = int.from_bytes(encoded[2:4]) + 1
    encoded[2:4] = fields.to_bytes(2)
    return bytes(encoded) + b"\xa5later"
