"""The durable order of commits: segments on disk, written by one thread, in groups.

Callers append records and get a future. The thread takes all that gathered while the last
sync ran, writes them as one frame, calls fdatasync once, and only then answers. Segments are
preallocated with zeros and recycled when the state covers them, so a sync moves data and no
metadata: on ext4 the p99 of an fdatasync is 0.2 ms on a preallocated file and 4 ms on a
growing one.

What a failure means:

* no room for a new segment: the waiting records are refused (`Unavailable`, nothing was
  written), and so is every record queued until the owner, who learnt of it, calls `resume`:
  those were built upon the refused ones;
* a write or sync that fails: what the disk holds is unknown (fsync does not tell twice), so
  the waiting records end in `OutcomeUnknown` and the journal takes no more until a restart
  has read back what is there.

At a start the journal is read from the oldest segment. A torn last frame is dropped and
reported; damage before a valid later frame is refused, and nothing is ever truncated away.
A start always opens a new segment, so nothing is sealed twice at one position.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envd.core.errors import (
    Corrupt,
    EnvdError,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from envd.files import sync_directory
from envd.ports import Sealer, Subkey
from envd.storage import segment
from envd.storage.segment import Frame, SegmentHeader

DEFAULT_SEGMENT_BYTES = 32 << 20
MAX_GROUP_BYTES = 4 << 20
SPARE_NAME = "spare"
_ZEROS = bytes(1 << 20)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DroppedTail:
    """A damaged last group that a start left out: it was never acknowledged."""

    path: Path
    position: int
    bytes_after: int


@dataclass(slots=True)
class _Segment:
    """A segment as the journal knows it; `last_lsn` is first_lsn - 1 while it is empty."""

    path: Path
    header: SegmentHeader
    end: int
    last_lsn: int


@dataclass(slots=True)
class _Waiting:
    record: bytes = field(repr=False)
    hlc: int
    done: Callable[[int, EnvdError | None], None]


class Journal:
    """The journal in one directory. `append` and the answers belong to the event loop.

    Open with `recover` (all frames, oldest first), then `start`.
    """

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        node_uid: int,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        keep_segments: int = 4,
        bound_for: Callable[[int], int],
    ) -> None:
        self._directory = directory
        self._sealer = sealer
        self._node_uid = node_uid
        self._segment_bytes = segment_bytes
        self._keep_segments = keep_segments
        self._bound_for = bound_for
        self._segments: list[_Segment] = []
        self._subkey: Subkey | None = None
        self._file = -1
        self._next_lsn = 1
        self._hlc_bound = 0
        self._covered_lsn = 0
        self._dropped: DroppedTail | None = None
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._refusal: EnvdError | None = None
        self._failed = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- opening -------------------------------------------------------------------

    def recover(self) -> Iterator[Frame]:
        """Yield every frame there is, oldest first; the journal is ready to start after it.

        Raises Corrupt for damage before a valid later frame, StorageError for a newer format.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        paths = sorted(self._directory.glob("[0-9]*.seg"))
        headers = [self._read_header(path) for path in paths]
        for position, (path, header) in enumerate(zip(paths, headers, strict=True)):
            if position and header.number != headers[position - 1].number + 1:
                raise Corrupt(
                    f"journal segment {headers[position - 1].number + 1} is missing "
                    f"from {self._directory}",
                    hint="put the file back, or restore the data directory from a backup",
                )
            following = headers[position + 1] if position + 1 < len(headers) else None
            yield from self._recover_segment(path, header, following)

    def _read_header(self, path: Path) -> SegmentHeader:
        try:
            with path.open("rb") as file:
                header = SegmentHeader.from_bytes(file.read(segment.HEADER_BYTES))
        except Corrupt as error:
            raise self._damaged(path, 0) from error
        if path.name != _segment_name(header.number):
            raise self._damaged(path, 0)
        return header

    def _recover_segment(
        self, path: Path, header: SegmentHeader, following: SegmentHeader | None
    ) -> Iterator[Frame]:
        data = path.read_bytes()
        subkey = self._sealer.subkey(segment.PURPOSE, header.subkey_header)
        known = _Segment(path, header, segment.HEADER_BYTES, header.first_lsn - 1)
        self._next_lsn = max(self._next_lsn, header.first_lsn)
        for frame in segment.read_frames(data, header, subkey):
            if following is not None and frame.end > following.previous_end:
                break
            known.end = frame.end
            known.last_lsn = frame.first_lsn + len(frame.records) - 1
            self._next_lsn = known.last_lsn + 1
            self._hlc_bound = max(self._hlc_bound, frame.hlc_bound)
            yield frame
        if following is not None:
            if known.end != following.previous_end:
                raise self._damaged(path, known.end)
        elif segment.has_frame_after(data, header.number, known.end):
            raise self._damaged(path, known.end)
        elif not segment.is_clean_end(data, known.end):
            self._dropped = DroppedTail(path, known.end, len(data) - known.end)
        self._segments.append(known)

    def _damaged(self, path: Path, position: int) -> Corrupt:
        return Corrupt(
            f"the journal is damaged in {path} at byte {position}, before later valid records; "
            "nothing was changed",
            hint="restore the data directory from a backup (or from another copy of this file); "
            "envd does not skip records that were acknowledged",
            reason="JOURNAL_DAMAGED",
        )

    def start(self, loop: asyncio.AbstractEventLoop, *, covered_lsn: int, hlc_bound: int) -> None:
        """Open a new segment after what was recovered and begin to take records.

        `covered_lsn` and `hlc_bound` are what the state knows. Raises Unavailable where there
        is no room on the disk.
        """
        self._loop = loop
        self._next_lsn = max(self._next_lsn, covered_lsn + 1)
        self._hlc_bound = max(self._hlc_bound, hlc_bound)
        self._covered_lsn = covered_lsn
        self._shrink_short_segments()
        self._open_next_segment()
        self._thread = threading.Thread(target=self._run, name="envd-journal", daemon=True)
        self._thread.start()

    # -- what it tells -------------------------------------------------------------

    @property
    def dropped_tail(self) -> DroppedTail | None:
        """The damaged last group that `recover` left out, if there was one."""
        return self._dropped

    @property
    def hlc_bound(self) -> int:
        """The durable bound of this node's stamps."""
        return self._hlc_bound

    @property
    def last_lsn(self) -> int:
        """The last lsn that was given, durable or recovered."""
        return self._next_lsn - 1

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for a sync."""
        return self._queued_bytes

    def storage_bytes(self) -> int:
        """Bytes on disk, preallocated ones included."""
        return sum(file.stat().st_size for file in self._directory.iterdir())

    # -- writing -------------------------------------------------------------------

    def append(
        self, record: bytes, hlc: int, done: Callable[[int, EnvdError | None], None]
    ) -> None:
        """Queue a record. `done(lsn, error)` is called on the loop: in order, once each.

        `hlc` is that of its stamp, if this node gave it, else 0.
        """
        room = self._segment_bytes - segment.HEADER_BYTES - segment.FRAME_OVERHEAD_BYTES
        if len(record) + 8 > room:
            raise LimitExceeded(
                f"a commit of {len(record)} bytes does not fit a journal segment of "
                f"{self._segment_bytes} bytes",
                hint="raise `storage.segment_bytes`",
            )
        with self._wake:
            self._queue.append(_Waiting(record, hlc, done))
            self._queued_bytes += len(record)
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._stopping:
                    self._wake.wait()
                if not self._queue:
                    return
                group = self._take_group()
                error = self._refusal
            first_lsn = self._next_lsn
            if error is None:
                error = self._write_group(group)
            assert self._loop is not None
            self._loop.call_soon_threadsafe(_answer, group, first_lsn, error)

    def _take_group(self) -> list[_Waiting]:
        group = [self._queue.popleft()]
        size = len(group[0].record)
        while self._queue and size + len(self._queue[0].record) <= MAX_GROUP_BYTES:
            size += len(self._queue[0].record)
            group.append(self._queue.popleft())
        self._queued_bytes -= size
        return group

    def _write_group(self, group: Sequence[_Waiting]) -> EnvdError | None:
        """Make the group durable; return the error that its callers get, if any."""
        highest = max(waiting.hlc for waiting in group)
        bound = self._hlc_bound if highest <= self._hlc_bound else self._bound_for(highest)
        try:
            self._write_frame([waiting.record for waiting in group], bound)
        except Unavailable as error:
            self._refusal = error
            return error
        except Exception as error:  # noqa: BLE001 - the thread's outermost guard
            _log.critical("journal.failed", extra={"error": type(error).__name__}, exc_info=True)
            self._failed = True
            self._refusal = Unavailable(
                f"the journal could not be written ({_cause(error)}), "
                "so this node takes no more writes",
                hint="mend the disk, then restart envd: it reads back what is durable",
                reason="JOURNAL_FAILED",
            )
            return OutcomeUnknown(
                "the disk failed while the commit was written; it may or may not be durable",
                hint="restart envd, then repeat the write with the same --operation ID",
            )
        self._hlc_bound = bound
        self._next_lsn += len(group)
        return None

    def resume(self) -> None:
        """Take records again after a refusal; those that wait still are refused with it."""
        with self._wake:
            error, stale = self._refusal, list(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            if not self._failed:
                self._refusal = None
        _answer(stale, self._next_lsn, error)

    def _write_frame(self, records: Sequence[bytes], bound: int) -> None:
        current = self._segments[-1]
        needed = sum(len(record) + 8 for record in records) + segment.FRAME_OVERHEAD_BYTES
        if current.end + needed > self._segment_bytes:
            self._open_next_segment()
            current = self._segments[-1]
        assert self._subkey is not None
        frame, end = segment.encode_frame(
            current.header, self._subkey, current.end, self._next_lsn, bound, records
        )
        _write_all(self._file, frame, current.end)
        os.fdatasync(self._file)
        current.end = end
        current.last_lsn = self._next_lsn + len(records) - 1

    # -- segments ------------------------------------------------------------------

    def _open_next_segment(self) -> None:
        """Make the next segment current: from a recycled file, a spare or a new one."""
        previous = self._segments[-1] if self._segments else None
        number = previous.header.number + 1 if previous else 1
        subkey = self._sealer.new_subkey(segment.PURPOSE)
        header = SegmentHeader(
            number, self._next_lsn, previous.end if previous else 0, self._node_uid, subkey.header
        )
        path = self._directory / _segment_name(number)
        spare = self._spare()
        try:
            descriptor = self._prepare(spare, header)
        except OSError as error:
            raise Unavailable(
                f"there is no room for the journal in {self._directory} "
                f"({_cause(error)}); nothing was written",
                hint="free some disk space; writes then work again by themselves",
                reason="DISK_FULL" if error.errno == errno.ENOSPC else "JOURNAL_UNWRITABLE",
                retry_after_ms=1000,
            ) from error
        spare.replace(path)
        sync_directory(self._directory)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._subkey = descriptor, subkey
        self._segments.append(_Segment(path, header, segment.HEADER_BYTES, self._next_lsn - 1))

    def _prepare(self, spare: Path, header: SegmentHeader) -> int:
        """Give `spare` its full size and the header, durably; return its descriptor."""
        descriptor = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size != self._segment_bytes:
                os.ftruncate(descriptor, 0)
                for start in range(0, self._segment_bytes, len(_ZEROS)):
                    length = min(len(_ZEROS), self._segment_bytes - start)
                    _write_all(descriptor, _ZEROS[:length], start)
            _write_all(descriptor, header.to_bytes() + segment.END_MARK, 0)
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            spare.unlink(missing_ok=True)
            raise
        return descriptor

    def _spare(self) -> Path:
        """A file to write the next segment into: a recycled one where there is one."""
        spare = self._directory / SPARE_NAME
        reusable = self._reusable()
        if not spare.exists() and reusable:
            oldest = reusable[0]
            self._segments.remove(oldest)
            oldest.path.replace(spare)
        for segment_ in reusable[1:]:
            self._segments.remove(segment_)
            segment_.path.unlink()
        return spare

    def _reusable(self) -> list[_Segment]:
        """The oldest segments that the state covers, without the newest few for readers."""
        reusable = []
        for segment_ in self._segments[: max(0, len(self._segments) - self._keep_segments)]:
            if segment_.last_lsn > self._covered_lsn:
                break
            reusable.append(segment_)
        return reusable

    def _shrink_short_segments(self) -> None:
        """Give back the unused room of closed segments, so that many restarts stay small.

        A segment whose tail was dropped keeps it.
        """
        for segment_ in self._segments:
            damaged = self._dropped is not None and self._dropped.path == segment_.path
            if segment_.path.stat().st_size > segment_.end and not damaged:
                os.truncate(segment_.path, segment_.end)

    def cover(self, lsn: int) -> None:
        """Note that the state holds all records up to `lsn`: their segments may be reused."""
        self._covered_lsn = lsn

    # -- reading -------------------------------------------------------------------

    def read_after(self, lsn: int) -> Iterator[tuple[int, bytes]]:
        """Yield (lsn, record) for the durable records after `lsn`.

        Raises NotFound where the first of them is no longer there.
        """
        last = self.last_lsn
        segments = list(self._segments)
        if lsn < last and (not segments or segments[0].header.first_lsn > lsn + 1):
            raise NotFound("the journal no longer holds these records", reason="COMPACTED")
        for known in segments:
            if known.last_lsn <= lsn:
                continue
            subkey = self._sealer.subkey(segment.PURPOSE, known.header.subkey_header)
            try:
                data = known.path.read_bytes()[: known.end]
            except FileNotFoundError:
                data = b""
            if data[: segment.HEADER_BYTES] != known.header.to_bytes():
                raise NotFound("the journal no longer holds these records", reason="COMPACTED")
            at = known.header.first_lsn - 1
            for frame in segment.read_frames(data, known.header, subkey):
                for at, record in enumerate(frame.records, frame.first_lsn):
                    if lsn < at <= last:
                        yield at, record
            if at < min(known.last_lsn, last):
                raise NotFound("the journal no longer holds these records", reason="COMPACTED")

    def copy_files(self, directory: Path, after_lsn: int) -> None:
        """Copy the segments with records after `after_lsn`, each up to its durable end."""
        directory.mkdir(mode=0o700)
        for known in list(self._segments):
            if known.last_lsn > after_lsn:
                data = known.path.read_bytes()[: known.end]
                (directory / known.path.name).write_bytes(data)

    # -- closing -------------------------------------------------------------------

    async def close(self) -> None:
        """Write what waits, stop the thread, let go of the file."""
        if self._thread is not None:
            with self._wake:
                self._stopping = True
                self._wake.notify()
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _cause(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(number or 0) or type(error).__name__


def _answer(group: Sequence[_Waiting], first_lsn: int, error: EnvdError | None) -> None:
    for lsn, waiting in enumerate(group, first_lsn):
        waiting.done(lsn, error)


def _segment_name(number: int) -> str:
    return f"{number:020d}.seg"


def _write_all(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view = view[written:]
        position += written
