"""The store when the disk is full, broken or not to be written, and when LMDB takes no more."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from envd.core.errors import (
    EnvdError,
    LimitExceeded,
    OutcomeUnknown,
    StorageError,
    Unavailable,
)
from envd.core.ring import partition_of
from envd.storage.store import DurableStore
from tests.storage.failing import FailingDisk, StallingSealer, outcomes
from tests.storage.world import (
    KIB,
    MIB,
    NODE,
    OPTIONS,
    Writer,
    bytes_in,
    open_store,
    values_of,
)


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def sealer() -> StallingSealer:
    return StallingSealer()


@pytest.fixture
async def store(
    tmp_path: Path, disk: FailingDisk, sealer: StallingSealer
) -> AsyncIterator[DurableStore]:
    opened = await open_store(tmp_path, sealer, disk=disk)
    yield opened
    sealer.may_flush.set()
    sealer.refusal = None
    with suppress(EnvdError):
        await opened.close()


def in_one_group(
    store: DurableStore, writer: Writer, values: Sequence[str]
) -> list[Awaitable[int]]:
    """Append one commit per value so that the journal takes them as one group."""
    with store._journal._wake:
        return [writer.commit(f"e{n}", {"X": value}) for n, value in enumerate(values)]


BIG = "v" * (40 * KIB)  # One fits a segment, two don't.


# -- a full disk ------------------------------------------------------------------------------


async def test_a_full_disk_refuses_all_that_was_stacked_and_takes_writes_again_later(
    store: DurableStore, disk: FailingDisk
) -> None:
    writer = Writer(store)
    await writer.commit("a", {"X": BIG})
    disk.full = True

    stacked = [
        writer.commit(name, {"X": BIG}, operation="stacked") for name in ("a", "a", "b", "a", "b")
    ]
    refusals = await outcomes(stacked)
    heads = [store.head("a"), store.head("b")]
    operation = store.find_operation("ann", "stacked")
    disk.full = False
    lsns = [await writer.commit(name, {"Y": "later"}) for name in ("a", "b", "a")]

    assert [getattr(refusal, "reason", None) for refusal in refusals] == ["DISK_FULL"] * 5
    assert all(isinstance(refusal, Unavailable) for refusal in refusals)
    assert heads[0] is not None
    assert heads[0].environment.variables["X"].value == BIG
    assert heads[1] is None
    assert operation is None
    assert lsns == [2, 3, 4]
    assert [record.seq for _, record in store.replay(0)] == [1, 2, 1, 3]
    assert values_of(store, "b") == {"Y": "later"}


async def test_what_a_full_disk_refused_is_not_there_after_a_restart(
    store: DurableStore, disk: FailingDisk, tmp_path: Path
) -> None:
    writer = Writer(store)
    await writer.commit("a", {"X": BIG}, operation="first")
    disk.full = True
    refused = await outcomes([writer.commit("a", {"X": BIG}, operation="second")])
    disk.full = False
    await writer.commit("a", {"Y": "later"})
    await store.close()

    again = await open_store(tmp_path)

    assert isinstance(refused[0], Unavailable)
    assert values_of(again, "a") == {"X": BIG, "Y": "later"}
    assert again.find_operation("ann", "first") is not None
    assert again.find_operation("ann", "second") is None
    await again.close()


async def test_a_disk_that_fills_twice_refuses_twice(
    store: DurableStore, disk: FailingDisk
) -> None:
    writer = Writer(store)
    await writer.commit("a", {"X": BIG})
    disk.full = True

    first = await outcomes([writer.commit("a", {"X": BIG}) for _ in range(3)])
    second = await outcomes([writer.commit("a", {"X": BIG}) for _ in range(3)])
    disk.full = False

    assert {getattr(refusal, "reason", None) for refusal in (*first, *second)} == {"DISK_FULL"}
    assert await writer.commit("a", {"X": BIG}) == 2


async def test_a_disk_that_takes_few_bytes_at_a_time_loses_none(
    store: DurableStore, disk: FailingDisk, tmp_path: Path
) -> None:
    disk.most_bytes = 7
    writer = Writer(store)

    await writer.commit("a", {"X": BIG[:5000]})
    await store.close()
    again = await open_store(tmp_path)

    assert values_of(again, "a") == {"X": BIG[:5000]}
    await again.close()


async def test_a_start_on_a_full_disk_is_refused_and_changes_nothing(
    store: DurableStore, disk: FailingDisk, tmp_path: Path
) -> None:
    await Writer(store).commit("a", {"X": "1"})
    await store.close()
    before = bytes_in(tmp_path)
    disk.full = True

    with pytest.raises(Unavailable) as refused:
        await open_store(tmp_path, disk=disk)

    assert refused.value.reason == "DISK_FULL"
    assert bytes_in(tmp_path) == before
    disk.full = False
    again = await open_store(tmp_path, disk=disk)
    assert values_of(again, "a") == {"X": "1"}
    await again.close()


# -- a broken disk ----------------------------------------------------------------------------


async def test_a_failed_sync_leaves_the_outcome_unknown_and_stops_writes(
    store: DurableStore, disk: FailingDisk, tmp_path: Path
) -> None:
    writer = Writer(store)
    told: list[EnvdError] = []
    store.on_failure(told.append)
    await writer.commit("e0", {"X": "old"})
    disk.unsynced = True

    unknown = await outcomes(in_one_group(store, writer, ["new", "new"]))
    disk.unsynced = False
    refused = await outcomes([writer.commit("e0", {"X": "newer"}) for _ in range(2)])

    assert [type(outcome) for outcome in unknown] == [OutcomeUnknown] * 2
    assert [type(error) for error in told] == [OutcomeUnknown]
    assert [getattr(outcome, "reason", None) for outcome in refused] == ["JOURNAL_FAILED"] * 2
    assert values_of(store, "e0") == {"X": "old"}
    await store.close()
    again = await open_store(tmp_path)
    assert values_of(again, "e0")["X"] in ("old", "new")
    assert await Writer(again, hlc=writer.hlc).commit("e0", {"X": "newest"}) in (2, 4)
    await again.close()


async def test_a_torn_write_is_dropped_and_reported_by_the_restart(
    store: DurableStore, disk: FailingDisk, tmp_path: Path
) -> None:
    writer = Writer(store)
    await writer.commit("e0", {"X": "old"})
    disk.tears = True

    unknown = await outcomes(in_one_group(store, writer, ["new", "new"]))
    await store.close()
    again = await open_store(tmp_path)

    assert [type(outcome) for outcome in unknown] == [OutcomeUnknown] * 2
    assert values_of(again, "e0") == {"X": "old"}
    assert values_of(again, "e1") == {}
    assert again.dropped_tail is not None
    assert await Writer(again).commit("e0", {"X": "newest"}) == 2
    await again.close()


async def test_a_commit_too_large_for_a_segment_is_refused_and_harms_no_other(
    store: DurableStore,
) -> None:
    writer = Writer(store)

    with pytest.raises(LimitExceeded):
        writer.commit("a", {"X": "v" * (70 * KIB)})

    assert store.head("a") is None
    assert await writer.commit("a", {"X": "1"}) == 1


# -- a real disk without room -----------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 16 MiB, where this process may mount one."""
    place = Path(tempfile.mkdtemp())
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0
    if not mounted:
        place.rmdir()
        pytest.skip("a real full disk: this process may not mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)
    place.rmdir()


def make_read_only(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)


async def test_a_really_full_disk_loses_nothing_and_recovers_once_there_is_room(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(11 * MIB))
    data = small_disk / "data"
    data.mkdir()
    options = replace(OPTIONS, segment_bytes=512 * KIB)
    store = await open_store(data, options=options)
    writer = Writer(store)

    acknowledged, refusal = 0, None
    while refusal is None:
        try:
            await writer.commit(f"e{acknowledged}", {"X": "v" * 60_000})
            acknowledged += 1
        except Unavailable as error:
            refusal = error
    with suppress(StorageError):
        await store.flush()
    readable = [values_of(store, f"e{n}")["X"] for n in range(acknowledged)]
    ballast.unlink()
    await writer.commit("e0", {"Y": "there is room again"})
    await store.close()
    again = await open_store(data, options=options)

    assert refusal.reason == "DISK_FULL"
    assert acknowledged > 20
    assert readable == ["v" * 60_000] * acknowledged
    assert [values_of(again, f"e{n}")["X"] for n in range(acknowledged)] == readable
    assert values_of(again, "e0")["Y"] == "there is room again"
    await again.close()


async def test_a_directory_that_can_not_be_written_is_refused_with_its_path(
    small_disk: Path,
) -> None:
    data = small_disk / "data"
    data.mkdir()
    store = await open_store(data)
    await Writer(store).commit("a", {"X": "1"})
    await store.close()
    make_read_only(small_disk)
    before = bytes_in(data)

    with pytest.raises(StorageError) as refused:
        await open_store(data)

    assert str(data) in refused.value.message
    assert "read-only" in refused.value.hint
    assert bytes_in(data) == before


@pytest.mark.parametrize("place", ["state", "journal", "state/data.mdb", "state/unclean"])
async def test_a_file_and_a_directory_that_changed_places_are_named(
    tmp_path: Path, place: str
) -> None:
    wrong = tmp_path / place
    wrong.parent.mkdir(exist_ok=True)
    if place.startswith("state/"):
        wrong.mkdir()
    else:
        wrong.write_bytes(b"")

    with pytest.raises(StorageError) as refused:
        await open_store(tmp_path)

    assert str(wrong) in refused.value.message
    assert refused.value.hint


# -- a state that takes no more ---------------------------------------------------------------


async def test_with_a_full_map_the_journal_goes_on_and_a_larger_map_gets_it_all(
    tmp_path: Path,
) -> None:
    small = replace(OPTIONS, map_size_bytes=512 * KIB, memtable_bytes=64 * MIB)
    store = await open_store(tmp_path, options=small)
    writer = Writer(store)
    for n in range(100):
        await writer.commit(f"e{n}", {"X": f"{n}".ljust(10_000)})

    with pytest.raises(StorageError) as full:
        await store.flush()
    lsn = await writer.commit("more", {"X": "after"})
    with pytest.raises(StorageError):
        await store.close()
    with pytest.raises(StorageError) as still_full:
        await open_store(tmp_path, options=small)
    again = await open_store(tmp_path)

    assert full.value.reason == still_full.value.reason == "STATE_FULL"
    assert "map_size" in full.value.hint
    assert lsn == 101
    assert [values_of(again, f"e{n}")["X"] for n in range(100)] == [
        f"{n}".ljust(10_000) for n in range(100)
    ]
    assert values_of(again, "more") == {"X": "after"}
    await again.close()


async def test_a_flush_that_failed_is_made_up_for_by_the_next(
    store: DurableStore, sealer: StallingSealer, tmp_path: Path
) -> None:
    writer = Writer(store)
    await writer.commit("a", {"X": "1"}, operation="one")
    await writer.commit("b", {"X": "1"})
    sealer.refusal = StorageError("no")

    with pytest.raises(StorageError):
        await store.flush()
    await writer.commit("a", {"Y": "2"}, operation="two")
    sealer.refusal = None
    await store.flush()
    names = [commit.operation for commit in store.commits("a", None, 9)]
    await store.close()
    again = await open_store(tmp_path)

    assert names == ["two", "one"]
    assert values_of(again, "a") == {"X": "1", "Y": "2"}
    assert [again.last_seq(partition_of(name), NODE) for name in ("a", "b")] == [2, 1]
    assert all(again.find_operation("ann", operation) for operation in names)
    await again.close()
