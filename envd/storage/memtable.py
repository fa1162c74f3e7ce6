"""What is newer than the durable view: heads, visible states, commits not written behind yet.

A commit passes three points. Appended, it is the head that the next writer builds on. Synced,
it is visible to readers. Flushed, it is in LMDB and may leave. Where the journal refuses a
commit, all heads built on it go too (`refused`), and the visible states are the heads again.
A base that is merged in goes the same way.

An environment with commits on their way or not flushed yet stays; the clean ones are a cache,
the least recently read leave first.

Bookkeeping only: no clock, no I/O; the event loop's thread alone touches it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from envd.core.commit import LogRecord
from envd.core.environment import Environment
from envd.core.floor import Removed
from envd.core.ring import partition_of
from envd.core.stamp import Stamp
from envd.ports import OperationResult, StoredState
from envd.storage.progress import Moves, Progress
from envd.wire.records import BaseRecord

STATE_OVERHEAD_BYTES = 1_500
ENTRY_OVERHEAD_BYTES = 200
"""As measured, beside names and values: an entry takes 75 in columns, and 195 in rows."""


@dataclass(slots=True)
class _Hot:
    """One environment: `pending` counts its records on their way, `unflushed` holds (stamp,
    encoded commit) of its visible commits, `bases` (base, stored bytes of it) the visible ones;
    it is clean while it has none of these.

    It is `contested` where these may have made, changed or ended a conflict. `removed` is what
    was collected while records were on their way that are built upon it."""

    partition: int
    visible: StoredState | None
    head: StoredState | None
    size: int
    pending: int = 0
    unflushed: list[tuple[Stamp, bytes]] = field(default_factory=list)
    bases: list[tuple[Environment, int]] = field(default_factory=list)
    contested: bool = False
    removed: tuple[Removed, ...] = ()

    @property
    def is_flushed(self) -> bool:
        return not self.unflushed and not self.bases


@dataclass(slots=True)
class Pending:
    """A record between append and sync; `encoded` is its commit, or its base."""

    record: LogRecord | BaseRecord
    after: StoredState
    encoded: bytes = field(repr=False)
    operation: bytes | None
    contested: bool
    generation: int = 0

    @property
    def name(self) -> str:
        return self.after.environment.name


class Memtable:
    """`max_bytes` bounds what it keeps of clean environments (an estimate of memory)."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._hot: dict[str, _Hot] = {}
        self._clean: OrderedDict[str, None] = OrderedDict()
        self._clean_bytes = 0
        self._unflushed_bytes = 0
        self._generation = 0
        self._awaiting: dict[str, None] = {}
        self._dirty: dict[str, None] = {}
        self._flushing: tuple[str, ...] = ()
        self.progress = Progress()
        self._operations: dict[bytes, OperationResult] = {}
        self._pending_operations: dict[bytes, OperationResult] = {}

    @property
    def unflushed_bytes(self) -> int:
        """Memory held by what is visible and not in LMDB yet: commits, and their states."""
        return self._unflushed_bytes

    @property
    def clean_bytes(self) -> int:
        """Memory held by what could leave at any time."""
        return self._clean_bytes

    def unflushed_names(self) -> Iterable[str]:
        """Names of environments with commits or bases that LMDB may lack."""
        return (*self._flushing, *self._dirty)

    def knows(self, name: str) -> bool:
        return name in self._hot

    def visible(self, name: str) -> StoredState | None:
        """The durable state of an environment that `knows`."""
        if name in self._clean:
            self._clean.move_to_end(name)
        return self._hot[name].visible

    def head(self, name: str) -> StoredState | None:
        """The state that the next commit follows, of an environment that `knows`."""
        return self._hot[name].head

    def unflushed(self, name: str) -> list[tuple[Stamp, bytes]]:
        """Visible commits (stamp, encoded) of an environment that LMDB may lack."""
        hot = self._hot.get(name)
        return hot.unflushed if hot else []

    def unflushed_bases(self, name: str) -> list[Environment]:
        """Visible bases of an environment that LMDB may lack, to be merged into its own."""
        hot = self._hot.get(name)
        return [base for base, _ in hot.bases] if hot else []

    def contested(self, name: str) -> bool:
        """Tell whether what LMDB may lack could have made or ended conflicts."""
        hot = self._hot.get(name)
        return hot is not None and hot.contested

    def partition(self, name: str) -> int:
        """The partition of an environment that `knows`."""
        return self._hot[name].partition

    def is_on_its_way(self, partition: int) -> bool:
        """Tell whether a record of a partition was appended and is not durable yet."""
        return any(self._hot[name].partition == partition for name in self._awaiting)

    def drop(self, partition: int, keep_origin: int) -> None:
        """Let go of a partition of which all is in LMDB, but for the vector of one origin."""
        for name in [name for name, hot in self._hot.items() if hot.partition == partition]:
            del self._clean[name]
            self._clean_bytes -= self._hot.pop(name).size
        self.progress.drop(partition, keep_origin)

    def unsettled(self, partition: int) -> frozenset[str]:
        """Environments of a partition with records on their way, or that LMDB may lack."""
        names = (*self._awaiting, *self.unflushed_names())
        return frozenset(name for name in names if self._hot[name].partition == partition)

    def collected(self, removed: Mapping[str, Removed]) -> None:
        """Take what was collected in LMDB out of states, of those on their way as they come."""
        for name, gone in removed.items():
            hot = self._hot.get(name)
            if hot is None:
                continue
            if name in self._clean:
                del self._clean[name]
                self._clean_bytes -= self._hot.pop(name).size
                continue
            hot.visible, hot.head = _without(hot.visible, gone), _without(hot.head, gone)
            if hot.pending:
                hot.removed += (gone,)

    def load(self, name: str, state: StoredState | None) -> None:
        """Keep a state that was read from LMDB (None: nothing there), at least until the next."""
        hot = self._hot[name] = _Hot(partition_of(name), state, state, _size(state))
        self._became_clean(name, hot)
        while self._clean_bytes > self._max_bytes and len(self._clean) > 1:
            self._evict_oldest()

    def operation(self, key: bytes) -> OperationResult | None:
        """An operation id that LMDB may lack; one on its way counts."""
        return self._pending_operations.get(key) or self._operations.get(key)

    def append(self, pending: Pending) -> None:
        """Make its state the head of its environment, which `knows`."""
        name, record = pending.name, pending.record
        hot = self._hot[name]
        if name in self._clean:
            del self._clean[name]
            self._clean_bytes -= hot.size
        hot.head = pending.after
        hot.pending += 1
        self._awaiting[name] = None
        pending.generation = self._generation
        if isinstance(record, LogRecord):
            self.progress.appended((record.partition, record.origin), record.seq)
            if pending.operation is not None:
                self._pending_operations[pending.operation] = result_of(record, pending.after)

    @property
    def dirty_names(self) -> int:
        """How many environments wait to be flushed."""
        return len(self._dirty)

    def synced(self, pending: Pending) -> None:
        """Make what was appended visible; call in the order of the journal."""
        name, record = pending.name, pending.record
        hot = self._hot[name]
        hot.pending -= 1
        for gone in hot.removed:
            pending.after = _without(pending.after, gone) or pending.after
        if not hot.pending:
            self._awaiting.pop(name, None)
            hot.removed = ()
        counted = 0 if hot.is_flushed else hot.size
        hot.visible, hot.size = pending.after, _size(pending.after)
        hot.contested = hot.contested or pending.contested
        self._unflushed_bytes += len(pending.encoded) + hot.size - counted
        self._dirty[name] = None
        if isinstance(record, BaseRecord):
            hot.bases.append((record.base, len(pending.encoded)))
            return
        hot.unflushed.append((record.commit.stamp, pending.encoded))
        self.progress.synced((record.partition, record.origin), record.seq)
        if pending.operation is not None:
            self._pending_operations.pop(pending.operation, None)
            self._operations[pending.operation] = result_of(record, pending.after)

    def refused(self, pending: Pending) -> bool:
        """Take back what was appended and all heads of its generation.

        Tells whether this was the first of its generation.
        """
        if pending.generation != self._generation:
            return False
        self._generation += 1
        for name in self._awaiting:
            hot = self._hot[name]
            hot.head = hot.visible
            hot.pending, hot.removed = 0, ()
            if hot.is_flushed:
                self._became_clean(name, hot)
        self._awaiting.clear()
        self.progress.refused()
        self._pending_operations.clear()
        return True

    def take_dirty(self) -> Dirty:
        """What the next flush writes. It stays readable here until `flushed`."""
        hots = {name: self._hot[name] for name in self._dirty}
        dirty = Dirty(
            {name: hot.visible for name, hot in hots.items() if hot.visible},
            {name: tuple(hot.unflushed) for name, hot in hots.items()},
            {name: tuple(hot.bases) for name, hot in hots.items() if hot.bases},
            frozenset(name for name, hot in hots.items() if hot.contested),
            dict(self._operations),
            self.progress.take(),
        )
        self._flushing = tuple(self._dirty)
        self._dirty = {}
        return dirty

    def flushed(self, dirty: Dirty) -> None:
        """Let go of what is in LMDB now."""
        for name, commits in dirty.commits.items():
            hot, bases = self._hot[name], dirty.bases.get(name, ())
            del hot.unflushed[: len(commits)]
            del hot.bases[: len(bases)]
            self._unflushed_bytes -= sum(len(encoded) for _, encoded in commits)
            self._unflushed_bytes -= sum(size for _, size in bases)
            if hot.is_flushed:
                hot.contested = False
                self._unflushed_bytes -= hot.size
                if not hot.pending:
                    self._became_clean(name, hot)
        self._flushing = ()
        for key, result in dirty.operations.items():
            if self._operations.get(key) is result:
                del self._operations[key]
        while self._clean_bytes > self._max_bytes:
            self._evict_oldest()

    def not_flushed(self, dirty: Dirty) -> None:
        """A flush failed: all of it is dirty still."""
        self._flushing = ()
        self._dirty = dict.fromkeys((*dirty.states, *self._dirty))
        self.progress.not_flushed(dirty.moves)

    def _became_clean(self, name: str, hot: _Hot) -> None:
        self._clean[name] = None
        self._clean_bytes += hot.size

    def _evict_oldest(self) -> None:
        name, _ = self._clean.popitem(last=False)
        self._clean_bytes -= self._hot.pop(name).size


