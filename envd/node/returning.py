"""The way back of a node that was given up, or whose directory was put back.

What it has may be what all others deleted and forgot, so it must not keep it; and it may be what
nobody else ever had. So it offers every commit above its own floor to those that hold the partition
and are at the floor that is agreed: what is above that they merge, what is at or below it and not
there they put on record as a conflict (`Intake.repair`). So they do with what its histories start
from. What waits here in quarantine is offered too, and waits there. Once two holders, or all that
there are, have taken each partition durably, this node begins anew with an empty store.

At or below its own floor it offers nothing: all others had that, and may have forgotten it.

The holders are asked one after the other, and each next one only once what the one before put on
record has come to it. So it is on record once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Final

from envd.core.commit import Change, Commit, Kind
from envd.core.environment import Environment
from envd.core.errors import Corrupt, EnvdError, Unavailable
from envd.core.ring import PARTITIONS, partition_of
from envd.core.stamp import MAX_HLC, ZERO, Stamp
from envd.node.acknowledging import WANTED_COPIES
from envd.node.calls import Method, Patient
from envd.node.floors import Floors
from envd.node.handshake import Peer
from envd.node.holdings import Holdings
from envd.node.intake import Intake, Taken
from envd.node.moving import FIRST_PAUSE_S, LONGEST_PAUSE_S
from envd.node.proposing import Ask
from envd.ports import Applied, Rng, Store, StoredState
from envd.wire import peers as wire
from envd.wire import records
from envd.wire.records import StoredEnvironment

NOT_YET: Final = "NOT_YET"
_PAGE_BYTES: Final = 4 << 20
_PAGE_ITEMS: Final = 512
"""Each may have to be put on record durably before the answer, which is waited for 10 s."""
_WHY: Final = "it was away while others forgot what was deleted; what only it had they have now"
_log = logging.getLogger(__name__)


class Returning:
    """`run` it once this node knows that it is stale."""

    def __init__(
        self,
        store: Store,
        holdings: Holdings,
        floors: Floors,
        reached: Callable[[], Collection[int]],
        rng: Rng,
        *,
        ask: Ask,
        isolate: Callable[[], None],
        ends: Callable[[], Awaitable[None]],
        on_stale: Callable[[str], None],
    ) -> None:
        """`reached` are the nodes of which an answer can be expected. `isolate` has this node take
        nothing from peers by their logs, who would count its copy; `ends` has it take no writes
        either, and settle those that it took. `on_stale(why)` is told once all is given; where it
        raises, again."""
        self._uid = holdings.uid
        self._store = store
        self._holdings = holdings
        self._floors = floors
        self._reached = reached
        self._rng = rng
        self._ask = ask
        self._isolate = isolate
        self._ends = ends
        self._on_stale = on_stale
        self._below: frozenset[int] = frozenset()
        """Who was asked and is below the floor as well: those can't take anything."""
        self._taken: dict[int, dict[int, int]] = {}
        """Of each partition who has taken all, and up to which of its records it put on record."""
        self._problems: set[tuple[int, str]] = set()
        self._logged = (0, 0, 0)
        self._news = False
        self._ended = False
        self.late = 0
        """How many of the commits came too late for the first who took them."""
        store.subscribe(self._applied)

    def _applied(self, applied: Applied) -> None:
        """What this node had on its way is given too; what comes from others they have."""
        if applied.record.origin == self._uid:
            self._news = True
            self._taken.pop(applied.record.partition, None)

    async def run(self) -> None:
        """Give what this node has, for as long as that takes; tell, once, that all is given."""
        pause_s = FIRST_PAUSE_S
        self._isolate()
        while not self._ended:
            before = self._progress()
            if await self._give_all():
                await self._ends()
                if await self._give_all() and self._told():
                    self._ended = True
                    return
            if self._progress() > before:
                pause_s = FIRST_PAUSE_S
                self._problems.clear()
            share = 0.5 + int.from_bytes(self._rng.token_bytes(4)) / (1 << 32)
            await asyncio.sleep(pause_s * share)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _progress(self) -> int:
        return sum(map(len, self._taken.values()))

    def _told(self) -> bool:
        """Tell that all is given; whether that could be noted."""
        try:
            self._on_stale(_WHY)
        except EnvdError as error:
            _log.error("floor.not_emptied", extra={"detail": error.message})
            return False
        return True

    async def _give_all(self) -> bool:
        """Give what can be given now; tell whether that is all."""
        self._news = False
        self._below = await self._those_below()
        await self._store.flush()
        held = self._held()
        left = 0
        for partition in range(PARTITIONS):
            left += not await self._give(partition, held.get(partition, ()))
            await asyncio.sleep(0)
        self._log_progress(left)
        return not left and not self._news

    def _log_progress(self, left: int) -> None:
        told = (sum(map(bool, self._taken.values())), left, self.late)
        if told != self._logged:
            self._logged = told
            extra = {"given": told[0], "left": left, "late": self.late}
            _log.info("floor.returning", extra=extra)

    def _held(self) -> Mapping[int, list[bytes]]:
        """The commits in quarantine by partition: their time has not come, which others await."""
        found: dict[int, list[bytes]] = {}
        for row in self._store.quarantined():
            partition, _, _, encoded = records.open_log_row(row)
            found.setdefault(partition, []).append(encoded)
        return found

    def _holders(self, partition: int) -> Collection[int]:
        writers = self._holdings.writers(partition)
        able = {*(self._floors.members if writers is None else writers)}
        return sorted(able - self._below - {self._uid})

    async def _those_below(self) -> frozenset[int]:
        """Those that can be reached and are below the floor themselves."""
        uids = sorted(self._floors.members.intersection(self._reached()) - {self._uid})
        told = await asyncio.gather(*map(self._floor_of, uids))
        agreed = self._floors.agreed.hlc
        found = zip(uids, told, strict=True)
        return frozenset(uid for uid, floor in found if floor is not None and floor < agreed)

    async def _floor_of(self, uid: int) -> int | None:
        try:
            answer = await self._ask(uid, "floor.progress", b"")
            return wire.unpack(wire.FloorProgress, answer).floor
        except EnvdError as error:
            self._note(uid, error)
            return None

    # -- one partition ---------------------------------------------------------------------------

    async def _give(self, partition: int, held: Collection[bytes]) -> bool:
        """Give a partition to those that lack it; tell whether enough have it now."""
        holders = self._holders(partition)
        if self._is_given(partition, holders) or next(self._items(partition, held), None) is None:
            return True
        for uid in self._reached_of(holders):
            if uid not in self._taken.get(partition, {}):
                await self._give_to(uid, partition, held)
                if self._is_given(partition, holders):
                    return True
        if not self._reached_of(holders):
            self._note(0, Unavailable("nobody that holds it can be reached", reason="NO_HOLDER"))
        return False

    def _reached_of(self, holders: Collection[int]) -> list[int]:
        reached = self._reached()
        return [uid for uid in holders if uid in reached]

    def _is_given(self, partition: int, holders: Collection[int]) -> bool:
        """Whether enough of these have taken it, which nobody has where there are none."""
        taken = self._taken.get(partition, {})
        have = sum(uid in taken for uid in holders)
        return bool(holders) and have >= min(WANTED_COPIES, len(holders))

    async def _give_to(self, uid: int, partition: int, held: Collection[bytes]) -> None:
        """Have one node take all of a partition."""
        reached = {*self._reached()}
        taken = self._taken.setdefault(partition, {})
        after = [(each, seq) for each, seq in sorted(taken.items()) if seq and each in reached]
        recorded = late = 0
        try:
            for bases, commits in self._pages(partition, held):
                floor = self._floors.agreed.hlc
                offer = wire.pack(wire.Offer(partition, floor, commits, bases, after))
                answer = await self._ask(uid, "floor.offer", offer)
                said = wire.unpack(wire.OfferTaken, answer)
                recorded = max(recorded, said.recorded)
                late += said.late
        except EnvdError as error:
            self._note(uid, error)
            return
        if self._taken.get(partition) is taken:  # Else there is more to give by now.
            self.late += 0 if taken else late
            taken[uid] = recorded

    def _pages(
        self, partition: int, held: Collection[bytes]
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Bases and commits in pages; each has at least one of either."""
        bases: list[bytes] = []
        commits: list[bytes] = []
        size = 0
        for is_base, row in self._items(partition, held):
            count = len(bases) + len(commits)
            if count == _PAGE_ITEMS or (count and size + len(row) > _PAGE_BYTES):
                yield bases, commits
                bases, commits, size = [], [], 0
            (bases if is_base else commits).append(row)
            size += len(row)
        if bases or commits:
            yield bases, commits

    def _items(self, partition: int, held: Collection[bytes]) -> Iterator[tuple[bool, bytes]]:
        """(whether it is a base, its bytes) of all above the own floor.

        A commit that is there goes before what a base tells of it, which is less.
        """
        floor = self._floors.own
        for name, _ in self._store.digests(partition):
            for stamp, row in self._store.commit_rows(name):
                if stamp.hlc > floor:
                    yield False, row
            base = _above(self._store.base(name), floor)
            if base.summary.names or base.deleted_at.hlc:
                yield True, records.encode_environment(StoredEnvironment(StoredState(base, b"")))
        for row in held:
            yield False, row

    def _note(self, uid: int, error: EnvdError) -> None:
        """Log a problem once, until this node gets on; to wait for a record is none."""
        if error.reason != NOT_YET and (uid, error.reason) not in self._problems:
            self._problems.add((uid, error.reason))
            extra = {"peer": f"{uid:016x}", "reason": error.reason, "detail": error.message}
            _log.warning("floor.not_given", extra=extra)


class Offers:
    """Takes in what nodes that return have; `methods` is what a channel for calls serves."""

    def __init__(self, store: Store, intake: Intake, holdings: Holdings, floors: Floors) -> None:
        self._store = store
        self._intake = intake
        self._uid = holdings.uid
        self._floors = floors

    def methods(self) -> dict[str, Method]:
        """One function for each call."""
        return {"floor.offer": Patient(self._offered)}

    async def _offered(self, peer: Peer, body: bytes) -> bytes:
        """Take in what is offered; answer once it is durable."""
        offer = wire.unpack(wire.Offer, body)
        self._check(offer)
        bases = [_base_of(offer.partition, raw) for raw in offer.bases]
        commits = [(raw, _commit_of(offer.partition, raw)) for raw in offer.commits]
        mark = self._intake.mark()
        late = 0
        known: dict[str, set[Stamp]] = {}
        for raw, commit in commits:
            late += await self._take(raw, commit, known, peer.uid)
            await asyncio.sleep(0)
        for base in bases:
            late += await self._take_base(base, peer.uid)
        await self._intake.settled(mark)
        recorded = self._store.last_seq(offer.partition, self._uid) if late else 0
        return wire.pack(wire.OfferTaken(late, recorded))

    def _check(self, offer: wire.Offer) -> None:
        """Raise Unavailable where this node can't tell what it lacks, or does not know it yet."""
        partition = offer.partition
        if not (0 <= partition < PARTITIONS and 0 < offer.floor <= MAX_HLC):
            raise Corrupt("a peer offered something of a partition or a floor that is none")
        if self._floors.judges_below(partition) < offer.floor:
            raise Unavailable(
                "this node lacks some of the partition, or is below the floor; nothing was taken",
                reason="NOT_AT_FLOOR",
            )
        if any(self._store.last_seq(partition, origin) < seq for origin, seq in offer.after):
            raise Unavailable(
                "what another node put on record has not come here yet; nothing was taken",
                reason=NOT_YET,
            )

    async def _take(
        self, raw: bytes, commit: Commit, known: dict[str, set[Stamp]], sender: int
    ) -> bool:
        """Take in a commit that is not here; tell whether it came too late."""
        name = commit.environment
        if name not in known:
            known[name] = {stamp for stamp, _ in self._store.commit_rows(name)}
        if commit.stamp in known[name]:
            return False
        return await self._intake.repair(raw, sender=sender) is Taken.ZOMBIE

    async def _take_base(self, base: Environment, sender: int) -> int:
        """Take in what a history starts from; return how many commits of it came too late.

        What it has at or below the floor would be passed over. That is put on record, as what is
        left of the commits that wrote it.
        """
        floor = self._store.floor()
        late = 0
        for commit in _left_of_commits(base, floor):
            raw = records.encode_commit(commit)
            late += await self._intake.repair(raw, sender=sender) is Taken.ZOMBIE
        await self._intake.repair_base(base, sender=sender)
        return late


def _base_of(partition: int, raw: bytes) -> Environment:
    base = records.decode_environment(raw).state.environment
    _check_partition(partition, base.name)
    return base


def _commit_of(partition: int, raw: bytes) -> Commit:
    commit = records.decode_commit(raw)
    _check_partition(partition, commit.environment)
    return commit


def _check_partition(partition: int, environment: str) -> None:
    if partition_of(environment) != partition:
        raise Corrupt("a peer offered an environment under another partition than its own")


def _above(base: Environment, floor: int) -> Environment:
    """A base without what is at or below a floor.

    The bottom of an era has no time of its own: it stays with what is of that era.
    """
    variables, metadata = (
        {name: entry for name, entry in base.entries(kind).items() if entry.stamp.hlc > floor}
        for kind in (Kind.VARIABLE, Kind.METADATA)
    )
    deleted_at = base.deleted_at
    stays = deleted_at.hlc > floor or (not deleted_at.hlc and bool(variables or metadata))
    return Environment(base.name, variables, metadata, deleted_at if stays else ZERO)


def _left_of_commits(base: Environment, floor: int) -> Iterator[Commit]:
    """What a base still tells, at or below a floor, of the commits that were trimmed into it."""
    changes: dict[Stamp, list[Change]] = {}
    for kind in Kind:
        for name, entry in base.entries(kind).items():
            if entry.stamp.hlc <= floor:
                change = Change(kind, name, entry.value, entry.secret, entry.overwrites)
                changes.setdefault(entry.stamp, []).append(change)
    for stamp, written in sorted(changes.items()):
        yield Commit(base.name, stamp, tuple(written), time_ms=stamp.time_ms)
