"""A state that was cut short or changed: said at the start, or all of it is right.

LMDB itself would answer with a signal, or with what is not there.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import lmdb
import pytest

from envd.core.errors import Corrupt, StorageError
from envd.ports import Store, StoredState
from envd.storage import check, pages
from envd.storage.check import StateCheck, check_state, start_check
from tests.storage.world import OPTIONS, WitnessSealer, Writer, bytes_in, open_store, values_of

NAMES = [f"team/e{n}" for n in range(24)]
PAGE = 4096
META_BYTES = 16 + 136
Answers = dict[str, StoredState | None]


def answers(store: Store) -> Answers:
    return {name: store.visible(name) for name in NAMES}


async def fill(directory: Path) -> Answers:
    """Write a state of all kinds of pages: branches, leaves, overflow, free ones."""
    store = await open_store(directory, options=replace(OPTIONS, keep_segments=1))
    writer = Writer(store)
    for round_ in range(4):
        for n, name in enumerate(NAMES):
            size = (40, 700, 9000)[(n + round_) % 3]
            values = {f"K{round_}": f"{round_}/{n} ".ljust(size, "v")}
            await writer.commit(name, values, operation=f"{round_}/{n}")
        await store.flush()
    await writer.commit(NAMES[0], deletes=True)
    await store.flush()
    found = answers(store)
    await store.close()
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answers]:
    """A closed data directory, and what it holds; nobody writes there."""
    directory = tmp_path_factory.mktemp("filled")
    return directory, asyncio.run(fill(directory))


@pytest.fixture
def directory(filled: tuple[Path, Answers], tmp_path: Path) -> Path:
    """A copy of the filled directory."""
    return Path(shutil.copytree(filled[0], tmp_path / "data"))


def data_file(directory: Path) -> Path:
    return directory / "state" / "data.mdb"


def meta_of(data: bytes) -> pages.Meta:
    return pages.newest_meta(lambda position, size: data[position : position + size])


# -- what is whole -----------------------------------------------------------------------------


def test_a_whole_state_passes(directory: Path) -> None:
    before = bytes_in(directory)

    check_state(directory, deep=False)
    check_state(directory, deep=True)
    start_check(directory).finish()

    assert bytes_in(directory) == before


def test_a_directory_without_a_state_and_an_empty_file_pass(tmp_path: Path) -> None:
    check_state(tmp_path, deep=True)
    (tmp_path / "state").mkdir()
    data_file(tmp_path).write_bytes(b"")

    check_state(tmp_path, deep=True)
    start_check(tmp_path).finish()


def test_a_file_shorter_than_its_meta_page_says_passes_where_only_free_pages_are_missing(
    tmp_path: Path,
) -> None:
    (tmp_path / "state").mkdir()
    chance = Random(1)
    short = False
    with lmdb.open(
        str(tmp_path / "state"), max_dbs=len(pages.TABLES), map_size=1 << 26
    ) as environment:
        with environment.begin(write=True) as transaction:
            tables = [environment.open_db(name, txn=transaction) for name in pages.TABLES]
        while not short:  # Pages that are taken and given back at once are never written.
            with environment.begin(write=True) as transaction:
                taken = [
                    (chance.randbytes(30), chance.choice(tables))
                    for _ in range(chance.randrange(200))
                ]
                for key, table in taken:
                    transaction.put(key, bytes(1500), db=table)
                for key, table in chance.sample(taken, len(taken)):
                    transaction.delete(key, db=table)
            data = data_file(tmp_path).read_bytes()
            short = len(data) < (meta_of(data).last_page + 1) * PAGE

    check_state(tmp_path, deep=False)
    counted = pages.walk(data)

    assert sum(counted.values()) == 0


def test_the_check_runs_by_hand(directory: Path) -> None:
    command = [sys.executable, "-m", "envd.storage.check", str(directory)]

    whole = subprocess.run(command, capture_output=True, text=True)
    with data_file(directory).open("r+b") as file:
        file.truncate(5 * PAGE)
    cut = subprocess.run(command, capture_output=True, text=True)

    assert (whole.returncode, whole.stderr) == (0, "")
    assert cut.returncode == 1
    assert "error: the state in" in cut.stderr
    assert "hint: " in cut.stderr


# -- cut short ------------------------------------------------------------------------------------


def test_cut_short_at_any_page_in_use_the_walk_finds_it(directory: Path) -> None:
    whole = data_file(directory).read_bytes()
    sizes = [size + odd for size in range(0, len(whole), PAGE) for odd in (0, 1, PAGE - 1)]

    passes = [walk_passes(whole[:size]) for size in sizes]

    # At the end stand pages that are free; up to them, each cut is found.
    assert passes == sorted(passes)
    assert passes.index(True) > len(sizes) * 3 // 4


def test_cut_short_the_state_is_refused_before_it_is_mapped(directory: Path) -> None:
    file = data_file(directory)
    whole = file.read_bytes()

    for size in (1, 100, PAGE - 1, PAGE, 2 * PAGE - 1, 2 * PAGE, 9 * PAGE, len(whole) // 2):
        file.write_bytes(whole[:size])
        with pytest.raises(Corrupt) as refused:
            check_state(directory, deep=False)

        assert refused.value.reason == "STATE_DAMAGED"
        assert str(file) in refused.value.message
        assert "nothing was changed" in refused.value.hint


async def test_cut_short_by_free_pages_alone_all_answers_are_right(
    filled: tuple[Path, Answers], directory: Path
) -> None:
    whole = data_file(directory).read_bytes()
    size = next(size for size in range(0, len(whole), PAGE) if walk_passes(whole[:size]))

    found = await answers_or_refusal(directory, whole[:size])

    assert size < len(whole)
    assert found == filled[1]


async def test_the_start_refuses_a_cut_state_and_changes_nothing(directory: Path) -> None:
    data_file(directory).write_bytes(data_file(directory).read_bytes()[: 9 * PAGE])
    before = bytes_in(directory)

    with pytest.raises(Corrupt):
        await open_store(directory)

    assert bytes_in(directory) == before


# -- changed bytes ----------------------------------------------------------------------------


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << position % 8
    return bytes(changed)


def walk_passes(data: bytes) -> bool:
    try:
        pages.walk(data)
    except pages.Damage:
        return False
    return True


async def answers_or_refusal(directory: Path, data: bytes) -> Answers | StorageError:
    """Open a state that the walk let pass, read all, write, and read all again."""
    shutil.rmtree(directory / "state")
    (directory / "state").mkdir()
    data_file(directory).write_bytes(data)
    try:
        # The walk was done already, so no child does it again.
        store = await open_store(directory, check=StateCheck(data_file(directory)))
        try:
            found = answers(store)
            await Writer(store, hlc=store.highest_hlc()).commit("other", {"X": "v" * 9000})
            await store.flush()
            assert answers(store) == found
        finally:
            await store.close()
    except StorageError as error:
        return error
    assert walk_passes(data_file(directory).read_bytes())
    return found


async def test_bits_flipped_all_over_the_file_give_a_refusal_or_right_answers(
    filled: tuple[Path, Answers], directory: Path
) -> None:
    data = data_file(directory).read_bytes()
    journal = shutil.copytree(directory / "journal", directory / "journal kept")
    passed = [
        position
        for position in range(2 * PAGE, len(data), 997)
        if walk_passes(flipped(data, position))
    ]

    found = []
    for position in passed[::16]:
        found.append(await answers_or_refusal(directory, flipped(data, position)))
        shutil.rmtree(directory / "journal")
        shutil.copytree(journal, directory / "journal")

    assert 0 < len(passed) < len(range(2 * PAGE, len(data), 997)) * 3 // 4
    assert all(one == filled[1] for one in found)


async def test_a_bit_flipped_anywhere_in_the_meta_pages_gives_a_refusal_or_right_answers(
    filled: tuple[Path, Answers], directory: Path
) -> None:
    data = data_file(directory).read_bytes()
    journal = shutil.copytree(directory / "journal", directory / "journal kept")
    positions = [*range(META_BYTES), *range(PAGE, PAGE + META_BYTES)]
    passed = [position for position in positions if walk_passes(flipped(data, position))]

    outcomes = []
    for position in passed[::4]:
        outcomes.append(await answers_or_refusal(directory, flipped(data, position)))
        shutil.rmtree(directory / "journal")
        shutil.copytree(journal, directory / "journal")

    assert len(passed) < len(positions) - 60
    for outcome in outcomes:
        if isinstance(outcome, StorageError):
            assert outcome.hint
        else:
            assert outcome == filled[1]


def test_every_byte_of_a_page_in_use_that_means_something_is_watched(directory: Path) -> None:
    data = data_file(directory).read_bytes()
    root = meta_of(data).main.root * PAGE
    lower, upper = struct.unpack_from("=HH", data, root + 12)
    unnoticed = [
        position - root
        for position in (*range(root, root + lower), *range(root + upper, root + PAGE))
        if walk_passes(flipped(data, position))
    ]

    # Not looked at: the pad of the page, and of each table's record the pad and the counts of
    # pages, which serve statistics alone.
    assert len(unnoticed) <= 2 + len(pages.TABLES) * (4 + 24) + upper - lower
    assert not set(unnoticed) & set(range(8))


# -- when the walk is made ---------------------------------------------------------------------


async def test_the_marker_stands_while_the_store_is_open(tmp_path: Path) -> None:
    marker = tmp_path / "state" / "unclean"
    store = await open_store(tmp_path)

    while_open = marker.exists()
    await Writer(store).commit("a", {"X": "1"})
    await store.close()

    assert while_open
    assert not marker.exists()


def walks(directory: Path) -> bool:
    """Tell whether a check of this directory starts a walk."""
    begun = start_check(directory)
    walking = begun._child is not None
    begun.finish()
    return walking


def test_a_large_state_is_walked_after_an_unclean_stop_only(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = walks(directory)
    monkeypatch.setattr(check, "CHEAP_BYTES", 1)
    clean = walks(directory)
    (directory / "state" / "unclean").touch()
    unclean = walks(directory)

    assert (small, clean, unclean) == (True, False, True)


def test_a_large_state_that_is_short_is_walked(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "CHEAP_BYTES", 1)
    file = data_file(directory)
    file.write_bytes(file.read_bytes()[: 9 * PAGE])

    with pytest.raises(Corrupt):
        start_check(directory).finish()


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (-signal.SIGBUS, Corrupt, "STATE_DAMAGED"),
        (-signal.SIGSEGV, Corrupt, "STATE_DAMAGED"),
        (pages.DAMAGED_EXIT, Corrupt, "STATE_DAMAGED"),
        (-signal.SIGKILL, StorageError, "STATE_UNCHECKED"),
        (1, StorageError, "STATE_UNCHECKED"),
    ],
)
def test_how_the_walk_ended_is_told_apart(code: int, kind: type[StorageError], reason: str) -> None:
    error = check._outcome(Path("data.mdb"), code, "a page is damaged\n", "MemoryError\n")

    assert type(error) is kind
    assert error.reason == reason
    assert error.hint


async def test_a_store_written_after_a_check_passes_the_next(directory: Path) -> None:
    store = await open_store(directory, WitnessSealer())
    for n in range(5):
        await Writer(store, hlc=store.highest_hlc() + n).commit(f"new{n}", {"X": "v" * 5000})
        await store.flush()
        check_state(directory, deep=True)

    assert values_of(store, "new4") == {"X": "v" * 5000}
    await store.close()
