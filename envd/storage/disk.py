"""The disk below the storage: the few calls that writing rests on, and what their errors mean."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from envd.core.errors import StorageError

RESTORE_HINT = "restore the data directory from a backup"
_HINTS = {
    errno.EACCES: "give the user that runs envd the right to read and write there",
    errno.EPERM: "give the user that runs envd the right to read and write there",
    errno.EROFS: "the file system is read-only: remount it, or use another data directory",
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some disk space, or raise the quota",
    errno.EIO: "the disk fails: mend it, then restore what is lost from a backup",
    errno.EISDIR: "a directory is where envd keeps a file: move it away",
    errno.ENOTDIR: "a file is where envd keeps a directory: move it away",
    errno.EEXIST: "a file is where envd keeps a directory: move it away",
}


class Disk:
    """The system calls of the journal's writer; one that fails on purpose takes its place in
    tests."""

    def write(self, descriptor: int, data: memoryview, position: int) -> int:
        """Write some of `data` there; return how many bytes."""
        return os.pwrite(descriptor, data, position)

    def write_all(self, descriptor: int, data: bytes, position: int) -> None:
        """Write all of `data` there."""
        view = memoryview(data)
        while view:
            written = self.write(descriptor, view, position)
            view = view[written:]
            position += written

    def sync(self, descriptor: int) -> None:
        """Make a file durable, its size and all."""
        os.fsync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        """Make what was written into a preallocated file durable."""
        os.fdatasync(descriptor)


class TimedDisk(Disk):
    """Tells how long each sync of written data took, in seconds, on the thread that asked."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell

    def sync_data(self, descriptor: int) -> None:
        began = time.perf_counter()
        super().sync_data(descriptor)
        self._tell(time.perf_counter() - began)


def sync_file(path: Path) -> None:
    """Make a file or a directory that is written already durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cause(error: Exception) -> str:
    """A word for an error: ENOSPC, EIO, ..., or the name of its class."""
    number = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(number or 0) or type(error).__name__


def unusable(path: Path, error: OSError) -> StorageError:
    """The error for a file or directory that can't be read or written as it is needed."""
    hint = _HINTS.get(error.errno or 0, "check the disk and the permissions")
    return StorageError(f"{path} can't be used ({cause(error)})", hint=hint, reason="UNUSABLE")


def make_directory(path: Path) -> None:
    """Make sure that a private directory is there; raises StorageError."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise unusable(path, error) from error
