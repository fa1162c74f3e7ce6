"""The process that makes a backup of an open store, and the directory that a schedule fills."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from envd.core.backups import BackupRequest
from envd.core.errors import Conflict, InvalidRequest, StorageError
from envd.storage.backup_directory import (
    BackupDirectory,
    Keep,
    NewFile,
    file_name,
    list_backups,
)
from envd.storage.backup_process import BackupProcesses
from envd.storage.backup_read import BackupFile, Received, facts
from envd.storage.backup_shelf import DirectoryShelf
from envd.storage.disk import make_directory
from envd.storage.store import DurableStore
from tests.storage.backups import KEEPING, RECOVERY, backup_of, fill, made_state, opened, order_for
from tests.storage.world import START_MS, Writer, open_store

REQUEST = BackupRequest((RECOVERY.public,))
DAY_MS = 86_400_000
PATIENCE_S = 60
UID = f"{7:016x}"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DurableStore]:
    make_directory(tmp_path / "data")
    opened_store = await open_store(tmp_path / "data", options=KEEPING)
    await fill(opened_store)
    await opened_store.flush()
    yield opened_store
    await opened_store.close()


@pytest.fixture
def processes(store: DurableStore, tmp_path: Path) -> BackupProcesses:
    return BackupProcesses(order_for(tmp_path / "data"), store.forget_dead_readers)


async def large(store: DurableStore) -> None:
    """So much that a backup does not fit into pipes."""
    writer = Writer(store)
    for n in range(80):
        await writer.commit(f"big/e{n}", {"K": "x" * 40_000})
    await store.flush()


async def test_a_backup_of_an_open_store_is_what_it_held_when_it_began(
    processes: BackupProcesses, store: DurableStore, tmp_path: Path
) -> None:
    received = Received()
    pieces: list[bytes] = []
    async with aclosing(processes.stream(REQUEST, START_MS)) as stream:
        async for piece in stream:
            if not pieces:  # the header has come, so the snapshot is taken
                await Writer(store, hlc=1 << 62).commit("later", {"A": "1"})
                await store.flush()
            received.take(piece)
            pieces.append(piece)
    received.check()
    await asyncio.to_thread((tmp_path / "b").write_bytes, b"".join(pieces))

    with BackupFile(tmp_path / "b") as file:
        assert opened(file).verify().environments == store.environment_count() - 1 == 3


async def test_what_is_wrong_with_the_request_or_the_state_is_told_by_the_child(
    processes: BackupProcesses, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="passphrase or by recovery keys"):
        await anext(processes.stream(BackupRequest(), START_MS))

    elsewhere = BackupProcesses(order_for(tmp_path / "nowhere"), lambda: None)
    with pytest.raises(StorageError, match="nowhere"):
        await anext(elsewhere.stream(REQUEST, START_MS))


def children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())) | {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


async def test_a_stream_that_is_given_up_ends_the_child_and_frees_what_it_read(
    processes: BackupProcesses, store: DurableStore
) -> None:
    await large(store)
    before = children()
    async with aclosing(processes.stream(REQUEST, START_MS)) as stream:
        await anext(stream)
        assert len(children() - before) == 1
        assert store._state._tables._env.readers().count("\n") > 2

    assert children() - before == set()
    assert store._state._tables._env.readers().count("\n") == 2  # the title, and the store itself


async def test_a_child_that_is_killed_is_an_error_and_no_file(
    store: DurableStore, tmp_path: Path
) -> None:
    await large(store)
    before = children()
    processes = BackupProcesses(order_for(tmp_path / "data"), store.forget_dead_readers)

    stream = processes.stream(REQUEST, START_MS)
    await anext(stream)
    (child,) = children() - before
    os.kill(child, signal.SIGKILL)
    with pytest.raises(StorageError) as failed:
        async for _ in stream:
            pass

    assert failed.value.reason == "BACKUP_FAILED"


async def test_the_child_gets_none_of_the_daemons_settings(
    processes: BackupProcesses, store: DurableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVD_SECURITY__ADMIN_TOKEN", "canary")
    await large(store)
    before = children()
    async with aclosing(processes.stream(REQUEST, START_MS)) as stream:
        await anext(stream)
        (child,) = children() - before
        given = await asyncio.to_thread(Path(f"/proc/{child}/environ").read_bytes)

    assert b"PATH=" in given
    assert b"ENVD_" not in given


async def test_the_child_ends_when_the_daemon_is_gone(
    processes: BackupProcesses, store: DurableStore
) -> None:
    await large(store)
    before = children()
    stream = processes.stream(REQUEST, START_MS)
    await anext(stream)
    (child,) = children() - before
    watched = os.pidfd_open(child)

    # What the kernel does for a daemon that was killed: it closes the other end of its input.
    inputs = other_ends_of_its_input(child)
    for descriptor in inputs:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)

    assert inputs
    assert await asyncio.to_thread(select.select, [watched], [], [], PATIENCE_S) != ([], [], [])
    os.close(watched)
    await stream.aclose()


def other_ends_of_its_input(child: int) -> list[int]:
    """Our descriptors of the pipe that is the standard input of `child`."""
    pipe = Path(f"/proc/{child}/fd/0").readlink()
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists
            if fd.readlink() == pipe:
                found.append(int(fd.name))
    return found


# -- files -----------------------------------------------------------------------------------------


def test_a_new_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "b"

    with NewFile(path) as file:
        file.write(b"one")
        assert not path.exists()
        file.write(b"two")

    assert path.read_bytes() == b"onetwo"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ZeroDivisionError), NewFile(tmp_path / "c"):
        raise ZeroDivisionError
    with pytest.raises(Conflict), NewFile(path):
        pass
    with pytest.raises(Conflict), NewFile(tmp_path / "d"):
        (tmp_path / "d").write_text("somebody was faster")
    with pytest.raises(StorageError), NewFile(tmp_path / "no" / "e"):
        pass
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b", "d"]
    assert (tmp_path / "d").read_text() == "somebody was faster"


def test_names_sort_by_time_and_hold_nothing_strange() -> None:
    assert file_name("web-1", START_MS) == "envd-web-1-20231114T221320Z.envd-backup"
    assert file_name("a/b c", 0) == "envd-a-b-c-19700101T000000Z.envd-backup"


# -- the directory of a schedule -------------------------------------------------------------------


@pytest.fixture
def shelf(processes: BackupProcesses, tmp_path: Path) -> DirectoryShelf:
    directory = BackupDirectory(tmp_path / "backups", UID)
    return DirectoryShelf(directory, Keep(2, 3), processes)


async def test_a_shelf_fills_with_files_that_open(shelf: DirectoryShelf, tmp_path: Path) -> None:
    assert (await shelf.list(), await shelf.newest_ms()) == ([], None)

    made = await shelf.add(REQUEST, START_MS)

    assert made.file == str(tmp_path / "backups" / f"scheduled-{UID}-20231114T221320Z.envd-backup")
    assert (made.state, made.scheduled, made.environments) == ("checked", True, 3)
    assert await shelf.newest_ms() == START_MS // 1000 * 1000
    with BackupFile(Path(made.file)) as file:
        assert opened(file).verify().variables == 108
    assert [each.file for each in await shelf.list()] == [made.file]


async def test_a_shelf_that_can_not_be_written_is_told_and_left_as_it_was(
    processes: BackupProcesses, tmp_path: Path
) -> None:
    await asyncio.to_thread((tmp_path / "file").write_text, "")

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        shelf = DirectoryShelf(BackupDirectory(path, UID), Keep(), processes)
        with pytest.raises(StorageError):
            await shelf.add(REQUEST, START_MS)


async def test_what_a_crash_left_is_removed_before_the_next_one(
    shelf: DirectoryShelf, tmp_path: Path
) -> None:
    left = tmp_path / "backups" / f".scheduled-{UID}-20230101T000000Z.envd-backup.123.tmp"
    others = tmp_path / "backups" / ".somebody.tmp"
    await asyncio.to_thread(_write_all, left, others)

    await shelf.add(REQUEST, START_MS)

    assert not left.exists()
    assert others.exists()


def _write_all(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Backups of ten days, one of each day, and files that are no business of the schedule."""
    asyncio.run(made_state(tmp_path / "other"))
    directory = tmp_path / "backups"
    directory.mkdir()
    for day in range(10):
        path = BackupDirectory(directory, UID).prepare(START_MS + day * DAY_MS)
        backup_of(tmp_path / "other", path, scheduled=True, created_ms=START_MS + day * DAY_MS)
    oldest = min(directory.iterdir())
    foreign = directory / oldest.name.replace(UID, "f" * 16)
    foreign.write_bytes(oldest.read_bytes())
    backup_of(tmp_path / "other", directory / "by-hand.envd-backup")
    by_hand = directory / f"scheduled-{UID}-19990101T000000Z.envd-backup"
    backup_of(tmp_path / "other", by_hand)
    return directory


