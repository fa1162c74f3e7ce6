"""The text of `envctl --help` and of `envctl COMMAND --help`, at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from envd.cli.table import GROUPS

if TYPE_CHECKING:
    from envd.cli.grammar import Command, Flag

_WIDTH = 80
_INDENT = "  "
_COLUMN = 26

_INTRODUCTION = """\
envctl talks to envd, which keeps environment variables: a program gets them at
its start, every change is kept in a history and can be undone.

Usage: envctl COMMAND [ARGUMENTS]

Try it:
  envctl dev                            a node of your own, with a guided tour
  envctl set web/dev GREETING=hello     keep a variable
  envctl get web/dev                    show them all
  envctl run web/dev -- printenv        run a program with them
"""
_GLOBAL = """
Flags of every command (before or after it):
  --server ADDRESS    HOST:PORT[,...] or unix:PATH [ENVD_ADDR]
  --token TOKEN       the credential [ENVD_TOKEN]
  --context NAME      a named node, see: envctl context
  --env ENV           the environment where ENV is left out [ENVD_ENVIRONMENT]
  -o, --output FORMAT table, json or yaml
  --consistency LEVEL eventual, session or strong; --max-lag TIME
  --timeout TIME      give up after this long, such as 10s
  -h, --help          help; also for one command: envctl COMMAND --help
  --version           the version of envctl
"""
_EXIT_CODES = """
Exit codes:
  0 done             4 conflict or stale            7 partly done
  1 failed           5 unavailable, nothing done    8 outcome unknown: retry
  2 wrong usage      6 denied                         with --operation ID
  3 not found                                       9 differences (--exit-code)
  run: the program's own; 125 envd failed, 126 not executable, 127 not found
"""


def overview() -> str:
    """The text of `envctl --help`."""
    parts = [_INTRODUCTION]
    for title, commands in GROUPS:
        lines = [f"{_INDENT}{name:<12}{summary}" for name, _, summary in commands]
        parts.append(f"\n{title}:\n" + "\n".join(lines) + "\n")
    return "".join([*parts, _GLOBAL, _EXIT_CODES])


def of_command(name: str, command: Command) -> str:
    """The text of `envctl COMMAND --help`."""
    forms = [f"envctl {name} {form}".rstrip() for form in command.usage]
    parts = ["Usage: " + _folded(forms[0], len("Usage: "), hang=4)]
    parts += [" " * len("Usage: ") + _folded(form, len("Usage: "), hang=4) for form in forms[1:]]
    parts += ["", _paragraphs(command.about), "", "Examples:"]
    for line, meaning in command.examples:
        parts += [f"{_INDENT}{line}", f"{_INDENT}    {meaning}"]
    if command.flags:
        parts += ["", "Flags:", *_flag_lines(command.flags)]
    parts += ["", "Flags of every command, and exit codes: envctl --help", ""]
    return "\n".join(parts)


def _paragraphs(text: str) -> str:
    return "\n\n".join(_folded(" ".join(part.split()), 0) for part in text.strip().split("\n\n"))


def _flag_lines(flags: Iterable[Flag]) -> list[str]:
    lines = []
    for flag in flags:
        names = f"{flag.short}, {flag.name}" if flag.short else flag.name
        left = f"{_INDENT}{names} {flag.metavar}".rstrip()
        if len(left) >= _COLUMN - 1:
            lines.append(left)
            left = ""
        lines.append(f"{left:<{_COLUMN}}{_folded(flag.help, _COLUMN)}")
    return lines


def _folded(text: str, indent: int, hang: int = 0) -> str:
    """Fold text at blanks to the width that is left beside `indent`."""
    lines: list[str] = []
    line = ""
    for word in _units(text):
        room = _WIDTH - indent - (hang if lines else 0)
        if line and len(line) + 1 + len(word) > room:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return ("\n" + " " * (indent + hang)).join([*lines, line])


def _units(text: str) -> list[str]:
    """Words, where what stands in one pair of brackets stays together."""
    units: list[str] = []
    for word in text.split():
        if units and units[-1].count("[") > units[-1].count("]"):
            units[-1] += f" {word}"
        else:
            units.append(word)
    return units
