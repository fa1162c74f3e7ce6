"""Many segments: rotation, recycling, restarts. No record is lost, none comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from envd.core.errors import EnvdError
from envd.core.hlc import bound_for
from tests.storage.journals import (
    SEGMENT_BYTES,
    Outcome,
    read_after,
    record,
    recover,
    started,
    write_group,
    write_groups,
)
from tests.storage.world import WitnessSealer


async def test_a_group_never_outgrows_its_segment(tmp_path: Path) -> None:
    sealer = WitnessSealer()
    journal = await started(tmp_path, sealer)
    records = [record(lsn, 3000) for lsn in range(1, 101)]

    await write_group(journal, records)
    await journal.close()

    assert recover(tmp_path, sealer).records == records
    assert journal.storage_bytes() == SEGMENT_BYTES * len(journal._segments)


async def test_the_largest_record_that_is_taken_fits_exactly(tmp_path: Path) -> None:
    sealer = WitnessSealer()
    journal = await started(tmp_path, sealer)
    largest = journal._frame_room - 8

    with pytest.raises(EnvdError) as refused:
        await write_group(journal, [bytes(largest + 1)])
    await write_group(journal, [bytes(largest)])
    await journal.close()

    assert refused.value.reason == "LIMIT_EXCEEDED"
    assert recover(tmp_path, sealer).records == [bytes(largest)]


async def test_recycling_loses_no_record_and_revives_none(tmp_path: Path) -> None:
    sealer = WitnessSealer()
    journal = await started(tmp_path, sealer, keep_segments=2)
    outcomes = []

    for round_ in range(30):
        await write_groups(journal, 3, 2, 4, record_bytes=2000)
        covered = max(0, journal.last_lsn - 10 - round_ % 7)
        journal.cover(covered)
        if round_ % 5 == 4:
            outcomes.append((covered, journal.last_lsn, recover(tmp_path, sealer, covered)))
    assert journal.storage_bytes() <= 5 * SEGMENT_BYTES
    await journal.close()

    for covered, last, outcome in outcomes:
        assert outcome.refused is None
        assert outcome.dropped is None
        wanted = [record(lsn, 2000) for lsn in range(covered + 1, last + 1)]
        assert outcome.records[-len(wanted) :] == wanted


async def test_bits_flipped_in_the_leftovers_of_a_recycled_segment_do_nothing(
    tmp_path: Path,
) -> None:
    sealer = WitnessSealer()
    journal = await started(tmp_path, sealer, keep_segments=1)
    for _ in range(22):
        await write_groups(journal, 20, record_bytes=500)
        journal.cover(journal.last_lsn)
    await journal.close()
    last = journal._segments[-1]
    whole = recover(tmp_path, sealer, covered=journal.last_lsn)
    data = last.path.read_bytes()
    leftovers = data.find(b"GRUP", last.end)

    for position in range(leftovers, leftovers + 400):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        last.path.write_bytes(changed)
        assert recover(tmp_path, sealer, covered=journal.last_lsn) == whole

    assert leftovers != -1
    assert (whole.refused, whole.dropped) == (None, None)


async def test_a_spare_left_by_a_crash_makes_no_gap(tmp_path: Path) -> None:
    sealer = WitnessSealer()
    for _ in range(6):
        journal = await started(tmp_path, sealer)
        await write_groups(journal, 2)
        await journal.close()
    (tmp_path / "spare").write_bytes(bytes(1000))

    journal = await started(tmp_path, sealer, covered=12, keep_segments=1)
    await write_groups(journal, 1)
    await journal.close()
    outcome = recover(tmp_path, sealer, covered=12)

    assert outcome == Outcome([record(13)], None, None)


async def test_many_restarts_stay_small(tmp_path: Path) -> None:
    sealer = WitnessSealer()

    for _ in range(10):
        journal = await started(tmp_path, sealer)
        await write_groups(journal, 1)
        await journal.close()

    assert journal.storage_bytes() < SEGMENT_BYTES + 10 * 1000
    assert len(recover(tmp_path, sealer).records) == 10


async def test_short_segments_of_restarts_stay_for_those_who_read_on(tmp_path: Path) -> None:
    sealer = WitnessSealer()

    for restart in range(40):
        journal = await started(tmp_path, sealer, covered=restart, keep_segments=1)
        await write_groups(journal, 1)
        journal.cover(restart + 1)
        if restart == 9:
            read = read_after(journal, sealer, 0)
            assert [raw for _, raw in read] == [record(n) for n in range(1, 11)]
        await journal.close()

    assert 10 < len(journal._segments) <= 17  # 16 times keep_segments, and the one in use
    assert journal.storage_bytes() < 2 * SEGMENT_BYTES


async def test_the_bound_of_stamps_comes_back(tmp_path: Path) -> None:
    sealer = WitnessSealer()
    journal = await started(tmp_path, sealer)
    await write_group(journal, [b"first"], hlc=1 << 40)
    await write_group(journal, [b"second"], hlc=5)
    await journal.close()

    again = await started(tmp_path, sealer)

    assert again.hlc_bound == bound_for(1 << 40)
    await again.close()


async def test_a_record_that_comes_after_the_end_is_refused(tmp_path: Path) -> None:
    journal = await started(tmp_path, WitnessSealer())
    await journal.close()

    with pytest.raises(EnvdError) as refused:
        await write_group(journal, [b"late"])

    assert refused.value.reason == "STOPPING"


async def test_to_resume_where_nothing_was_refused_lets_what_waits_be_written(
    tmp_path: Path,
) -> None:
    sealer = WitnessSealer()
    journal = await started(tmp_path, sealer)
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    with journal._wake:  # The writer can't take it before.
        journal.append(record(1), 0, lambda lsn, _: done.set_result(lsn))
        journal.resume()
    lsn = await done
    await journal.close()

    assert lsn == 1
    assert recover(tmp_path, sealer).records == [record(1)]
