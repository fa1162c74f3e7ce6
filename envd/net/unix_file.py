"""The file of the Unix socket: made with mode 0600, never with more for a moment.

One that a dead daemon left is replaced; one that somebody listens on is not.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from envd.core.errors import StartupError

BACKLOG: Final = 64
_MODE: Final = 0o600
_CONNECT_TIMEOUT_S: Final = 1.0


def bind(path: Path) -> socket.socket:
    """Bind the socket file, mode 0600; raises StartupError where that can't be."""
    _make_way(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        # On Linux the file gets the mode of the socket, so it is never open to others, and
        # the umask, which is the whole process's, stays as it is.
        os.fchmod(one.fileno(), _MODE)
        one.bind(str(path))
        path.chmod(_MODE)
        one.listen(BACKLOG)
    except OSError as error:
        one.close()
        raise _unusable(path, error) from error
    return one


def _make_way(path: Path) -> None:
    """Remove the socket file of a daemon that is dead; raises StartupError for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error) from error
    if not stat.S_ISSOCK(mode):
        raise StartupError(
            f"{path} is there already and is no socket",
            hint="choose another path with --socket PATH",
            reason="SOCKET_UNUSABLE",
        )
    if _answers(path):
        raise StartupError(
            f"another process listens on {path}",
            hint="is envd running already? Stop it, or choose another path with --socket PATH",
            reason="ADDRESS_IN_USE",
        )
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error


def _answers(path: Path) -> bool:
    """Tell whether somebody listens; a full backlog is somebody too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(_CONNECT_TIMEOUT_S)
        try:
            one.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
                return True
            raise _unusable(path, error) from error
        return True


def _unusable(path: Path, error: OSError) -> StartupError:
    why = error.strerror or str(error)
    return StartupError(
        f"can't listen on the Unix socket {path}: {why}",
        hint="choose a shorter path, in a directory of this user, with --socket PATH",
        reason="SOCKET_UNUSABLE",
    )
