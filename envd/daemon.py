"""`envd`: its flags, its exit codes, and a run of the node (envd.running)."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import resource
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from envd import settings as settings_module
from envd import streams
from envd.core.errors import EnvdError
from envd.running import Daemon
from envd.settings import Settings

WRONG_USAGE = 2


def main(argv: list[str] | None = None) -> int:
    """Run `envd` with these arguments; return the exit code."""
    streams.open_missing()
    streams.silence_grpc()
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:2] == ["config", "check"]:
        return _config_check(arguments[2:])
    flags = vars(_parser().parse_args(arguments))
    try:
        settings = _load(flags)
    except EnvdError as error:
        return _report(error)
    from envd import logs

    log = settings.observability
    logs.configure(log.log_level, log.log_format, sys.stderr)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold values in clear
    daemon = Daemon(settings, lambda: _load(flags))
    try:
        _run_loop(daemon.run())
    except EnvdError as error:
        return _report(error)
    if daemon.starts_again:
        from envd.clustering import start_again

        start_again()
    return 0


class _Parser(argparse.ArgumentParser):
    """Tells a wrong flag as every other error is told."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}\nhint: see {self.prog} --help", file=sys.stderr)  # noqa: T201
        sys.exit(WRONG_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="envd",
        description="Keep environment variables on this node. Without any flag: one node with "
        "the embedded store, on loopback, its data in your state directory.",
        epilog="`envd config check FILE` validates a configuration file and prints what would "
        "be in force. Stop the daemon with SIGTERM or Ctrl-C: nothing acknowledged is lost, "
        "whichever way it ends. Use it with envctl.",
    )
    settings_module.add_flags(parser)
    return parser


def _load(flags: dict[str, Any]) -> Settings:
    file = settings_module.config_file(flags, os.environ)
    return settings_module.load(flags, os.environ, file)


def _config_check(arguments: list[str]) -> int:
    parser = _Parser(
        prog="envd config check",
        description="Validate a configuration file and print the effective settings, with "
        "secrets masked and where each comes from. Exit code 0 where it is valid.",
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    file = parser.parse_args(arguments).file
    try:
        settings = settings_module.load({}, os.environ, file)
    except EnvdError as error:
        return _report(error)
    sys.stdout.write(settings_module.render_effective(settings))
    for key in settings.ineffective():
        print(f"warning: {key} has no effect in this version", file=sys.stderr)  # noqa: T201
    return 0


def _report(error: EnvdError) -> int:
    lines = [f"error: {error.message}", *([f"hint: {error.hint}"] if error.hint else [])]
    print("\n".join(lines), file=sys.stderr)  # noqa: T201 - the command's own error output
    return WRONG_USAGE if error.reason == settings_module.FLAG_REASON else 1


def _run_loop(main_task: Coroutine[Any, Any, None]) -> None:
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        from uvloop import new_event_loop as loop_factory
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main_task)


if __name__ == "__main__":
    sys.exit(main())
