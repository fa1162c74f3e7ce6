"""Taking in what other nodes committed: by their streams, by relays, by repair.

A record is applied exactly when it follows the last one of its (partition, origin), so a vector
never has a hole; a known one is passed over, and one behind a hole is for repair, or kept without
its name where the node does not have all of the partition anyway. Merging
is commutative and idempotent, so nothing depends on which way a commit came. A commit of a serial
environment waits for the one that it follows, so that readers see what was chosen, and nothing in
between.

A commit from the future (stamped over a minute ahead of this node's clock) is refused from its
own origin, whose clock is wrong or ours is; it stays in the origin's log and comes again. From
anybody else it is put in quarantine, because its origin may be gone: durable, outside the
state, the vectors and the fingerprints, until its time has come.

A commit at or below the store's floor that is not here comes too late (`core.floor`): it is never
applied. Where it comes from one who had all there was by then, as this node did, it was collected
here since; else it is a zombie, and what it wrote is put on record before it is passed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from hashlib import blake2b
from typing import Final

from envd.core import digest
from envd.core.chain import is_behind
from envd.core.commit import Commit, Kind, LogRecord
from envd.core.environment import Environment
from envd.core.errors import Corrupt, EnvdError, InvalidRequest, Unavailable
from envd.core.floor import guarded, is_zombie
from envd.core.hlc import HybridClock
from envd.core.names import check_environment
from envd.core.ring import partition_of
from envd.core.stamp import MAX_HLC, ZERO, Stamp
from envd.core.topology import TOPOLOGY
from envd.node.floors import Floors
from envd.node.holdings import Holdings
from envd.ports import Clock, Logged, Store, StoredState
from envd.wire import records

MAX_AHEAD_MS: Final = 60_000
MAX_UID: Final = (1 << 64) - 1
MAX_SEQ: Final = (1 << 63) - 1
_LOOKED_AT: Final = 256
_log = logging.getLogger(__name__)


class IdentityLost(EnvdError):
    """This node is a copy of another, or was rolled back: it must go on under a new uid."""

    default_reason = "IDENTITY_LOST"


class Taken(Enum):
    """What became of a record."""

    NEW = "new"
    KNOWN = "known"
    GAP = "gap"
    BEHIND = "behind"
    EARLY = "early"
    ZOMBIE = "zombie"


async def _not_salvaged(_: Commit) -> None:
    raise Unavailable("this node puts nothing on record that comes too late", reason="NOT_TAKEN")


class Intake:
    """The one place through which foreign commits reach the store of this node."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        hlc: HybridClock,
        digest_key: bytes,
        node_uid: int,
        holdings: Holdings | None = None,
        floors: Floors | None = None,
    ) -> None:
        """Without `holdings` this node holds everything, without `floors` nothing is agreed."""
        self._store = store
        self._clock = clock
        self._hlc = hlc
        self._digest_key = digest_key
        self._node_uid = node_uid
        self._holdings = holdings or Holdings(node_uid)
        self._floors = floors or Floors(store, self._holdings)
        self.advanced: Callable[[Mapping[tuple[int, int], int]], None] = lambda _: None
        """Is told of vectors that are raised here."""
        self.salvage: Callable[[Commit], Awaitable[None]] = _not_salvaged
        """Puts on record, durably, what a zombie wrote."""
        self.zombies = 0
        """How many there were since the start."""
        self._zombies_of: set[int] = set()
        self._runs: dict[tuple[int, int], tuple[int, int]] = {}
        self._pending: deque[Logged] = deque()
        self._refusals = 0
        self._held = {_held_name(row) for row in store.quarantined()}
        self._early = {records.open_log_row(row)[:2] for row in store.quarantined()}
        self._due_ms = 0

    @property
    def quarantined(self) -> int:
        """How many records wait for their time."""
        return len(self._held)

    async def admit(self) -> None:
        """Wait until the store takes a record; raises Unavailable where it won't."""
        if not self._store.admits():
            await self._store.admit()

    async def take(self, row: bytes, *, direct: bool, sender: int = 0, floor: int = 0) -> Taken:
        """Take in one record in its stored bytes; `direct` from its own origin.

        `sender` is the node that sends it, and `floor` (hlc) the one that is at. NEW is logged and
        on its way, see `settled`; BEHIND is a commit of a serial environment that follows one which
        is not here. Raises Unavailable (CLOCK_SKEW, NOT_A_MEMBER, or no room), Corrupt, and
        IdentityLost for a record of this node that it does not have.
        """
        await self.admit()
        partition, origin, seq, encoded = records.open_log_row(row)
        if not (0 < origin <= MAX_UID and 0 < seq <= MAX_SEQ):
            raise Corrupt("a peer sent a record with a name that is none")
        last = self._store.last_seq(partition, origin)
        if seq <= last:
            return Taken.KNOWN
        if origin == self._node_uid:
            raise IdentityLost("a peer holds commits of this node that this node does not have")
        if (partition, origin) in self._early:
            await self._hold_back(row)
            return Taken.EARLY
        commit = _decoded(encoded)
        if partition != partition_of(commit.environment):
            raise Corrupt("a peer sent a record under another partition than its own")
        self._check_sender(sender, commit.environment, commit.stamp, floor)
        early = self._is_early(commit)
        if early and direct:  # Behind a hole too, which repair can't close before its time.
            raise _skewed(commit, self._clock.wall_ms())
        if seq > last + 1:
            if self._holdings.complete(partition):
                return Taken.GAP
            return await self._take_nameless(partition, origin, seq, commit, encoded, floor)
        if commit.stamp.hlc <= self._floors.passes_below(partition, floor):
            self._count_as_held((partition, origin), seq)
            return Taken.KNOWN
        if self._is_below(commit):
            return await self._pass_over(LogRecord(partition, origin, seq, commit))
        if early:
            await self._hold_back(row)
            self._early.add((partition, origin))
            return Taken.EARLY
        if self._is_behind(commit):
            return Taken.BEHIND
        self._floors.note_taken(commit.stamp.hlc, floor)
        self._append(LogRecord(partition, origin, seq, commit), encoded)
        return Taken.NEW

    async def _take_nameless(
        self, partition: int, origin: int, seq: int, commit: Commit, encoded: bytes, floor: int
    ) -> Taken:
        """Take in a record behind a hole that need not be closed now.

        So is one of a partition that this node gains, of which it pulls what came before, and one
        of a partition that it does not hold, which it keeps until it is handed over.
        """
        gains = self._holdings.gaining(partition)
        if commit.stamp.hlc <= self._floors.passes_below(partition, floor):
            if gains:
                self._follows_on((partition, origin), seq)
            return Taken.KNOWN
        if self._is_behind(commit) and not self._holdings.mine(partition):
            return Taken.KNOWN  # A majority holds it.
        self._floors.note_taken(commit.stamp.hlc, floor)
        taken = await self._repair(commit, encoded, 0)
        if gains and taken is Taken.NEW:
            logged = self._pending[-1]
            logged.add_done_callback(partial(self._landed, (partition, origin), seq))
        return taken

    def _check_sender(self, sender: int, name: str, stamp: Stamp, floor: int) -> None:
        """Raise Unavailable for what must not be taken from a node now; from 0 all may.

        That is what nobody asks a node for that is not in the topology yet; and, where this node is
        filled, all but the topology itself from who can't fill it.
        """
        if sender and name != TOPOLOGY and not self._floors.fills_from(floor):
            raise Unavailable(
                "this node is filled first, by those at the floor",
                reason="NOT_FILLED",
                retry_after_ms=1000,
            )
        if stamp.hlc <= self._floors.refuses_below(sender):
            raise Unavailable(
                "a node that is not in the topology has commits of a time that is being sealed",
                hint="they are taken once it is, or put on record",
                reason="NOT_A_MEMBER",
                retry_after_ms=1000,
            )

    def _landed(self, name: tuple[int, int], seq: int, logged: Logged) -> None:
        """A record behind a hole is durable."""
        if logged.exception() is None:
            self._follows_on(name, seq)

    def _follows_on(self, name: tuple[int, int], seq: int) -> None:
        """A record behind a hole is done with: those that follow without another are one run."""
        first, last = self._runs.get(name, (seq, seq - 1))
        self._runs[name] = (first, seq) if seq == last + 1 else (seq, seq)
        self.bridge([name])

    def bridge(self, names: Iterable[tuple[int, int]]) -> None:
        """Raise the vectors of these (partition, origin) over what came behind a hole.

        To be called once the hole was closed, and the vectors were raised up to its end.
        """
        raised: dict[tuple[int, int], int] = {}
        for name in names:
            first, last = self._runs.get(name, (0, 0))
            known = self._store.last_seq(*name)
            if first and first <= known + 1:
                del self._runs[name]
                raised |= {name: last} if last > known else {}
        if raised:
            self._store.advance(raised, {})
            self.advanced(raised)

    async def repair(self, encoded: bytes, *, floor: int = 0, sender: int = 0) -> Taken:
        """Take in a commit that repair found missing; BEHIND is not taken, it comes again.

        `sender` is the node that has it, and `floor` the one (hlc) that is at, 0 where it is not
        known. Raises Unavailable (NOT_A_MEMBER, or no room), Corrupt.
        """
        await self.admit()
        commit = _decoded(encoded)
        self._check_sender(sender, commit.environment, commit.stamp, floor)
        if sender and commit.environment != TOPOLOGY:
            self._floors.note_taken(commit.stamp.hlc, floor)
        return await self._repair(commit, encoded, floor)

    async def _repair(self, commit: Commit, encoded: bytes, floor: int) -> Taken:
        if self._is_below(commit):
            return await self._judge(commit, floor)
        record = LogRecord(partition_of(commit.environment), 0, 0, commit)
        if self._is_early(commit):
            await self._hold_back(records.encode_log_record(record, encoded))
            return Taken.EARLY
        if self._is_behind(commit):
            return Taken.BEHIND
        self._append(record, encoded)
        return Taken.NEW

    async def repair_base(self, base: Environment, *, floor: int = 0, sender: int = 0) -> bool:
        """Take in what a peer's history starts from; tell whether that was more than is here.

        For `floor` and `sender`, and what it raises, see `repair`.
        """
        await self.admit()
        _check_name(base.name)
        own = self._store.base(base.name)
        if judged := self._floors.judges_below(partition_of(base.name)):
            known = {stamp for stamp, _ in self._store.commit_rows(base.name)}
            base = guarded(base, own, known, judged)
        if own.merge(base) == own:
            return False
        lowest = _lowest_stamp(base, floor)
        self._check_sender(sender, base.name, _lowest_stamp(base), floor)
        if sender and base.name != TOPOLOGY and lowest.hlc:
            self._floors.note_taken(lowest.hlc, floor)
        after = self._head(base.name).environment.merge(base)
        self._hlc.observe(after.highest_stamp, self._clock.wall_ms())
        self._note(self._store.append_base(base, self._stored(after)))
        return True

    # -- what comes too late -------------------------------------------------------------------

    def _is_below(self, commit: Commit) -> bool:
        return commit.stamp.hlc <= self._floors.judges_below(partition_of(commit.environment))

    async def _pass_over(self, record: LogRecord) -> Taken:
        """Judge a record at or below the floor, and count it as held: it is done with."""
        taken = await self._judge(record.commit, 0)
        self._count_as_held((record.partition, record.origin), record.seq)
        return taken

    def _count_as_held(self, name: tuple[int, int], seq: int) -> None:
        last = self._store.last_seq(*name)
        if last < seq - 1:
            raise Unavailable("the store refused records that a peer sent", reason="NOT_TAKEN")
        if last < seq:
            self._store.advance({name: seq}, {})
            self.advanced({name: seq})

    async def _judge(self, commit: Commit, floor: int) -> Taken:
        """KNOWN, or ZOMBIE: then it is on record. What was taken in before is settled."""
        latest = self.latest()
        if latest is not None:
            await asyncio.shield(latest)
        name, stamp = commit.environment, commit.stamp
        newest = self._store.commits(name, _after(stamp), 1)
        known = {each.stamp for each in newest}
        judged = self._floors.judges_below(partition_of(name))
        if not is_zombie(commit, self._store.base(name), known, judged):
            return Taken.KNOWN
        if stamp.hlc <= floor:
            return Taken.KNOWN  # It was here, as it was there, and was collected since.
        await self.salvage(commit)
        self.zombies += 1
        if stamp.node_uid not in self._zombies_of:
            self._zombies_of.add(stamp.node_uid)
            _log.warning(
                "replication.zombie",
                extra={"origin": f"{stamp.node_uid:016x}", "environment": name},
            )
        return Taken.ZOMBIE

    # -- what became of it ---------------------------------------------------------------------

    def mark(self) -> int:
        """A mark from which on `settled` looks for refusals."""
        return self._look()

    async def settled(self, mark: int) -> None:
        """Wait until all that was taken in is durable; raises where any since `mark` was refused.

        The store's log is in order, but it may refuse one record and take a later one.
        """
        latest = self.latest()
        if latest is not None:
            await asyncio.shield(latest)
        self.check(mark)

    def check(self, mark: int) -> None:
        """Raise Unavailable where a record that was taken in since `mark` was refused."""
        if self._look() != mark:
            raise Unavailable("the store refused records that a peer sent", reason="NOT_TAKEN")

    def latest(self) -> Logged | None:
        """The last record that was taken in and is on its way; None where none is."""
        self._look()
        return self._pending[-1] if self._pending else None

    def _note(self, logged: Logged) -> None:
        logged.add_done_callback(take_error)
        self._pending.append(logged)
        if len(self._pending) % _LOOKED_AT == 0:
            self._look()

    def _look(self) -> int:
        """Let go of what is done; return how many were refused since the start."""
        while self._pending and self._pending[0].done():
            if self._pending.popleft().exception() is not None:
                self._refusals += 1
        return self._refusals

    # -- quarantine ----------------------------------------------------------------------------

    async def release(self) -> int:
        """Take in what was in quarantine and whose time has come; return how many.

        A record behind a hole goes in without its name: repair may have brought, under none,
        what comes before it, and nobody may ship that again. A commit of a serial environment stays
        until the one that it follows is here.
        """
        if self._clock.wall_ms() + MAX_AHEAD_MS < self._due_ms:
            return 0
        released, kept, due_ms = 0, 0, 1 << 62
        waiting: set[tuple[int, int]] = set()
        for row in sorted(self._store.quarantined(), key=_name_of):
            partition, origin, seq, encoded = records.open_log_row(row)
            commit = _decoded(encoded)
            below = self._is_below(commit)
            held = self._is_early(commit) or (not below and self._is_behind(commit))
            if held or (origin and (partition, origin) in waiting):
                waiting.add((partition, origin))
                due_ms = min(due_ms, commit.stamp.time_ms)
                kept += 1
                continue
            await self.admit()
            last = self._store.last_seq(partition, origin)
            if not origin or seq > last:
                name = (origin, seq) if seq == last + 1 else (0, 0)
                record = LogRecord(partition, *name, commit)
                mark = self.mark()
                if not below:
                    self._append(record, encoded)
                elif record.origin:
                    await self._pass_over(record)
                else:
                    await self._judge(commit, 0)
                await self.settled(mark)
                released += 1
            await self._store.release(row)
            self._held.discard(_held_name(row))
        left = self._store.quarantined()
        self._due_ms = due_ms if len(left) == kept else 0  # More came meanwhile.
        self._early = {records.open_log_row(row)[:2] for row in left}
        return released

    def holds_back_below(self, hlc: int) -> bool:
        """Tell whether something in quarantine is of a time at or below `hlc`."""
        rows = (records.open_log_row(row)[3] for row in self._store.quarantined())
        return any(_decoded(encoded).stamp.hlc <= hlc for encoded in rows)

    def _is_early(self, commit: Commit) -> bool:
        return commit.stamp.time_ms > self._clock.wall_ms() + MAX_AHEAD_MS

    def _is_behind(self, commit: Commit) -> bool:
        if commit.follows == ZERO:
            return False
        return is_behind(self._head(commit.environment).environment, commit.follows)

    async def _hold_back(self, row: bytes) -> None:
        """Put a record in quarantine; it may come again and again."""
        name = _held_name(row)
        if name in self._held:
            return
        await self._store.quarantine(row)
        self._held.add(name)
        self._due_ms = 0
        partition, origin, seq, _ = records.open_log_row(row)
        _log.error(
            "replication.quarantined",
            extra={"partition": partition, "origin": f"{origin:016x}", "seq": seq},
        )

    # -- merging -------------------------------------------------------------------------------

    def _append(self, record: LogRecord, encoded: bytes) -> None:
        """Merge a commit into the head of its environment; no await stands in between."""
        commit = record.commit
        after = self._head(commit.environment).environment.apply(commit)
        self._hlc.observe(commit.stamp, self._clock.wall_ms())
        self._note(self._store.append(record, self._stored(after), encoded))

    def _head(self, name: str) -> StoredState:
        return self._store.head(name) or StoredState(Environment(name), b"")

    def _stored(self, environment: Environment) -> StoredState:
        return StoredState(environment, digest.revision(environment, self._digest_key))


