"""The materialised view in LMDB: one blob per environment, and what belongs to it.

    environments   partition u16, name            -> blob (state, revision, digest)
    index          name                           -> what a listing shows, in order of name
    history        partition u16, name, NUL, stamp -> commit
    bases          partition u16, name            -> snapshot of what was trimmed from history
    conflicts      name, NUL, conflict key        -> conflict record
    operations     hash of author and operation   -> what became of it
    vectors        partition u16, origin u64      -> last seq
    cursors        node u64                       -> how far its log was taken in
    roots          group of partitions u16        -> sums over the digests of environments
    quarantine     name of a record, hash         -> a record from the future
    collectable    partition u16, name            -> the floor at which to look at it
    system         name                           -> counters of the node

The tables themselves are in `tables`, what writes them in `flush`, what lets go of partitions in
`purge`: of one of which rows are left nothing is read here. Index values are not sealed:
they hold a revision and a count next to a name that the key shows anyway; the names of
environments are the one thing that LMDB needs in clear.

`commit` answers with the position that a power cut can't take back, which is that of the
transaction before.

Reads see one snapshot, until `refresh`: what a caller reads in several steps (commits, then
the base they follow) fits together whatever the flushing thread does meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from envd.core.environment import Environment
from envd.core.history import ConflictRecord, Retention
from envd.core.ring import partition_of
from envd.core.stamp import STAMP_BYTES, Stamp
from envd.core.versions import Cursor
from envd.ports import Forgotten, OperationResult, Sealer
from envd.storage import collectable, conflict_rows, listing
from envd.storage.collecting import ROWS as COLLECTED_ROWS
from envd.storage.collecting import Collecting, Slice
from envd.storage.fingerprints import ROOTS_LSN, Fingerprints, clear_root
from envd.storage.flush import Batch, Figures, Flush, Sweep, decode_cursor, go_on
from envd.storage.purge import ALL_ROWS, DROPPED, ROWS, Purge, drop_vectors, marks_in
from envd.storage.quarantine import Quarantine
from envd.storage.rows import (
    NODE_KEY,
    VECTOR_KEY,
    IndexEntry,
    RowWriter,
    environment_key,
    index_entry,
)
from envd.storage.tables import Tables, row_at
from envd.wire import records
from envd.wire.records import StoredEnvironment

HISTORY_PAGE_BYTES = 8 << 20
FLOOR = b"floor"
GATHERED = b"gathered"


def operation_key(author: str, operation: str) -> bytes:
    """The key of an operation id; one identity's ids say nothing of another's."""
    return blake2b(f"{author}\0{operation}".encode(), digest_size=16).digest()


class StateDb:
    """The view in one directory, which is there; `check` must have passed its file.

    Reads belong to one thread, `commit` to one at a time, the same or another.
    """

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        digest_key: bytes,
        *,
        map_size_bytes: int,
        retention: Retention,
        purged_rows: int = ROWS,
        collected_rows: int = COLLECTED_ROWS,
    ) -> None:
        """`purged_rows` is how many rows of dropped partitions go in one transaction,
        `collected_rows` how many below the floor."""
        self._digest_key = digest_key
        self._retention = retention
        self._purged_rows = purged_rows
        self._collected_rows = collected_rows
        self._sweep = Sweep()
        self._new_roots: dict[int, list[int]] = {}
        self._tables = Tables(directory, sealer, map_size_bytes=map_size_bytes)
        try:
            self._fingerprints = Fingerprints(self._tables, digest_key)
            self.quarantine = Quarantine(self._tables)
            self._dropped = marks_in(self._tables.get(b"system", DROPPED))
            self._hidden = self._dropped
            self._figures = Figures(
                self._counter(b"covered_lsn"),
                self._counter(b"hlc_bound"),
                self._counter(b"environments"),
                self._known_variables(),
                self._tables.entries(b"conflicts"),
            )
            self.floor = self._counter(FLOOR)
            self.gathered = self._counter(GATHERED)
            self._make_roots()
            self._mark_collectable()
        except BaseException:
            self._tables.close()
            raise

    def _make_roots(self) -> None:
        """Sum up the roots where what is there is not of this state."""
        known = self._tables.get(b"system", ROOTS_LSN)
        if known is None and not self._tables.entries(b"environments"):
            return
        if known is None or int.from_bytes(known) != self.covered_lsn:
            self._fingerprints.rebuild(self.covered_lsn, self._hidden)
            self._tables.refresh()

    def _mark_collectable(self) -> None:
        """Have all environments looked at where a version that notes nothing wrote the state."""
        known = self._tables.get(b"system", collectable.COLLECTABLE_LSN)
        if known is None and not self._tables.entries(b"environments"):
            return
        if known is None or int.from_bytes(known) != self.covered_lsn:
            with self._tables.write() as writer:
                collectable.mark_all(writer, self.covered_lsn)
            self._tables.refresh()

    # -- counts ----------------------------------------------------------------------

    @property
    def covered_lsn(self) -> int:
        """The last record of the journal that is in it."""
        return self._figures.covered_lsn

    @property
    def hlc_bound(self) -> int:
        """No stamp of this node was given above it by then."""
        return self._figures.hlc_bound

    @property
    def environments(self) -> int:
        """How many environments exist."""
        return self._figures.environments

    @property
    def variables(self) -> int:
        """How many variables all environments have together."""
        return self._figures.variables

    @property
    def open_conflicts(self) -> int:
        """How many conflicts nobody has settled yet."""
        return self._figures.conflicts

    # -- reading -------------------------------------------------------------------

    def _shows(self, name: str) -> bool:
        """Whether an environment is not one of a dropped partition of which rows are left."""
        return not self._hidden or partition_of(name) not in self._hidden

    def environment(self, name: str) -> StoredEnvironment | None:
        """The blob of one environment; raises Corrupt."""
        if not self._shows(name):
            return None
        raw = self._tables.get(b"environments", environment_key(name))
        return None if raw is None else records.decode_environment(raw)

    def base(self, name: str) -> Environment:
        """The snapshot that the history of `name` starts from."""
        raw = self._tables.get(b"bases", environment_key(name))
        if raw is None or not self._shows(name):
            return Environment(name)
        return records.decode_environment(raw).state.environment

    def commits(self, name: str, before: Stamp | None, limit: int) -> list[bytes]:
        """Encoded commits, newest first, below the stamp `before`.

        Fewer than `limit` where they reach HISTORY_PAGE_BYTES, but at least one if there is.
        """
        if not self._shows(name):
            return []
        prefix = environment_key(name) + b"\0"
        above = prefix + (before.to_bytes() if before else b"\xff" * STAMP_BYTES)
        found: list[bytes] = []
        with self._tables.cursor(b"history") as cursor:
            more = cursor.prev() if cursor.set_range(above) else cursor.last()
            size = 0
            while more and len(found) < limit and size < HISTORY_PAGE_BYTES:
                key, value = row_at(cursor)
                if not key.startswith(prefix):
                    break
                found.append(self._tables.open(b"history", key, value))
                size += len(found[-1])
                more = cursor.prev()
        return found

    def index(
        self, prefix: str, after: str, limit: int, partitions: frozenset[int] | None = None
    ) -> list[IndexEntry]:
        """Index entries below `prefix` after the name `after`, in order, at most `limit`.

        Only those of these `partitions`; None: of all.
        """
        return listing.listed(self._tables, prefix, after, limit, partitions, self._hidden)

    def operation(self, key: bytes) -> OperationResult | None:
        """What became of an operation id, if it is still known."""
        raw = self._tables.get(b"operations", key)
        return None if raw is None else records.decode_operation(raw)

    def operation_keys(self, after: bytes, limit: int) -> list[bytes]:
        """Keys of known operation ids after the key `after`, in order, at most `limit`."""
        with self._tables.cursor(b"operations") as cursor:
            if not cursor.set_range(after + b"\0" if after else b""):
                return []
            return [bytes(key) for key in islice(cursor.iternext(values=False), limit)]

    def vectors(self) -> dict[tuple[int, int], int]:
        """Last seq by (partition, origin)."""
        return {
            VECTOR_KEY.unpack(key): int.from_bytes(value)
            for key, value in self._tables.rows(b"vectors")
        }

    def cursors(self) -> dict[int, Cursor]:
        """How far the logs of other nodes were taken in."""
        return {
            NODE_KEY.unpack(key)[0]: decode_cursor(value)
            for key, value in self._tables.rows(b"cursors")
        }

    def commit_rows(self, name: str) -> Iterator[tuple[Stamp, bytes]]:
        """All commits in their stored bytes, oldest first."""
        if not self._shows(name):
            return
        prefix = environment_key(name) + b"\0"
        for key, encoded in self._tables.rows_from(b"history", prefix):
            if not key.startswith(prefix):
                return
            yield Stamp.from_bytes(key[len(prefix) :]), encoded

    def conflicts(self, prefix: str, after: str, limit: int) -> list[ConflictRecord]:
        """Conflicts below `prefix` after the name `after`; whole environments, until `limit`."""
        return conflict_rows.listed(self._tables, prefix, after, limit, self._hidden)

    def roots(self) -> tuple[int, ...]:
        """The roots of all partitions."""
        return self._fingerprints.roots()

    def digests(self, partition: int) -> list[tuple[str, bytes]]:
        """(name, digest) of the environments of one partition, in order of name."""
        return [] if partition in self._hidden else self._fingerprints.digests(partition)

    def refresh(self) -> None:
        """Let reads see what was committed since the last time."""
        self._tables.refresh()
        self._fingerprints.moved(self._new_roots)
        self._new_roots = {}
        self._hidden = self._dropped

    def storage_bytes(self) -> int:
        """Bytes on disk."""
        return self._tables.path.stat().st_size

    def _known_variables(self) -> int:
        """How many variables there are; counted anew where the counter was never written."""
        if self._tables.raw(b"system", b"variables") is not None:
            return self._counter(b"variables")
        with self._tables.cursor(b"index") as cursor:
            return sum(index_entry(bytes(key), bytes(value)).variables for key, value in cursor)

    def _counter(self, name: bytes) -> int:
        raw = self._tables.get(b"system", name)
        return 0 if raw is None else int.from_bytes(raw)

    # -- writing and the whole ---------------------------------------------------------

    def commit(self, batch: Batch, pause: Callable[[], None] = go_on) -> int:
        """Write a batch in one transaction; return the lsn that a power cut can't take back.

        `pause` is called after each environment, and may take its time. Raises StorageError where
        it could not be written; then nothing of it was.
        """
        safe_lsn = self.covered_lsn
        with self._tables.write() as writer:
            known, left = self._figures, self._dropped
            if written := left.intersection(map(partition_of, batch.states if left else ())):
                known, left = self._take(writer, written, ALL_ROWS, pause)
            flush = Flush(writer, batch, known, self._digest_key, self._retention, pause)
            swept = flush.sweep(self._sweep)
            figures, roots = flush.write()
        self._sweep, self._figures, self._dropped = swept, figures, left
        self._new_roots |= roots
        return safe_lsn

    def drop(self, partition: int, keep_origin: int) -> None:
        """Let go of a partition, but for the vector of one origin, in one transaction.

        Of large ones rows are left, which nobody sees, for `purge`. Raises StorageError, and then
        nothing was done. `sync` makes it sure to survive a power cut.
        """
        with self._tables.write() as writer:
            drop_vectors(writer, partition, keep_origin)
            roots = clear_root(writer, partition)
            figures, left = self._take(writer, {partition}, self._purged_rows, go_on)
        self._figures, self._dropped = figures, left
        self._new_roots |= roots

    @property
    def has_dropped_rows(self) -> bool:
        """Whether rows of dropped partitions are left."""
        return bool(self._dropped)

    def purge(self, pause: Callable[[], None] = go_on) -> None:
        """Take away rows that are left of dropped partitions, as many as go in one transaction.

        `pause` is called now and then, and may take its time. Raises StorageError.
        """
        if self._dropped:
            with self._tables.write() as writer:
                figures, left = self._take(writer, self._dropped, self._purged_rows, pause)
            self._figures, self._dropped = figures, left

    def _take(
        self, writer: RowWriter, partitions: Iterable[int], rows: int, pause: Callable[[], None]
    ) -> tuple[Figures, frozenset[int]]:
        """Take away rows of partitions; return the counts, and which have rows left."""
        taking = Purge(writer, self._figures, rows=rows, pause=pause)
        left = set(self._dropped)
        for partition in sorted(partitions):
            if taking.take(partition):
                left.discard(partition)
            else:
                left.add(partition)
        return taking.end(left), frozenset(left)

    # -- below the floor ---------------------------------------------------------------

    def raise_floor(self, hlc: int) -> None:
        """Raise the floor, never lower it; it survives a power cut. Raises StorageError."""
        if hlc > self.floor:
            self._note(FLOOR, hlc)
            self.floor = hlc

    def note_gathered(self, round_: int) -> None:
        """Note the round for which all was gathered, as `raise_floor` does."""
        self._note(GATHERED, round_)
        self.gathered = round_

    def _note(self, key: bytes, number: int) -> None:
        with self._tables.write() as writer:
            writer.put(b"system", key, number.to_bytes(8))
        self._tables.sync()

    def is_collectable(self, partition: int) -> bool:
        """Tell whether there may be something to collect in a partition."""
        if not self.floor or partition in self._hidden:
            return False
        return collectable.is_due(self._tables, partition, self.floor)

    def collect(
        self,
        partition: int,
        after: bytes,
        busy: Collection[str],
        pause: Callable[[], None] = go_on,
    ) -> Slice:
        """Collect in environments of a partition but those that are `busy`, in one transaction.

        It begins after the key `after`. `pause` is called now and then, and may take its time.
        Raises StorageError, and then nothing was done.
        """
        if partition in self._dropped:
            return Slice({}, Forgotten(), None)
        with self._tables.write() as writer:
            collecting = Collecting(
                writer,
                self._digest_key,
                self._retention,
                self.floor,
                busy,
                rows=self._collected_rows,
                pause=pause,
            )
            done = collecting.take(partition, after)
            figures, roots = collecting.end(self._figures)
        self._figures = figures
        self._new_roots |= roots
        return done

    def copy_to(self, directory: Path) -> None:
        """Write a compact, consistent copy into `directory` while work goes on."""
        self._tables.copy_to(directory)

    def forget_dead_readers(self) -> None:
        """Free what a killed process that read the state still holds on to."""
        self._tables.forget_dead_readers()

    def sync(self) -> None:
        """Make all that was written sure to survive a power cut."""
        self._tables.sync()

    def close(self) -> None:
        """Make everything durable and let go."""
        self._tables.close()
