"""Reading a backup: its facts, its checksums, and with the key its rows.

A backup file is hostile until proved otherwise: no length in it makes a reader allocate more
than a chunk and a row, and whatever is wrong is one error that names the file and the byte.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Self

from envd.core.backups import BackupFacts, opened_by
from envd.core.errors import Corrupt, StorageError
from envd.ports import Subkey
from envd.storage.backup_check import RowCheck
from envd.storage.backup_format import (
    DAMAGED_HINT,
    DATA,
    END_MAGIC,
    FIGURES,
    FRAME,
    HASH_BYTES,
    LAST,
    MAX_HEADER_BYTES,
    PREAMBLE_START,
    TAG_BYTES,
    TAIL,
    ChunkCipher,
    Figures,
    Header,
    decode_figures,
    decode_preamble,
    frame_crc,
    preamble_length,
)
from envd.storage.backup_rows import Row, decode_rows
from envd.storage.disk import unusable

Proves = Callable[[bytes, bytes], bool]


class BackupFile:
    """One backup file, open for reading; a context manager.

    Opening reads the header and raises Corrupt where there is none that holds, StorageError for
    a newer format or a file that can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: BinaryIO = os.fdopen(_open(path), "rb")
        except FileNotFoundError:
            raise StorageError(f"there is no backup {path}", reason="UNUSABLE") from None
        except OSError as error:
            raise unusable(path, error) from error
        try:
            self.size_bytes = self._file.seek(0, 2)
            self._preamble = self._read_preamble()
        except BaseException:
            self._file.close()
            raise
        self._figures: Figures | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def header(self) -> Header:
        """What stands in clear at the beginning."""
        return self._preamble.header

    def _read_preamble(self) -> _Preamble:
        with self._faults(0):
            self._file.seek(0)
            start = self._file.read(PREAMBLE_START.size)
            rest = self._file.read(preamble_length(start))
            return _Preamble(start + rest)

    # -- without the key ---------------------------------------------------------------

    def figures(self) -> Figures:
        """The figures at the end, without looking at what is between; raises Corrupt."""
        with self._faults(max(0, self.size_bytes - TAIL.size)):
            self._file.seek(max(0, self.size_bytes - TAIL.size))
            raw = self._file.read(TAIL.size)
            if len(raw) < TAIL.size or not raw.endswith(END_MAGIC):
                raise Corrupt("it is cut short")
            position = TAIL.unpack(raw)[0]
            if not 0 < self.size_bytes - TAIL.size - position <= MAX_HEADER_BYTES:
                raise Corrupt("its end does not fit")
        with self._faults(position):
            self._file.seek(position)
            start = self._file.read(FRAME.size)
            body = self._file.read(self.size_bytes - TAIL.size - position - len(start))
            _check_frame(start, body, FIGURES)
            return decode_figures(body)

    def check(self) -> Figures:
        """Check every checksum from the first byte to the last; raises Corrupt."""
        for _ in self._chunks(None):
            pass
        assert self._figures is not None
        return self._figures

    # -- with the key ------------------------------------------------------------------

    def rows(self, subkey: Subkey, proves: Proves, check: RowCheck) -> Iterator[Row]:
        """All rows, each checked by `check` before it comes; raises Corrupt.

        `proves(data, mac)` tells whether the file's key made the header. What came is only to be
        trusted once the last row has come.
        """
        whole = self._preamble
        if not proves(whole.proved, whole.mac):
            raise self._damaged(0, "its header was changed")
        cipher = ChunkCipher(subkey, whole.digest)
        rows = decode_rows(self._chunks(cipher))
        while True:
            with self._faults(None):
                row = next(rows, None)
                if row is None:
                    assert self._figures is not None
                    check.end(self._figures)
                    return
                check.see(row)
            yield row

    def _chunks(self, cipher: ChunkCipher | None) -> Iterator[bytes]:
        """The chunks, opened where there is a cipher, with all checksums checked by the way."""
        hashed = blake2b(self._preamble.whole, digest_size=HASH_BYTES)
        position, number = len(self._preamble.whole), 0
        last: tuple[int, bytes] | None = None
        with self._faults(position):
            self._file.seek(position)
        while True:
            with self._faults(position):
                start, body = self._next_frame()
                kind = start[:1]
                self._check_place(kind, number, start, len(body), over=last is not None)
                _check_frame(start, body, kind)
                hashed.update(start + body)
                if kind == DATA:
                    chunk = cipher.open(DATA, number, body) if cipher else b""
                elif kind == LAST:
                    last, chunk = (position, body), b""
                else:
                    self._figures = decode_figures(body)
                    break
            if chunk:
                yield chunk
            position += len(start) + len(body)
            number += 1
        self._check_tail(position, len(start) + len(body), hashed)
        assert last is not None
        if cipher is not None:
            with self._faults(last[0]):
                yield cipher.open(LAST, number - 1, last[1], body)

    def _next_frame(self) -> tuple[bytes, bytes]:
        start = self._file.read(FRAME.size)
        if len(start) < FRAME.size:
            raise Corrupt("it is cut short")
        length = FRAME.unpack(start)[2]
        if length > max(self.header.chunk_bytes + TAG_BYTES, MAX_HEADER_BYTES):
            raise Corrupt("a frame is longer than frames can be")
        body = self._file.read(length)
        if len(body) < length:
            raise Corrupt("it is cut short")
        return start, body

    def _check_place(
        self, kind: bytes, number: int, start: bytes, length: int, *, over: bool
    ) -> None:
        """Is it the frame that must stand here?"""
        full = self.header.chunk_bytes + TAG_BYTES
        fits = (
            (kind == DATA and not over and length == full)
            or (kind == LAST and not over and TAG_BYTES <= length <= full)
            or (kind == FIGURES and over and length <= MAX_HEADER_BYTES)
        )
        if not fits or FRAME.unpack(start)[1] != number:
            raise Corrupt("another frame stands there than should")

    def _check_tail(self, position: int, length: int, hashed: blake2b) -> None:
        end = position + length
        with self._faults(end):
            raw = self._file.read(TAIL.size + 1)
            if len(raw) < TAIL.size:
                raise Corrupt("it is cut short")
            if len(raw) > TAIL.size:
                raise Corrupt("there is something behind its end")
            told, digest, magic = TAIL.unpack(raw)
            hashed.update(raw[: -HASH_BYTES - len(END_MAGIC)])
            if told != position or magic != END_MAGIC or digest != hashed.digest():
                raise Corrupt("its checksum does not hold")

    # -- errors ------------------------------------------------------------------------

    @contextmanager
    def _faults(self, position: int | None) -> Iterator[None]:
        """Tell what is wrong with the file's name and the byte."""
        try:
            yield
        except Corrupt as error:
            if error.reason == "BACKUP_DAMAGED":
                raise
            raise self._damaged(position, error.message) from error
        except StorageError as error:
            raise StorageError(
                f"the backup {self.path} can't be read: {error.message}",
                hint=error.hint,
                reason=error.reason,
            ) from error
        except OSError as error:
            raise unusable(self.path, error) from error

    def _damaged(self, position: int | None, what: str) -> Corrupt:
        where = "" if position is None else f" at byte {position}"
        return Corrupt(
            f"the backup {self.path} is damaged{where}: {what}",
            hint=DAMAGED_HINT,
            reason="BACKUP_DAMAGED",
        )


