"""Logs: one event per line whatever is logged, no values by accident, never fatal."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from envd.logs import (
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_TEXT,
    EventHandler,
    JsonFormatter,
    configure,
    get_logger,
    plain,
    set_level,
)

LOG = get_logger("envd.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the standard library's logging as it was found."""
    root, own = logging.getLogger(), logging.getLogger("envd")
    levels = root.level, own.level
    yield
    for handler in [one for one in root.handlers if isinstance(one, EventHandler)]:
        root.removeHandler(handler)
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    logging.captureWarnings(False)


@pytest.fixture
def stream() -> io.StringIO:
    """Return a stream that gets JSON from `debug` up."""
    stream = io.StringIO()
    configure("debug", "json", stream, environ={})
    return stream


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]


def dropped() -> int:
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, EventHandler)]
    return handlers[0].dropped


# The form of a line.


def test_an_event_is_one_json_object_with_its_keys_in_order(stream: io.StringIO) -> None:
    LOG.info("node.started", address="127.0.0.1:7420", generation=3)

    (event,) = events(stream)
    assert list(event) == ["time", "level", "event", "logger", "address", "generation"]
    assert (event["level"], event["event"], event["logger"]) == (
        "info",
        "node.started",
        "envd.test",
    )
    assert (event["address"], event["generation"]) == ("127.0.0.1:7420", 3)


def test_the_time_is_utc_with_milliseconds(stream: io.StringIO) -> None:
    record = logging.LogRecord("envd", logging.INFO, "a.py", 1, "moment", None, None)
    record.created = datetime(2026, 2, 3, 4, 5, 6, 7_000, UTC).timestamp()

    logging.getLogger("envd").handle(record)

    assert events(stream)[0]["time"] == "2026-02-03T04:05:06.007Z"


def test_keys_of_the_line_itself_can_not_be_overwritten(stream: io.StringIO) -> None:
    LOG.warning("clock.stepped", level="high", time="never", logger="me", name="web", msg="m")

    (event,) = events(stream)
    assert (event["level"], event["level_"]) == ("warning", "high")
    assert event["logger"] == "envd.test"
    assert (event["time_"], event["logger_"], event["name"], event["msg"]) == (
        "never", "me", "web", "m",
    )  # fmt: skip


def test_bound_keys_and_context_come_along(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request="r-1"):
        LOG.bind(peer="web-2").info("peer.connected")

    (event,) = events(stream)
    assert (event["request"], event["peer"]) == ("r-1", "web-2")


def test_the_console_shows_the_same_in_one_readable_line() -> None:
    stream = io.StringIO()
    configure("info", "console", stream, environ={})

    LOG.info("node.started", address="127.0.0.1:7420", note="two words", empty="", ports=[1, 2])

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info     node\.started address=127\.0\.0\.1:7420 "
        r'note="two words" empty="" ports=\[1, 2\] logger=envd\.test\n',
        stream.getvalue(),
    )