def _name_of(row: bytes) -> tuple[int, int, int]:
    return records.open_log_row(row)[:3]


def _held_name(row: bytes) -> tuple[int, int, int] | bytes:
    """By what a record in quarantine is known; what repair brought has no name of its own."""
    name = _name_of(row)
    return name if name[1] else blake2b(row, digest_size=16).digest()


def _decoded(encoded: bytes) -> Commit:
    """A peer's commit, checked as far as the store relies on it; raises Corrupt."""
    commit = records.decode_commit(encoded)
    _check_name(commit.environment)
    return commit


def _after(stamp: Stamp) -> Stamp:
    """The stamp right after one, but for the very last."""
    if stamp.node_uid < MAX_UID:
        return stamp._replace(node_uid=stamp.node_uid + 1)
    return Stamp(stamp.era, min(stamp.hlc + 1, MAX_HLC), 0)


def _lowest_stamp(base: Environment, above: int = 0) -> Stamp:
    """The lowest stamp in a base of a time (hlc) `above` this one; ZERO for none."""
    sides = [entry.stamp for kind in Kind for entry in base.entries(kind).values()]
    stamps = [stamp for stamp in (*sides, base.deleted_at) if stamp.hlc > above]
    return min(stamps, key=lambda stamp: stamp.hlc, default=ZERO)


def _check_name(environment: str) -> None:
    try:
        check_environment(environment, system=True)
    except InvalidRequest:
        raise Corrupt("a peer sent an environment with a name that is none") from None


def take_error(logged: Logged) -> None:
    """Take an error out, which else is reported as one that nobody took; `check` tells of it."""
    logged.exception()


def _skewed(commit: Commit, now_ms: int) -> Unavailable:
    ahead_s = (commit.stamp.time_ms - now_ms) // 1000
    return Unavailable(
        f"a commit is stamped {ahead_s} s ahead of this node's clock",
        hint="set the clocks of the nodes right (NTP)",
        reason="CLOCK_SKEW",
        retry_after_ms=1000,
    )
