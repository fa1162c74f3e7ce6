"""What is newer than the durable view: heads, visible states, commits not written behind yet.

A commit passes three points. Appended, it is the head that the next writer builds on. Synced,
it is visible to readers. Flushed, it is in LMDB and may leave. Where the journal refuses a
commit, all heads built on it go too (`reset`), and the visible states are the heads again.

An environment with commits on their way or not flushed yet stays; the clean ones are a cache,
the least recently read leave first.

Bookkeeping only: no clock, no I/O; the event loop's thread alone touches it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from envd.core.commit import LogRecord
from envd.core.stamp import Stamp
from envd.ports import OperationResult, StoredState

STATE_OVERHEAD_BYTES = 600
ENTRY_OVERHEAD_BYTES = 300


@dataclass(slots=True)
class _Hot:
    """One environment: `pending` counts its commits on their way, `unflushed` holds (stamp,
    encoded commit) of its visible ones; it is clean while it has neither."""

    visible: StoredState | None
    head: StoredState | None
    size: int
    pending: int = 0
    unflushed: list[tuple[Stamp, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class Pending:
    """A commit between append and sync."""

    record: LogRecord
    after: StoredState
    encoded: bytes = field(repr=False)
    generation: int


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
        self._seqs: dict[tuple[int, int], int] = {}
        self._visible_seqs: dict[tuple[int, int], int] = {}
        self._dirty_seqs: dict[tuple[int, int], int] = {}
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
        """Names of environments with commits that LMDB may lack."""
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

    def load(self, name: str, state: StoredState | None) -> None:
        """Keep a state that was read from LMDB (None: nothing there), at least until the next."""
        hot = self._hot[name] = _Hot(state, state, _size(state))
        self._became_clean(name, hot)
        while self._clean_bytes > self._max_bytes and len(self._clean) > 1:
            self._evict_oldest()

    def last_seq(self, partition: int, origin: int) -> int:
        return self._seqs.get((partition, origin), 0)

    def load_seqs(self, seqs: dict[tuple[int, int], int]) -> None:
        """Start from these last seqs."""
        self._seqs = dict(seqs)
        self._visible_seqs = dict(seqs)

    def operation(self, key: bytes) -> OperationResult | None:
        """An operation id that LMDB may lack; one on its way counts."""
        return self._pending_operations.get(key) or self._operations.get(key)

    def append(
        self, record: LogRecord, after: StoredState, encoded: bytes, operation: bytes | None
    ) -> Pending:
        """Make `after` the head of its environment, which `knows`."""
        name = record.commit.environment
        hot = self._hot[name]
        if name in self._clean:
            del self._clean[name]
            self._clean_bytes -= hot.size
        hot.head = after
        hot.pending += 1
        self._awaiting[name] = None
        self._seqs[record.partition, record.origin] = record.seq
        if operation is not None:
            self._pending_operations[operation] = result_of(record, after)
        return Pending(record, after, encoded, self._generation)

    def synced(self, pending: Pending, operation: bytes | None) -> None:
        """Make an appended commit visible; call in the order of the journal."""
        record, after = pending.record, pending.after
        name = record.commit.environment
        hot = self._hot[name]
        hot.pending -= 1
        if not hot.pending:
            self._awaiting.pop(name, None)
        counted = hot.size if hot.unflushed else 0
        hot.visible, hot.size = after, _size(after)
        hot.unflushed.append((record.commit.stamp, pending.encoded))
        self._unflushed_bytes += len(pending.encoded) + hot.size - counted
        self._dirty[name] = None
        self._visible_seqs[record.partition, record.origin] = record.seq
        self._dirty_seqs[record.partition, record.origin] = record.seq
        if operation is not None:
            self._pending_operations.pop(operation, None)
            self._operations[operation] = result_of(record, after)

    def refused(self, pending: Pending) -> bool:
        """Take back an appended commit and all heads of its generation.

        Tells whether this was the first of its generation.
        """
        if pending.generation != self._generation:
            return False
        self._generation += 1
        for name in self._awaiting:
            hot = self._hot[name]
            hot.head = hot.visible
            hot.pending = 0
            if not hot.unflushed:
                self._became_clean(name, hot)
        self._awaiting.clear()
        self._seqs = dict(self._visible_seqs)
        self._pending_operations.clear()
        return True

    def take_dirty(self) -> Dirty:
        """What the next flush writes. It stays readable here until `flushed`."""
        dirty = Dirty(
            {name: visible for name in self._dirty if (visible := self._hot[name].visible)},
            {name: tuple(self._hot[name].unflushed) for name in self._dirty},
            dict(self._operations),
            self._dirty_seqs,
        )
        self._flushing = tuple(self._dirty)
        self._dirty, self._dirty_seqs = {}, {}
        return dirty

    def flushed(self, dirty: Dirty) -> None:
        """Let go of what is in LMDB now."""
        for name, commits in dirty.commits.items():
            hot = self._hot[name]
            del hot.unflushed[: len(commits)]
            self._unflushed_bytes -= sum(len(encoded) for _, encoded in commits)
            if not hot.unflushed:
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
        self._dirty_seqs = {**dirty.vectors, **self._dirty_seqs}

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
    operations: dict[bytes, OperationResult] = field(repr=False)
    vectors: dict[tuple[int, int], int] = field(repr=False)


def result_of(record: LogRecord, after: StoredState) -> OperationResult:
    """What an operation id is remembered by."""
    commit = record.commit
    return OperationResult(
        commit.environment, commit.stamp, after.revision, commit.time_ms, commit.request_digest
    )


def _size(state: StoredState | None) -> int:
    """An estimate of the memory that a state takes."""
    if state is None:
        return STATE_OVERHEAD_BYTES
    summary = state.environment.summary
    return STATE_OVERHEAD_BYTES + ENTRY_OVERHEAD_BYTES * summary.names + summary.characters