class _Preamble:
    """A preamble with its own bytes."""

    def __init__(self, whole: bytes) -> None:
        decoded = decode_preamble(whole)
        self.whole = whole
        self.header = decoded.header
        self.proved, self.mac, self.digest = decoded.proved, decoded.mac, decoded.digest


class Received:
    """Checks a backup that comes as a stream, without keeping it."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=HASH_BYTES)
        self._held = b""
        self.size_bytes = 0

    def take(self, data: bytes) -> None:
        """Note the next bytes."""
        self.size_bytes += len(data)
        held = self._held + data
        cut = max(0, len(held) - HASH_BYTES - len(END_MAGIC))
        self._hash.update(held[:cut])
        self._held = held[cut:]

    def check(self) -> None:
        """Raise Corrupt unless the bytes that came are a whole backup."""
        if self._held != self._hash.digest() + END_MAGIC:
            raise Corrupt(
                f"what came is no whole backup: it is cut short or damaged ({self.size_bytes} "
                "bytes came)",
                hint="try again; nothing was kept",
                reason="BACKUP_DAMAGED",
            )


def _check_frame(start: bytes, body: bytes, kind: bytes) -> None:
    if len(start) < FRAME.size or start[:1] != kind:
        raise Corrupt("another frame stands there than should")
    _, _, length, crc = FRAME.unpack(start)
    if length != len(body) or crc != frame_crc(start, body):
        raise Corrupt("the checksum of a frame does not hold")


def _open(path: Path) -> int:
    """Open a file and nothing else; a pipe would have us wait for somebody who writes to it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise StorageError(f"{path} is no file", hint="name the file of a backup", reason="UNUSABLE")


def facts(path: Path, *, check: bool = False) -> BackupFacts:
    """What a backup says of itself, with `check` after all checksums have been checked.

    A damaged one gives facts too: its state is "damaged", and `detail` tells the error.
    """
    try:
        with BackupFile(path) as file:
            try:
                figures = file.check() if check else file.figures()
            except Corrupt as error:
                return _facts(path, file, None, "damaged", error.message)
            return _facts(path, file, figures, "checked" if check else "whole")
    except StorageError as error:
        size = path.stat().st_size if path.is_file() else 0
        return BackupFacts(str(path), size, "damaged", error.message)


def _facts(
    path: Path, file: BackupFile, figures: Figures | None, state: str, detail: str = ""
) -> BackupFacts:
    header = file.header
    return BackupFacts(
        file=str(path),
        size_bytes=file.size_bytes,
        state=state,
        detail=detail,
        created=_iso(header.created_ms),
        node=header.node,
        node_uid=header.node_uid,
        cluster=header.cluster,
        cluster_id=header.cluster_id,
        version=header.version,
        environments=figures.environments if figures else 0,
        variables=figures.variables if figures else 0,
        commits=figures.commits if figures else 0,
        scheduled=header.scheduled,
        locks=tuple(opened_by(lock) for lock in header.locks),
    )


def _iso(unix_ms: int) -> str:
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return ""
