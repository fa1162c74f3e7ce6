"""What a command shows: tables, documents, exact values, notes and errors.

Names, values and messages come from other people. In tables, and wherever else text goes to a
terminal, what is not printable is shown as an escape (`\\n`, `\\x1b`), so that no value can
break a line or speak to the terminal. Piped values and documents are exact.

A terminal may have one live line, on standard error, which tells how far something is. It is
wiped before anything else is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
_NAMED_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_GAP = "  "
_NARROWEST = 20
_WIPE = "\r\x1b[K"


def printable(text: str, keep: str = "") -> str:
    """Return `text` with every character that is not printable, but `keep`, escaped.

    Example: printable("a\\x1b[2J") is "a\\\\x1b[2J".
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(character: str) -> str:
    return _NAMED_ESCAPES.get(character) or ascii(character)[1:-1]


class Screen:
    """Standard output and error of one command."""

    def __init__(self, stdout: TextIO, stderr: TextIO, environ: Mapping[str, str]) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._may_colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self.on_terminal = stdout.isatty()
        self.may_be_live = stderr.isatty() and environ.get("TERM") != "dumb"
        """Whether somebody sees a live line."""
        self._live = ""

    def colour(self, text: str, name: str, *, on_stderr: bool = False) -> str:
        """Return `text` in a colour where the stream is a terminal and nobody objects."""
        terminal = self._stderr.isatty() if on_stderr else self.on_terminal
        return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if terminal and self._may_colour else text

    def line(self, text: str = "", colour: str = "", *, cut: bool = False) -> None:
        """Write one line of our own words to standard output.

        With `cut` a terminal shows as much of it as one row holds.
        """
        live = self._live
        self._make_room()
        shown = printable(text)
        if cut and self.on_terminal:
            shown = _cut(shown, self._columns(self._stdout))
        self._stdout.write((self.colour(shown, colour) if colour else shown) + "\n")
        if live and not self._live:
            self.live(live)

    def heading(
        self, title: str, detail: str, colour: str = "dim", gap: str = _GAP, indent: str = _GAP
    ) -> None:
        """Write a title with its detail, which gets a row of its own where a terminal is narrow."""
        together = f"{title}{gap}{detail}".rstrip()
        if not self.on_terminal or columns_of(printable(together)) <= self._columns(self._stdout):
            self.line(together, colour)
        else:
            self.line(title, colour)
            self.line(f"{indent}{detail}", colour)

    def block(self, text: str) -> None:
        """Write ready lines of ours."""
        self._make_room()
        self._stdout.write(text)

    def note(self, text: str) -> None:
        """Write a remark to standard error."""
        self.wipe()
        self._stdout.flush()
        self._stderr.write(printable(text) + "\n")

    def live(self, text: str) -> None:
        """Show `text` as the live line, in place of what stood there."""
        if self.may_be_live:
            self._stdout.flush()
            shown = _cut(printable(text), self._columns(self._stderr) - 1)
            self._stderr.write(f"{_WIPE}{shown}")
            self._stderr.flush()
            self._live = text

    def wipe(self) -> None:
        """Take the live line away, if there is one."""
        if self._live:
            self._live = ""
            self._stderr.write(_WIPE)
            self._stderr.flush()

    def _make_room(self) -> None:
        """Take the live line away where standard output goes to the same terminal."""
        if self.on_terminal:
            self.wipe()

    def error(self, message: str, hint: str) -> None:
        """Write `error: WHAT` and, where there is a mend, `hint: MEND`."""
        self.note_with("error", message, "red")
        if hint:
            self.note_with("hint", hint, "yellow")

    def note_with(self, label: str, text: str, colour: str) -> None:
        """Write a labelled remark to standard error."""
        self.wipe()
        self._stdout.flush()
        shown = self.colour(f"{label}:", colour, on_stderr=True)
        self._stderr.write(f"{shown} {printable(text, chr(10))}\n")

    def exact(self, text: str) -> bool:
        """Write `text` as it is; on a terminal with what could speak to it escaped.

        Returns whether something had to be escaped.
        """
        self._make_room()
        if self.on_terminal:
            shown = printable(text, "\n\t")
            self._stdout.write(shown if shown.endswith("\n") or not shown else shown + "\n")
            return shown != text
        self._stdout.flush()
        self._stdout.buffer.write(text.encode())
        return False

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[str] = ()
    ) -> None:
        """Write rows under a header; on a terminal the widest columns are cut to its width.

        `colours` has one for each row, "" for none.
        """
        self._make_room()
        shown = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(columns_of, column)) for column in zip(header, *shown, strict=True)]
        if self.on_terminal:
            room = self._columns(self._stdout) - len(_GAP) * (len(widths) - 1)
            widths = _fitted(widths, room)
            shown = [[_cut(c, w) for c, w in zip(row, widths, strict=True)] for row in shown]
        self._stdout.write(self.colour(self._row(header, widths), "bold") + "\n")
        for at, row in enumerate(shown):
            line = self._row(row, widths)
            colour = colours[at] if colours else ""
            self._stdout.write((self.colour(line, colour) if colour else line) + "\n")

    def document(self, plain: Any, output: str) -> None:
        """Write an answer as JSON or YAML, exactly and in UTF-8."""
        self._make_room()
        if output == "yaml":
            import yaml

            text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        else:
            import json

            text = _without_raw_controls(json.dumps(plain, indent=2, ensure_ascii=False)) + "\n"
        self._stdout.flush()
        self._stdout.buffer.write(text.encode())

    def document_in_line(self, plain: Any) -> None:
        """Write a document as one line of JSON, at once."""
        import json

        self._make_room()
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
        self._stdout.flush()
        self._stdout.buffer.write((_without_raw_controls(text) + "\n").encode())
        self._stdout.flush()

    def flush(self) -> None:
        """Hand everything to the system; raises BrokenPipeError where nobody reads."""
        self._stdout.flush()
        self._stderr.flush()

    def _row(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = [
            cell + " " * (width - columns_of(cell))
            for cell, width in zip(cells, widths, strict=True)
        ]
        line = _GAP.join([*padded[:-1], cells[-1]]).rstrip()
        return _cut(line, self._columns(self._stdout)) if self.on_terminal else line

    def _columns(self, stream: TextIO) -> int:
        """The width of a terminal, without end where it is not known."""
        try:
            return os.get_terminal_size(stream.fileno()).columns or sys.maxsize
        except (OSError, ValueError):
            return sys.maxsize


def _fitted(widths: list[int], room: int) -> list[int]:
    """Take from the widest columns until all fit, but leave each _NARROWEST.

    Example: _fitted([12, 50, 40], 80) is [12, 34, 34].
    """
    fitted = [min(width, max(room, _NARROWEST)) for width in widths]
    while sum(fitted) > room and max(fitted) > _NARROWEST:
        fitted[fitted.index(max(fitted))] -= 1
    return fitted


def columns_of(text: str) -> int:
    """How many columns of a terminal `text` takes: wide characters two, combining ones none."""
    return len(text) if text.isascii() else sum(map(_columns_of_character, text))


def _columns_of_character(character: str) -> int:
    from unicodedata import combining, east_asian_width

    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int) -> str:
    """`text`, or as much of it as fits into `width` columns with an ellipsis."""
    if columns_of(text) <= width:
        return text
    room, end = width - 1, 0
    for character in text:
        room -= 1 if character.isascii() else _columns_of_character(character)
        if room < 0:
            break
        end += 1
    return text[:end] + "…"


def _without_raw_controls(document: str) -> str:
    """Escape what JSON leaves raw and a terminal may obey: DEL, C1 and bidi controls."""
    import json

    if document.isascii() and "\x7f" not in document:
        return document
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in document)
