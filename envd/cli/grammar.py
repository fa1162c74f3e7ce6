"""What a command takes, and how its arguments are read.

Flags are data (`Flag`), so that parsing, `--help` and the completion scripts come from one
table. The global flags may stand before the command or after it. Words and flags may be mixed;
after `--` everything is a word.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from envd.cli.exits import UsageError
from envd.cli.table import COMMANDS

if TYPE_CHECKING:
    from envd.cli.invocation import Invocation


class Flag(NamedTuple):
    """One flag. Without `metavar` it is a switch; `repeat` collects every value given."""

    name: str
    help: str
    metavar: str = ""
    short: str = ""
    choices: tuple[str, ...] = ()
    repeat: bool = False


class Command(NamedTuple):
    """One command: `usage` are its forms, `examples` are (command line, what it does)."""

    usage: tuple[str, ...]
    about: str
    examples: tuple[tuple[str, str], ...]
    run: Callable[[Invocation], int]
    flags: tuple[Flag, ...] = ()


OUTPUTS = ("table", "json", "yaml")
LEVELS = ("eventual", "session", "strong")

GLOBAL_FLAGS = (
    Flag("--server", "the node: HOST:PORT[,...] or unix:PATH [ENVD_ADDR]", "ADDRESS"),
    Flag("--token", "the credential [ENVD_TOKEN]", "TOKEN"),
    Flag("--context", "a named node, see: envctl context", "NAME"),
    Flag("--env", "the environment where ENV is left out [ENVD_ENVIRONMENT]", "ENV"),
    Flag("--output", "table, json or yaml (default table)", "FORMAT", "-o", OUTPUTS),
    Flag("--consistency", "eventual, session or strong", "LEVEL", "", LEVELS),
    Flag("--max-lag", "refuse reads that may be staler, such as 500ms", "TIME"),
    Flag("--timeout", "give up after this long (default 30s)", "TIME"),
    Flag("--ca", "TLS: certificates of authorities (not in this version)", "FILE"),
    Flag("--cert", "TLS: client certificate (not in this version)", "FILE"),
    Flag("--key", "TLS: client key (not in this version)", "FILE"),
    Flag("--help", "show this help", "", "-h"),
)
WRITE_FLAGS = (
    Flag("--message", "why, for the history", "TEXT", "-m"),
    Flag("--operation", "an id that makes a repeated write happen once", "ID"),
)
IF_REVISION = Flag("--if-revision", "only if the environment is still at this revision", "R")
YES = Flag("--yes", "do not ask", "", "-y")
DRY_RUN = Flag("--dry-run", "show what would be done, and do nothing")
REVEAL = Flag("--reveal", "show secret values, which takes the right to")
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class Arguments:
    """What was typed: the words, and the flags by their names."""

    def __init__(self, command: str, words: list[str], flags: dict[str, object]) -> None:
        self.command = command
        self.words = words
        self.literal: list[str] | None = None
        """What stood after `--`, None where there was none."""
        self._flags = flags

    def on(self, flag: str) -> bool:
        """Tell whether a switch was given."""
        return bool(self._flags.get(flag))

    def text(self, flag: str) -> str:
        """The value of a flag, "" where it was not given."""
        value = self._flags.get(flag)
        return value if isinstance(value, str) else ""

    def is_empty(self, flag: str) -> bool:
        """Tell whether a flag was given with "" as its value."""
        return self._flags.get(flag) == ""

    def texts(self, flag: str) -> list[str]:
        """Every value of a flag that may be repeated."""
        values = self._flags.get(flag)
        return [str(value) for value in values] if isinstance(values, list) else []

    def number(self, flag: str, default: int) -> int:
        """The value of a flag that takes a number above 0."""
        text = self.text(flag)
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or int(text[:9]) < 1:
            raise UsageError(f"{flag} takes a number above 0")
        return int(text[:9])

    def milliseconds(self, flag: str) -> int | None:
        """The value of a flag that takes a time: 500ms, 10s, 2m; a bare number is seconds."""
        text = self.text(flag)
        if not text:
            return None
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = _UNITS_MS.get(text[len(digits) :] or "s")
        try:
            amount = float(digits) if unit else -1.0
        except ValueError:
            amount = -1.0
        if unit is None or not 0 < amount * unit < 1e9:
            raise UsageError(f"{flag} takes a time above 0 such as 500ms, 10s or 2m")
        return int(amount * unit)


class _Formatter(argparse.HelpFormatter):
    """Of a fixed width: to ask for the terminal's takes the import of shutil."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting; the message of argparse is kept."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "), hint=f"see: {self.prog} --help")


def find_command(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Split `argv` into the command and everything else; "" where there is no command."""
    taking = {each for flag in GLOBAL_FLAGS if flag.metavar for each in (flag.name, flag.short)}
    known = {each for flag in GLOBAL_FLAGS for each in (flag.name, flag.short)}
    at = 0
    while at < len(argv):
        word = argv[at]
        if not word.startswith("-") or word == "-":
            return word, [*argv[:at], *argv[at + 1 :]]
        name = word.partition("=")[0]
        if name not in known and not name.startswith("-o"):
            raise unknown_flag(name, known, "envctl")
        at += 2 if word in taking else 1
    return "", list(argv)


def unknown_command(name: str) -> UsageError:
    """The error for a word that is no command, with the nearest one."""
    if not name:
        return UsageError("no command is named", hint="see: envctl --help")
    near = _nearest(name, COMMANDS)
    hint = f"did you mean: envctl {near}" if near else "see: envctl --help"
    return UsageError(f"there is no command {name[:64]!a}", hint=hint)


def unknown_flag(name: str, known: Iterable[str], program: str) -> UsageError:
    """The error for a flag that there is not, with the nearest one."""
    near = _nearest(name, sorted(filter(None, known)))
    hint = f"did you mean {near}?" if near else f"see: {program} --help"
    return UsageError(f"{program} has no flag {name[:64]!a}", hint=hint)


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), 1)), "")


def parse(name: str, command: Command, argv: Sequence[str]) -> Arguments:
    """Read the arguments of a command; raises UsageError."""
    cut = argv.index("--") if "--" in argv else len(argv)
    flags = (*GLOBAL_FLAGS, *command.flags)
    namespace, rest = _parser(name, flags).parse_known_args(list(argv[:cut]))
    for word in rest:
        if word.startswith("-") and word != "-":
            known = [each for flag in flags for each in (flag.name, flag.short)]
            raise unknown_flag(word.partition("=")[0], known, f"envctl {name}")
    arguments = Arguments(name, rest, vars(namespace))
    if cut < len(argv):
        arguments.literal = list(argv[cut + 1 :])
    return arguments


def _parser(name: str, flags: Iterable[Flag]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"envctl {name}", add_help=False, allow_abbrev=False, formatter_class=_Formatter
    )
    for flag in flags:
        names = [each for each in (flag.short, flag.name) if each]
        if not flag.metavar:
            parser.add_argument(*names, dest=flag.name, action="store_true")
        elif flag.repeat:
            parser.add_argument(*names, dest=flag.name, action="append")
        else:
            parser.add_argument(*names, dest=flag.name, choices=flag.choices or None)
    return parser
