"""The guided tour of `envctl dev`: real commands, echoed, on the node that just started.

Whoever reads only what it prints can afterwards set, read, run with, and undo a variable.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from envd.cli.main import main
from envd.cli.screen import Screen
from envd.cli.world import World

ENVIRONMENT = "demo/dev"
# What no shell changes; shlex.quote takes a ~ inside of a word for one at its beginning.
_BARE = re.compile(r"[\w@%+=:,./-][\w@%+=:,./~-]*", re.ASCII)
_SAY = 'echo "$GREETING"'


class Tour:
    """Runs commands against the node at `address` and shows them as one would type them."""

    def __init__(self, world: World, address: str, *, current: bool) -> None:
        kept = {name: value for name, value in world.environ.items() if name[:5] != "ENVD_"}
        self._world = world._replace(
            environ={**kept, "ENVD_ADDR": address},
            stdin=io.TextIOWrapper(io.BytesIO(), "utf-8"),
            execute=self._spawn,
        )
        self._address = address
        self._screen = Screen(world.stdout, world.stderr, world.environ)
        self._program = "envctl" if current else "envctl --context dev"

    def first(self, demo: str) -> None:
        """Show how to bring variables in, run a program with them, change one and undo it."""
        say = ["run", ENVIRONMENT, "--", "sh", "-c", _SAY]
        if demo:
            self._say("A file of variables becomes an environment:")
            self._run("import", ENVIRONMENT, demo)
        self._say("Keep a variable, and look at what there is:")
        self._run("set", ENVIRONMENT, "GREETING=hello")
        self._run("get", ENVIRONMENT)
        self._say("A program gets the variables when it starts:")
        self._run(*say)
        self._say("Change one, and every change is in the history:")
        self._run("set", ENVIRONMENT, "GREETING=good morning", "--message", "friendlier")
        self._run(*say)
        self._run("history", ENVIRONMENT, "GREETING")
        self._say("Undo it; @~1 is one commit back:")
        self._run("rollback", ENVIRONMENT, "--to", "@~1")
        self._run(*say)
        self._next()

    def again(self) -> None:
        """Show what an earlier start left."""
        self._say("The data of the last time are here:")
        self._run("list")
        self._next()

    def _next(self) -> None:
        self._say("Now you, in another terminal:")
        for line in (
            *self._way_to_envctl(),
            f"{self._program} set {ENVIRONMENT} NAME=value",
            f"{self._program} get {ENVIRONMENT}",
            f"{self._program} run {ENVIRONMENT} -- env",
            f"{self._program} rollback {ENVIRONMENT} --to @~1",
            f"{self._program} --help",
        ):
            self._screen.line(f"  {line}")
        self._screen.line()
        self._screen.line("Ctrl-C stops this node.")

    def _way_to_envctl(self) -> tuple[str, ...]:
        """What makes a shell find this `envctl`, where it does not find one by itself."""
        if shutil.which("envctl", path=self._world.environ.get("PATH", "")):
            return ()
        return (f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',)

    def _say(self, text: str) -> None:
        self._screen.line()
        self._screen.line(text, "bold")

    def _run(self, *arguments: str) -> None:
        typed = " ".join(_typed(argument) for argument in arguments)
        self._screen.line(f"$ {self._program} {typed}", "green")
        self._screen.flush()
        main(list(arguments), world=self._world)

    def _spawn(self, path: str, arguments: list[str], environment: Mapping[bytes, bytes]) -> int:
        """Run a program beside this process instead of becoming it."""
        done = subprocess.run(
            [path, *arguments[1:]], env=environment, capture_output=True, text=True, check=False
        )
        self._screen.block(done.stdout + done.stderr)
        return done.returncode


def _typed(argument: str) -> str:
    """Quote for a shell, where it takes quotes: NAME='two words', not 'NAME=two words'."""
    name, equals, value = argument.partition("=")
    if equals and name.isidentifier():
        return f"{name}={shlex.quote(value)}"
    return argument if _BARE.fullmatch(argument) else shlex.quote(argument)
