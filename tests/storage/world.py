"""What the storage tests stand on: a writer that commits as a node does, and its props."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from envd.core import digest
from envd.core.commit import Change, Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.history import Retention
from envd.core.ring import partition_of
from envd.core.stamp import COUNTER_BITS, Stamp
from envd.ports import Sealer, Store, StoredState, Subkey
from envd.security.sealing import LocalSealer
from envd.storage.check import StateCheck
from envd.storage.disk import Disk
from envd.storage.store import DurableStore, StoreOptions

NODE = 7
DIGEST_KEY = b"d" * 32
STORAGE_KEY = b"k" * 32
START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
KIB = 1 << 10
MIB = 1 << 20


class CountingRng:
    """Bytes that look random and never repeat: a hash of how many draws there were before."""

    def __init__(self) -> None:
        self.draws = 0

    def token_bytes(self, size: int) -> bytes:
        self.draws += 1
        return blake2b(self.draws.to_bytes(8), digest_size=size).digest()


class StillClock:
    """Both clocks stand at `now_ms`."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms


class WitnessSealer:
    """A real sealer that remembers every nonce, over restarts too, and lets none come twice."""

    def __init__(self, storage_key: bytes = STORAGE_KEY, rng: CountingRng | None = None) -> None:
        self._inner = LocalSealer({1: storage_key}, rng or CountingRng())
        self.sealed: set[tuple[bytes, int]] = set()

    def new_subkey(self, purpose: bytes) -> Subkey:
        return _WitnessSubkey(self._inner.new_subkey(purpose), self.sealed)

    def subkey(self, purpose: bytes, header: bytes) -> Subkey:
        return _WitnessSubkey(self._inner.subkey(purpose, header), self.sealed)


class _WitnessSubkey:
    def __init__(self, inner: Subkey, sealed: set[tuple[bytes, int]]) -> None:
        self._inner = inner
        self._sealed = sealed

    @property
    def header(self) -> bytes:
        return self._inner.header

    def seal(self, position: int, plaintext: bytes, place: bytes) -> bytes:
        nonce = (self.header, position)
        assert nonce not in self._sealed, "sealed twice under one key and position"
        self._sealed.add(nonce)
        return self._inner.seal(position, plaintext, place)

    def open(self, position: int, sealed: bytes, place: bytes) -> bytes:
        return self._inner.open(position, sealed, place)


OPTIONS = StoreOptions(
    segment_bytes=64 * KIB,
    keep_segments=1000,
    map_size_bytes=64 * MIB,
    flush_interval_ms=10 * HOUR_MS,  # Tests flush when they mean to.
)


def open_store(
    directory: Path,
    sealer: Sealer | None = None,
    *,
    clock: StillClock | None = None,
    disk: Disk | None = None,
    check: StateCheck | None = None,
    options: StoreOptions = OPTIONS,
) -> Coroutine[Any, Any, DurableStore]:
    """Open a durable store of small segments that flushes only when told."""
    return DurableStore.open(
        directory,
        sealer or LocalSealer({1: STORAGE_KEY}, CountingRng()),
        DIGEST_KEY,
        NODE,
        clock or StillClock(),
        options,
        check=check,
        disk=disk,
    )


def keeping(commits: int, days: int = 0, *, options: StoreOptions = OPTIONS) -> StoreOptions:
    """Options with this retention."""
    return replace(options, retention=Retention(commits, days))


@dataclass
class Writer:
    """Commits as a coordinator does: head, stamp, append, without an await in between."""

    store: Store
    node_uid: int = NODE
    hlc: int = START_MS << COUNTER_BITS
    stamps: list[Stamp] = field(default_factory=list)

    def commit(
        self,
        environment: str,
        values: Mapping[str, str | None] | None = None,
        *,
        kind: Kind = Kind.VARIABLE,
        deletes: bool = False,
        author: str = "ann",
        operation: str = "",
        message: str = "",
        origin: int = 0,
    ) -> Awaitable[int]:
        """Append one commit; the answer is its lsn once it is durable."""
        head = self.store.head(environment)
        before = head.environment if head else Environment(environment)
        written = dict(values or {})
        if deletes:
            written |= dict.fromkeys(name for name, _ in before.live(Kind.VARIABLE))
        self.hlc += 1 << COUNTER_BITS
        commit = Commit(
            environment,
            Stamp(0, self.hlc, origin or self.node_uid),
            tuple(
                Change(kind, name, value, False, before.overwritten_by(kind, name))
                for name, value in written.items()
            ),
            deletes=deletes,
            author=author,
            operation=operation,
            message=message,
            time_ms=self.hlc >> COUNTER_BITS,
        )
        self.stamps.append(commit.stamp)
        return self.append(commit, before, origin or self.node_uid)

    def append(self, commit: Commit, before: Environment, origin: int) -> Awaitable[int]:
        """Append a commit that was made elsewhere or by hand."""
        environment = before.apply(commit)
        after = StoredState(environment, digest.revision(environment, DIGEST_KEY))
        partition = partition_of(commit.environment)
        seq = self.store.last_seq(partition, origin) + 1
        return self.store.append(
            LogRecord(partition, origin, seq, replace(commit, revision=after.revision)), after
        )


def values_of(store: Store, environment: str) -> dict[str, str | None]:
    """The live variables that readers see."""
    state = store.visible(environment)
    if state is None:
        return {}
    return {name: entry.value for name, entry in state.environment.live(Kind.VARIABLE)}


def bytes_in(directory: Path) -> dict[str, str]:
    """A hash of every file below `directory`, but for LMDB's lock file."""
    return {
        str(path.relative_to(directory)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "lock.mdb"
    }


def crash_copy(directory: Path, to: Path) -> Path:
    """What a killed process would leave: a copy of the files as they are now."""
    return Path(shutil.copytree(directory, to))
