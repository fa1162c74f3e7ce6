"""What a start makes of a journal that a crash, a bad disk or a hand has changed.

Every byte is tried. The verdict is one of three, each told apart: all records are there; the
last group is dropped and reported; or the start is refused, naming file and byte, and has
changed nothing. Never a wrong record, never a missing one without a word.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from envd.core.errors import Corrupt, EnvdError, NotFound
from envd.storage import segment
from envd.storage.recovery import DroppedTail
from envd.storage.segment import RawFrame
from tests.storage.journals import (
    Outcome,
    read_after,
    record,
    recover,
    started,
    write_group,
    write_groups,
)
from tests.storage.world import WitnessSealer


@dataclass(frozen=True)
class Written:
    """A journal of known records: `frames` of the last segment, `total` records in all."""

    directory: Path
    sealer: WitnessSealer
    total: int

    @property
    def segments(self) -> list[Path]:
        return sorted(self.directory.glob("*.seg"))

    @property
    def last(self) -> Path:
        return self.segments[-1]

    def frames(self, path: Path) -> list[RawFrame]:
        header = segment.SegmentHeader.from_bytes(path.read_bytes()[: segment.HEADER_BYTES])
        return list(segment.raw_frames(path.read_bytes(), header.number))

    def expected(self, lost: int = 0) -> list[bytes]:
        return [record(lsn) for lsn in range(1, self.total - lost + 1)]

    def with_bytes(self, path: Path, data: bytes) -> Outcome:
        """Recover while `path` holds `data`; put back what it held."""
        whole = path.read_bytes()
        path.write_bytes(data)
        try:
            return recover(self.directory, self.sealer)
        finally:
            path.write_bytes(whole)

    def with_flip(self, path: Path, position: int) -> Outcome:
        """Recover with one bit flipped, another one for each position."""
        data = bytearray(path.read_bytes())
        data[position] ^= 1 << position % 8
        return self.with_bytes(path, bytes(data))


@pytest.fixture
async def written(tmp_path: Path) -> Written:
    """Two starts' segments, the last one with four groups, of which the last has 3 records."""
    sealer = WitnessSealer()
    for sizes in ((2, 1), (2, 4, 1, 3)):
        journal = await started(tmp_path, sealer)
        await write_groups(journal, *sizes)
        await journal.close()
    return Written(tmp_path, sealer, total=13)


def assert_refused(outcome: Outcome, path: Path, position: int) -> None:
    refused = outcome.refused
    assert isinstance(refused, Corrupt)
    assert str(path) in refused.message
    assert f"byte {position}," in refused.message
    assert "nothing was changed" in refused.message
    assert refused.hint
    assert refused.reason == "JOURNAL_DAMAGED"


# -- damage at every byte ---------------------------------------------------------------------


def test_an_untouched_journal_gives_every_record(written: Written) -> None:
    outcome = recover(written.directory, written.sealer)

    assert outcome == Outcome(written.expected(), None, None)


def test_cut_anywhere_in_the_last_group_it_is_dropped_and_reported(written: Written) -> None:
    data = written.last.read_bytes()
    frame = written.frames(written.last)[-1]

    for cut in range(frame.position, frame.position + segment.FRAME_HEADER_BYTES + len(frame.body)):
        outcome = written.with_bytes(written.last, data[:cut])

        assert outcome.records == written.expected(lost=3), cut
        assert outcome.dropped == DroppedTail(written.last, frame.position, cut - frame.position)
        assert outcome.refused is None


def test_cut_behind_the_last_group_nothing_is_lost_and_the_cut_is_reported(
    written: Written,
) -> None:
    data = written.last.read_bytes()
    frame = written.frames(written.last)[-1]

    for cut in range(frame.end, frame.end + len(segment.END_MARK)):
        outcome = written.with_bytes(written.last, data[:cut])

        assert outcome.records == written.expected(), cut
        assert outcome.dropped == DroppedTail(written.last, frame.end, cut - frame.end)


def test_a_bit_flipped_anywhere_in_the_last_group_drops_it_and_no_other(
    written: Written,
) -> None:
    frame = written.frames(written.last)[-1]
    padding = frame.position + segment.FRAME_HEADER_BYTES + len(frame.body)

    for position in range(frame.position, frame.end):
        outcome = written.with_flip(written.last, position)

        lost = 3 if position < padding else 0
        assert outcome.records == written.expected(lost), position
        assert (outcome.dropped is not None) == (lost > 0)
        assert outcome.refused is None


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_bit_flipped_before_a_later_group_is_refused(written: Written, which: int) -> None:
    frame = written.frames(written.last)[which]
    padding = frame.position + segment.FRAME_HEADER_BYTES + len(frame.body)

    for position in range(frame.position, padding):
        outcome = written.with_flip(written.last, position)

        assert_refused(outcome, written.last, frame.position)
        assert outcome.records == []


def test_a_bit_flipped_in_the_last_group_of_an_earlier_segment_is_refused(
    written: Written,
) -> None:
    first = written.segments[0]
    frame = written.frames(first)[-1]
    padding = frame.position + segment.FRAME_HEADER_BYTES + len(frame.body)

    for position in range(frame.position, padding):
        assert_refused(written.with_flip(first, position), first, frame.position)


def test_an_earlier_segment_cut_short_is_refused(written: Written) -> None:
    first = written.segments[0]
    data = first.read_bytes()
    one, two = written.frames(first)
    whole = [frame.position + segment.FRAME_HEADER_BYTES + len(frame.body) for frame in (one, two)]

    for cut in range(segment.HEADER_BYTES, whole[1]):
        outcome = written.with_bytes(first, data[:cut])

        assert_refused(outcome, first, one.position if cut < whole[0] else two.position)


