"""One flush: what it writes, in one transaction, and what depends on that.

For each environment its new commits go into the history, what retention lets go is folded into
the base, a peer's base is merged into it; then follow the environment's record with its digest,
the index, its conflicts where they may have changed, and the root of its partition. All of that
is the same however often a batch, or a part of it, is written again after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from envd.core import digest
from envd.core.environment import Environment
from envd.core.floor import due_after
from envd.core.history import Retention
from envd.core.names import is_system
from envd.core.stamp import STAMP_BYTES, Stamp
from envd.core.versions import Cursor
from envd.ports import OperationResult, StoredState
from envd.storage import collectable, conflict_rows
from envd.storage.fingerprints import ROOTS_LSN, RootChanges, whole_digest
from envd.storage.progress import Moves
from envd.storage.rows import (
    CURSOR_VALUE,
    NODE_KEY,
    VECTOR_KEY,
    RowWriter,
    damaged,
    environment_key,
    index_entry,
    index_value,
)
from envd.storage.tables import row_at
from envd.wire import records
from envd.wire.records import EnvironmentHeader, StoredEnvironment

OPERATION_KEPT_MS = 24 * 3_600_000
_SWEPT_ROWS = 64
_NO_HISTORY = EnvironmentHeader(b"", 0, 0)


@dataclass(slots=True)
class Batch:
    """What one flush writes at `now_ms`, and the journal position that it then covers.

    Every name in `commits`, `bases` and `contested` is in `states` too.
    """

    now_ms: int
    covered_lsn: int
    hlc_bound: int
    states: Mapping[str, StoredState] = field(repr=False)
    commits: Mapping[str, Sequence[tuple[Stamp, bytes]]] = field(repr=False)
    operations: Mapping[bytes, OperationResult] = field(repr=False)
    bases: Mapping[str, Sequence[Environment]] = field(default_factory=dict, repr=False)
    contested: Collection[str] = field(default=(), repr=False)
    moves: Moves = field(default_factory=Moves, repr=False)


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts that the state keeps of itself."""

    covered_lsn: int
    hlc_bound: int
    environments: int
    variables: int
    conflicts: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """Where a round through the operation ids stands, the oldest time that it kept so far, and
    before when none begins."""

    next_key: bytes = b""
    oldest_ms: int = 1 << 62
    due_ms: int = 0


def go_on() -> None:
    """The pause of who makes none."""


