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

What a start reads back is told in `recovery`, who reads on later does so by `log_pages`; nothing
that was damaged is ever truncated away. A start always opens a new segment, so nothing is sealed
twice at one position.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
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
from envd.files import sync_directory, write_private
from envd.ports import Sealer, Subkey
from envd.storage import recovery, segment
from envd.storage.disk import RESTORE_HINT, Disk, cause, make_directory
from envd.storage.recovery import DroppedTail, SegmentFile, segment_name
from envd.storage.segment import Frame, SegmentHeader
from envd.threads import finish_in_thread

DEFAULT_SEGMENT_BYTES = 32 << 20
MAX_GROUP_BYTES = 4 << 20
SPARE_NAME = "spare"
_RECORD_OVERHEAD_BYTES = 8
_SHORT = 16
"""So many times `keep_segments` stay where they are short."""
_ZEROS = bytes(1 << 20)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    record: bytes = field(repr=False)
    hlc: int
    done: Callable[[int, EnvdError | None], None]


class Journal:
    """The journal in one directory. `append` and the answers belong to the event loop.

    Open with `recover` (the frames there are, oldest first), then `start`.
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
        disk: Disk | None = None,
    ) -> None:
        self._directory = directory
        self._disk = disk or Disk()
        self._sealer = sealer
        self._node_uid = node_uid
        self._segment_bytes = segment_bytes
        self._keep_segments = keep_segments
        self._bound_for = bound_for
        self._segments: list[SegmentFile] = []
        self._subkey: Subkey | None = None
        self._file = -1
        self._next_lsn = 1
        self._hlc_bound = 0
        self._covered_lsn = 0
        self._held_lsn: int | None = None
        self._dropped: DroppedTail | None = None
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._staged: list[_Waiting] = []
        self._staged_bytes = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._refusal: EnvdError | None = None
        self._failed = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- opening -------------------------------------------------------------------

    def recover(self, covered_lsn: int = 0) -> Iterator[Frame]:
        """Verify the journal, then yield the frames with records after `covered_lsn`.

        Raises at once, before anything is yielded: Corrupt for damage before a valid later
        frame and for missing records, StorageError for a newer format.
        """
        make_directory(self._directory)
        found = recovery.verify(self._directory, covered_lsn)
        self._segments = list(found.files)
        self._dropped = found.dropped
        self._next_lsn = max(found.last_lsn, covered_lsn) + 1
        return self._recovered(found.files, covered_lsn)

    def _recovered(self, files: tuple[SegmentFile, ...], covered_lsn: int) -> Iterator[Frame]:
        for frame in recovery.frames(files, self._sealer, covered_lsn):
            self._hlc_bound = max(self._hlc_bound, frame.hlc_bound)
            yield frame

    def start(self, loop: asyncio.AbstractEventLoop, *, covered_lsn: int, hlc_bound: int) -> None:
        """Open a new segment after what was recovered and begin to take records.

        `covered_lsn` and `hlc_bound` are what the state knows. Raises Unavailable where there
        is no room on the disk.
        """
        self._loop = loop
        self._next_lsn = max(self._next_lsn, covered_lsn + 1)
        self._hlc_bound = max(self._hlc_bound, hlc_bound)
        self._covered_lsn = covered_lsn
        recovered = list(self._segments)
        self._open_next_segment()
        self._shrink(recovered)
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
        return self._queued_bytes + self._staged_bytes

    def storage_bytes(self) -> int:
        """Bytes on disk, preallocated ones included."""
        total = 0
        for file in self._directory.iterdir():
            with suppress(FileNotFoundError):  # The writer recycles segments meanwhile.
                total += file.stat().st_size
        return total

    # -- writing -------------------------------------------------------------------

    def append(
        self, record: bytes, hlc: int, done: Callable[[int, EnvdError | None], None]
    ) -> None:
        """Queue a record. `done(lsn, error)` is called on the loop, later: in order, once each.

        `hlc` is that of its stamp, if this node gave it, else 0.
        """
        if len(record) + _RECORD_OVERHEAD_BYTES > self._frame_room:
            raise LimitExceeded(
                f"a commit of {len(record)} bytes does not fit a journal segment of "
                f"{self._segment_bytes} bytes",
                hint="raise `storage.segment_bytes`",
            )
        assert self._loop is not None
        if self._stopping:
            self._loop.call_soon(done, 0, stopping())
            return
        if not self._staged:
            self._loop.call_soon(self._hand_over)
        self._staged.append(_Waiting(record, hlc, done))
        self._staged_bytes += len(record)

    def _hand_over(self) -> None:
        """Give the thread what one turn of the event loop brought: so it goes into one group.

        Else a stream of many writes would be synced, and answered, a few at a time.
        """
        with self._wake:
            self._queue.extend(self._staged)
            self._queued_bytes += self._staged_bytes
            self._wake.notify()
        self._staged.clear()
        self._staged_bytes = 0

    @property
    def _frame_room(self) -> int:
        """Bytes that the records of one frame may take."""
        return self._segment_bytes - segment.HEADER_BYTES - segment.FRAME_OVERHEAD_BYTES

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
        """Take what goes into one frame; at least one record."""
        room = min(MAX_GROUP_BYTES, self._frame_room)
        group: list[_Waiting] = []
        while self._queue:
            room -= len(self._queue[0].record) + _RECORD_OVERHEAD_BYTES
            if group and room < 0:
                break
            group.append(self._queue.popleft())
            self._queued_bytes -= len(group[-1].record)
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
                f"the journal could not be written ({cause(error)}), "
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
        """Take records again after a refusal; those that wait still are refused with it.

        After a failed write or sync it takes none until a restart. Where nothing was refused, those
        that wait are written.
        """
        self._hand_over()
        with self._wake:
            if self._refusal is None:
                return
            error, stale = self._refusal, list(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            if not self._failed:
                self._refusal = None
        _answer(stale, self._next_lsn, error)

    def _write_frame(self, records: Sequence[bytes], bound: int) -> None:
        current = self._segments[-1]
        needed = sum(len(record) + _RECORD_OVERHEAD_BYTES for record in records)
        if current.end + needed + segment.FRAME_OVERHEAD_BYTES > self._segment_bytes:
            self._open_next_segment()
            current = self._segments[-1]
        assert self._subkey is not None
        frame, end = segment.encode_frame(
            current.header, self._subkey, current.end, self._next_lsn, bound, records
        )
        self._disk.write_all(self._file, frame, current.end)
        self._disk.sync_data(self._file)
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
        path = self._directory / segment_name(number)
        try:
            descriptor = self._prepare(self._spare(), header, path)
        except OSError as error:
            raise Unavailable(
                f"there is no room for the journal in {self._directory} "
                f"({cause(error)}); nothing was written",
                hint="free some disk space; writes then work again by themselves",
                reason="DISK_FULL" if error.errno in _FULL else "JOURNAL_UNWRITABLE",
                retry_after_ms=1000,
            ) from error
        if self._file >= 0:
            os.close(self._file)
        self._file, self._subkey = descriptor, subkey
        self._segments.append(SegmentFile(path, header, segment.HEADER_BYTES, self._next_lsn - 1))

    def _prepare(self, spare: Path, header: SegmentHeader, path: Path) -> int:
        """Give `spare` its full size and the header, durably, then its name `path`.

        Return its descriptor. Where this fails, no record is in it, and the next try takes
        the same name.
        """
        descriptor = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size != self._segment_bytes:
                os.ftruncate(descriptor, 0)
                for start in range(0, self._segment_bytes, len(_ZEROS)):
                    length = min(len(_ZEROS), self._segment_bytes - start)
                    self._disk.write_all(descriptor, _ZEROS[:length], start)
            self._disk.write_all(descriptor, header.to_bytes() + segment.END_MARK, 0)
            self._disk.sync(descriptor)
            spare.replace(path)
            sync_directory(self._directory)
        except BaseException:
            os.close(descriptor)
            spare.unlink(missing_ok=True)
            raise
        return descriptor

    def _spare(self) -> Path:
        """A file to write the next segment into: a recycled one where there is one.

        Segments go in order, each durably before the next: a crash must leave no gap, nor
        the name of an old segment on a file that begins like the new one.
        """
        spare = self._directory / SPARE_NAME
        for oldest in self._reusable():
            if spare.exists():
                oldest.path.unlink()
            else:
                oldest.path.replace(spare)
            self._segments.remove(oldest)
            sync_directory(self._directory)
        return spare

    def _reusable(self) -> list[SegmentFile]:
        """The oldest segments that the state covers, without those that readers may want."""
        reusable = []
        held = self._next_lsn if self._held_lsn is None else self._held_lsn
        for known in self._segments[: len(self._segments) - self._kept()]:
            if known.last_lsn > self._covered_lsn or known.last_lsn > held:
                break
            reusable.append(known)
        return reusable

    def _kept(self) -> int:
        """How many of the newest segments stay: `keep_segments`, or the bytes of as many.

        A start begins a segment, so after several restarts most are short, and a watch that
        was away still finds where it stopped.
        """
        room = self._keep_segments * self._segment_bytes
        kept = 0
        for known in reversed(self._segments):
            room -= known.end
            if kept >= self._keep_segments and (room < 0 or kept >= _SHORT * self._keep_segments):
                break
            kept += 1
        return kept

    def _shrink(self, closed: Sequence[SegmentFile]) -> None:
        """Give back the unused room of closed segments, so that many restarts stay small.

        Only what follows an end mark is unused: a segment whose tail was dropped keeps it.
        """
        for known in closed:
            kept = known.end + len(segment.END_MARK)
            with suppress(OSError), known.path.open("r+b") as file:
                file.seek(known.end)
                if file.read(len(segment.END_MARK)) == segment.END_MARK:
                    file.truncate(kept)

    def cover(self, lsn: int) -> None:
        """Note that the state holds all records up to `lsn`: their segments may be reused."""
        self._covered_lsn = lsn

    def hold(self, after_lsn: int | None) -> None:
        """Keep all segments with records after `after_lsn`; None: only the newest ones."""
        self._held_lsn = after_lsn

    # -- reading -------------------------------------------------------------------

    @property
    def oldest_lsn(self) -> int:
        """The first record from which on all are there; one more than the last for none."""
        oldest = self._next_lsn
        for known in reversed(list(self._segments)):
            if known.last_lsn + 1 < oldest and known.last_lsn >= known.header.first_lsn:
                break
            oldest = min(oldest, known.header.first_lsn)
        return oldest

    @property
    def segments(self) -> Sequence[SegmentFile]:
        """The segments that there are now, oldest first; the last one grows."""
        return list(self._segments)

    def lost(self, known: SegmentFile) -> EnvdError:
        """Why a segment does not hold what it held: it was recycled, or it is damaged."""
        if any(kept is known for kept in self._segments):
            return Corrupt(
                f"the journal is damaged in {known.path}",
                hint=RESTORE_HINT,
                reason="JOURNAL_DAMAGED",
            )
        return compacted()

    def copy_files(self, directory: Path, after_lsn: int) -> None:
        """Copy the segments with records after `after_lsn`, each up to its durable end."""
        make_directory(directory)
        for known in list(self._segments):
            end = known.end  # Before the read: what is appended meanwhile is left out whole.
            if known.last_lsn > after_lsn:
                data = known.path.read_bytes()[:end]
                write_private(directory / known.path.name, data + segment.END_MARK)

    # -- closing -------------------------------------------------------------------

    async def close(self) -> None:
        """Write what waits, stop the thread, let go of the file."""
        if self._thread is not None:
            self._hand_over()
            with self._wake:
                self._stopping = True
                self._wake.notify()
            await finish_in_thread(self._thread.join)
            self._thread = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _answer(group: Sequence[_Waiting], first_lsn: int, error: EnvdError | None) -> None:
    for lsn, waiting in enumerate(group, first_lsn):
        waiting.done(lsn, error)


def compacted() -> NotFound:
    """The error for records whose segments were recycled."""
    return NotFound("the journal no longer holds these records", reason="COMPACTED")


def stopping() -> Unavailable:
    """The refusal of one who comes while the node stops."""
    return Unavailable("the node is stopping; nothing was written", reason="STOPPING")
