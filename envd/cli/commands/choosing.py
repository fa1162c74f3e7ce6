"""`envctl use` and `context`: what holds where nothing is said."""

from __future__ import annotations

import re
from pathlib import Path

from envd.cli import contexts, exits, target
from envd.cli.exits import Failed
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation

_LINE = re.compile(r"^[ \t]*environment[ \t]*=.*$", re.MULTILINE)


def _use(invocation: Invocation) -> int:
    words = invocation.take_words(most=1)
    if not words:
        return _show_default(invocation)
    environment = target.environment_only(words[0])
    file = Path(invocation.world.cwd) / target.DIRECTORY_FILE
    line = f'environment = "{environment}"'
    try:
        text = file.read_text("utf-8") if file.exists() else ""
        text = _LINE.sub(line, text, count=1) if _LINE.search(text) else f"{line}\n{text}"
        file.write_text(text, "utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Failed(f"can't write {file}: {reason}") from error
    if invocation.shows_tables():
        invocation.screen.line(f"{environment} is used in this directory and below ({file.name})")
    else:
        invocation.document({"environment": environment, "origin": str(file)})
    return exits.DONE


def _show_default(invocation: Invocation) -> int:
    default = target.default_environment(invocation)
    if not invocation.shows_tables():
        shown = {"environment": default.environment, "origin": default.origin} if default else {}
        invocation.document(shown or {"environment": None, "origin": None})
    elif default:
        invocation.screen.line(f"{default.environment}  (from {default.origin})")
    else:
        invocation.screen.note("no environment is in use here; choose one: envctl use ENV")
    return exits.DONE


def _context(invocation: Invocation) -> int:
    words = invocation.take_words(most=1)
    environ = invocation.world.environ
    known = contexts.load(environ)
    if invocation.arguments.on("--none"):
        contexts.save(environ, known._replace(current=""))
        invocation.tell("no context is current; the node of this machine is used")
    elif words and words[0] not in known.named:
        raise known.unknown(words[0])
    elif words and invocation.arguments.on("--remove"):
        remaining = {name: each for name, each in known.named.items() if name != words[0]}
        current = "" if known.current == words[0] else known.current
        contexts.save(environ, contexts.Contexts(current, remaining))
        invocation.tell(f"removed the context {words[0]}")
    elif words:
        contexts.save(environ, known._replace(current=words[0]))
        invocation.tell(f"the current context is {words[0]}")
    else:
        _show_contexts(invocation, known)
    return exits.DONE


def _show_contexts(invocation: Invocation, known: contexts.Contexts) -> None:
    rows = [
        (name, each.server, each.environment, name == known.current)
        for name, each in sorted(known.named.items())
    ]
    if not invocation.shows_tables():
        keys = ("name", "server", "environment", "current")
        invocation.document({"contexts": [dict(zip(keys, row, strict=True)) for row in rows]})
    elif rows:
        shown = [("*" if row[3] else "", *row[:3]) for row in rows]
        invocation.screen.table(("", "CONTEXT", "SERVER", "ENVIRONMENT"), shown)
    else:
        invocation.screen.note("there are no contexts; envctl login --context NAME makes one")


USE = Command(
    usage=("[ENV]",),
    about="""
    Choose the environment that commands in this directory and below are about where ENV is
    left out. It is written to .envd.toml, which may be committed with the project. Without
    ENV, show the one in use and where it comes from: --env, ENVD_ENVIRONMENT, .envd.toml here
    or in a parent directory, the context.
    """,
    examples=(
        ("envctl use web/dev", "from now on 'envctl get' is about web/dev"),
        ("envctl use", "which one is in use, and why"),
    ),
    run=_use,
)
CONTEXT = Command(
    usage=("[NAME] [--remove]", "--none"),
    about="""
    Show the contexts, or make one current. A context is a named node with the credential for
    it; envctl login and envctl dev make them. --server, --context and ENVD_ADDR beat the
    current one. With --none, none is current and the node of this machine is used.
    """,
    examples=(
        ("envctl context", "list them; * is the current one"),
        ("envctl context prod", "switch"),
        ("envctl get web/prod --context prod", "for one command only"),
    ),
    run=_context,
    flags=(
        Flag("--none", "let none be current"),
        Flag("--remove", "forget this context and its token"),
    ),
)
