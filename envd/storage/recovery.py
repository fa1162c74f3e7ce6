"""What a start reads of the journal: first all of it is verified, then what is new is opened.

`verify` walks every segment by its CRCs and decides before anything is applied: a torn last
frame is dropped and reported, any other damage is refused with its file and byte, and so is
a journal whose beginning or middle is missing. It writes nothing. `frames` then decrypts what
the state does not cover.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from envd.core.errors import Corrupt, StorageError
from envd.ports import Sealer
from envd.storage import segment
from envd.storage.disk import RESTORE_HINT, unusable
from envd.storage.segment import Frame, SegmentHeader


@dataclass(frozen=True, slots=True)
class DroppedTail:
    """A damaged last group that a start left out: it was never acknowledged, unless the disk
    lost or changed it afterwards."""

    path: Path
    position: int
    bytes_after: int


@dataclass(slots=True)
class SegmentFile:
    """A segment as the journal knows it; `last_lsn` is first_lsn - 1 while it is empty."""

    path: Path
    header: SegmentHeader
    end: int
    last_lsn: int


@dataclass(frozen=True, slots=True)
class Verified:
    """A journal without damage but, at most, a dropped last group."""

    files: tuple[SegmentFile, ...]
    dropped: DroppedTail | None
    last_lsn: int


def verify(directory: Path, covered_lsn: int) -> Verified:
    """Check the whole journal against what the state covers.

    Raises Corrupt for damage before a valid later frame and for missing records, StorageError
    for a newer format or a file that can't be read.
    """
    paths = sorted(directory.glob("[0-9]*.seg"))
    headers = [_read_header(path) for path in paths]
    files: list[SegmentFile] = []
    last_lsn, dropped = 0, None
    for place, (path, header) in enumerate(zip(paths, headers, strict=True)):
        if place and header.number != headers[place - 1].number + 1:
            raise Corrupt(
                f"journal segment {headers[place - 1].number + 1} is missing from {directory}",
                hint=f"put the file back, or {RESTORE_HINT}",
                reason="JOURNAL_INCOMPLETE",
            )
        if header.first_lsn > max(last_lsn, covered_lsn) + 1:
            raise Corrupt(
                f"the records from {max(last_lsn, covered_lsn) + 1} to {header.first_lsn - 1} are "
                f"neither in the state nor in the journal, which goes on in {path}",
                hint=f"journal and state don't belong together: {RESTORE_HINT}",
                reason="JOURNAL_INCOMPLETE",
            )
        following = headers[place + 1] if place + 1 < len(headers) else None
        file, dropped = _verify_segment(path, header, following)
        files.append(file)
        last_lsn = file.last_lsn
    return Verified(tuple(files), dropped, last_lsn)


def first_lsn(directory: Path) -> int:
    """The first record that the segments in a directory can hold, 1 where there are none.

    For a journal of which nothing else tells where it begins. Raises Corrupt or StorageError.
    """
    paths = sorted(directory.glob("[0-9]*.seg"))
    return _read_header(paths[0]).first_lsn if paths else 1


def frames(files: tuple[SegmentFile, ...], sealer: Sealer, after_lsn: int) -> Iterator[Frame]:
    """Open the frames with records after `after_lsn`, oldest first; raises Corrupt."""
    for file in files:
        if file.last_lsn <= after_lsn:
            continue
        subkey = sealer.subkey(segment.PURPOSE, file.header.subkey_header)
        for raw in segment.raw_frames(_read(file.path), file.header.number):
            if raw.position >= file.end:
                break
            if raw.first_lsn + raw.count - 1 <= after_lsn:
                continue
            try:
                yield segment.open_frame(file.header, subkey, raw)
            except Corrupt as error:
                raise Corrupt(
                    f"the journal frame in {file.path} at byte {raw.position} is whole but does "
                    "not open under this node's keyring; nothing was changed",
                    hint="restore the keyring file that belongs to this data directory, or "
                    "the whole directory from a backup",
                    reason="JOURNAL_SEALED_OTHERWISE",
                ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unusable(path, error) from error


def _read_header(path: Path) -> SegmentHeader:
    try:
        with path.open("rb") as file:
            header = SegmentHeader.from_bytes(file.read(segment.HEADER_BYTES))
    except OSError as error:
        raise unusable(path, error) from error
    except Corrupt as error:
        raise _damaged(path, 0) from error
    except StorageError as error:
        raise StorageError(
            f"{error.message}: {path} at byte 0", hint=error.hint, reason=error.reason
        ) from error
    if path.name != segment_name(header.number):
        raise _damaged(path, 0)
    return header


def _verify_segment(
    path: Path, header: SegmentHeader, following: SegmentHeader | None
) -> tuple[SegmentFile, DroppedTail | None]:
    data = _read(path)
    file = SegmentFile(path, header, segment.HEADER_BYTES, header.first_lsn - 1)
    for raw in segment.raw_frames(data, header.number):
        if following is not None and raw.end > following.previous_end:
            break
        if raw.first_lsn != file.last_lsn + 1:
            raise _damaged(path, raw.position)
        file.end = raw.end
        file.last_lsn += raw.count
    if following is not None:
        if file.end != following.previous_end:
            raise _damaged(path, file.end)
    elif segment.has_frame_after(data, header.number, file.end):
        raise _damaged(path, file.end)
    elif not segment.is_clean_end(data, file.end):
        return file, DroppedTail(path, file.end, len(data) - file.end)
    return file, None


def segment_name(number: int) -> str:
    """The name of the file that holds segment `number`."""
    return f"{number:020d}.seg"


def _damaged(path: Path, position: int) -> Corrupt:
    return Corrupt(
        f"the journal is damaged in {path} at byte {position}, before later valid records; "
        "nothing was changed",
        hint=f"{RESTORE_HINT} (or from another copy of this file); "
        "envd does not skip records that were acknowledged",
        reason="JOURNAL_DAMAGED",
    )
