"""The log page by page: forward readers cost what they read, and nothing is left out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from envd.core.errors import Corrupt, EnvdError, NotFound
from envd.ports import Subkey
from envd.storage.journal import Journal
from envd.storage.log_pages import MAX_PLACES, LogPages
from tests.storage.journals import SEGMENT_BYTES, started, write_groups
from tests.storage.world import KIB, WitnessSealer


class CountingSealer(WitnessSealer):
    """Counts how many frames are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0

    def subkey(self, purpose: bytes, header: bytes) -> Subkey:
        self.opened += 1
        return super().subkey(purpose, header)


@pytest.fixture
def sealer() -> CountingSealer:
    return CountingSealer()


@pytest.fixture
async def journal(tmp_path: Path, sealer: CountingSealer) -> AsyncIterator[Journal]:
    opened = await started(tmp_path, sealer)
    yield opened
    with suppress(EnvdError):
        await opened.close()


def read_all(pages: LogPages, last_lsn: int, max_bytes: int, after: int = 0) -> list[int]:
    """The lsns that a reader gets; holds that each page fits, and each record is its own."""
    found: list[int] = []
    while page := pages.read(found[-1] if found else after, last_lsn, max_bytes):
        assert len(page) == 1 or sum(len(row) for _, row in page) <= max_bytes
        assert all(row.startswith(f"record {lsn} ".encode()) for lsn, row in page)
        found += [lsn for lsn, _ in page]
    return found


@pytest.mark.parametrize("max_bytes", [1, 2500, 10_000, 1 << 20])
async def test_pages_go_on_over_groups_and_segments(
    journal: Journal, sealer: CountingSealer, max_bytes: int
) -> None:
    await write_groups(journal, *[3, 1, 7, 20] * 5, record_bytes=1000)
    pages = LogPages(journal, sealer)
    frames = 20
    sealer.opened = 0

    found = read_all(pages, journal.last_lsn, max_bytes)

    assert len(journal.segments) > 2
    assert found == list(range(1, journal.last_lsn + 1))
    assert sealer.opened == frames


async def test_a_reader_that_waits_at_the_end_opens_what_comes_and_nothing_else(
    journal: Journal, sealer: CountingSealer
) -> None:
    await write_groups(journal, *[5] * 20, record_bytes=1000)
    pages = LogPages(journal, sealer)
    read_all(pages, journal.last_lsn, KIB)
    sealer.opened = 0

    for _ in range(10):
        last = journal.last_lsn
        assert pages.read(last, last, KIB) == []
        await write_groups(journal, 1, record_bytes=1000)
        assert [lsn for lsn, _ in pages.read(last, journal.last_lsn, KIB)] == [last + 1]

    assert sealer.opened <= 10 + len(journal.segments)


async def test_who_begins_in_the_middle_opens_nothing_before_it(
    journal: Journal, sealer: CountingSealer
) -> None:
    await write_groups(journal, *[5] * 10, record_bytes=100)
    pages = LogPages(journal, sealer)
    sealer.opened = 0

    page = pages.read(42, journal.last_lsn, 1)

    assert [lsn for lsn, _ in page] == [43]
    assert sealer.opened == 1


async def test_many_readers_in_any_order_each_get_all(
    journal: Journal, sealer: CountingSealer
) -> None:
    await write_groups(journal, *[4] * 30, record_bytes=1000)
    pages = LogPages(journal, sealer)
    chance = Random(1)
    readers = {n: chance.randrange(40) for n in range(2 * MAX_PLACES)}
    found = {n: [after] for n, after in readers.items()}

    while readers:
        n = chance.choice(sorted(readers))
        page = pages.read(found[n][-1], journal.last_lsn, chance.randrange(1, 9000))
        found[n] += [lsn for lsn, _ in page]
        if not page:
            del readers[n]

    for lsns in found.values():
        assert lsns == list(range(lsns[0], journal.last_lsn + 1))


async def test_what_is_not_wanted_is_left_out_and_not_read_again(
    journal: Journal, sealer: CountingSealer
) -> None:
    await write_groups(journal, *[3] * 10)
    pages = LogPages(journal, sealer, lambda row: row.startswith((b"record 2 ", b"record 29 ")))
    sealer.opened = 0

    found = read_all(pages, 28, 1)
    after = [pages.read(found[-1], last, 1) for last in (28, 28, 29)]
    later = pages.read(29, 30, 1)

    assert found == [2]
    assert [[lsn for lsn, _ in page] for page in after] == [[], [], [29]]
    assert later == []
    assert sealer.opened == 10


