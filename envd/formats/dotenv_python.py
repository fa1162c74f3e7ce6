"""The python dialect: what python-dotenv reads, by python-dotenv's own parser.

`dotenv.parser.parse_stream` yields a binding for each statement and marks what it could not
read; `dotenv_values` passes over those and over names without `=`. Here they are errors. The
parser hands out statements that begin in the blank lines before them, so the line of an error
is found by leaving those out.

Two things the parser can't know are added. A backtick is an ordinary character to it, so a
value in backticks that spans lines is read as its first line and then fails further down: the
error says where the backtick stands. And its search for a comment takes time quadratic in a
run of blanks, so an unquoted value with more than MAX_BLANKS of them in a row is refused.
"""

from __future__ import annotations

import io
import re

from envd.formats.source import (
    Assignment,
    Source,
    Statement,
    is_variable_name,
    last_of_each,
    line_of,
    with_line_feeds,
)

# A megabyte of such runs costs the parser about half a second; an aligned comment has fewer.
MAX_BLANKS = 256

_BLANK = r"[^\S\n]"
_LONG_BLANKS = re.compile(rf"{_BLANK}{{{MAX_BLANKS + 1}}}")
_NAME_AND_SIGN = re.compile(
    rf"\s*(?:export{_BLANK}+)?(?P<name>'[^']+'|[^=#\s]+){_BLANK}*={_BLANK}*"
)
_COMMENT = re.compile(r"\s#")
_OPENS_BACKTICK = re.compile(rf"={_BLANK}*`")
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_NODE_HINT = "python-dotenv doesn't know backtick quotes; if the file is read by node: "


def read_python(text: str, source: Source) -> list[Assignment]:
    """Return what `dotenv.dotenv_values(path, interpolate=False)` reads, or raise."""
    from dotenv.parser import parse_stream

    text = with_line_feeds(text)
    if text.startswith("\ufeff"):  # the parser would remove it, and positions would be off by one
        raise source.error(1, "found a second byte order mark", hint="remove it")
    has_long_blanks = _LONG_BLANKS.search(text) is not None
    found: list[Assignment] = []
    open_backtick = 0
    position = 0
    bindings = parse_stream(io.StringIO(text))
    while True:
        if has_long_blanks:
            _refuse_long_blanks(text, position, source)
        binding = next(bindings, None)
        if binding is None:
            return last_of_each(found)
        written = binding.original.string
        position += len(written)
        statement = written.lstrip()
        line = binding.original.line + written[: len(written) - len(statement)].count("\n")
        if binding.error or (binding.key is not None and binding.value is None):
            raise _unreadable(statement, line, open_backtick, source)
        if binding.key is None or binding.value is None:
            continue
        found.append(source.assignment(binding.key, binding.value, line=line))
        if _leaves_backtick_open(statement, binding.value):
            open_backtick = line


def python_statements(text: str) -> list[Statement]:
    """Where the assignments stand in a text that `read_python` reads."""
    from dotenv.parser import parse_stream

    found: list[Statement] = []
    position = 0
    for binding in parse_stream(io.StringIO(text)):
        at, position = position, position + len(binding.original.string)
        sign = _NAME_AND_SIGN.match(text, at)
        if binding.key is None or sign is None:
            continue
        start = text.rfind("\n", at, sign.start("name")) + 1 or at
        value_end = _value_end(text, sign.end())
        found.append(Statement(binding.key, start, sign.end(), value_end, position))
    return found


def _value_end(text: str, value_at: int) -> int:
    """Where the value ends that begins at `value_at`, by the rules of python-dotenv."""
    quoted = _QUOTED.match(text, value_at)
    if quoted is not None:
        return quoted.end()
    line_end = text.find("\n", value_at)
    rest = text[value_at : line_end if line_end >= 0 else len(text)]
    if rest.startswith("#") and text[value_at - 1] != "=":
        return value_at
    comment = _COMMENT.search(rest)
    return value_at + len((rest[: comment.start()] if comment is not None else rest).rstrip())


def _leaves_backtick_open(statement: str, value: str) -> bool:
    return (
        value.startswith("`")
        and value.count("`") == 1
        and _OPENS_BACKTICK.search(statement) is not None
    )


def _unreadable(statement: str, line: int, open_backtick: int, source: Source) -> Exception:
    what = f"expected NAME=VALUE, found {_kind(statement)}"
    if not open_backtick:
        return source.error(line, what, hint=_hint(statement))
    return source.error(
        line,
        f"{what}, after a backtick quote that opens in line {open_backtick}",
        hint=f"{_NODE_HINT}--dialect node",
    )


def _hint(statement: str) -> str:
    sign = _NAME_AND_SIGN.match(statement)
    if sign is not None and statement[sign.end() : sign.end() + 1] in {"'", '"'}:
        return "close the quote, and put a backslash before a quote that belongs to the value"
    return "begin a comment with '#'; put quotes around a value that spans lines"


def _kind(statement: str) -> str:
    """Say what stands at the beginning of `statement` without showing it."""
    sign = _NAME_AND_SIGN.match(statement)
    if sign is not None and statement[sign.end() : sign.end() + 1] in {"'", '"'}:
        name = sign["name"].strip("'")
        of_name = f" of {name}" if is_variable_name(name) else ""
        if _QUOTED.match(statement, sign.end()):
            return f"text after the closing quote of the value{of_name}"
        return f"a quote that is never closed in the value{of_name}"
    first_line = statement.partition("\n")[0]
    if first_line.startswith("="):
        return "'=' without a name"
    if "=" not in first_line:
        return "a line without '='"
    return "something that is no name before '='"


def _refuse_long_blanks(text: str, position: int, source: Source) -> None:
    """Raise InvalidRequest if the value at `position` has too many blanks for the parser."""
    sign = _NAME_AND_SIGN.match(text, position)
    if sign is None or text[sign.end() : sign.end() + 1] in {"'", '"'}:
        return
    line_end = text.find("\n", sign.end())
    value = text[sign.end() : line_end if line_end >= 0 else len(text)]
    comment = _COMMENT.search(value)
    shown = value[: comment.start()].rstrip() if comment is not None else value
    if _LONG_BLANKS.search(shown):
        raise source.error(
            line_of(text, sign.start("name")),
            f"found more than {MAX_BLANKS} blanks in a row in an unquoted value",
            hint="put the value in quotes",
        )
