"""Windows of the week: what is read, what is open, and when the next one opens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import InvalidRequest
from envd.sync.windows import Window, is_open, next_open_ms, parse

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE_MS = 60_000


def ms(text: str) -> int:
    """Unix ms of an ISO 8601 time; without an offset it is UTC. 2026-03-02 is a Monday."""
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mon-Fri 08:00-18:00", Window(frozenset({0, 1, 2, 3, 4}), 480, 1080)),
        ("Sat,Sun 00:00-24:00", Window(frozenset({5, 6}), 0, 1440)),
        ("daily 22:00-06:00", Window(frozenset(range(7)), 1320, 360)),
        ("Fri-Mon 09:30-10:00", Window(frozenset({4, 5, 6, 0}), 570, 600)),
        ("Mon,Wed-Thu 09:00-00:00", Window(frozenset({0, 2, 3}), 540, 1440)),
        ("  tue   08:00-09:00   UTC ", Window(frozenset({1}), 480, 540)),
        ("DAILY 08:00-09:00 Europe/Berlin", Window(frozenset(range(7)), 480, 540, BERLIN)),
    ],
)
def test_windows_are_read(text: str, expected: Window) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a window is days, then two times"),
        ("08:00-18:00", "a window is days, then two times"),
        ("Mon 08:00", "a window is days, then two times"),
        ("Mon 08:00-09:00 Europe/Berlin now", "a window is days, then two times"),
        ("Monday 08:00-18:00", "days are Mon, Tue, Wed, Thu, Fri, Sat, Sun, or 'daily'"),
        ("Mon, 08:00-18:00", "days are Mon"),
        ("Mon- 08:00-18:00", "days are Mon"),
        ("Mon 8:00-18:00", "times are from 00:00 to 24:00, two digits each"),
        ("Mon 08:00-24:01", "times are from"),
        ("Mon 08:60-09:00", "times are from"),
        ("Mon 08:00-08:00", "for a whole day the times are 00:00-24:00"),
        ("Mon 24:00-08:00", "a window is not empty"),
        ("Mon 08:00-09:00 Europe/Atlantis", "the zone of a window"),
        ("Mon 08:00-09:00 ../passwd", "the zone of a window"),
        ("Mon 08:00-09:00 Europe", "the zone of a window"),
    ],
)
def test_what_is_no_window_is_refused_with_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(text)

    assert says in caught.value.message
    assert "Europe/Berlin" in caught.value.hint


@pytest.mark.parametrize(
    ("window", "at", "expected"),
    [
        ("Mon-Fri 08:00-18:00", "2026-03-02T07:59:59.999", False),
        ("Mon-Fri 08:00-18:00", "2026-03-02T08:00", True),
        ("Mon-Fri 08:00-18:00", "2026-03-02T17:59:59.999", True),
        ("Mon-Fri 08:00-18:00", "2026-03-02T18:00", False),
        ("Mon-Fri 08:00-18:00", "2026-03-07T12:00", False),
        ("Sat,Sun 00:00-24:00", "2026-03-07T00:00", True),
        ("Sat,Sun 00:00-24:00", "2026-03-09T00:00", False),
        ("daily 22:00-06:00", "2026-03-02T23:00", True),
        ("daily 22:00-06:00", "2026-03-02T05:59", True),
        ("daily 22:00-06:00", "2026-03-02T06:00", False),
        # Over midnight a window belongs to the day on which it begins.
        ("Sun 22:00-06:00", "2026-03-02T05:00", True),
        ("Mon 22:00-06:00", "2026-03-02T05:00", False),
        ("Mon 22:00-06:00", "2026-03-03T05:00", True),
        ("Mon 08:00-18:00 Europe/Berlin", "2026-03-02T07:00", True),
        ("Mon 08:00-18:00 Europe/Berlin", "2026-03-02T17:00", False),
        ("Mon 08:00-18:00 America/New_York", "2026-03-02T13:00", True),
    ],
)
def test_what_is_open(window: str, at: str, expected: bool) -> None:
    assert is_open([parse(window)], ms(at)) is expected


def test_without_windows_it_is_always_open() -> None:
    assert is_open([], 12_345)
    assert next_open_ms([], 12_345) == 12_345


@pytest.mark.parametrize(
    ("window", "now", "expected"),
    [
        ("Mon-Fri 08:00-18:00", "2026-03-02T09:00:00.123", "2026-03-02T09:00:00.123"),
        ("Mon-Fri 08:00-18:00", "2026-03-02T07:00", "2026-03-02T08:00"),
        ("Mon-Fri 08:00-18:00", "2026-03-06T18:00", "2026-03-09T08:00"),
        ("Mon 08:00-18:00", "2026-03-02T18:00", "2026-03-09T08:00"),
        ("daily 22:00-06:00 Europe/Berlin", "2026-07-01T12:00", "2026-07-01T20:00"),
        ("daily 22:00-06:00 Europe/Berlin", "2026-12-01T12:00", "2026-12-01T21:00"),
        # On 2026-03-29 clocks in Berlin go from 02:00 to 03:00 at 01:00 UTC.
        ("Sun 01:30-04:00 Europe/Berlin", "2026-03-29T00:00", "2026-03-29T00:30"),
        ("Sun 02:30-04:00 Europe/Berlin", "2026-03-29T00:00", "2026-03-29T01:00"),
        ("Sun 03:00-04:00 Europe/Berlin", "2026-03-29T00:00", "2026-03-29T01:00"),
        # All of it is skipped: the next one is a week later, in summer time.
        ("Sun 02:00-03:00 Europe/Berlin", "2026-03-29T00:00", "2026-04-05T00:00"),
        # On 2026-10-25 clocks go from 03:00 back to 02:00 at 01:00 UTC: 02:15 comes twice.
        ("Sun 02:15-02:30 Europe/Berlin", "2026-10-25T00:00", "2026-10-25T00:15"),
        ("Sun 02:15-02:30 Europe/Berlin", "2026-10-25T00:30", "2026-10-25T01:15"),
        ("Sun 01:30-02:30 Europe/Berlin", "2026-10-25T00:30", "2026-10-25T01:00"),
        # Samoa skipped a Friday, 2011-12-30, to change sides of the date line.
        ("Fri 10:00-11:00 Pacific/Apia", "2011-12-30T00:00", "2012-01-05T20:00"),
    ],
)
def test_when_the_next_one_opens(window: str, now: str, expected: str) -> None:
    assert next_open_ms([parse(window)], ms(now)) == ms(expected)


def test_of_several_windows_the_next_one_counts() -> None:
    windows = [parse("Wed 08:00-09:00"), parse("Tue 08:00-09:00"), parse("Fri 08:00-09:00")]

    assert next_open_ms(windows, ms("2026-03-02T12:00")) == ms("2026-03-03T08:00")


_WINDOWS = st.builds(
    Window,
    days=st.frozensets(st.integers(0, 6), min_size=1),
    begin_min=st.integers(0, 95).map(lambda quarter: 15 * quarter),
    end_min=st.integers(1, 96).map(lambda quarter: 15 * quarter),
    zone=st.sampled_from(
        [UTC, BERLIN, ZoneInfo("America/St_Johns"), ZoneInfo("Australia/Lord_Howe")]
    ),
).filter(lambda window: window.begin_min != window.end_min)


@given(
    windows=st.lists(_WINDOWS, min_size=1, max_size=3),
    near=st.sampled_from(
        ["2026-03-07", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2026-10-31"]
    ),
    after=st.integers(0, 3 * 24 * 60),
)
def test_the_next_opening_is_open_and_nothing_before_it_is(
    windows: list[Window], near: str, after: int
) -> None:
    now = datetime.fromisoformat(near).replace(tzinfo=UTC) + timedelta(minutes=after)
    now_ms = round(now.timestamp() * 1000)

    opens_ms = next_open_ms(windows, now_ms)

    assert opens_ms >= now_ms
    assert is_open(windows, opens_ms)
    before = range(now_ms, opens_ms, 15 * MINUTE_MS)
    assert not any(is_open(windows, at_ms) for at_ms in before)
    assert opens_ms == now_ms or not is_open(windows, opens_ms - 1)