async def test_nothing_after_the_last_durable_record_is_told(
    journal: Journal, sealer: CountingSealer
) -> None:
    await write_groups(journal, 5, 5)
    pages = LogPages(journal, sealer)

    assert read_all(pages, 7, 1 << 20) == list(range(1, 8))
    assert [lsn for lsn, _ in pages.read(7, 10, 1 << 20)] == [8, 9, 10]
    assert pages.read(10, 10, 1 << 20) == pages.read(99, 10, 1 << 20) == []


async def test_pages_go_on_over_a_restart(tmp_path: Path, sealer: CountingSealer) -> None:
    for n in range(3):
        journal = await started(tmp_path, sealer)
        await write_groups(journal, 4, 4)
        if n < 2:
            await journal.close()

    assert read_all(LogPages(journal, sealer), 24, 60) == list(range(1, 25))
    assert journal.oldest_lsn == 1
    await journal.close()


# -- recycling --------------------------------------------------------------------------------


async def test_what_was_recycled_is_told_as_gone_also_to_who_stood_in_it(
    tmp_path: Path, sealer: CountingSealer
) -> None:
    journal = await started(tmp_path, sealer, keep_segments=1)
    await write_groups(journal, *[10] * 8, record_bytes=1000)
    pages = LogPages(journal, sealer)
    pages.read(0, journal.last_lsn, 1)  # stands within a frame of the first segment
    pages.read(9, journal.last_lsn, 1)  # stands at its end
    before = journal.oldest_lsn

    journal.cover(journal.last_lsn)
    await write_groups(journal, *[10] * 20, record_bytes=1000)

    oldest = journal.oldest_lsn
    assert before == 1 < oldest
    for after in (0, 2, 10, oldest - 2):
        with pytest.raises(NotFound) as gone:
            read_all(pages, journal.last_lsn, KIB, after)
        assert gone.value.reason == "COMPACTED"
    assert read_all(pages, journal.last_lsn, 3 * KIB, oldest - 1) == list(
        range(oldest, journal.last_lsn + 1)
    )
    await journal.close()


async def test_what_is_held_is_not_recycled_until_it_is_let_go(
    tmp_path: Path, sealer: CountingSealer
) -> None:
    journal = await started(tmp_path, sealer, keep_segments=1)
    await write_groups(journal, *[10] * 8, record_bytes=1000)
    journal.hold(15)
    journal.cover(journal.last_lsn)

    await write_groups(journal, *[10] * 20, record_bytes=1000)
    held = journal.oldest_lsn
    read = read_all(LogPages(journal, sealer), journal.last_lsn, 9 * KIB, 15)
    journal.hold(200)
    journal.cover(journal.last_lsn)
    await write_groups(journal, *[10] * 10, record_bytes=1000)
    later = journal.oldest_lsn
    journal.hold(None)
    journal.cover(journal.last_lsn)
    await write_groups(journal, *[10] * 20, record_bytes=1000)

    assert held <= 16
    assert read == list(range(16, 281))
    assert held < later <= 201
    assert journal.oldest_lsn > 201
    assert journal.storage_bytes() <= 4 * SEGMENT_BYTES
    await journal.close()


async def test_holding_more_than_there_is_keeps_no_less_than_without(
    tmp_path: Path, sealer: CountingSealer
) -> None:
    journal = await started(tmp_path, sealer, keep_segments=3)
    journal.hold(10**9)
    for _ in range(6):
        journal.cover(journal.last_lsn)
        await write_groups(journal, *[10] * 6, record_bytes=1000)

    assert len(journal.segments) >= 3
    await journal.close()


async def test_a_journal_that_starts_behind_its_state_has_nothing_before(
    tmp_path: Path, sealer: CountingSealer
) -> None:
    journal = await started(tmp_path, sealer, covered=100)
    empty = journal.oldest_lsn
    await write_groups(journal, 3)

    assert (empty, journal.oldest_lsn) == (101, 101)
    with pytest.raises(NotFound):
        LogPages(journal, sealer).read(99, journal.last_lsn, KIB)
    assert len(LogPages(journal, sealer).read(100, journal.last_lsn, KIB)) == 3
    await journal.close()


# -- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [60, 100, 200])
async def test_damage_is_told_with_its_file_and_not_passed_over(
    journal: Journal, sealer: CountingSealer, place: int
) -> None:
    await write_groups(journal, 1, 1, 1)
    path = journal.segments[-1].path
    data = bytearray(path.read_bytes())
    data[place + 10] ^= 1
    path.write_bytes(data)

    with pytest.raises(Corrupt) as damaged:
        read_all(LogPages(journal, sealer), journal.last_lsn, 1)

    assert str(path) in damaged.value.message
    assert damaged.value.reason == "JOURNAL_DAMAGED"
