"""Structured logs: one event per line on stderr, JSON for machines, a console for people.

    log = get_logger(__name__)
    log.info("member.suspected", node="web-3", after_ms=500)

An event is a constant name with keys. It always carries `time` (ISO 8601, UTC,
milliseconds), `level`, `event` and `logger`; then come the keys of the call and those bound
in `structlog.contextvars`. Everything goes through the standard library's root logger, so
grpc, aiohttp, asyncio and warnings come out in the same form.

What this module promises:

* A line is a line: control characters in names and values are escaped, in both forms.
* No values by accident: an exception is its type, message and places, never the local
  variables around it; an object without a text of its own is shown by its type, since a
  dataclass would print its fields. Long texts and deep structures are cut. Libraries log
  from `info` up only: below that, cloud SDKs print whole requests and answers.
* Logging never takes the daemon down: where stderr is closed, full or broken, events are
  dropped and counted.

Before `configure` is called (in `envctl`, in tests) events go wherever the standard library
sends its own: warnings and above to stderr.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO, cast

import structlog
from structlog.stdlib import BoundLogger

OWN_LOGGER: Final = "envd"
MAX_TEXT: Final = 4096
MAX_ITEMS: Final = 64
MAX_DEPTH: Final = 5
MAX_FRAMES: Final = 20

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_COLOURS: Final[Mapping[str, str]] = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}
_DIM: Final = "\x1b[2m"
_BOLD: Final = "\x1b[1m"
_RESET: Final = "\x1b[0m"
_OWN_KEYS: Final = frozenset({"time", "level", "event", "logger", "exception", "trace"})
_RECORD_KEYS: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "taskName"})


def configure(
    level: str,
    format: str,  # noqa: A002 - the name that it has in the settings
    stream: TextIO | None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send every event from `level` up to `stream`, one per line; may be called again.

    `format` is "json", "console" or "auto": the console on a terminal, else JSON. Colours
    only on a terminal, and neither where NO_COLOR is set nor where TERM is "dumb". Without a
    stream (a process started with stderr closed) events are counted and dropped.
    """
    on_terminal = _is_terminal(stream)
    as_console = format == "console" or (format == "auto" and on_terminal)
    colours = on_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    handler = EventHandler(stream, ConsoleFormatter(colours) if as_console else JsonFormatter())
    root = logging.getLogger()
    for earlier in [one for one in root.handlers if isinstance(one, EventHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    logging.captureWarnings(True)
    set_level(level)


def set_level(level: str) -> None:
    """Change what is logged from now on; raise ValueError for a level that is none."""
    number = _LEVELS.get(level)
    if number is None:
        raise ValueError(f"a log level is one of {', '.join(_LEVELS)}")
    logging.getLogger(OWN_LOGGER).setLevel(number)
    logging.getLogger().setLevel(max(number, logging.INFO))


def get_logger(name: str) -> BoundLogger:
    """Return the logger of a module: `get_logger(__name__)`; safe to call while importing."""
    chain: list[structlog.typing.Processor] = [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _to_record,
    ]
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=chain,
        wrapper_class=BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return cast(BoundLogger, logger)


class Event:
    """An event's name and keys, travelling as the message of a standard log record."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: Mapping[str, object]) -> None:
        self.name = name
        self.fields = fields

    def __str__(self) -> str:
        pairs = (f"{_escaped(str(key))}={_shown(plain(v))}" for key, v in self.fields.items())
        return " ".join((_escaped(self.name), *pairs))


class EventHandler(logging.StreamHandler[TextIO]):
    """Writes formatted events to a stream; `dropped` counts those that it could not write."""

    def __init__(self, stream: TextIO | None, formatter: logging.Formatter) -> None:
        logging.Handler.__init__(self)
        self.stream = cast(TextIO, stream)
        self.formatter = formatter
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self._line(record) + "\n")
        except (OSError, ValueError, AttributeError):
            # A closed file raises ValueError, a missing one AttributeError.
            self.dropped += 1

    def flush(self) -> None:
        try:
            super().flush()
        except (OSError, ValueError):
            self.dropped += 1

    def _line(self, record: logging.LogRecord) -> str:
        """Format a record; one that can't be (arguments that don't fit) says so."""
        try:
            return self.format(record)
        except Exception as error:  # noqa: BLE001 - foreign code; logging must outlive it
            place = f"{record.pathname}:{record.lineno}"
            event = Event("log.unprintable", {"error": type(error).__name__, "at": place})
            stand_in = logging.LogRecord(
                record.name, record.levelno, record.pathname, record.lineno, event, None, None
            )
            return self.format(stand_in)

    def _write(self, line: str) -> None:
        try:
            self.stream.write(line)
        except UnicodeEncodeError:
            encoding = getattr(self.stream, "encoding", None) or "ascii"
            self.stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
        self.stream.flush()


class JsonFormatter(logging.Formatter):
    """One JSON object per line, in ASCII, so that no decoder and no pager can break it."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields_of(record), ensure_ascii=True, allow_nan=False)


class ConsoleFormatter(logging.Formatter):
    """`TIME level event key=value ...`, with colours if asked for."""

    def __init__(self, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields_of(record)
        time, level = str(fields.pop("time")), str(fields.pop("level"))
        event, logger = _escaped(str(fields.pop("event"))), fields.pop("logger")
        pairs = [
            f"{self._paint(_escaped(key) + '=', _DIM)}{_shown(value)}"
            for key, value in {**fields, "logger": logger}.items()
        ]
        head = (
            self._paint(time, _DIM),
            self._paint(f"{level:<8}", _COLOURS.get(level, "")),
            self._paint(event, _BOLD),
        )
        return " ".join((*head, *pairs))

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours and colour else text


def plain(value: object, depth: int = 0) -> object:
    """Reduce a value to what JSON has: bounded, and without what an object hides in its repr."""
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return _cut(str(value))
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case BaseException():
            return _cut(_exception_in_words(value))
        case Mapping() | list() | tuple() | set() | frozenset() if depth >= MAX_DEPTH:
            return f"<{type(value).__name__}>"
        case Mapping():
            items = itertools.islice(value.items(), MAX_ITEMS)
            shown = {_cut(str(key)): plain(item, depth + 1) for key, item in items}
            return shown | ({"...": more} if (more := len(value) - MAX_ITEMS) > 0 else {})
        case list() | tuple() | set() | frozenset():
            row = [plain(item, depth + 1) for item in itertools.islice(value, MAX_ITEMS)]
            return row + ([f"... ({more} more)"] if (more := len(value) - MAX_ITEMS) > 0 else [])
        case _:
            return _cut(_own_text(value))


def _own_text(value: object) -> str:
    """Return the text of an object whose class wrote a `__str__`, else its type."""
    if type(value).__str__ is not object.__str__:
        with contextlib.suppress(Exception):  # foreign code; its type will do
            return str(value)
    return f"<{type(value).__name__}>"


def _to_record(
    logger: object, method: str, event_dict: MutableMapping[str, Any]
) -> tuple[tuple[Event], dict[str, Any]]:
    """End of the chain: hand the event to the standard library as a record's message."""
    del logger, method
    exc_info = event_dict.pop("exc_info", None)
    event_dict.pop("stack_info", None)
    name = str(event_dict.pop("event", ""))
    return (Event(name, dict(event_dict)),), {"exc_info": exc_info}


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what a record says, ours or a library's, in the order it is written."""
    own = record.msg if isinstance(record.msg, Event) else None
    moment = datetime.fromtimestamp(record.created, UTC)
    fields: dict[str, object] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": _cut(own.name if own else record.getMessage()),
        "logger": _cut(record.name),
    }
    for key, value in (own.fields if own else _extra(record)).items():
        fields[f"{key}_" if key in _OWN_KEYS else key] = plain(value)
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        fields["exception"] = _cut(_exception_in_words(error))
        fields["trace"] = places(error)
    return fields


def _extra(record: logging.LogRecord) -> dict[str, object]:
    """The keys that a module of ours which logs without this one gave as `extra`."""
    if not record.name.startswith(f"{OWN_LOGGER}."):
        return {}
    return {key: value for key, value in vars(record).items() if key not in _RECORD_KEYS}


def _exception_in_words(error: BaseException) -> str:
    """Return `KeyError: 'a' at FILE:LINE FUNCTION; from OSError: ... at ...`, causes last.

    Of a group, as a TaskGroup raises, the members are told too: they are what happened.
    """
    words: list[str] = []
    step: BaseException | None = error
    while step is not None and len(words) < MAX_DEPTH:  # the bound also ends a circle
        text = f"{type(step).__name__}: {step}".removesuffix(": ")
        passed = places(step)
        words.append(f"{text} at {passed[-1]}" if passed else text)
        if isinstance(step, BaseExceptionGroup):
            words.extend(_exception_in_words(one) for one in step.exceptions[:MAX_DEPTH])
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return "; from ".join(words)


def places(error: BaseException) -> list[str]:
    """Return where the exception passed, `FILE:LINE FUNCTION`, the place it arose last."""
    passed: list[str] = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        passed.append(_cut(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}"))
        traceback = traceback.tb_next
    return passed[-MAX_FRAMES:]


def _shown(value: object) -> str:
    """Write a plain value for the console; quoted if it could be misread."""
    if isinstance(value, str):
        text = _escaped(value)
        quoted = not text or text != value or any(char in ' "=\\' for char in text)
        return f'"{text}"' if quoted else text
    return _escaped(json.dumps(value, ensure_ascii=False))


def _escaped(text: str) -> str:
    r"""Replace what a terminal would obey or not print: a newline becomes \n, ESC \x1b."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}... ({len(text) - MAX_TEXT} more)"


def _is_terminal(stream: TextIO | None) -> bool:
    check: Callable[[], bool] | None = getattr(stream, "isatty", None)
    try:
        return check is not None and check()
    except ValueError:  # the stream is closed
        return False