def days(directory: Path) -> list[int]:
    """The days whose backups are there."""
    own = BackupDirectory(directory, UID).own()
    return [(int(Path(each.file).name.split("-")[2][6:8]) - 14) for each in own]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(2, 0), [8, 9]),
        (Keep(1, 0), [9]),
        (Keep(2, 4), [6, 7, 8, 9]),
        (Keep(20, 0), list(range(10))),
        (Keep(1, 9), list(range(1, 10))),
    ],
)
def test_count_and_age_say_what_is_kept_whichever_keeps_more(
    filled: Path, keep: Keep, kept: list[int]
) -> None:
    others = 3
    before = len(list(filled.iterdir()))

    removed = BackupDirectory(filled, UID).prune(keep, START_MS + 10 * DAY_MS)

    assert days(filled) == kept
    assert len(removed) == 10 - len(kept)
    assert len(list(filled.iterdir())) == before - len(removed) == len(kept) + others


def test_a_damaged_backup_neither_counts_nor_is_removed(filled: Path) -> None:
    newest = max(filled.glob(f"scheduled-{UID}-*"))
    newest.write_bytes(newest.read_bytes()[:-10])

    BackupDirectory(filled, UID).prune(Keep(1, 0), START_MS + 100 * DAY_MS)

    assert days(filled) == [8]
    assert facts(newest).state == "damaged"
    assert newest.exists()


