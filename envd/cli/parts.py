"""Commands of several parts, such as `envctl backup create|list`: which part is meant.

A part is a function of its own module, which is loaded when it is used, and takes some of the
command's flags; another's flag is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

from envd.cli.exits import UsageError
from envd.cli.invocation import Invocation


class Part(NamedTuple):
    """Where a part is (`module:function`), and the flags of its command that it takes."""

    place: str
    flags: tuple[str, ...] = ()


def perform(invocation: Invocation, parts: Mapping[str, Part], question: str) -> int:
    """Do the part that the first word names, with the other words; `question` asks for one."""
    words, command = invocation.take_words(), invocation.arguments.command
    name = words[0] if words else ""
    part = parts.get(name)
    if part is None:
        what = f"there is no envctl {command} {name[:32]!a}" if name else question
        raise UsageError(what, hint=f"envctl {command} {'|'.join(parts)}")
    for flag in invocation.command.flags:
        given = invocation.arguments
        if flag.name not in part.flags and (
            given.on(flag.name) or given.text(flag.name) or given.texts(flag.name)
        ):
            raise UsageError(
                f"envctl {command} {name} has no {flag.name}", hint=f"see: envctl {command} --help"
            )
    module, _, function = part.place.partition(":")
    code: int = getattr(import_module(f"envd.cli.commands.{module}"), function)(
        invocation, words[1:]
    )
    return code