@pytest.mark.parametrize("which", [0, -1])
def test_a_bit_flipped_anywhere_in_a_segments_header_is_refused(
    written: Written, which: int
) -> None:
    path = written.segments[which]

    for position in range(segment.HEADER_BYTES):
        outcome = written.with_flip(path, position)

        assert outcome.records == []
        assert outcome.refused is not None, position
        assert str(path) in outcome.refused.message
        assert "byte 0" in outcome.refused.message
        assert outcome.refused.hint


def test_a_header_cut_short_is_refused(written: Written) -> None:
    data = written.last.read_bytes()

    for cut in range(segment.HEADER_BYTES):
        assert_refused(written.with_bytes(written.last, data[:cut]), written.last, 0)


def test_a_bit_flipped_in_the_end_mark_is_reported_and_costs_nothing(written: Written) -> None:
    end = written.frames(written.last)[-1].end

    for position in range(end, end + len(segment.END_MARK)):
        outcome = written.with_flip(written.last, position)

        assert outcome.records == written.expected(), position
        assert outcome.dropped is not None
        assert outcome.dropped.position == end


def test_a_newer_format_is_told_from_damage(written: Written) -> None:
    data = bytearray(written.last.read_bytes())
    data[7] = ord("2")

    outcome = written.with_bytes(written.last, bytes(data))

    assert outcome.refused is not None
    assert outcome.refused.reason == "NEWER_FORMAT"
    assert not isinstance(outcome.refused, Corrupt)


def test_another_storage_key_is_refused_as_such(written: Written) -> None:
    outcome = recover(written.directory, WitnessSealer(b"another key".ljust(32)))

    assert outcome.records == []
    assert outcome.refused is not None
    assert outcome.refused.reason == "JOURNAL_SEALED_OTHERWISE"
    assert "keyring" in outcome.refused.hint


# -- missing files ----------------------------------------------------------------------------


async def test_a_missing_segment_is_refused_unless_the_state_covers_it(tmp_path: Path) -> None:
    sealer = WitnessSealer()
    for _ in range(4):
        journal = await started(tmp_path / "journal", sealer)
        await write_groups(journal, 2)
        await journal.close()
    segments = sorted((tmp_path / "journal").glob("*.seg"))

    outcomes = []
    for place in range(3):
        shutil.copytree(tmp_path / "journal", tmp_path / f"without {place}")
        (tmp_path / f"without {place}" / segments[place].name).unlink()
        outcomes.append(recover(tmp_path / f"without {place}", sealer))
    covered = recover(tmp_path / "without 0", sealer, covered=2)

    assert [outcome.records for outcome in outcomes] == [[], [], []]
    for outcome in outcomes:
        assert isinstance(outcome.refused, Corrupt)
        assert outcome.refused.reason == "JOURNAL_INCOMPLETE"
        assert outcome.refused.hint
    assert covered.records == [record(lsn) for lsn in range(3, 9)]
    assert covered.refused is None


@pytest.mark.parametrize("place", ["00000000000000000001.seg", "spare"])
async def test_a_directory_in_a_files_place_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir()

    with pytest.raises(EnvdError) as refused:
        await started(tmp_path, WitnessSealer())

    assert str(tmp_path) in refused.value.message
    assert "EISDIR" in refused.value.message


# -- after a dropped tail ---------------------------------------------------------------------


async def test_after_a_dropped_tail_a_node_goes_on_and_restarts(written: Written) -> None:
    frame = written.frames(written.last)[-1]
    damaged = written.last
    tail = damaged.read_bytes()[frame.position : frame.end - 9]
    with damaged.open("r+b") as file:
        file.truncate(frame.end - 9)

    lost_lsns: list[int] = []
    for _ in range(3):
        journal = await started(written.directory, written.sealer)
        lost_lsns += await write_group(journal, [b"later"])
        await journal.close()
    outcome = recover(written.directory, written.sealer)

    assert outcome.records == [*written.expected(lost=3), b"later", b"later", b"later"]
    assert outcome.dropped is None
    assert lost_lsns == [11, 12, 13]
    assert damaged.read_bytes()[frame.position :] == tail  # Kept for whoever wants to look.


async def test_a_dropped_tail_that_turns_whole_again_stays_dropped(written: Written) -> None:
    last, whole = written.last, written.last.read_bytes()
    frame = written.frames(last)[-1]
    last.write_bytes(whole[: frame.end - 9])
    journal = await started(written.directory, written.sealer)
    await write_group(journal, [b"later"])
    await journal.close()
    last.write_bytes(whole)

    outcome = recover(written.directory, written.sealer)

    assert outcome.records == [*written.expected(lost=3), b"later"]
    assert outcome.refused is None


async def test_replay_does_not_skip_records_that_only_the_state_holds(written: Written) -> None:
    frame = written.frames(written.last)[-1]
    with written.last.open("r+b") as file:
        file.truncate(frame.end - 9)
    journal = await started(written.directory, written.sealer, covered=13)
    await write_group(journal, [b"later"])

    with pytest.raises(NotFound):
        read_after(journal, written.sealer, 9)
    after_the_gap = read_after(journal, written.sealer, 13)

    assert after_the_gap == [(14, b"later")]
    await journal.close()


async def test_damage_under_a_running_journal_is_no_compaction(written: Written) -> None:
    journal = await started(written.directory, written.sealer)
    path = written.segments[1]
    data = bytearray(path.read_bytes())
    data[written.frames(path)[1].position + 50] ^= 1
    path.write_bytes(data)

    with pytest.raises(Corrupt) as damaged:
        read_after(journal, written.sealer, 0)

    assert str(path) in damaged.value.message
    await journal.close()
