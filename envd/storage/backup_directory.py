"""Backups as files: how one comes into being, and the directory that a schedule fills.

A file has its final name only once it is whole and on the disk; until then it is a hidden one of
mode 0600 beside it, and what a crash left of those is removed before the next backup.

A schedule removes only what this node's schedule made: by the file's name, and by what its
header says. It keeps the newest `count`, and whatever is younger than `days`; what is damaged
neither counts nor is removed, for somebody should look at it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from envd.core.backups import BackupFacts
from envd.core.errors import Conflict, StorageError
from envd.files import sync_directory
from envd.storage.backup_read import facts
from envd.storage.disk import unusable

SUFFIX = ".envd-backup"
MAX_LISTED = 10_000
_SCHEDULED = "scheduled-"


class NewFile:
    """A file that appears whole or not at all; a context manager that `write` is called in.

    It replaces nothing: raises Conflict where the name is taken, StorageError for the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Self:
        try:
            if os.path.lexists(self.path):
                raise _taken(self.path)
            self._temporary.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._temporary, flags, 0o600), "wb")
        except FileNotFoundError:
            raise StorageError(
                f"the directory {self.path.parent} is not there",
                hint="make it, or name another file",
                reason="UNUSABLE",
            ) from None
        except OSError as error:
            raise unusable(self.path, error) from error
        return self

    def write(self, data: bytes) -> None:
        """Append to it."""
        try:
            self._file.write(data)
        except OSError as error:
            raise unusable(self.path, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._take_name()
        except FileExistsError:
            raise _taken(self.path) from None
        except OSError as failed:
            raise unusable(self.path, failed) from failed
        finally:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def _take_name(self) -> None:
        """Give it the final name; a link never replaces, but not every file system has them."""
        try:
            self.path.hardlink_to(self._temporary)
        except FileExistsError:
            raise
        except OSError:
            if os.path.lexists(self.path):
                raise FileExistsError from None
            self._temporary.rename(self.path)
        sync_directory(self.path.parent)


def _taken(path: Path) -> Conflict:
    return Conflict(f"{path} is there already", hint="choose another name", reason="ALREADY_EXISTS")


@dataclass(frozen=True, slots=True)
class Keep:
    """What stays: the newest `count`, and whatever is younger than `days`."""

    count: int = 7
    days: int = 30


class BackupDirectory:
    """The directory that the schedule of the node `node_uid` fills."""

    def __init__(self, path: Path, node_uid: str) -> None:
        self._path = path
        self._node_uid = node_uid

    @property
    def path(self) -> str:
        """Where it is."""
        return str(self._path)

    def prepare(self, created_ms: int) -> Path:
        """Make the directory, remove left-overs, and name the next file; raises StorageError."""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left_over in self._path.glob(f".{self._prefix}*{SUFFIX}.*.tmp"):
                left_over.unlink(missing_ok=True)
        except OSError as error:
            raise unusable(self._path, error) from error
        return self._path / f"{self._prefix}{file_time(created_ms)}{SUFFIX}"

    def list(self) -> Sequence[BackupFacts]:
        """All backups in it, oldest first; none where it is not there yet.

        Raises StorageError where it can't be read.
        """
        try:
            there = stat.S_ISDIR(self._path.stat().st_mode)
        except FileNotFoundError:
            there = False
        except OSError as error:
            raise unusable(self._path, error) from error
        return list_backups([self._path]) if there else []

    def own(self) -> Sequence[BackupFacts]:
        """Those whole ones that this node's schedule made, oldest first."""
        return [
            each
            for each in self.list()
            if each.state == "whole"
            and each.scheduled
            and each.node_uid == self._node_uid
            and Path(each.file).name.startswith(self._prefix)
        ]

    def prune(self, keep: Keep, now_ms: int) -> Sequence[str]:
        """Remove what need not be kept; return the names. Raises StorageError.

        What a clock that was ahead has dated into the future takes no place of a newer one.
        """
        oldest = _iso(now_ms - int(timedelta(days=keep.days) / timedelta(milliseconds=1)))
        now, removed = _iso(now_ms), []
        for each in [each for each in self.own() if each.created <= now][: -max(1, keep.count)]:
            if each.created < oldest:
                try:
                    Path(each.file).unlink(missing_ok=True)
                except OSError as error:
                    raise unusable(Path(each.file), error) from error
                removed.append(Path(each.file).name)
        return removed

    @property
    def _prefix(self) -> str:
        return f"{_SCHEDULED}{self._node_uid}-"


def list_backups(paths: Iterable[Path], *, check: bool = False) -> Sequence[BackupFacts]:
    """The facts of files, and of those in directories that bear the suffix; oldest first.

    Raises StorageError where one can't be looked at at all.
    """
    files: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                found_here = (each for each in path.iterdir() if each.name.endswith(SUFFIX))
                files += sorted(found_here)[-MAX_LISTED:]
            else:
                path.stat()
                files.append(path)
        except FileNotFoundError:
            raise StorageError(f"{path} is not there", reason="UNUSABLE") from None
        except OSError as error:
            raise unusable(path, error) from error
    found = [facts(file, check=check) for file in files]
    return sorted(found, key=lambda each: (each.created, each.file))


def file_name(node: str, created_ms: int) -> str:
    """The name of a backup that somebody asked for: envd-NODE-TIME.envd-backup."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in node)
    return f"envd-{safe[:64]}-{file_time(created_ms)}{SUFFIX}"


def file_time(unix_ms: int) -> str:
    """A time as names have it: 20261120T105818Z."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")


def _iso(unix_ms: int) -> str:
    return datetime.fromtimestamp(max(0, unix_ms) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
