"""The log page by page, for peers and watches who read it forward.

Each reader comes back with the lsn where its last page ended, so a few such places are kept:
the segment, the byte where its next frame begins, and what of an opened frame was not given yet.
A page then costs what it holds, however long the segment is. Who begins anywhere else skips
frames by their headers.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from envd.ports import Sealer
from envd.storage import segment
from envd.storage.disk import unusable
from envd.storage.journal import Journal, compacted
from envd.storage.recovery import SegmentFile

PAGE_BYTES = 1 << 20
MAX_PLACES = 8
"""Each may hold the rest of a frame: `journal.MAX_GROUP_BYTES` at most."""


@dataclass(slots=True)
class _Place:
    """Where a reader stands: everything up to the lsn `at` was looked at."""

    known: SegmentFile
    position: int
    at: int
    rest: deque[tuple[int, bytes]] = field(default_factory=deque, repr=False)


class LogPages:
    """Pages of one journal; `wanted` tells which records are given, or all. For any thread."""

    def __init__(
        self, journal: Journal, sealer: Sealer, wanted: Callable[[bytes], bool] | None = None
    ) -> None:
        self._journal = journal
        self._sealer = sealer
        self._wanted = wanted
        self._lock = threading.Lock()
        self._places: OrderedDict[int, _Place] = OrderedDict()

    def read(self, after_lsn: int, last_lsn: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """(lsn, record) after `after_lsn` up to `last_lsn`, in order.

        As many as fit `max_bytes`, but one if there is one. Raises NotFound where some of them
        are no longer there, Corrupt for damage.
        """
        if after_lsn >= last_lsn:
            return []
        with self._lock:
            place = self._places.pop(after_lsn, None)
        if place is None:
            place = self._find(after_lsn)
        found = self._page(place, last_lsn, max_bytes)
        with self._lock:
            self._places[found[-1][0] if found else after_lsn] = place
            while len(self._places) > MAX_PLACES:
                self._places.popitem(last=False)
        return found

    def all_after(self, after_lsn: int, last_lsn: int) -> Iterator[tuple[int, bytes]]:
        """The same as `read`, one record at a time, to the end."""
        while page := self.read(after_lsn, last_lsn, PAGE_BYTES):
            yield from page
            after_lsn = page[-1][0]

    def _page(self, place: _Place, last_lsn: int, max_bytes: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        size = 0
        while place.at < last_lsn:
            if not place.rest and not self._open_next(place):
                break
            lsn, record = place.rest[0]
            if lsn > last_lsn:
                break
            if self._wanted is None or self._wanted(record):
                size += len(record)
                if found and size > max_bytes:
                    break
                found.append((lsn, record))
            place.rest.popleft()
            place.at = lsn
        return found

    def _find(self, after_lsn: int) -> _Place:
        """Where the records after `after_lsn` begin, or a little before."""
        for known in self._journal.segments:
            if known.last_lsn > after_lsn:
                first_lsn = known.header.first_lsn
                if first_lsn > after_lsn + 1:
                    break
                place = _Place(known, segment.HEADER_BYTES, first_lsn - 1)
                while place.at < after_lsn and self._open_next(place, after_lsn):
                    while place.rest and place.rest[0][0] <= after_lsn:
                        place.at = place.rest.popleft()[0]
                return place
        raise compacted()

    def _open_next(self, place: _Place, after_lsn: int = 0) -> bool:
        """Open the next frame with records after `after_lsn`; False where there is none yet."""
        while place.position >= place.known.end:
            following = self._following(place)
            if following is None:
                return False
            place.known, place.position = following, segment.HEADER_BYTES
        known, end = place.known, place.known.end
        try:
            descriptor = os.open(known.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise compacted() from None
        except OSError as error:
            raise unusable(known.path, error) from error
        try:
            return self._open_frame(descriptor, place, end, after_lsn)
        except OSError as error:
            raise unusable(known.path, error) from error
        finally:
            os.close(descriptor)

    def _open_frame(self, descriptor: int, place: _Place, end: int, after_lsn: int) -> bool:
        known = place.known
        number = known.header.number
        while place.position < end:
            head = os.pread(descriptor, segment.FRAME_HEADER_BYTES, place.position)
            span = segment.frame_span(head, number, place.position)
            if span is None or span.first_lsn != place.at + 1:
                raise self._journal.lost(known)
            last_of_frame = span.first_lsn + span.count - 1
            if last_of_frame > after_lsn:
                whole = os.pread(descriptor, span.end - place.position, place.position)
                raw = segment.frame_in(whole, number, place.position)
                if raw is None:
                    raise self._journal.lost(known)
                subkey = self._sealer.subkey(segment.PURPOSE, known.header.subkey_header)
                frame = segment.open_frame(known.header, subkey, raw)
                place.rest.extend(enumerate(frame.records, frame.first_lsn))
                place.position = raw.end
                return True
            place.position, place.at = span.end, last_of_frame
        return False

    def _following(self, place: _Place) -> SegmentFile | None:
        """The segment after the one that was read to its end, if there is one."""
        segments = self._journal.segments
        for known in segments:
            if known.header.number == place.known.header.number + 1:
                if known.header.first_lsn != place.at + 1:
                    raise compacted()
                return known
        if segments and segments[0].header.number > place.known.header.number:
            raise compacted()
        return None
