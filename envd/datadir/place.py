"""The directory itself: there, locked, and nobody else's."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from envd.core.errors import Corrupt, StorageError
from envd.files import sync_directory

PARTIAL: Final = "restore.partial"
_STORE: Final = ("journal", "state", "registers")
_MAY_STAND_BEFORE: Final = {
    "lock",
    "local.key",
    "keyring",
    "admin.token",
    "cluster.secret",
    "members.json",
    "envd.log",
    "envd.toml",
    "lost+found",
}


def make_directory(path: Path) -> None:
    """Make it, for its owner alone, where it is not there; raises StorageError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise StorageError(
            f"{path} is a file, not a directory", hint="name a directory with --data-dir"
        ) from None
    except OSError as error:
        raise unusable(path, error) from error


def take_lock(path: Path) -> int:
    """Lock the directory for this process; return the descriptor that holds the lock.

    Raises StorageError with the process that has it.
    """
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StorageError(
            f"{path} is in use by another envd (process {holder})",
            hint="stop that one, or name another directory with --data-dir",
            reason="LOCKED",
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise unusable(path, error) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def check_own(path: Path, *own_files: Path) -> None:
    """Refuse to create a node among somebody else's files, or over what a lost one left.

    `own_files` are envd's under names of the user's choice. Raises StorageError, Corrupt.
    """
    try:
        present = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise unusable(path, error) from error
    if "node.json" in present:
        return
    if PARTIAL in present:
        raise StorageError(
            f"a restore into {path} was cut off; there is no node yet",
            hint=f"restore again: envctl backup restore FILE --data-dir {path}",
            reason="RESTORE_CUT_OFF",
        )
    if "journal" in present or "state" in present:
        raise Corrupt(
            f"{path} holds data but its node.json is missing",
            hint="put node.json back, or restore the whole directory from a backup",
            reason="NODE_RECORD_MISSING",
        )
    foreign = sorted(
        name
        for name in present - _MAY_STAND_BEFORE - {file.name for file in own_files}
        if not name.startswith("envd.sock") and not name.endswith(".tmp")
    )
    if foreign:
        raise StorageError(
            f"{path} is not empty and no envd data directory (it has {foreign[0]})",
            hint="name an empty or new directory with --data-dir",
            reason="NOT_EMPTY",
        )


def empty_store(path: Path) -> None:
    """Remove all of the node's data, durably: commits, state, promises. Raises OSError.

    After a crash meanwhile some are left; again, it does what is left to do. The directories stay:
    they may be mounted, or lead elsewhere.
    """
    for directory in (path / name for name in _STORE):
        if not directory.is_dir():
            continue
        for entry in sorted(directory.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        sync_directory(directory)


def unusable(path: Path, error: OSError) -> StorageError:
    """What to say where the system refuses."""
    cause = errno.errorcode.get(error.errno or 0, type(error).__name__)
    hints = {
        errno.EACCES: "give the user that runs envd the right to write there",
        errno.EROFS: "the file system is read-only: remount it, or use another --data-dir",
        errno.ENOSPC: "free some disk space",
    }
    return StorageError(
        f"the data directory {path} can't be used: {error.strerror or cause}",
        hint=hints.get(error.errno or 0, "name another one with --data-dir"),
        reason="DATA_DIR_UNUSABLE",
    )
