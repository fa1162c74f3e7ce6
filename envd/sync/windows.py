"""When a binding may write: windows of the week, in some zone's local time.

    Mon-Fri 08:00-18:00                     on these days, from 08:00 until just before 18:00
    Sat,Sun 00:00-24:00                     whole days
    daily 22:00-06:00 Europe/Berlin         over midnight: it belongs to the day on which it begins

Days are a list of `Mon Tue Wed Thu Fri Sat Sun` and ranges of them (`Fri-Mon` goes over the
weekend), or `daily`. Without a zone the times are UTC. A binding without windows is always open.

A window is open while a clock on the wall there shows a time in it. So where clocks are put
forward what they skip does not happen (of `02:00-04:00` one hour is left), and where they are put
back it happens twice.

Pure but for the database of time zones, which `parse` reads for a zone other than UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from envd.core.errors import InvalidRequest

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SHAPE: Final = re.compile(r"(\S+)\s+([0-9:]+)-([0-9:]+)(?:\s+(\S+))?")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_HINT: Final = "write it like 'Mon-Fri 08:00-18:00' or 'daily 22:00-06:00 Europe/Berlin'"
_DAY_MIN: Final = 24 * 60
_LOOK_AHEAD_DAYS: Final = 15
"""A window that a change of clocks swallows is open a week later."""
_STEP: Final = timedelta(hours=6)
"""Clocks are never changed twice within it, so a look at both ends of it shows each change."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some hours of some days of the week: `days` from 0 for Monday, times in minutes of the day.

    Where the end is not after the begin, it is that of the next day.
    """

    days: frozenset[int]
    begin_min: int
    end_min: int
    zone: tzinfo = UTC

    def is_open(self, wall_ms: int) -> bool:
        """Whether a wall clock in the zone shows a time in it now (unix ms)."""
        local = _local(wall_ms, self.zone)
        day, minute = local.weekday(), local.hour * 60 + local.minute
        if self.begin_min < self.end_min:
            return day in self.days and self.begin_min <= minute < self.end_min
        began_today = day in self.days and minute >= self.begin_min
        began_yesterday = (day - 1) % 7 in self.days and minute < self.end_min
        return began_today or began_yesterday

    def next_open_ms(self, wall_ms: int) -> int:
        """The first time from now on at which it is open (unix ms)."""
        if self.is_open(wall_ms):
            return wall_ms
        # It opens where a day's begin comes, or where the clocks are changed into it.
        return min(
            at_ms
            for at_ms in (*self._begins(wall_ms), *_changes(wall_ms, self.zone))
            if at_ms > wall_ms and self.is_open(at_ms)
        )

    def _begins(self, wall_ms: int) -> Iterator[int]:
        today = _local(wall_ms, self.zone).date()
        for number in range(_LOOK_AHEAD_DAYS + 1):
            begin = _at(today + timedelta(days=number), self.begin_min, self.zone)
            for fold in (0, 1):
                yield _ms(begin.replace(fold=fold))


def parse(text: str) -> Window:
    """Read one window; InvalidRequest says what would be right."""
    shape = _SHAPE.fullmatch(text.strip())
    if shape is None:
        raise _wrong("a window is days, then two times with '-' between, and a zone or none")
    begin_min, end_min = _minutes(shape[2]), _minutes(shape[3])
    if begin_min in (end_min, _DAY_MIN):
        raise _wrong("a window is not empty: for a whole day the times are 00:00-24:00")
    if end_min == 0:
        end_min = _DAY_MIN
    return Window(_days(shape[1]), begin_min, end_min, _zone(shape[4]))


def is_open(windows: Sequence[Window], wall_ms: int) -> bool:
    """Whether one of them is open now (unix ms); without any, always."""
    return not windows or any(window.is_open(wall_ms) for window in windows)


def next_open_ms(windows: Sequence[Window], wall_ms: int) -> int:
    """The first time from now on at which one of them is open (unix ms): now, if one is."""
    return min((window.next_open_ms(wall_ms) for window in windows), default=wall_ms)


def _days(text: str) -> frozenset[int]:
    if text.lower() == "daily":
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _day(first)
        end = _day(last) if dash else begin
        days.update((begin + number) % 7 for number in range((end - begin) % 7 + 1))
    return frozenset(days)


def _day(text: str) -> int:
    try:
        return _DAYS.index(text.capitalize())
    except ValueError:
        raise _wrong(f"days are {', '.join(_DAYS)}, or 'daily'") from None


def _minutes(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise _wrong("times are from 00:00 to 24:00, two digits each")
    return _DAY_MIN if match[1] is None else int(match[1]) * 60 + int(match[2])


def _zone(name: str | None) -> tzinfo:
    # UTC needs no database, so it is there on every machine.
    if name is None or name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(
            "the zone of a window is not in this node's database of time zones",
            hint="write one like 'Europe/Berlin', or leave it out for UTC; "
            "a machine without a database gets one with the package tzdata",
        ) from None


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(message, hint=_HINT)


def _local(wall_ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(wall_ms // 1000, zone)


def _at(day: date, minute: int, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp()) * 1000


def _changes(wall_ms: int, zone: tzinfo) -> Iterator[int]:
    """When the clocks of a zone are changed in the next time (unix ms)."""
    begin_s = wall_ms // 1000
    step_s = round(_STEP.total_seconds())
    for early_s in range(begin_s, begin_s + _LOOK_AHEAD_DAYS * 86_400, step_s):
        if _offset(early_s, zone) != _offset(early_s + step_s, zone):
            yield _change_s(early_s, early_s + step_s, zone) * 1000


def _change_s(early_s: int, late_s: int, zone: tzinfo) -> int:
    """The first second of the new offset, by bisection."""
    before = _offset(early_s, zone)
    while late_s - early_s > 1:
        middle_s = (early_s + late_s) // 2
        if _offset(middle_s, zone) == before:
            early_s = middle_s
        else:
            late_s = middle_s
    return late_s


def _offset(unix_s: int, zone: tzinfo) -> timedelta | None:
    return datetime.fromtimestamp(unix_s, zone).utcoffset()
