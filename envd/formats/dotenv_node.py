"""The node dialect: what `parse` of the npm package `dotenv` (16 and 17) reads.

The rules, as found by asking the package:

* Line ends are made LF first. U+2028 and U+2029 end a comment and a quoted value's line, too,
  for they are line ends to JavaScript; its blanks are `BLANKS`.
* `[export] NAME = VALUE` or `[export] NAME: VALUE`; blanks before `=` and after `export` may
  hold line ends, a colon follows its name at once and is followed by a blank.
* A quoted value ends at the first quote of its kind without a backslash before it, if nothing
  but a comment follows in that line; failing that at the last quote with a backslash for
  which it holds. If there is none, the value is not quoted.
* Other values end at the first `#` or the end of the line, and are trimmed.
* Quotes around what was found are then removed, other escapes are kept as written, and
  `\\n` and `\\r` are expanded if the value began with a double quote.

The package passes over everything else. Here what is neither blank, comment nor assignment
is an error.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from envd.formats.source import Assignment, Source, Statement, last_of_each, with_line_feeds

LINE_ENDS = "\n\u2028\u2029"
BLANKS = (
    "\t\v\f\r \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u202f\u205f\u3000\ufeff" + LINE_ENDS
)
QUOTES = "'\"`"

_SPACE = re.compile(f"[{BLANKS}]*")
_SPACE_AND_COMMENTS = re.compile(f"(?:[{BLANKS}]|#[^{LINE_ENDS}]*)*+")
_EXPORT = re.compile(f"export[{BLANKS}]+")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_EQUAL_SIGN = re.compile(f"[{BLANKS}]*=")
_COLON = re.compile(f":[{BLANKS}]")
_UNQUOTED = re.compile(r"[^#\n]*")


class _Head(NamedTuple):
    name: str
    value_at: int


def read_node(text: str, source: Source) -> list[Assignment]:
    """Return what the npm package reads; raise InvalidRequest where it would pass over text."""
    text = with_line_feeds(text)
    found: list[Assignment] = []
    line = 1
    counted_to = 0
    index = _skip(text, 0)
    while index < len(text):
        line += text.count("\n", counted_to, index)
        counted_to = index
        head = _head(text, index)
        if head is None:
            raise _unreadable(text, index, line, source)
        value, after = _value(text, head.value_at)
        found.append(source.assignment(head.name, value, line=line))
        index = _skip(text, after)
    return last_of_each(found)


def node_statements(text: str) -> list[Statement]:
    """Where the assignments stand in a text that `read_node` reads."""
    found: list[Statement] = []
    index = _skip(text, 0)
    while index < len(text):
        head = _head(text, index)
        if head is None:
            break
        _, after = _value(text, head.value_at)
        space = _SPACE.match(text, head.value_at, after)
        value_at = space.end() if space is not None else head.value_at
        value_end = max(value_at, len(text[:after].rstrip(BLANKS)))
        if value_at == after:  # Nothing but blanks: the value begins right after the sign.
            value_at = value_end = head.value_at
        start = text.rfind("\n", 0, index) + 1
        line_end = text.find("\n", value_end)
        end = line_end + 1 if line_end >= 0 else len(text)
        found.append(Statement(head.name, start, value_at, value_end, end))
        index = _skip(text, after)
    return found


def _skip(text: str, index: int) -> int:
    """Return where the next thing stands that is neither a blank nor a comment."""
    match = _SPACE_AND_COMMENTS.match(text, index)
    return match.end() if match is not None else index


def _head(text: str, index: int) -> _Head | None:
    """Read `NAME =` or `NAME:` and a blank; the word export is tried as a keyword first."""
    export = _EXPORT.match(text, index)
    starts = (export.end(), index) if export is not None else (index,)
    for start in starts:
        name = _NAME.match(text, start)
        if name is None:
            continue
        sign = _EQUAL_SIGN.match(text, name.end()) or _COLON.match(text, name.end())
        if sign is not None:
            return _Head(name.group(), sign.end())
    return None


def _value(text: str, index: int) -> tuple[str, int]:
    """Return the value that begins at `index` or after blanks, and where its text ends."""
    space = _SPACE.match(text, index)
    opening = space.end() if space is not None else index
    if text[opening : opening + 1] in set(QUOTES):
        end = _quoted_end(text, opening)
        if end is not None:
            return meaning(text[opening:end]), end
    unquoted = _UNQUOTED.match(text, index)
    end = unquoted.end() if unquoted is not None else index
    return meaning(text[index:end]), end


def _quoted_end(text: str, opening: int) -> int | None:
    """Return the index after the closing quote, None if nothing closes the one at `opening`.

    Every call looks no further than the next quote of its kind that no backslash precedes,
    where a later call may begin, so all calls together take time linear in the text.
    """
    quote = text[opening]
    after_backslash: list[int] = []
    at = text.find(quote, opening + 1)
    while at >= 0 and text[at - 1] == "\\":
        after_backslash.append(at)
        at = text.find(quote, at + 1)
    first = [at] if at >= 0 else []
    for closing in first + after_backslash[::-1]:
        if _only_a_comment_follows(text, closing + 1):
            return closing + 1
    return None


def _only_a_comment_follows(text: str, index: int) -> bool:
    space = _SPACE.match(text, index)
    end = space.end() if space is not None else index
    return (
        end == len(text) or text[end] == "#" or any(each in LINE_ENDS for each in text[index:end])
    )


def meaning(written: str) -> str:
    """Turn a value as written into what it means: trimmed, unquoted, expanded."""
    trimmed = written.strip(BLANKS)
    value = _without_quotes(trimmed)
    if trimmed.startswith('"'):
        value = value.replace("\\n", "\n").replace("\\r", "\r")
    return value


def _without_quotes(value: str) -> str:
    """Remove quotes that stand around the value.

    To the package a value's lines have quotes around them, too. An unquoted value has
    several lines only by U+2028 and U+2029; a quoted one is a pair of quotes as a whole.
    """
    kept: list[str] = []
    index = 0
    last = {quote: _last_at_a_line_end(value, quote) for quote in QUOTES}
    for start in _line_starts(value):
        if start < index:
            continue
        closing = last.get(value[start : start + 1], -1)
        if closing > start:
            kept += [value[index:start], value[start + 1 : closing]]
            index = closing + 1
    return "".join(kept) + value[index:]


def _line_starts(value: str) -> list[int]:
    return [0, *(index + 1 for index, each in enumerate(value) if each in LINE_ENDS)]


def _last_at_a_line_end(value: str, quote: str) -> int:
    at = value.rfind(quote)
    while at >= 0 and at + 1 < len(value) and value[at + 1] not in LINE_ENDS:
        at = value.rfind(quote, 0, at)
    return at


def _unreadable(text: str, index: int, line: int, source: Source) -> Exception:
    statement = text[index:].partition("\n")[0] if index < len(text) else ""
    hint = "begin a comment with '#'; put quotes around a value that spans lines"
    if statement.startswith("="):
        kind = "'=' without a name"
    elif statement.startswith(tuple(QUOTES)):
        kind = "a quote where a name is expected"
    elif "=" in statement:
        kind = "something that is no name before '='"
    else:
        kind = "a line without '='"
    return source.error(line, f"expected NAME=VALUE, found {kind}", hint=hint)
