"""Collecting below the floor, in the tables: what one transaction takes away.

What goes is told by `core.floor`. For each environment all that hangs together is written in one
transaction: its state, base, history, conflicts, digest, the root of its partition. Of a history
that ended the commits go some at a time, folded into the base as retention does it, so a state is
whole between any two transactions, however it stops.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import takewhile

from envd.core import digest
from envd.core.commit import Commit
from envd.core.environment import Environment
from envd.core.floor import Removed, collected_of, has_ended, is_empty
from envd.core.history import Retention
from envd.core.stamp import Stamp
from envd.ports import Forgotten, StoredState
from envd.storage import collectable, conflict_rows
from envd.storage.fingerprints import RootChanges, whole_digest
from envd.storage.flush import Figures
from envd.storage.rows import PARTITION_BYTES, RowWriter, damaged
from envd.wire import records
from envd.wire.records import StoredEnvironment

ROWS = 256
"""So many rows are looked at, or go, in one transaction."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What one transaction did: what went from which states, and where the next one goes on.

    `after` is the key of the last environment that is done, None at the end of the partition.
    """

    removed: dict[str, Removed] = field(repr=False)
    forgotten: Forgotten
    after: bytes | None


@dataclass(slots=True)
class _Held:
    """One environment in the tables."""

    key: bytes
    name: str
    stored: StoredEnvironment
    base_row: bytes | None
    base: Environment
    stamps: list[Stamp]


class Collecting:
    """One transaction; `busy` are the environments that it leaves alone."""

    def __init__(
        self,
        writer: RowWriter,
        digest_key: bytes,
        retention: Retention,
        floor: int,
        busy: Collection[str],
        *,
        rows: int,
        pause: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._digest_key = digest_key
        self._retention = retention
        self._floor = floor
        self._busy = busy
        self._left = rows
        self._pause = pause
        self._roots = RootChanges(digest_key)
        self._removed: dict[str, Removed] = {}
        self._forgotten = Forgotten()

    def take(self, partition: int, after: bytes) -> Slice:
        """Collect in a partition, after the key `after`."""
        return Slice(self._removed, *self._take(partition, after))

    def _take(self, partition: int, after: bytes) -> tuple[Forgotten, bytes | None]:
        self._left -= collectable.note_some(self._writer, partition, self._left)
        if self._left <= 0:
            return self._forgotten, after
        limit = self._left
        found = collectable.due(self._writer, partition, after, limit)
        for key, hlc in found:
            if hlc <= self._floor:
                if self._left <= 0 or not self._collect(key):
                    return self._forgotten, after
                self._pause()
            self._left -= 1
            after = key
        return self._forgotten, after if len(found) == limit else None

    def end(self, known: Figures) -> tuple[Figures, dict[int, list[int]]]:
        """Write the roots; return the counts and the roots that moved."""
        conflicts = self._writer.entries(b"conflicts")
        return replace(known, conflicts=conflicts), self._roots.write(self._writer)

    # -- one environment -----------------------------------------------------------

    def _collect(self, key: bytes) -> bool:
        """Collect in one environment; tell whether all was done that can be now."""
        name = key[PARTITION_BYTES:].decode()
        if name in self._busy:
            self._count(busy=1)
            return True
        blob = self._writer.get(b"environments", key)
        if blob is None:
            collectable.settle(self._writer, key, None)
            return True
        base_row = self._writer.get(b"bases", key)
        base = Environment(name) if base_row is None else _decoded(base_row)
        stored = records.decode_environment(blob)
        held = _Held(key, name, stored, base_row, base, self._stamps(key))
        retention, environment = self._retention.of(name), stored.state.environment
        if has_ended(environment, held.stamps, self._floor, retention) and (
            len(held.stamps) > self._left
        ):
            self._fold(held, held.stamps[: self._left])
            return False
        done = collected_of(
            environment,
            base,
            held.stamps,
            lambda place: self._commit(key, held.stamps[place]),
            self._floor,
            retention,
        )
        if done.changes or (is_empty(environment) and is_empty(base) and not held.stamps):
            self._put(held, done.environment, done.base, done.folded)
            self._removed[name] = done.removed
            self._count(tombstones=len(done.removed))
        collectable.settle(self._writer, key, done.due_hlc)
        return True

    def _count(
        self, *, tombstones: int = 0, commits: int = 0, environments: int = 0, busy: int = 0
    ) -> None:
        self._forgotten += Forgotten(tombstones, commits, environments, busy)

    def _fold(self, held: _Held, stamps: Sequence[Stamp]) -> None:
        """Let the oldest commits go from the history, into the base."""
        commits = [self._commit(held.key, stamp) for stamp in stamps]
        base = reduce(Environment.apply, commits, held.base)
        self._put(held, held.stored.state.environment, base, stamps)

    def _put(
        self, held: _Held, environment: Environment, base: Environment, folded: Sequence[Stamp]
    ) -> None:
        """Write what is left of an environment, and what depends on it."""
        writer, key = self._writer, held.key
        history_sum, count = held.stored.history_sum, held.stored.history_count - len(folded)
        for stamp in folded:
            share = digest.commit_hash(self._row(key, stamp), self._digest_key)
            history_sum = digest.history_sum([share], history_sum, -1)
            writer.delete(b"history", key + b"\0" + stamp.to_bytes())
            self._left -= 1
            self._pause()
        self._count(commits=len(folded))
        base_row = None
        if is_empty(base):
            writer.delete(b"bases", key)
        else:
            known = digest.base_digest(base, self._digest_key)
            base_row = records.encode_environment(StoredEnvironment(StoredState(base, b""), known))
            writer.put(b"bases", key, base_row)
        before = whole_digest(held.stored.digest, held.base_row, self._digest_key)
        if count == 0 and base_row is None and is_empty(environment):
            writer.delete(b"environments", key)
            writer.delete(b"index", held.name.encode())
            self._roots.moved(key, before, None)
            self._count(environments=1)
        else:
            state = StoredState(environment, held.stored.state.revision)
            full = digest.state_digest(environment, state.revision, history_sum, self._digest_key)
            stored = StoredEnvironment(state, full, history_sum, count)
            writer.put(b"environments", key, records.encode_environment(stored))
            self._roots.moved(key, before, whole_digest(full, base_row, self._digest_key))
        if conflict_rows.has_rows(writer, held.name):
            gone = set(folded)
            left = [self._row(key, stamp) for stamp in held.stamps if stamp not in gone]
            conflict_rows.rewrite(writer, held.name, left, base, self._digest_key)

    # -- its history ---------------------------------------------------------------

    def _stamps(self, key: bytes) -> list[Stamp]:
        prefix = key + b"\0"
        with self._writer.cursor(b"history") as cursor:
            if not cursor.set_range(prefix):
                return []
            keys = takewhile(
                lambda row: row.startswith(prefix), map(bytes, cursor.iternext(values=False))
            )
            return [Stamp.from_bytes(row[len(prefix) :]) for row in keys]

    def _commit(self, key: bytes, stamp: Stamp) -> Commit:
        return records.decode_commit(self._row(key, stamp))

    def _row(self, key: bytes, stamp: Stamp) -> bytes:
        encoded = self._writer.get(b"history", key + b"\0" + stamp.to_bytes())
        if encoded is None:
            raise damaged("a history lacks a commit that it counts")
        return encoded


def _decoded(raw: bytes) -> Environment:
    return records.decode_environment(raw).state.environment