@dataclass(frozen=True, slots=True)
class Dirty:
    """A snapshot of what is to be written behind."""

    states: dict[str, StoredState] = field(repr=False)
    commits: dict[str, tuple[tuple[Stamp, bytes], ...]] = field(repr=False)
    bases: dict[str, tuple[tuple[Environment, int], ...]] = field(repr=False)
    contested: frozenset[str] = field(repr=False)
    operations: dict[bytes, OperationResult] = field(repr=False)
    moves: Moves = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.states or self.operations or self.moves)


def result_of(record: LogRecord, after: StoredState) -> OperationResult:
    """What an operation id is remembered by.

    The revision is the one that was answered, none of a blind commit: where the commit came late,
    or once more, the state here was further already.
    """
    commit = record.commit
    revision = commit.revision or (b"" if commit.blind else after.revision)
    return OperationResult(
        commit.environment, commit.stamp, revision, commit.time_ms, commit.request_digest
    )


def _without(state: StoredState | None, removed: Removed) -> StoredState | None:
    return state and StoredState(removed.of(state.environment), state.revision)


def _size(state: StoredState | None) -> int:
    """An estimate of the memory that a state takes."""
    if state is None:
        return STATE_OVERHEAD_BYTES
    summary = state.environment.summary
    return STATE_OVERHEAD_BYTES + ENTRY_OVERHEAD_BYTES * summary.names + summary.characters
