"""What an acceptor promised and accepted: durable before it is answered, and never taken back."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from envd.core.errors import Corrupt, EnvdError, LimitExceeded, OutcomeUnknown, Unavailable
from envd.core.paxos import NEVER, Acceptor, Ballot, Proposal
from envd.core.stamp import Stamp
from envd.ports import Registers
from envd.security.sealing import LocalSealer
from envd.storage.disk import Disk
from envd.storage.memory_registers import MemoryRegisters
from envd.storage.registers import REGISTERS_NAME, RegisterLog
from tests.storage.failing import FailingDisk
from tests.storage.world import KIB, NODE, STORAGE_KEY, CountingRng, WitnessSealer

SEGMENT_BYTES = 4 * KIB
PLACE, NEXT = Stamp(1, 5, 1), Stamp(1, 6, 1)


def promised(counter: int) -> Acceptor:
    return Acceptor(Ballot(counter, 1))


def accepted(counter: int, size: int = 20) -> Acceptor:
    ballot = Ballot(counter, 1)
    return Acceptor(ballot, Proposal(ballot, PLACE, f"{counter} ".encode().ljust(size, b"v")))


def open_log(
    directory: Path,
    disk: Disk | None = None,
    *,
    key: bytes = STORAGE_KEY,
    kept_promises: int = 1000,
) -> Awaitable[RegisterLog]:
    sealer = LocalSealer({1: key}, CountingRng())
    return RegisterLog.open(
        directory,
        sealer,
        NODE,
        disk=disk,
        segment_bytes=SEGMENT_BYTES,
        kept_promises=kept_promises,
    )


def segments(directory: Path) -> list[Path]:
    return sorted((directory / REGISTERS_NAME).glob("*.seg"))


# -- what the port promises, of either kind -----------------------------------------------------


class Kept(Protocol):
    @property
    def registers(self) -> Registers: ...

    async def restart(self) -> None: ...

    async def close(self) -> None: ...


@dataclass
class KeptInMemory:
    registers: MemoryRegisters = field(default_factory=MemoryRegisters)

    async def restart(self) -> None:
        self.registers = MemoryRegisters(self.registers.durable)

    async def close(self) -> None:
        return


@dataclass
class KeptOnDisk:
    directory: Path
    registers: RegisterLog

    async def restart(self) -> None:
        await self.registers.close()
        self.registers = await open_log(self.directory)

    async def close(self) -> None:
        await self.registers.close()


@pytest.fixture(params=["memory", "disk"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    made: Kept
    if request.param == "memory":
        made = KeptInMemory()
    else:
        made = KeptOnDisk(tmp_path, await open_log(tmp_path))
    yield made
    await made.close()


async def test_a_register_that_nobody_knows_promised_nothing(kept: Kept) -> None:
    assert kept.registers.get("a/b") == Acceptor()
    assert kept.registers.accepted() == {}


async def test_what_is_saved_shows_at_once_and_is_there_after_a_restart(kept: Kept) -> None:
    saved = kept.registers.save("a/b", accepted(3))
    at_once = kept.registers.get("a/b")
    await saved
    await kept.registers.save("c", promised(7))

    await kept.restart()

    assert at_once == accepted(3)
    assert kept.registers.get("a/b") == accepted(3)
    assert kept.registers.get("c") == promised(7)


async def test_of_many_saves_the_last_one_counts(kept: Kept) -> None:
    await asyncio.gather(*(kept.registers.save("a/b", accepted(n)) for n in range(1, 30)))

    await kept.restart()

    assert kept.registers.get("a/b") == accepted(29)


async def test_what_the_log_holds_is_forgotten_and_the_promise_kept(kept: Kept) -> None:
    await kept.registers.save("a/b", accepted(3))
    await kept.registers.save("open", accepted(4))

    kept.registers.prune("a/b", NEXT)
    kept.registers.prune("open", PLACE)
    kept.registers.prune("unknown", NEXT)

    assert kept.registers.get("a/b") == promised(3)
    assert dict(kept.registers.accepted()) == {"open": accepted(4)}
    assert kept.registers.get("unknown") == Acceptor()


async def test_what_was_accepted_is_listed_in_order_of_name(kept: Kept) -> None:
    for name in ("c", "a/b", "b"):
        await kept.registers.save(name, accepted(1))
    await kept.registers.save("a", promised(1))

    assert list(kept.registers.accepted()) == ["a/b", "b", "c"]


# -- a disk that fails --------------------------------------------------------------------------


async def fill_segment(registers: RegisterLog) -> None:
    """So that the next large row takes a new segment."""
    for n in range(3):
        await registers.save("filler", accepted(n + 1, KIB))


async def test_a_full_disk_refuses_all_that_is_on_its_way_and_nothing_of_it_is_left(
    tmp_path: Path,
) -> None:
    disk = FailingDisk()
    registers = await open_log(tmp_path, disk)
    await fill_segment(registers)
    await registers.save("a", promised(1))
    disk.full = True

    refused = await asyncio.gather(
        registers.save("a", accepted(2, KIB)),
        registers.save("a", promised(3)),
        registers.save("new", promised(1)),
        return_exceptions=True,
    )

    assert [getattr(error, "reason", "") for error in refused] == ["DISK_FULL"] * 3
    assert registers.get("a") == promised(1)
    assert registers.get("new") == Acceptor()
    await registers.close()


async def test_after_a_full_disk_saves_work_again(tmp_path: Path) -> None:
    disk = FailingDisk()
    registers = await open_log(tmp_path, disk)
    await fill_segment(registers)
    for _ in range(2):
        disk.full = True
        with pytest.raises(Unavailable):
            await registers.save("a", accepted(2, KIB))
        disk.full = False

    await registers.save("a", promised(4))
    await registers.close()

    again = await open_log(tmp_path)
    assert again.get("a") == promised(4)
    await again.close()


async def test_after_a_failed_sync_nothing_is_answered_until_it_is_opened_anew(
    tmp_path: Path,
) -> None:
    disk = FailingDisk()
    registers = await open_log(tmp_path, disk)
    await registers.save("a", promised(1))
    disk.unsynced = True
    with pytest.raises(OutcomeUnknown):
        await registers.save("a", accepted(2))
    disk.unsynced = False

    with pytest.raises(Unavailable) as refused:
        await registers.save("a", promised(3))

    assert refused.value.reason == "JOURNAL_FAILED"
    assert registers.get("a") == promised(1)
    await registers.close()
    again = await open_log(tmp_path)
    assert again.get("a") in (promised(1), accepted(2))
    await again.save("a", promised(5))
    assert again.get("a") == promised(5)
    await again.close()


async def test_a_torn_row_is_dropped_and_all_before_it_kept(tmp_path: Path) -> None:
    disk = FailingDisk()
    registers = await open_log(tmp_path, disk)
    await registers.save("a", accepted(1))
    disk.tears = True
    with pytest.raises(OutcomeUnknown):
        await registers.save("a", accepted(2, KIB))
    await registers.close()

    again = await open_log(tmp_path)

    assert again.get("a") == accepted(1)
    await again.close()


async def test_what_fits_no_segment_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    registers = await open_log(tmp_path)
    await registers.save("a", promised(1))

    with pytest.raises(LimitExceeded):
        await registers.save("a", accepted(2, SEGMENT_BYTES))

    assert registers.get("a") == promised(1)
    assert registers.accepted() == {}
    await registers.close()


async def test_closing_writes_what_waits_and_takes_nothing_more(tmp_path: Path) -> None:
    registers = await open_log(tmp_path)
    waiting = [registers.save("a", promised(n)) for n in range(1, 50)]

    closing = asyncio.ensure_future(registers.close())
    await asyncio.sleep(0)
    late = registers.save("a", promised(99))

    await asyncio.gather(*waiting)
    with pytest.raises(Unavailable) as refused:
        await late
    await closing
    assert refused.value.reason == "STOPPING"
    again = await open_log(tmp_path)
    assert again.get("a") == promised(49)
    await again.close()


# -- damage -------------------------------------------------------------------------------------


async def test_without_its_first_segment_it_is_refused(tmp_path: Path) -> None:
    registers = await open_log(tmp_path)
    for n in range(5):
        await registers.save("a", accepted(n + 1, KIB))
    await registers.close()
    segments(tmp_path)[0].unlink()

    with pytest.raises(Corrupt) as refused:
        await open_log(tmp_path)

    assert refused.value.reason == "REGISTERS_INCOMPLETE"
    assert refused.value.hint


async def test_under_another_storage_key_it_is_refused(tmp_path: Path) -> None:
    registers = await open_log(tmp_path)
    await registers.save("a", promised(1))
    await registers.close()

    with pytest.raises(Corrupt) as refused:
        await open_log(tmp_path, key=b"another key".ljust(32))

    assert refused.value.reason == "JOURNAL_SEALED_OTHERWISE"


async def test_nothing_is_sealed_twice_over_restarts(tmp_path: Path) -> None:
    sealer = WitnessSealer()

    for start in range(3):
        registers = await RegisterLog.open(tmp_path, sealer, NODE, segment_bytes=SEGMENT_BYTES)
        for n in range(20):
            await registers.save(f"r{n}", accepted(start * 20 + n + 1, 200))
        await registers.close()

    assert len(sealer.sealed) >= 60


# -- snapshots ----------------------------------------------------------------------------------


class CountingDisk(Disk):
    """Counts the syncs of what was written."""

    def __init__(self) -> None:
        self.syncs = 0

    def sync_data(self, descriptor: int) -> None:
        self.syncs += 1
        super().sync_data(descriptor)


async def test_after_many_saves_the_directory_is_small_and_few_rows_were_written_anew(
    tmp_path: Path,
) -> None:
    disk = CountingDisk()
    registers = await open_log(tmp_path, disk)

    for n in range(600):
        await registers.save(f"r{n % 4}", accepted(n + 1, 100))
    await registers.close()

    assert len(segments(tmp_path)) <= 6
    assert disk.syncs <= 600 * 1.2
    again = await open_log(tmp_path)
    assert [again.get(f"r{n}") for n in range(4)] == [accepted(597 + n, 100) for n in range(4)]
    await again.close()


async def test_many_restarts_leave_few_segments(tmp_path: Path) -> None:
    for n in range(40):
        registers = await open_log(tmp_path)
        await registers.save(f"r{n}", promised(n + 1))
        await registers.close()

    again = await open_log(tmp_path)

    assert len(segments(tmp_path)) <= 20
    assert [again.get(f"r{n}") for n in range(40)] == [promised(n + 1) for n in range(40)]
    await again.close()


async def test_a_snapshot_over_several_segments_is_kept_whole(tmp_path: Path) -> None:
    for first in range(1, 121, 12):
        registers = await open_log(tmp_path)
        for n in range(first, first + 12):
            await registers.save(f"r{n % 9}", accepted(n, KIB))
        await registers.close()
        for _ in range(2):  # Runs that save nothing recycle what the last one wrote anew.
            await (await open_log(tmp_path)).close()

    again = await open_log(tmp_path)

    assert segments(tmp_path)[0].name > f"{10:020}"
    assert {again.get(f"r{n % 9}") for n in range(112, 121)} == {
        accepted(n, KIB) for n in range(112, 121)
    }
    await again.close()


class ShortDisk(Disk):
    """Has room for so many segments."""

    def __init__(self, room: int) -> None:
        self.room = room

    def sync(self, descriptor: int) -> None:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        super().sync(descriptor)


async def test_after_a_snapshot_that_found_no_room_saves_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = ShortDisk(room=3)
    registers = await open_log(tmp_path, disk)
    for n in range(7):  # Three to a segment; the seventh begins the third one, and the snapshot.
        await registers.save(f"r{n}", accepted(n + 1, KIB))
    while "registers.not_compacted" not in caplog.messages:  # noqa: ASYNC110 - the log tells
        await asyncio.sleep(0)
    disk.room = 100

    await registers.save("after", promised(9))

    await registers.close()
    again = await open_log(tmp_path)
    assert again.get("after") == promised(9)
    assert [again.get(f"r{n}") for n in range(7)] == [accepted(n + 1, KIB) for n in range(7)]
    await again.close()


async def test_forgotten_registers_promise_nothing_below_what_they_promised(
    tmp_path: Path,
) -> None:
    registers = await open_log(tmp_path, kept_promises=5)
    for n in range(400):
        await registers.save(f"r{n}", promised(n + 1))
    known = [registers.get(f"r{n}").promised for n in range(400)]
    unknown = registers.get("never heard of").promised
    await registers.close()

    again = await open_log(tmp_path, kept_promises=5)

    assert unknown > NEVER
    assert all(ballot >= Ballot(n + 1, 1) for n, ballot in enumerate(known))
    assert again.get("never heard of").promised == unknown
    assert all(again.get(f"r{n}").promised >= Ballot(n + 1, 1) for n in range(400))
    await again.close()


async def test_what_was_accepted_is_never_forgotten(tmp_path: Path) -> None:
    registers = await open_log(tmp_path, kept_promises=0)
    await registers.save("open", accepted(1))
    for n in range(300):
        await registers.save(f"r{n}", promised(n + 1))
    await registers.close()

    again = await open_log(tmp_path, kept_promises=0)

    assert dict(again.accepted()) == {"open": accepted(1)}
    await again.close()


# -- a crash at any moment ----------------------------------------------------------------------


class CopyingDisk(Disk):
    """Copies what a crash would leave before, within and after each write, and after each sync."""

    def __init__(self, crash: Callable[[], None]) -> None:
        self._crash = crash
        self.copies = False

    def write(self, descriptor: int, data: memoryview, position: int) -> int:
        if not self.copies or not any(data[:8]):
            return super().write(descriptor, data, position)
        self._crash()
        half = super().write(descriptor, data[: len(data) // 2], position)
        self._crash()
        written = super().write(descriptor, data[half:], position + half)
        self._crash()
        return half + written

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        if self.copies:
            self._crash()

    def sync_data(self, descriptor: int) -> None:
        super().sync_data(descriptor)
        if self.copies:
            self._crash()


@dataclass
class Crashes:
    """Directories that crashes would leave, with what had been answered and asked before each."""

    directory: Path
    to: Path
    answered: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    left: list[tuple[Path, dict[str, int], dict[str, int]]] = field(default_factory=list)

    def crash(self) -> None:
        before = dict(self.answered)
        copy = self.to / f"crash {len(self.left)}"
        shutil.copytree(self.directory, copy)
        self.left.append((copy, before, dict(self.asked)))

    def note(self, name: str, counter: int) -> Callable[[asyncio.Future[None]], None]:
        self.asked[name] = counter

        def done(saved: asyncio.Future[None]) -> None:
            if saved.exception() is None:
                self.answered[name] = max(self.answered.get(name, 0), counter)

        return done


@pytest.mark.parametrize("kept_promises", [1000, 2])
async def test_a_crash_at_any_moment_keeps_all_that_was_answered_and_invents_nothing(
    tmp_path: Path, kept_promises: int
) -> None:
    (tmp_path / "data").mkdir()
    crashes = Crashes(tmp_path / "data", tmp_path)
    disk = CopyingDisk(crashes.crash)
    registers = await open_log(tmp_path / "data", disk, kept_promises=kept_promises)
    disk.copies = True

    for first in range(1, 61, 5):  # Five on their way at once, over several snapshots.
        waiting = []
        for counter in range(first, first + 5):
            name = f"r{counter % 7}"
            acceptor = accepted(counter, 700) if counter % 2 else promised(counter)
            saved = asyncio.ensure_future(registers.save(name, acceptor))
            saved.add_done_callback(crashes.note(name, counter))
            waiting.append(saved)
        await asyncio.gather(*waiting)
    disk.copies = False
    await registers.close()

    numbers = {path.name for copy, _, _ in crashes.left for path in segments(copy)}
    assert len(numbers) > 6
    for copy, answered, asked in crashes.left:
        again = await open_log(copy, kept_promises=kept_promises)
        for name, counter in answered.items():
            found = again.get(name)
            assert found.promised >= Ballot(counter, 1), (copy, name)
            if kept_promises == 1000:
                assert found.promised <= Ballot(asked[name], 1)
            if found.accepted is not None:
                assert found == accepted(found.promised.counter, 700)
            elif found.promised == Ballot(counter, 1):
                assert counter % 2 == 0 or kept_promises < 1000
        await again.close()


async def test_a_snapshot_never_takes_back_what_was_saved_while_it_was_written(
    tmp_path: Path,
) -> None:
    registers = await open_log(tmp_path)
    saves: list[Awaitable[None]] = []
    for n in range(400):
        saves.append(registers.save(f"r{n % 3}", accepted(n + 1, 200)))
        if n % 7 == 0:
            await asyncio.sleep(0)
    results = await asyncio.gather(*saves, return_exceptions=True)
    await registers.close()

    again = await open_log(tmp_path)

    assert not [error for error in results if isinstance(error, EnvdError)]
    assert [again.get(f"r{n}") for n in range(3)] == [
        accepted(400, 200),
        accepted(398, 200),
        accepted(399, 200),
    ]
    await again.close()