class Flush:
    """One batch on its way into the tables; make one for each transaction."""

    def __init__(
        self,
        writer: RowWriter,
        batch: Batch,
        known: Figures,
        digest_key: bytes,
        retention: Retention,
        pause: Callable[[], None],
    ) -> None:
        self._pause = pause
        self._writer = writer
        self._batch = batch
        self._digest_key = digest_key
        self._retention = retention
        self._environments, self._variables = known.environments, known.variables
        self._roots = RootChanges(digest_key)
        self._any_conflicts = bool(writer.entries(b"conflicts"))

    def write(self) -> tuple[Figures, dict[int, list[int]]]:
        """Write all but the sweep of old operation ids; return the counts and the new roots."""
        writer, batch = self._writer, self._batch
        keys = {environment_key(name): name for name in batch.states}
        for key in sorted(keys):  # neighbours share pages: each is copied once
            name = keys[key]
            new_base = self._put_environment(key, batch.states[name])
            self._put_conflicts(key, name, new_base=new_base)
            self._pause()
        for operation, result in batch.operations.items():
            writer.put(b"operations", operation, records.encode_operation(result))
        self._put_moves(batch.moves)
        figures = Figures(
            batch.covered_lsn,
            batch.hlc_bound,
            self._environments,
            self._variables,
            writer.entries(b"conflicts"),
        )
        self._put_counters(figures)
        return figures, self._roots.write(writer)

    def _put_counters(self, figures: Figures) -> None:
        counters = {
            b"covered_lsn": figures.covered_lsn,
            b"hlc_bound": figures.hlc_bound,
            b"environments": figures.environments,
            b"variables": figures.variables,
            ROOTS_LSN: figures.covered_lsn,
            collectable.COLLECTABLE_LSN: figures.covered_lsn,
        }
        for counter, value in counters.items():
            self._writer.put(b"system", counter, value.to_bytes(8))

    def _put_moves(self, moves: Moves) -> None:
        """Write vectors and cursors, after the origins that were forgotten."""
        writer = self._writer
        if moves.forgotten:
            with writer.cursor(b"vectors") as cursor:
                more = cursor.first()
                while more:
                    if VECTOR_KEY.unpack(bytes(cursor.key()))[1] in moves.forgotten:
                        cursor.delete()
                        more = bool(cursor.key())
                    else:
                        more = cursor.next()
        for (partition, origin), seq in moves.vectors.items():
            writer.put(b"vectors", VECTOR_KEY.pack(partition, origin), seq.to_bytes(8))
        for uid, (own_lsn, relay_lsn) in moves.cursors.items():
            writer.put(b"cursors", NODE_KEY.pack(uid), CURSOR_VALUE.pack(own_lsn, relay_lsn))

    # -- one environment -----------------------------------------------------------

    def _put_environment(self, key: bytes, state: StoredState) -> bool:
        """Write one environment with its new commits, its base and its fingerprints.

        Tell whether it has another base now.
        """
        writer, name = self._writer, state.environment.name
        blob, known_base = writer.get(b"environments", key), writer.get(b"bases", key)
        header, before = _NO_HISTORY, None
        if blob is not None:
            header = records.decode_environment_header(blob)
            before = whole_digest(header.digest, known_base, self._digest_key)
        history_sum, history_count = self._put_commits(
            key, self._batch.commits.get(name, ()), header
        )
        folding = _Folding(name, known_base, self._batch.bases.get(name, ()))
        if history_count > self._retention.of(name).commits:
            history_sum, history_count = self._trim(key, folding, history_sum, history_count)
        base = folding.encoded(self._digest_key)
        if base is not None:
            writer.put(b"bases", key, base)
        full = digest.state_digest(state.environment, state.revision, history_sum, self._digest_key)
        stored = StoredEnvironment(state, full, history_sum, history_count)
        writer.put(b"environments", key, records.encode_environment(stored))
        after = whole_digest(full, known_base if base is None else base, self._digest_key)
        self._roots.moved(key, before, after)
        self._put_index(name, state)
        stamps = [stamp for stamp, _ in self._batch.commits.get(name, ())]
        due = due_after(state.environment, folding.changed, stamps, self._retention.of(name))
        if due is not None:
            collectable.note(writer, key, due)
        return base is not None

    def _put_commits(
        self, key: bytes, commits: Sequence[tuple[Stamp, bytes]], header: EnvironmentHeader
    ) -> tuple[int, int]:
        """Add commits to the history; return its sum and count."""
        history_sum, history_count = header.history_sum, header.history_count
        for stamp, encoded in commits:
            row = key + b"\0" + stamp.to_bytes()
            if self._writer.put(b"history", row, encoded, overwrite=False):
                share = digest.commit_hash(encoded, self._digest_key)
                history_sum = digest.history_sum([share], history_sum)
                history_count += 1
        return history_sum, history_count

    def _put_index(self, name: str, state: StoredState) -> None:
        if is_system(name):  # Neither listed nor counted.
            return
        key = name.encode()
        known = self._writer.raw(b"index", key)
        before = None if known is None else index_entry(key, known)
        existed = before is not None and before.exists
        count = state.environment.live_count()
        self._environments += state.environment.exists - existed
        self._variables += count - (before.variables if before else 0)
        self._writer.put_clear(b"index", key, index_value(key, state))

    def _trim(
        self, key: bytes, folding: _Folding, history_sum: int, history_count: int
    ) -> tuple[int, int]:
        """Fold the commits that retention lets go into the base; return sum and count."""
        prefix, retention = key + b"\0", self._retention.of(folding.name)
        with self._writer.cursor(b"history") as cursor:
            above = cursor.set_range(prefix + b"\xff" * STAMP_BYTES)
            newest = cursor.prev() if above else cursor.last()
            assert newest, "the commits of this batch are in the table"
            newest_stamp = Stamp.from_bytes(bytes(cursor.key())[-STAMP_BYTES:])
            oldest_ms = retention.oldest_kept_ms(newest_stamp)
            cursor.set_range(prefix)
            while history_count > retention.commits:
                row, value = row_at(cursor)
                if not row.startswith(prefix):
                    raise damaged(f"the history of {folding.name} lacks commits that it counts")
                if Stamp.from_bytes(row[-STAMP_BYTES:]).time_ms >= oldest_ms:
                    break
                encoded = self._writer.open(b"history", row, value)
                folding.fold(encoded)
                share = digest.commit_hash(encoded, self._digest_key)
                history_sum = digest.history_sum([share], history_sum, -1)
                history_count -= 1
                cursor.delete()
        return history_sum, history_count

    def _put_conflicts(self, key: bytes, name: str, *, new_base: bool) -> None:
        """Compute the conflicts of an environment anew where they may have changed.

        A commit that contests nothing changes none, but one that the base took in may.
        """
        writer = self._writer
        if name in self._batch.contested or (
            new_base and self._any_conflicts and conflict_rows.has_rows(writer, name)
        ):
            raw = writer.get(b"bases", key)
            base = Environment(name) if raw is None else _decoded(raw)
            commits = list(self._history(key + b"\0"))
            conflict_rows.rewrite(writer, name, commits, base, self._digest_key)

    def _history(self, prefix: bytes) -> Iterator[bytes]:
        with self._writer.cursor(b"history") as cursor:
            more = cursor.set_range(prefix)
            while more:
                key, value = row_at(cursor)
                if not key.startswith(prefix):
                    return
                yield self._writer.open(b"history", key, value)
                more = cursor.next()

    # -- operation ids -------------------------------------------------------------

    def sweep(self, sweep: Sweep) -> Sweep:
        """Look at some operation ids and drop those older than 24 hours; return how it stands.

        Each transaction looks at twice as many as it adds, round and round, so the table never
        holds more than twice what 24 hours brought, and no sweep has to stop the flushes. After
        a round, nothing is due before the oldest that it kept: until then it rests.
        """
        now_ms, added = self._batch.now_ms, len(self._batch.operations)
        if now_ms < sweep.due_ms <= now_ms + OPERATION_KEPT_MS:  # else the clock was set back
            return sweep
        oldest_ms = min(sweep.oldest_ms, now_ms)
        with self._writer.cursor(b"operations") as cursor:
            more = cursor.set_range(sweep.next_key) if sweep.next_key else cursor.first()
            for _ in range(_SWEPT_ROWS + 2 * added):
                if not more:
                    return Sweep(due_ms=oldest_ms + OPERATION_KEPT_MS)
                key, value = row_at(cursor)
                result = records.decode_operation(self._writer.open(b"operations", key, value))
                if result.time_ms < now_ms - OPERATION_KEPT_MS:
                    cursor.delete()
                    more = bool(cursor.key())
                else:
                    oldest_ms = min(oldest_ms, result.time_ms)
                    more = cursor.next()
            return Sweep(bytes(cursor.key()), oldest_ms)


