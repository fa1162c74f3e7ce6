"""Is the state fit to be mapped? Asked before LMDB opens its file.

LMDB has no checksums, and a process that maps a file which was cut short dies by SIGBUS at
the first page that is missing. So a start first reads the two meta pages and compares the
file's size with what they name (the quick part, in this process), and then has `pages` walk
the whole file in a child process (the deep part), where

* the last run did not close the state (the marker file `unclean` tells),
* the file is small enough that the walk costs next to nothing, or
* the file is shorter than its meta page says. That alone is no damage: pages that LMDB took
  and gave back within one transaction are counted but never written.

The child starts at once and runs beside what else a start does: `start_check` early,
`finish` before the state is opened. For a look by hand: `python -m envd.storage.check DIR`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from envd.core.errors import Corrupt, EnvdError, StorageError
from envd.files import sync_directory
from envd.storage import pages
from envd.storage.disk import RESTORE_HINT, unusable

STATE_NAME = "state"
JOURNAL_NAME = "journal"
DATA_NAME = "data.mdb"
MARKER_NAME = "unclean"
CHEAP_BYTES = 256 << 20
"""Half a second's walk: 600 MB/s were measured on one core, and it runs beside the imports."""
_DEATHS_BY_DAMAGE = {signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}
_NOTHING_CHANGED = f"nothing was changed; {RESTORE_HINT}"


@dataclass(slots=True)
class StateCheck:
    """A check that is under way. `finish` must be called, and can be called again."""

    _file: Path
    _error: EnvdError | None = None
    _child: subprocess.Popen[str] | None = None

    def finish(self) -> None:
        """Wait for the outcome; raises Corrupt for damage, StorageError where none came."""
        if self._child is not None:
            found, said = self._child.communicate()
            self._error = _outcome(self._file, self._child.returncode, found, said)
            self._child = None
        if self._error is not None:
            raise self._error


def start_check(directory: Path) -> StateCheck:
    """Begin to check the state in a data directory; raises nothing, `finish` does."""
    file = directory / STATE_NAME / DATA_NAME
    try:
        deep = _quick(file) or (file.parent / MARKER_NAME).exists()
    except FileNotFoundError:
        return StateCheck(file)
    except EnvdError as error:
        return StateCheck(file, error)
    except OSError as error:
        return StateCheck(file, unusable(file, error))
    return _start_walk(file) if deep else StateCheck(file)


def check_state(directory: Path, *, deep: bool) -> None:
    """Check the state in a data directory, with `deep` all of it, and wait.

    Raises Corrupt for damage, StorageError for a file that can't be read.
    """
    file = directory / STATE_NAME / DATA_NAME
    try:
        deep = _quick(file) or deep
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable(file, error) from error
    if deep:
        _start_walk(file).finish()


def mark_unclean(directory: Path) -> bool:
    """Note durably that the state is open; tell whether the note is new.

    Raises StorageError where the directory can't be written.
    """
    marker = directory / STATE_NAME / MARKER_NAME
    try:
        known = marker.exists()
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_directory(marker.parent)
    except OSError as error:
        raise unusable(marker, error) from error
    return not known


def mark_clean(directory: Path) -> None:
    """Note that the state was closed as it should be; without the note the next start looks."""
    with suppress(OSError):
        (directory / STATE_NAME / MARKER_NAME).unlink(missing_ok=True)


def _quick(file: Path) -> bool:
    """Look at size and meta pages; tell whether a walk is cheap or called for.

    Raises Corrupt where a file with content has no valid meta pages.
    """
    with file.open("rb") as data:
        size = data.seek(0, 2)
        if not size:
            return False

        def read(position: int, length: int) -> bytes:
            data.seek(position)
            return data.read(length)

        try:
            meta = pages.newest_meta(read)
        except pages.Damage as damage:
            raise _damaged(file, str(damage)) from damage
    return size < CHEAP_BYTES or size < (meta.last_page + 1) * meta.page_bytes


def _start_walk(file: Path) -> StateCheck:
    """Run `pages` as a script: isolated, without site packages, it starts in 20 ms."""
    command = [sys.executable, "-I", "-S", str(Path(pages.__file__)), str(file)]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        return StateCheck(file, unusable(Path(sys.executable), error))
    return StateCheck(file, None, child)


def _outcome(file: Path, code: int, found: str, said: str) -> EnvdError | None:
    if code == 0:
        return None
    if code == pages.DAMAGED_EXIT:
        return _damaged(file, found.strip())
    if -code in _DEATHS_BY_DAMAGE:
        return _damaged(file, f"reading it ended in {signal.Signals(-code).name}")
    words = said.strip().splitlines() or [f"exit code {code}"]
    return StorageError(
        f"{file} could not be checked: {words[-1]}",
        hint="start envd again; if it stays like this, check the disk and the permissions",
        reason="STATE_UNCHECKED",
    )


def _damaged(file: Path, what: str) -> Corrupt:
    return Corrupt(
        f"the state in {file} is damaged: {what}", hint=_NOTHING_CHANGED, reason="STATE_DAMAGED"
    )


def main(arguments: list[str]) -> int:
    """Check the data directory named, deeply; say what is wrong."""
    try:
        check_state(Path(arguments[0]), deep=True)
    except EnvdError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