@pytest.mark.parametrize(
    ("format_", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_auto_means_the_console_on_a_terminal_and_json_elsewhere(
    format_: str, stream: type[io.StringIO], is_json: bool
) -> None:
    out = stream()
    configure("info", format_, out, environ={})

    LOG.info("node.started")

    assert out.getvalue().startswith("{") is is_json


@pytest.mark.parametrize(
    ("environ", "stream", "coloured"),
    [
        ({}, Terminal, True),
        ({"NO_COLOR": ""}, Terminal, True),
        ({"NO_COLOR": "1"}, Terminal, False),
        ({"TERM": "dumb"}, Terminal, False),
        ({}, io.StringIO, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    environ: dict[str, str], stream: type[io.StringIO], coloured: bool
) -> None:
    out = stream()
    configure("info", "console", out, environ=environ)

    LOG.error("disk.full", free_bytes=0)

    assert ("\x1b[" in out.getvalue()) is coloured


@pytest.mark.parametrize("format_", ["json", "console"])
@given(name=st.text(), key=st.text(min_size=1), value=st.text())
def test_no_text_breaks_a_line_or_reaches_the_terminal_raw(
    format_: str, name: str, key: str, value: str
) -> None:
    out = io.StringIO()
    configure("info", format_, out, environ={})

    LOG.bind(**{key: value, "nested": [value, {key: value}]}).info("event", detail=value)
    logging.getLogger(name).info("%s", value)

    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


# What is shown of a value.


@dataclass
class Variable:
    name: str
    value: str


class Described:
    def __str__(self) -> str:
        return "described"


class Failing:
    def __str__(self) -> str:
        raise RuntimeError("hunter2")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (0.5, 0.5),
        (float("nan"), "nan"),
        (b"hunter2", "<7 bytes>"),
        (Path("/a/b"), "/a/b"),
        (Described(), "described"),
        (Failing(), "<Failing>"),
        (Variable("A", "hunter2"), "<Variable>"),
        ([Variable("A", "hunter2")], ["<Variable>"]),
        ({1: ("a", {"b"})}, {"1": ["a", ["b"]]}),
        (KeyError("a"), "KeyError: 'a'"),
    ],
)
def test_values_become_plain_and_objects_do_not_tell_their_fields(
    value: object, expected: object
) -> None:
    assert plain(value) == expected


def test_long_and_deep_values_are_cut() -> None:
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]

    text, row, table = (
        plain("x" * (MAX_TEXT + 5)),
        plain([0] * 100),
        plain(dict.fromkeys(range(100))),
    )

    assert text == "x" * MAX_TEXT + "... (5 more)"
    assert row == [0] * MAX_ITEMS + [f"... ({100 - MAX_ITEMS} more)"]
    assert isinstance(table, dict)
    assert table["..."] == 100 - MAX_ITEMS
    assert json.dumps(plain(deep)) == "[" * MAX_DEPTH + '"<list>"' + "]" * MAX_DEPTH


def test_an_exception_is_type_message_and_places_without_local_variables(
    stream: io.StringIO,
) -> None:
    def read(password: str) -> None:
        try:
            _ = dict[int, str]()[len(password)]
        except KeyError as error:
            raise OSError("no\nluck") from error

    try:
        read("hunter2")
    except OSError:
        LOG.exception("read.failed", path="/a")

    (event,) = events(stream)
    assert event["level"] == "error"
    assert re.fullmatch(
        r"OSError: no\nluck at \S+test_logs\.py:\d+ read; from KeyError: 7 at \S+:\d+ read",
        event["exception"],
    )
    assert [place.rpartition(" ")[2] for place in event["trace"]] == [
        "test_an_exception_is_type_message_and_places_without_local_variables",
        "read",
    ]
    assert "hunter2" not in stream.getvalue()


def test_the_members_of_an_exception_group_are_told(stream: io.StringIO) -> None:
    group = ExceptionGroup("two tasks", [ValueError("one"), KeyError("two")])

    LOG.error("tasks.failed", exc_info=group)

    (event,) = events(stream)
    assert event["exception"] == (
        "ExceptionGroup: two tasks (2 sub-exceptions); from ValueError: one; from KeyError: 'two'"
    )


def test_a_circle_of_causes_ends(stream: io.StringIO) -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one

    LOG.error("odd", exc_info=one)

    assert events(stream)[0]["exception"].count("ValueError") == MAX_DEPTH


# Libraries and levels.


def test_what_libraries_log_comes_out_in_the_same_form(stream: io.StringIO) -> None:
    logging.getLogger("asyncio").warning("slow callback: %s\n%d", "f", 3)

    (event,) = events(stream)
    assert (event["level"], event["event"], event["logger"]) == (
        "warning", "slow callback: f\n3", "asyncio",
    )  # fmt: skip


def test_keys_given_as_extra_come_along_from_our_own_modules_only(stream: io.StringIO) -> None:
    logging.getLogger("envd.storage.journal").error("journal.tail_dropped", extra={"path": "p"})
    logging.getLogger("library").error("request", extra={"body": "hunter2"})

    ours, foreign = events(stream)

    assert ours["path"] == "p"
    assert set(ours) == {"time", "level", "event", "logger", "path"}
    assert "hunter2" not in str(foreign)


def test_warnings_are_events_too(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old option", UserWarning, stacklevel=1)

    (event,) = events(stream)
    assert event["logger"] == "py.warnings"
    assert "old option" in event["event"]


def test_debug_is_for_our_own_events_only(stream: io.StringIO) -> None:
    logging.getLogger("botocore.parsers").debug("Response body: hunter2")
    logging.getLogger("botocore").info("found credentials")
    LOG.debug("probe.sent")

    assert [event["event"] for event in events(stream)] == ["found credentials", "probe.sent"]


def test_the_level_changes_while_running(stream: io.StringIO) -> None:
    set_level("warning")
    LOG.info("unseen")
    logging.getLogger("asyncio").info("unseen")
    set_level("info")
    LOG.info("seen")

    assert [event["event"] for event in events(stream)] == ["seen"]


def test_a_level_that_is_none_is_refused_and_changes_nothing(stream: io.StringIO) -> None:
    with pytest.raises(ValueError, match="debug, info"):
        set_level("loud")

    LOG.debug("still.seen")
    assert len(events(stream)) == 1


def test_configuring_again_replaces_the_stream(stream: io.StringIO) -> None:
    second = io.StringIO()

    configure("info", "json", second, environ={})
    LOG.info("once")

    assert events(stream) == []
    assert [event["event"] for event in events(second)] == ["once"]


def test_an_event_reads_well_for_other_handlers(
    stream: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    LOG.info("node.started", note="a b", data=b"123")

    assert caplog.messages == ['node.started note="a b" data="<3 bytes>"']
    assert len(events(stream)) == 1


# What must not end the daemon.


class Broken(io.StringIO):
    def write(self, text: str, /) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_broken_a_closed_and_a_missing_stream_drop_events_and_count_them() -> None:
    closed = io.StringIO()
    closed.close()

    for stream in (Broken(), closed, None):
        configure("info", "auto", stream, environ={})
        LOG.info("node.started")
        LOG.info("node.stopped")

        assert dropped() == 2


def test_a_record_that_can_not_be_formatted_is_reported_as_such() -> None:
    stream = io.StringIO()
    handler = EventHandler(stream, JsonFormatter())
    record = logging.LogRecord("grpc", logging.INFO, "/a.py", 7, "%d", ("hunter2",), None)

    handler.handle(record)

    (event,) = events(stream)
    assert (event["event"], event["error"]) == ("log.unprintable", "TypeError")
    assert (event["logger"], event["at"]) == ("grpc", "/a.py:7")
    assert "hunter2" not in stream.getvalue()


def test_a_stream_with_a_narrow_encoding_gets_escapes() -> None:
    raw = io.BytesIO()
    configure("info", "console", io.TextIOWrapper(raw, "ascii"), environ={})

    LOG.info("name.seen", name="Zoë")

    assert rb"name=Zo\xeb" in raw.getvalue()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_process_outlives_a_stderr_that_takes_nothing(redirection: str) -> None:
    program = (
        "import sys; from envd.logs import configure, get_logger; "
        "configure('info', 'auto', sys.stderr); get_logger('envd').info('a'); print('alive')"
    )

    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, program],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (0, "alive\n")
