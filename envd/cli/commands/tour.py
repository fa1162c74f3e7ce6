"""The guided tour of `envctl dev`: real commands, echoed, on the nodes that just started.

Whoever reads only what it prints can afterwards set, read, run with, and undo a variable, and has
seen that what is written on one node is read on every other.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from envd.cli.main import main
from envd.cli.screen import Screen
from envd.cli.world import World
from envd.client.connection import Connection
from envd.core.errors import NotFound
from envd.core.requests import Put, ReadRequest, WriteRequest

ENVIRONMENT = "demo/dev"
# What no shell changes; shlex.quote takes a ~ inside of a word for one at its beginning.
_BARE = re.compile(r"[\w@%+=:,./-][\w@%+=:,./~-]*", re.ASCII)
_SAY = 'echo "$GREETING"'


_SEEN_WITHIN_S = 10.0
_POLL_S = 0.0002


class Stop(NamedTuple):
    """One of several nodes: the context that leads to it alone, its name, and the way there."""

    context: str
    name: str
    connection: Connection


class Tour:
    """Runs commands against the nodes at `address` and shows them as one would type them.

    Of several nodes `stops` has each.
    """

    def __init__(
        self, world: World, address: str, stops: Sequence[Stop] = (), *, current: bool
    ) -> None:
        self._stops = stops
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
        self._across()
        self._next()

    def again(self) -> None:
        """Show what an earlier start left."""
        self._say("The data of the last time are here:")
        self._run("list")
        self._across()
        self._next()

    def _across(self) -> None:
        """Write on the first node, read on the last, and measure how long that takes."""
        if not self._stops[1:]:
            return
        first, last = self._stops[0], self._stops[-1]
        self._say("What is written on one node is read on every other:")
        self._run("set", ENVIRONMENT, "COLOUR=green", on=first)
        self._measured("green")
        self._run("get", ENVIRONMENT, "COLOUR", on=last)
        if not self._screen.on_terminal:
            self._screen.line()
        answered_s, seen_s = self._measured("blue")
        told = list(zip(self._stops[1:], seen_s, strict=True))
        read = [f"on {stop.name} after {1000 * seen:.1f} ms" for stop, seen in told if seen]
        late = [f"on {stop.name}" for stop, seen in told if not seen]
        words = [f"read {', '.join(read)}"] if read else []
        words += [f"not read within {_SEEN_WITHIN_S:.0f} s {', '.join(late)}"] if late else []
        self._screen.line(
            f"Measured: a write on {first.name} was answered after {1000 * answered_s:.1f} ms,"
        )
        self._screen.line(f"and it was {', and '.join(words)}.")

    def _measured(self, colour: str) -> tuple[float, list[float]]:
        """Write on the first node: the seconds to its answer, and to be read on each other.

        0 stands for one that has not got it in a long time.
        """
        now, others = self._world.monotonic, self._stops[1:]
        put = Put("COLOUR", colour)
        begun_s = now()
        answer = self._stops[0].connection.write(WriteRequest(ENVIRONMENT, (put,)))
        answered_s = now() - begun_s
        seen_s = [0.0] * len(others)
        while not all(seen_s) and now() - begun_s < _SEEN_WITHIN_S:
            for at, stop in enumerate(others):
                if not seen_s[at] and _revision(stop.connection) == answer.revision:
                    seen_s[at] = now() - begun_s
            self._world.sleep(_POLL_S)
        return answered_s, seen_s

    def _next(self) -> None:
        several = len(self._stops) > 1
        self._say("Now you, in another terminal:")
        for line in (
            *self._way_to_envctl(),
            f"{self._program} set {ENVIRONMENT} NAME=value",
            f"{self._program} get {ENVIRONMENT}",
            f"{self._program} run {ENVIRONMENT} -- env",
            f"{self._program} rollback {ENVIRONMENT} --to @~1",
            *([f"{self._program} cluster members"] if several else []),
            f"{self._program} --help",
        ):
            self._screen.line(f"  {line}")
        self._screen.line()
        self._screen.line(f"Ctrl-C stops {'these nodes' if several else 'this node'}.")

    def _way_to_envctl(self) -> tuple[str, ...]:
        """What makes a shell find this `envctl`, where it does not find one by itself."""
        if shutil.which("envctl", path=self._world.environ.get("PATH", "")):
            return ()
        return (f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',)

    def _say(self, text: str) -> None:
        self._screen.line()
        self._screen.line(text, "bold")

    def _run(self, *arguments: str, on: Stop | None = None) -> None:
        typed = " ".join(_typed(argument) for argument in arguments)
        program = f"envctl --context {on.context}" if on else self._program
        self._screen.line(f"$ {program} {typed}", "green")
        self._screen.flush()
        world = self._world
        if on is not None:
            world = world._replace(environ={**world.environ, "ENVD_ADDR": on.connection.address})
        main(list(arguments), world=world)

    def _spawn(self, path: str, arguments: list[str], environment: Mapping[bytes, bytes]) -> int:
        """Run a program beside this process instead of becoming it."""
        done = subprocess.run(
            [path, *arguments[1:]], env=environment, capture_output=True, text=True, check=False
        )
        self._screen.block(done.stdout + done.stderr)
        return done.returncode


def _revision(connection: Connection) -> str:
    try:
        return connection.get(ReadRequest(ENVIRONMENT)).revision
    except NotFound:
        return ""


def _typed(argument: str) -> str:
    """Quote for a shell, where it takes quotes: NAME='two words', not 'NAME=two words'."""
    name, equals, value = argument.partition("=")
    if equals and name.isidentifier():
        return f"{name}={shlex.quote(value)}"
    return argument if _BARE.fullmatch(argument) else shlex.quote(argument)