def test_what_a_clock_that_was_ahead_made_takes_no_place_of_a_newer_one(filled: Path) -> None:
    removed = BackupDirectory(filled, UID).prune(Keep(2, 0), START_MS + 5 * DAY_MS)

    assert days(filled) == [4, 5, 6, 7, 8, 9]
    assert len(removed) == 4


def test_what_is_no_file_among_the_backups_is_told_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.envd-backup")
    (tmp_path / "directory.envd-backup").mkdir()
    (tmp_path / "nowhere.envd-backup").symlink_to("missing")
    (tmp_path / "round.envd-backup").symlink_to("round.envd-backup")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))

    found = list_backups([tmp_path])

    assert [each.state for each in found] == ["damaged"] * 4
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


async def test_a_name_that_is_no_utf_8_does_not_spoil_the_list(
    shelf: DirectoryShelf, tmp_path: Path
) -> None:
    await shelf.add(REQUEST, START_MS)
    await asyncio.to_thread((tmp_path / "backups" / "\udcff.envd-backup").write_bytes, b"rubbish")

    found = await shelf.list()

    assert [each.state for each in found] == ["damaged", "whole"]
    assert all((each.file + each.detail).encode() for each in found)


async def test_a_shelf_that_can_not_be_read_is_told(
    processes: BackupProcesses, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    shelf = DirectoryShelf(BackupDirectory(tmp_path / "file" / "b", UID), Keep(), processes)

    with pytest.raises(StorageError):
        await shelf.newest_ms()
    with pytest.raises(StorageError):
        await shelf.list()


def test_a_list_is_in_order_of_time_and_refuses_what_is_not_there(filled: Path) -> None:
    found = list_backups([filled])

    assert [each.created for each in found] == sorted(each.created for each in found)
    assert len(found) == 13
    assert list_backups([filled], check=True)[0].state == "checked"
    with pytest.raises(StorageError):
        list_backups([filled / "missing"])


def test_an_order_shows_no_key() -> None:
    order = replace(order_for(Path("data")), request=REQUEST)

    assert "kkkk" not in repr(order)
    assert "dddd" not in repr(order)
