"""Private files: mode, atomicity, and nothing left behind."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import Self, cast

import pytest

from envd.files import sync_directory, write_private


@pytest.fixture
def loose_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("loose_umask")
@pytest.mark.parametrize("replace", [True, False])
def test_a_new_file_is_private_and_alone(tmp_path: Path, replace: bool) -> None:
    path = tmp_path / "file"

    write_private(path, b"data\0", replace=replace)

    assert path.read_bytes() == b"data\0"
    assert mode_of(path) == 0o600
    assert path.stat().st_nlink == 1
    assert names_in(tmp_path) == ["file"]


@pytest.mark.usefixtures("loose_umask")
def test_replacing_an_open_file_makes_it_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    path.chmod(0o644)

    write_private(path, b"new")

    assert path.read_bytes() == b"new"
    assert mode_of(path) == 0o600
    assert names_in(tmp_path) == ["file"]


def test_a_reader_keeps_the_whole_old_file_while_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"old")

    with path.open("rb") as reader:
        write_private(path, b"new")

        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_an_existing_file_is_refused_without_replace(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"old")

    with pytest.raises(FileExistsError):
        write_private(path, b"new", replace=False)

    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_dangling_link_counts_as_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FileExistsError):
        write_private(path, b"new", replace=False)

    assert names_in(tmp_path) == ["file"]


def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "file"
    target.write_bytes(b"target")
    path.symlink_to(target)

    write_private(path, b"new")

    assert target.read_bytes() == b"target"
    assert not path.is_symlink()


def test_a_directory_in_its_place_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()

    with pytest.raises(IsADirectoryError):
        write_private(path, b"new")

    assert names_in(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"old")

    with pytest.raises(TypeError):
        write_private(path, cast(bytes, "text is no bytes"))

    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_private(tmp_path / "absent" / "file", b"new")

    assert names_in(tmp_path) == []


@pytest.mark.usefixtures("loose_umask")
def test_what_a_crash_left_lends_neither_its_mode_nor_its_content(tmp_path: Path) -> None:
    named: list[str] = []

    class RecordingPath(PosixPath):
        def with_name(self, name: str) -> Self:
            named.append(name)
            return super().with_name(name)

    path = RecordingPath(tmp_path / "file")
    write_private(path, b"first")
    left_over = tmp_path / named[0]
    left_over.write_bytes(b"left over and longer")
    left_over.chmod(0o666)

    write_private(path, b"new")

    assert path.read_bytes() == b"new"
    assert mode_of(path) == 0o600
    assert names_in(tmp_path) == ["file"]
    assert named == [left_over.name] * 2


def test_syncing_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "file", b"data")

    with pytest.raises(NotADirectoryError):
        sync_directory(tmp_path / "file")
    sync_directory(tmp_path)
