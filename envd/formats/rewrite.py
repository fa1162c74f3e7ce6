"""Files of variables changed in place: what is not changed stays as it was, byte for byte.

A file that people write has comments, an order, and quotes as they like them. So a value is
replaced where it stands, a new variable comes last, and of one that goes its lines go. The result
is read again before it is handed out: it holds just what it should, or nothing is.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple, assert_never

from envd.core.errors import InvalidRequest
from envd.core.names import check_value, check_variable
from envd.formats.dotenv_quote import quoted
from envd.formats.read import Dialect, InputFormat, parse
from envd.formats.source import Source, Statement, with_line_feeds
from envd.formats.write import render

_MARK = b"\xef\xbb\xbf"


class Edit(NamedTuple):
    """Text that stands for what is from `start` up to `end`."""

    start: int
    end: int
    text: str


def rewrite(
    raw: bytes,
    changes: Mapping[str, str | None],
    *,
    format: InputFormat,  # noqa: A002 (as in `parse`)
    dialect: Dialect = "python",
    source: str,
) -> bytes:
    """Return the file with these variables set, or removed (None).

    `raw` empty is a file that does not exist yet. Raises InvalidRequest: as `parse` does where the
    file can't be read, and with reason INEXPRESSIBLE, naming the variable, where it can't hold a
    value or can't be changed in place. The message never holds a value.
    """
    for name, value in changes.items():
        check_variable(name)
        if value is not None:
            check_value(name, value)
    raw = raw or render({}, format=format).encode()
    before = {
        each.name: each.value for each in parse(raw, format=format, dialect=dialect, source=source)
    }
    wanted = {**before, **changes}
    expected = {name: value for name, value in wanted.items() if value is not None}
    text = Source(source).decode(raw)
    mark = _MARK if raw.startswith(_MARK) else b""
    wrong = ""
    for attempt in _attempts(text, changes, before, format=format, dialect=dialect, source=source):
        written = mark + attempt.encode()
        wrong = _wrong(written, expected, format=format, dialect=dialect, source=source)
        if not wrong:
            return written
    raise InvalidRequest(
        f"{Source(source).shown}: {_culprit(wrong, changes)} can't be changed in place in this "
        "file, or it can't hold such a value",
        hint="change it by hand, or have the variable in a file of its own",
        reason="INEXPRESSIBLE",
    )


def _wrong(
    written: bytes,
    expected: Mapping[str, str],
    *,
    format: InputFormat,  # noqa: A002
    dialect: Dialect,
    source: str,
) -> str:
    """The name of a variable that is not as expected, "" where all are."""
    try:
        found = {
            each.name: each.value
            for each in parse(written, format=format, dialect=dialect, source=source)
        }
    except InvalidRequest:
        return "?"
    names = sorted({*found, *expected})
    return next((name for name in names if found.get(name) != expected.get(name)), "")


def _culprit(wrong: str, changes: Mapping[str, str | None]) -> str:
    if wrong in changes:
        return wrong
    return next(iter(changes)) if len(changes) == 1 else "a variable"


def _attempts(
    text: str,
    changes: Mapping[str, str | None],
    before: Mapping[str, str],
    *,
    format: InputFormat,  # noqa: A002
    dialect: Dialect,
    source: str,
) -> Iterable[str]:
    """Texts that may be right, the one that keeps most first."""
    match format:
        case "dotenv":
            yield _dotenv(text, changes, before, dialect, keep_line=True)
            yield _dotenv(text, changes, before, dialect, keep_line=False)
        case "json":
            from envd.formats.rewrite_json import rewrite_json

            yield rewrite_json(text, changes, Source(source))
        case "yaml":
            from envd.formats.rewrite_yaml import rewrite_yaml

            yield rewrite_yaml(text, changes, list(before))
        case _:
            assert_never(format)


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with these edits, which do not overlap."""
    pieces: list[str] = []
    at = 0
    for edit in sorted(edits):
        pieces += [text[at : edit.start], edit.text]
        at = max(at, edit.end)
    return "".join([*pieces, text[at:]])


def appended(text: str, lines: Iterable[str]) -> str:
    """The text with these lines after it, with the line ends that it has."""
    added = list(lines)
    if not added:
        return text
    line_end = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith(("\n", "\r")):
        text += line_end
    return text + "".join(line + line_end for line in added)


def _dotenv(
    text: str,
    changes: Mapping[str, str | None],
    before: Mapping[str, str],
    dialect: Dialect,
    *,
    keep_line: bool,
) -> str:
    """Change a dotenv file; without `keep_line` what stands beside a changed value goes."""
    edits: list[Edit] = []
    plain = with_line_feeds(text)
    statements = _statements(plain, dialect)
    last = {each.name: each for each in statements}
    for statement in statements:
        if statement.name not in changes:
            continue
        value = changes[statement.name]
        if value is None:
            edits.append(Edit(statement.start, statement.end, ""))
        elif statement == last[statement.name]:
            edits.append(_assigned(plain, statement, value, dialect, keep_line=keep_line))
    new = (
        f"{name}={_written(value, dialect)}"
        for name, value in changes.items()
        if value is not None and name not in before
    )
    return appended(edited(text, _in_raw(text, edits)), new)


def _statements(plain: str, dialect: Dialect) -> list[Statement]:
    match dialect:
        case "python":
            from envd.formats.dotenv_python import python_statements

            return python_statements(plain)
        case "node":
            from envd.formats.dotenv_node import node_statements

            return node_statements(plain)
        case _:
            assert_never(dialect)


def _assigned(
    plain: str, statement: Statement, value: str, dialect: Dialect, *, keep_line: bool
) -> Edit:
    new = _written(value, dialect)
    if not keep_line:
        ends = "\n" if plain[statement.start : statement.end].endswith("\n") else ""
        return Edit(statement.start, statement.end, f"{statement.name}={new}{ends}")
    after = " " if plain[statement.value_end : statement.value_end + 1] == "#" else ""
    return Edit(statement.value_at, statement.value_end, new + after)


def _written(value: str, dialect: Dialect) -> str:
    """What stands for a value; node knows backticks, in which only they have a meaning."""
    text = quoted(value)
    if dialect == "node" and "`" not in value and text[:1] == '"' and "\\" in text:
        return f"`{value}`"
    return text


def _in_raw(text: str, edits: Iterable[Edit]) -> Iterable[Edit]:
    """Move edits of the text with line feeds to the text with the line ends that it has."""
    pairs = [match.start() for match in re.finditer("\r\n", text)]
    # Each pair before a place is one character less in the text with line feeds.
    places = [at - count for count, at in enumerate(pairs)]
    for edit in edits:
        start, end = (at + bisect_left(places, at) for at in (edit.start, edit.end))
        replacement = edit.text
        if pairs and replacement.endswith("\n"):
            replacement = replacement[:-1] + "\r\n"
        yield Edit(start, end, replacement)
