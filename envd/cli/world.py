"""What a command touches outside of itself. Tests pass another world in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn, Protocol, TextIO

from envd.cli.endpoint import Endpoint, connect
from envd.client.connection import Connection
from envd.core.answers import WriteAnswer
from envd.core.requests import WriteRequest

CREDENTIALS = frozenset({"ENVD_TOKEN", "ENVD_BACKUP_PASSPHRASE"})
"""Variables with a secret of envctl's own, which no program that it starts shall get."""


class Pipeline(Protocol):
    """A way to a node on which many writes are under way at once."""

    async def write(self, request: WriteRequest) -> WriteAnswer: ...

    async def close(self) -> None: ...


def _pipeline(address: str, token: str) -> Pipeline:
    from envd.client.connecting import connect as connect_client

    return connect_client(address, token=token, snapshot=False)


def _execute(path: str, arguments: list[str], environment: Mapping[bytes, bytes]) -> NoReturn:
    """Become a program, with the usual SIGPIPE, which Python ignores and exec would pass on."""
    import signal

    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execve(path, arguments, environment)  # noqa: S606 (to be replaced is the purpose)


def _ask_secret(prompt: str) -> str:
    from getpass import getpass

    return getpass(prompt)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _spawn(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run a program on this terminal and wait for it; its exit code, -N for signal N."""
    import subprocess

    return subprocess.run(arguments, env=environment, check=False).returncode


class World(NamedTuple):
    """The process around a command.

    `ask_secret` prompts without echo. `execute` replaces the process by a program, given its
    path, arguments and environment, and raises OSError where it can't; where it does return,
    it is with the exit code. `spawn` runs a program beside this process, and waits;
    `sleep` waits for so many seconds, `monotonic` tells the seconds since some moment, and
    `wall_ms` the milliseconds since 1970. `pipeline` makes one to HOST:PORT with a token.
    """

    environ: Mapping[str, str]
    cwd: str
    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    connect: Callable[[Endpoint], Connection] = connect
    ask_secret: Callable[[str], str] = _ask_secret
    execute: Callable[[str, list[str], Mapping[bytes, bytes]], int] = _execute
    spawn: Callable[[list[str], Mapping[str, str]], int] = _spawn
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = _wall_ms
    pipeline: Callable[[str, str], Pipeline] = _pipeline


def real_world() -> World:
    """The world as it is."""
    import sys

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return World(os.environ, _working_directory(), sys.stdin, sys.stdout, sys.stderr)


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 (pathlib takes milliseconds to import)
    except OSError:
        return ""  # It was removed under us; only what needs it fails.
