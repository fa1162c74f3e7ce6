"""A file of variables as it arrives: bytes made text, places named, findings checked.

Every reader of this package is given a `Source` and makes its errors with it, so that each
error begins with `FILE:LINE:` and none holds a value. Files of variables hold secrets, and a
file that is read wrongly shows them in places where a name was expected: the second line of
a private key looks like a name. So a message shows a legal name where one was found before
an equal sign or a colon, and otherwise says which kind of thing stands there. Errors are
raised outside of `except` blocks, because a chained UnicodeDecodeError or JSONDecodeError
carries the whole file along.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from envd.core.errors import InvalidRequest, LimitExceeded
from envd.core.names import check_value, check_variable

InputFormat = Literal["dotenv", "json", "yaml"]
Dialect = Literal["python", "node"]

INVALID_FILE = "INVALID_FILE"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_HINT = "save the file as UTF-8"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Assignment:
    """One variable of a file. `line` counts from 1 and is where the assignment begins.

    `secret` is what the file itself says about it, None where the file says nothing (only
    envd's own JSON says it) and `secrets.select_secret` has not decided yet. The repr leaves
    the value out.
    """

    name: str
    value: str = field(repr=False)
    line: int
    secret: bool | None = None


class Statement(NamedTuple):
    """Where an assignment stands in a dotenv file: places in its text with line feeds.

    It goes from `start`, where its line begins, up to `end`, after its line end. What may stand
    for another value is at `value_at` up to `value_end`, quotes included.
    """

    name: str
    start: int
    value_at: int
    value_end: int
    end: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where text comes from: `name` is a path, or "-" for standard input."""

    name: str

    def at(self, line: int) -> str:
        return f"{self.shown}:{line}"

    @property
    def shown(self) -> str:
        return "standard input" if self.name == "-" else self.name

    def error(self, line: int, what: str, *, hint: str = "") -> InvalidRequest:
        """Make (not raise) the error that says `what` is wrong in `line`."""
        return InvalidRequest(f"{self.at(line)}: {what}", hint=hint, reason=INVALID_FILE)

    def decode(self, raw: str | bytes) -> str:
        """Return the text of `raw`, a byte order mark removed; line ends stay as they are.

        Raises InvalidRequest for UTF-16, for what is not UTF-8, and for NUL characters.
        """
        text = self._text(raw) if isinstance(raw, bytes) else raw
        text = text.removeprefix("\ufeff")
        stray = _LONE_SURROGATE.search(text)
        if stray is not None:
            raise self.error(
                line_of(text, stray.start()), "the text is not valid UTF-8", hint=_UTF8_HINT
            )
        nul = text.find("\0")
        if nul >= 0:
            raise self.error(
                line_of(text, nul), "found a NUL character, which no environment can carry"
            )
        return text

    def _text(self, raw: bytes) -> str:
        if raw.startswith(_UTF16_MARKS):
            raise self.error(1, "the file is UTF-16, expected UTF-8", hint=_UTF8_HINT)
        bad = -1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            bad = error.start
        line = line_of(raw[:bad].decode(), bad)
        raise self.error(line, f"the byte at offset {bad} is not valid UTF-8", hint=_UTF8_HINT)

    def assignment(
        self, name: str, value: str, *, line: int, secret: bool | None = None
    ) -> Assignment:
        """Return the assignment if name and value are legal, else raise InvalidRequest."""
        self.check_name(name, line=line)
        refusal: InvalidRequest | None = None
        try:
            check_value(name, value)
        except InvalidRequest as error:
            refusal = error
        if refusal is not None:
            raise self._with_place(refusal, line)
        return Assignment(name, value, line, secret)

    def check_name(self, name: str, *, line: int) -> None:
        """Raise InvalidRequest if `name` is no legal variable name; it is not shown."""
        refusal: InvalidRequest | None = None
        try:
            check_variable(name)
        except InvalidRequest as error:
            refusal = error
        if refusal is None:
            return
        if isinstance(refusal, LimitExceeded):
            raise self._with_place(refusal, line)
        found = "characters that no variable name may hold" if name else "an empty name"
        raise self.error(line, f"expected a variable name, found {found}", hint=refusal.hint)

    def _with_place(self, refusal: InvalidRequest, line: int) -> InvalidRequest:
        limit = isinstance(refusal, LimitExceeded)
        return type(refusal)(
            f"{self.at(line)}: {refusal.message}",
            hint=refusal.hint,
            reason=refusal.reason if limit else INVALID_FILE,
        )


def line_of(text: str, index: int) -> int:
    """Return the line, counted from 1, that holds `text[index]`; CR, LF and CRLF end lines."""
    before = text[:index]
    return before.count("\n") + before.count("\r") - before.count("\r\n") + 1


def with_line_feeds(text: str) -> str:
    """Return `text` with every CRLF and CR made LF, as both dotenv packages read files."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_variable_name(name: str) -> bool:
    try:
        check_variable(name)
    except InvalidRequest:
        return False
    return True


def last_of_each(assignments: list[Assignment]) -> list[Assignment]:
    """Keep the last assignment of each name, at the place of the first, as a dict does."""
    return list({each.name: each for each in assignments}.values())
