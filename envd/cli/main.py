"""The entry of `envctl`: find the command, run it, and turn what happens into an exit code.

Errors go to standard error as `error: WHAT` and, where there is a mend, `hint: MEND`. There is
never a traceback but with ENVD_DEBUG=1. Little is imported here on purpose: `envctl --help`
takes little longer than Python's own start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envd.cli.grammar import Arguments, Command
    from envd.cli.invocation import Invocation
    from envd.cli.world import World

# Those of envd.cli.exits, which takes longer to import than --help to show.
_DONE, _FAILED, _USAGE, _INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None, *, world: World | None = None) -> int:
    """Run one call of `envctl` and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if world is None:
            from envd import streams

            streams.open_missing()
            streams.silence_grpc()
        if words in ([], ["help"], ["--help"], ["-h"], ["--version"]):
            return _front_page(words, world)
        from envd.cli.guard import guarded
        from envd.cli.world import real_world

        surroundings = world or real_world()
        return guarded(surroundings, words, lambda: _prepared(words, surroundings))
    except KeyboardInterrupt:
        return _INTERRUPTED  # Before there was anything to interrupt.


def load_command(name: str) -> Command:
    """Import the module of a command, and no other."""
    from importlib import import_module

    from envd.cli.table import COMMANDS

    module, _, attribute = COMMANDS[name].partition(":")
    command: Command = getattr(import_module(f"envd.cli.commands.{module}"), attribute)
    return command


def _front_page(words: Sequence[str], world: World | None) -> int:
    """Show what needs no command; without any word the overview is a complaint."""
    streams = world or sys
    stream = streams.stdout if words else streams.stderr
    try:
        stream.write(_version() if words == ["--version"] else _overview())
        stream.flush()
    except OSError:
        from envd.cli.guard import silence

        silence(stream)  # Nobody reads, or the disk is full.
        return _FAILED
    return _DONE if words else _USAGE


def _version() -> str:
    from envd import __version__

    return f"envctl {__version__}\n"


def _overview() -> str:
    from envd.cli.help import overview

    return overview()


def _prepared(words: list[str], world: World) -> Invocation | str:
    """Read the command line: an invocation to run, or a text to show."""
    from envd.cli import grammar
    from envd.cli.help import of_command
    from envd.cli.invocation import Invocation
    from envd.cli.table import COMMANDS

    cut = words.index("--") if "--" in words else len(words)
    name, rest = grammar.find_command(words[:cut])
    rest += words[cut:]
    if name == "help":
        name, rest = grammar.find_command(rest)
        rest = ["--help"]
    if not name and {"--help", "-h"} & set(rest):
        return _overview()
    if name not in COMMANDS:
        raise grammar.unknown_command(name)
    command = load_command(name)
    before_literal = rest[: rest.index("--")] if "--" in rest else rest
    if {"--help", "-h"} & set(before_literal):
        return of_command(name, command)
    arguments: Arguments = grammar.parse(name, command, rest)
    return Invocation(world, command, arguments)


if __name__ == "__main__":
    sys.exit(main())