class _Folding:
    """The base of one environment while things are folded into it; decoded once it changes."""

    def __init__(self, name: str, known: bytes | None, merged: Sequence[Environment]) -> None:
        self.name = name
        self._known = known
        self._base: Environment | None = None
        if merged:
            self._base = reduce(Environment.merge, merged, self._current())

    @property
    def changed(self) -> Environment | None:
        """The base, where something was folded in."""
        return self._base

    def _current(self) -> Environment:
        if self._base is None:
            self._base = Environment(self.name) if self._known is None else _decoded(self._known)
        return self._base

    def fold(self, encoded: bytes) -> None:
        """Apply a commit that leaves the history."""
        self._base = self._current().apply(records.decode_commit(encoded))

    def encoded(self, digest_key: bytes) -> bytes | None:
        """The record of the base with its digest; None where nothing was folded in."""
        if self._base is None:
            return None
        known = digest.base_digest(self._base, digest_key)
        return records.encode_environment(StoredEnvironment(StoredState(self._base, b""), known))


def _decoded(raw: bytes) -> Environment:
    return records.decode_environment(raw).state.environment


def decode_cursor(raw: bytes) -> Cursor:
    """The inverse of what a flush writes of a cursor; later versions may add to it."""
    return Cursor(*CURSOR_VALUE.unpack_from(raw))
