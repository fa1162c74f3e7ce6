"""One file of variables on disk: read as of one moment, and replaced as a whole.

A file is replaced by a rename, so that readers see the old or the new one. It keeps its mode and
owner; a new one is for its owner alone. It is looked at once more right before the rename: what an
editor saved meanwhile is not lost, unless that was within the few microseconds in between.

All of this blocks, and runs in threads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from envd.backends.errors import (
    BackendError,
    Forbidden,
    QuotaExceeded,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.file_marks import Marks, read_marks, side_path, write_marks
from envd.core.errors import InvalidRequest
from envd.files import sync_directory
from envd.formats.read import Dialect, InputFormat, parse

MAX_FILE_BYTES: Final = 16 << 20
"""Four times what an environment may have: room for comments, escapes and what is not envd's."""

_TRIES = 3
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_FILE = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG})
# The metadata that SOPS adds to a document, in the three formats.
_SOPS = re.compile(rb'^(?:sops_version=|sops:[ \t]*\r?$)|"sops"\s*:\s*\{', re.MULTILINE)


class Form(NamedTuple):
    """How a file is written."""

    format: InputFormat
    dialect: Dialect = "python"


@dataclass(frozen=True, slots=True)
class Document:
    """A file as it was. `path` has no symbolic link in it; `raw` is None where there is no file."""

    path: Path
    raw: bytes | None = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)
    marks: Marks
    changed_ms: int


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Raise what the system says of a file as a BackendError."""
    try:
        yield
    except OSError as error:
        raise _of_system(error, path) from error


def real_path(path: Path) -> Path:
    """The path without symbolic links; those that lead in a circle are left in."""
    return Path(os.path.realpath(path))


def _of_system(error: OSError, path: Path) -> BackendError:
    message = f"{path}: {error.strerror or type(error).__name__}"
    if error.errno in _FULL:
        return QuotaExceeded(message)
    if error.errno in _DENIED:
        return Forbidden(message, hint="see to the mode and owner of it, and of its directory")
    if error.errno in _NO_FILE:
        return StoreUnsupported(message)
    return StoreUnavailable(message)


def read_document(path: Path, form: Form) -> Document:
    """Read a file with its side file.

    A file that is not there has no variables. But if envd wrote to it, or its directory is not
    there either, it is away, not empty: StoreUnavailable, so that nobody takes all for deleted.
    """
    with told(path):
        real = real_path(path)
        raw, marks, changed_ms = _consistent(real)
    if raw is None and not real.parent.is_dir():
        raise StoreUnavailable(f"{real.parent}: there is no such directory")
    if raw is None and marks:
        raise StoreUnavailable(
            f"{real}: the file is gone, and envd wrote variables to it",
            hint=f"put it back; or remove {side_path(real)} to have it made anew",
        )
    if raw is None:
        return Document(real, None, {}, {}, 0)
    if _SOPS.search(raw):
        raise StoreUnsupported(
            f"{path}: the file is encrypted by SOPS, which envd neither reads nor writes",
            hint="bind a decrypted copy, or import it with `sops exec-file`",
        )
    return Document(real, raw, _variables(raw, path, form), marks, changed_ms)


def _variables(raw: bytes, path: Path, form: Form) -> Mapping[str, str]:
    try:
        found = parse(raw, format=form.format, dialect=form.dialect, source=str(path))
    except InvalidRequest as error:
        # It names the line and never a value.
        raise StoreUnavailable(error.message, hint=error.hint) from error
    return {each.name: each.value for each in found}


def _consistent(real: Path) -> tuple[bytes | None, Marks, int]:
    """Read a file and its side file while nobody writes them."""
    side = side_path(real)
    before = _bytes(side)[0]
    for _ in range(_TRIES):
        raw, changed_ms = _bytes(real)
        after = _bytes(side)[0]
        if after == before:
            return raw, read_marks(after, side) if after is not None else {}, changed_ms
        before = after
    raise StoreUnavailable(f"{real}: the file is being written all the time")


def _bytes(path: Path) -> tuple[bytes | None, int]:
    """The bytes of a file and when they were written (unix ms); None where there is no file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None, 0
    with file:
        before = os.fstat(file.fileno())
        raw = file.read(MAX_FILE_BYTES + 1)
        after = os.fstat(file.fileno())
    if len(raw) > MAX_FILE_BYTES:
        raise StoreUnsupported(f"{path}: the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, len(raw)):
        raise StoreUnavailable(f"{path}: the file is just being written")
    return raw, after.st_mtime_ns // 1_000_000


def replace_document(document: Document, raw: bytes, marks: Marks) -> None:
    """Have the file be `raw`, with these marks; StaleVersion where somebody wrote it meanwhile."""
    path = document.path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.tmp")
    with told(path):
        try:
            _write_like(path, temporary, raw)
            write_marks(side_path(path), marks)
            try:
                _rename_unless_written(temporary, document)
            except (BackendError, OSError):
                write_marks(side_path(path), document.marks)
                raise
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def _rename_unless_written(temporary: Path, document: Document) -> None:
    path = document.path
    if _bytes(path)[0] != document.raw:
        raise _overtaken(path)
    if document.raw is not None:
        temporary.replace(path)
        return
    try:
        path.hardlink_to(temporary)
    except FileExistsError as error:
        raise _overtaken(path) from error


def _overtaken(path: Path) -> StaleVersion:
    return StaleVersion(f"{path}: somebody else wrote the file meanwhile")


def _write_like(path: Path, temporary: Path, raw: bytes) -> None:
    """Write a file that has the mode and the owner of another, 0600 and ours where there is none.

    A file that we could not give back to its owner, or that is read-only, is left alone.
    """
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if path.exists():
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, "the file is read-only to envd")
            like = path.stat()
            ours = os.fstat(descriptor)
            if (like.st_uid, like.st_gid) != (ours.st_uid, ours.st_gid):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, like.st_mode & 0o7777)
        file.write(raw)
        file.flush()
        os.fsync(descriptor)


class FileLock:
    """A lock against others who write a file through envd; editors know nothing of it."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Take the lock; False where somebody else has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back, if it was taken; its file stays, for others may wait on it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
