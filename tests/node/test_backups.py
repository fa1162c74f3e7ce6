"""Who may have a backup, one at a time; and when a node makes them by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from envd.core.answers import Identity
from envd.core.backups import BackupFacts, BackupRequest
from envd.core.errors import Denied, EnvdError, StorageError, Unavailable
from envd.node.backup_schedule import (
    FIRST_DELAY_MS,
    FIRST_RETRY_MS,
    LONGEST_RETRY_MS,
    BackupSchedule,
)
from envd.node.backups import Backups
from envd.settings.units import Duration
from envd.storage.memory import MemoryStore

ADMIN = Identity("admin", "token")
REQUEST = BackupRequest(("key",))
HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000


@dataclass
class Clock:
    """Moves when somebody sleeps."""

    now_ms: int = START_MS
    uptime_ms: int = 0

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.uptime_ms

    def pass_by(self, ms: int) -> None:
        self.now_ms += ms
        self.uptime_ms += ms


class HalfRng:
    """Always the middle."""

    def token_bytes(self, size: int) -> bytes:
        return b"\x80" + bytes(size - 1)


class Rights:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def check(self, identity: Identity, verb: str, environment: str) -> None:
        self.asked.append((identity.name, verb, environment))
        if identity.name != "admin":
            raise Denied("no", reason="RIGHT_MISSING")

    def allows(self, identity: Identity, verb: str, environment: str) -> bool:
        return identity.name == "admin"


class Maker:
    """Three pieces, and whether the work was ended."""

    def __init__(self) -> None:
        self.ended = 0
        self.flushed = 0

    async def stream(self, request: BackupRequest, created_ms: int) -> AsyncGenerator[bytes, None]:
        try:
            for piece in (b"one", b"two", b"three"):
                yield piece
        finally:
            self.ended += 1


class Store(MemoryStore):
    """Counts flushes."""

    flushes = 0

    async def flush(self) -> None:
        self.flushes += 1


@dataclass
class Shelf:
    """A directory in memory; `failing` errors come first, and `newest` was there before."""

    clock: Clock
    newest: int | None = None
    took_ms: int = 0
    failing: list[Exception] = field(default_factory=list)
    made_at: list[int] = field(default_factory=list)
    pruned_at: list[int] = field(default_factory=list)
    prune_fails: EnvdError | OSError | None = None
    newest_fails: OSError | None = None
    directory: str = "/backups"

    async def add(self, request: BackupRequest, created_ms: int) -> BackupFacts:
        self.made_at.append(self.clock.uptime_ms)
        if self.failing:
            raise self.failing.pop(0)
        self.clock.pass_by(self.took_ms)
        return BackupFacts("/backups/one", 10)

    async def prune(self, now_ms: int) -> Sequence[str]:
        self.pruned_at.append(now_ms)
        if self.prune_fails:
            raise self.prune_fails
        return ["old"]

    async def list(self) -> Sequence[BackupFacts]:
        return [BackupFacts("/backups/one", 10)]

    async def newest_ms(self) -> int | None:
        if self.newest_fails:
            raise self.newest_fails
        return self.newest


class Over(Exception):
    """The test has seen enough."""


async def run(shelf: Shelf, *, every: str = "24h", sleeps: int = 10_000) -> BackupSchedule:
    """Let a schedule run until so many slices have been slept."""
    clock, left = shelf.clock, [sleeps]

    async def sleep(seconds: float) -> None:
        if not left[0]:
            raise Over
        left[0] -= 1
        clock.pass_by(round(seconds * 1000))

    backups = Backups(Store(), clock, Maker(), Rights(), shelf)
    schedule = BackupSchedule(
        backups, shelf, ["key"], Duration.parse(every), clock, HalfRng(), sleep
    )
    with pytest.raises(Over):
        await schedule.run()
    return schedule


async def test_a_node_without_backups_makes_the_first_one_soon_and_then_one_each_interval() -> None:
    shelf = Shelf(Clock(), took_ms=5_000)

    schedule = await run(shelf, sleeps=1 + 3 * 1450)

    spread = 300_000  # half of ten minutes, as the dice fall here
    step = 24 * HOUR_MS + spread
    assert shelf.made_at[:3] == [FIRST_DELAY_MS + n * step for n in range(3)]
    assert len(shelf.pruned_at) == len(shelf.made_at)
    assert schedule.failure == ""


@pytest.mark.parametrize(
    ("newest_ms", "first_ms"),
    [
        (START_MS - 2 * HOUR_MS, 22 * HOUR_MS),
        (START_MS - 25 * HOUR_MS, FIRST_DELAY_MS),
        (START_MS + 900 * HOUR_MS, 24 * HOUR_MS),
    ],
)
async def test_a_restart_neither_skips_nor_repeats_one_nor_trusts_the_future(
    newest_ms: int, first_ms: int
) -> None:
    shelf = Shelf(Clock(), newest=newest_ms)

    await run(shelf, sleeps=24 * 60 + 10)

    assert shelf.made_at[0] == first_ms


async def test_a_failure_is_told_and_tried_again_more_and_more_slowly() -> None:
    shelf = Shelf(Clock(), failing=[StorageError("disk full")] * 20)

    schedule = await run(shelf, sleeps=60 * 6)

    gaps = [b - a for a, b in zip(shelf.made_at, shelf.made_at[1:], strict=False)]
    assert gaps[:7] == [FIRST_RETRY_MS << n for n in range(6)] + [LONGEST_RETRY_MS]
    assert schedule.failure == "disk full"


async def test_after_a_failure_that_is_over_the_usual_interval_holds() -> None:
    shelf = Shelf(Clock(), failing=[StorageError("disk full")])

    schedule = await run(shelf, every="1h", sleeps=70)

    assert shelf.made_at == [FIRST_DELAY_MS, FIRST_DELAY_MS + FIRST_RETRY_MS, *shelf.made_at[2:]]
    assert shelf.made_at[2] - shelf.made_at[1] == HOUR_MS + HOUR_MS // 20
    assert schedule.failure == ""


async def test_a_fault_of_ours_is_told_and_does_not_end_the_schedule() -> None:
    fault = PermissionError(13, "no")
    shelf = Shelf(Clock(), newest_fails=fault, failing=[fault], prune_fails=fault)

    schedule = await run(shelf, every="1h", sleeps=140)

    assert len(shelf.made_at) == 4
    assert len(shelf.pruned_at) == 3
    assert schedule.failure == "internal error"


async def test_what_can_not_be_removed_is_told_and_makes_no_more_backups() -> None:
    shelf = Shelf(Clock(), prune_fails=StorageError("can't remove it"))

    schedule = await run(shelf, sleeps=100)

    assert len(shelf.made_at) == 1
    assert schedule.failure == "can't remove it"


async def test_a_backup_takes_the_right_and_flushes_first() -> None:
    rights, maker, store = Rights(), Maker(), Store()
    backups = Backups(store, Clock(), maker, rights)

    pieces = [chunk.data async for chunk in backups.create(ADMIN, REQUEST)]

    assert pieces == [b"one", b"two", b"three"]
    assert rights.asked == [("admin", "backup", "")]
    assert (store.flushes, maker.ended) == (1, 1)
    for refused in (backups.create(Identity("reader", "token"), REQUEST), backups.list(READER)):
        with pytest.raises(Denied):
            await (anext(refused) if isinstance(refused, AsyncGenerator) else refused)


READER = Identity("reader", "token")


async def test_one_is_made_at_a_time_and_one_that_is_given_up_makes_way() -> None:
    maker = Maker()
    backups = Backups(Store(), Clock(), maker, Rights())

    async with aclosing(backups.create(ADMIN, REQUEST)) as first:
        await anext(first)
        with pytest.raises(Unavailable) as refused:
            await anext(backups.create(ADMIN, REQUEST))

    assert refused.value.reason == "BACKUP_RUNNING"
    assert maker.ended == 1
    assert len([chunk async for chunk in backups.create(ADMIN, REQUEST)]) == 3


async def test_the_schedule_waits_for_one_that_is_being_made() -> None:
    shelf = Shelf(Clock())
    backups = Backups(Store(), Clock(), Maker(), Rights(), shelf)

    async with aclosing(backups.create(ADMIN, REQUEST)) as running:
        await anext(running)
        waiting = asyncio.create_task(backups.add_to_shelf(REQUEST))
        await asyncio.sleep(0)
        assert not shelf.made_at

    await waiting
    assert len(shelf.made_at) == 1


async def test_a_node_that_stops_ends_what_runs_and_refuses_the_rest() -> None:
    backups = Backups(Store(), Clock(), Maker(), Rights(), Shelf(Clock()))
    running = backups.create(ADMIN, REQUEST)
    await anext(running)

    backups.stop()

    for refused in (anext(running), anext(backups.create(ADMIN, REQUEST)), backups.list(ADMIN)):
        with pytest.raises(Unavailable, match="stopping"):
            await refused


async def test_the_list_tells_of_the_schedule() -> None:
    shelf = Shelf(Clock())
    assert (await Backups(Store(), Clock(), Maker(), Rights()).list(ADMIN)).directory == ""
    backups = Backups(Store(), Clock(), Maker(), Rights(), shelf)
    assert (await backups.list(ADMIN)).every == ""

    backups.schedule = await run(shelf, every="1h", sleeps=2)
    listing = await backups.list(ADMIN)

    assert (listing.directory, listing.every) == ("/backups", "1h")
    assert listing.next.startswith("2023-11-14T23:")
    assert [each.file for each in listing.backups] == ["/backups/one"]
