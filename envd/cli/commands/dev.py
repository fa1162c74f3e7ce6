"""`envctl dev`: a node of one's own as a child process, with a guided tour at its first start.

Its data stay in `$XDG_STATE_HOME/envd-dev` (or in `--data`) for the next time, unless it is
`--ephemeral`. A context called dev leads to it, and is the current one while the node runs,
unless another one is current already. Ctrl-C and SIGTERM stop the node gracefully.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from envd.cli import contexts, endpoint, exits, sources
from envd.cli.commands.listing import whole_list
from envd.cli.commands.tour import Tour
from envd.cli.contexts import Context, Contexts
from envd.cli.exits import Failed, UsageError
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation
from envd.client.connection import Connection
from envd.client.unix import UnixConnection
from envd.core.errors import EnvdError, Unavailable

_CONTEXT = "dev"
_READY_S = 60.0
_STOP_S = 20.0
_POLL_S = 0.05
_MAX_SOCKET_PATH = 107
_LISTEN_PORT, _HTTP_PORT = 7420, 7422


def _dev(invocation: Invocation) -> int:
    invocation.take_words(most=0)
    if invocation.arguments.number("--nodes", 1) != 1:
        raise UsageError("--nodes: this version runs one node", hint="leave --nodes out")
    demo = invocation.arguments.text("--demo")
    if demo:
        sources.read_assignments(invocation, demo)  # A bad file is told before anything starts.
    with _terminated_as_interrupted(), _data_directory(invocation) as data:
        _refuse_second(data)
        with _daemon(invocation, data) as (child, connection):
            addresses = _addresses(data)
            with _context(invocation, data) as current:
                _welcome(invocation, data, addresses, current=current)
                tour = Tour(invocation.world, f"unix:{data}/envd.sock", current=current)
                if whole_list(connection, "").environments:
                    tour.again()
                else:
                    tour.first(demo)
                connection.close()
                _stay(invocation, child)
        kept = "" if invocation.arguments.on("--ephemeral") else f"; its data stay in {data}"
        invocation.screen.line(f"\nthe node has stopped{kept}".lstrip("\n"))
    return exits.DONE


# -- the data -------------------------------------------------------------------------


@contextmanager
def _data_directory(invocation: Invocation) -> Iterator[Path]:
    """The directory of the node; an ephemeral one is removed at the end."""
    named = invocation.arguments.text("--data")
    if invocation.arguments.on("--ephemeral"):
        if named:
            raise UsageError("--data and --ephemeral exclude each other")
        temporary = Path(tempfile.mkdtemp(prefix="envd-dev-"))
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return
    world = invocation.world
    data = (
        Path(world.cwd) / named if named else Path(endpoint.require_home(world.environ), "envd-dev")
    )
    if len(os.fsencode(data / "envd.sock")) > _MAX_SOCKET_PATH:
        raise Failed(
            f"{data} is too long a path: the Unix socket in it may have {_MAX_SOCKET_PATH} bytes",
            hint="name a shorter directory with --data",
        )
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"can't use {data}: {error.strerror}", hint="--data DIR") from error
    yield data


def _refuse_second(data: Path) -> None:
    try:
        UnixConnection(f"{data}/envd.sock", timeout_s=5).close()
    except Unavailable:
        return
    raise Failed(
        f"a node runs on {data} already",
        hint="use it: envctl --context dev list   "
        f"(or name another --data, or stop it: kill $(cat {data}/lock))",
    )


# -- the daemon -----------------------------------------------------------------------


@contextmanager
def _daemon(
    invocation: Invocation, data: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    """Start the daemon, wait until it answers, and stop it at the end."""
    log = data / "envd.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    begin = os.fstat(descriptor).st_size
    try:
        # A session of its own: Ctrl-C is for us, and we stop it in order.
        child = subprocess.Popen(
            _command(data),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            env=_child_environment(invocation),
        )
    finally:
        os.close(descriptor)
    try:
        yield child, _ready(child, data, log, begin)
    finally:
        _stop(child)


def _command(data: Path) -> list[str]:
    """Loopback only, on the usual ports where they are free, else on free ones."""
    return [
        *(sys.executable, "-m", "envd.daemon"),
        *("--data-dir", str(data), "--socket", str(data / "envd.sock")),
        *("--listen", f"127.0.0.1:{_port(_LISTEN_PORT)}"),
        *("--http", f"127.0.0.1:{_port(_HTTP_PORT)}"),
    ]


def _port(wanted: int) -> int:
    """The port, or 0 (any free one) where somebody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def _child_environment(invocation: Invocation) -> dict[str, str]:
    """Ours without envd's own settings, which are about another node."""
    return {
        name: value
        for name, value in invocation.world.environ.items()
        if not name.startswith("ENVD_")
    }


def _ready(child: subprocess.Popen[bytes], data: Path, log: Path, begin: int) -> Connection:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise _did_not_start(log, begin)
        try:
            connection = UnixConnection(f"{data}/envd.sock")
            connection.status()
        except EnvdError:
            time.sleep(_POLL_S)
        else:
            return connection
    raise Failed(f"the daemon does not answer after {_READY_S:.0f} s", hint=f"its log is {log}")


def _did_not_start(log: Path, begin: int) -> Failed:
    """The daemon's own error and hint where it gave them, else the last thing it said."""
    text = log.read_bytes()[begin:].decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()] or ["it said nothing"]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    return Failed(
        f"the daemon did not start: {(errors or lines)[-1]}",
        hint="\n      ".join([*hints[-1:], f"its log is {log}"]),
    )


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask for a graceful end, and insist after a while."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _addresses(data: Path) -> dict[str, object]:
    """What the daemon's log says of its addresses; nothing where it can't be told."""
    for line in reversed((data / "envd.log").read_text("utf-8", "replace").splitlines()):
        if '"node.ready"' in line:
            try:
                event = json.loads(line)
            except ValueError:
                return {}
            return {key: event[key] for key in ("listen", "http") if key in event}
    return {}


def _stay(invocation: Invocation, child: subprocess.Popen[bytes]) -> None:
    """Wait for Ctrl-C; a daemon that ends by itself is an error.

    Not by `child.wait()`: a second signal within it can leave its lock held, and then the wait
    for the daemon's end never ends.
    """
    invocation.screen.flush()
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    except KeyboardInterrupt:
        return
    code = child.wait()
    raise Failed(f"the daemon ended with exit code {code}", hint="its log tells why")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does, so that the daemon never stays behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# -- the context ----------------------------------------------------------------------


@contextmanager
def _context(invocation: Invocation, data: Path) -> Iterator[bool]:
    """Write the context dev; yields whether it is the current one. A dead node is not."""
    environ = invocation.world.environ
    known = contexts.load(environ)
    current = known.current if known.current in known.named else ""
    mine = Context(server=f"unix:{data}/envd.sock")
    now_current = current in {"", _CONTEXT}
    named = {**known.named, _CONTEXT: mine}
    contexts.save(environ, Contexts(_CONTEXT if now_current else current, named))
    try:
        yield now_current
    finally:
        _leave_context(invocation, known.named.get(_CONTEXT))


def _leave_context(invocation: Invocation, before: Context | None) -> None:
    """No longer current; of an ephemeral node nothing stays."""
    environ = invocation.world.environ
    known = contexts.load(environ)
    named = dict(known.named)
    if invocation.arguments.on("--ephemeral"):
        del named[_CONTEXT]
        if before is not None:
            named[_CONTEXT] = before
    contexts.save(environ, Contexts("" if known.current == _CONTEXT else known.current, named))


def _welcome(
    invocation: Invocation, data: Path, addresses: dict[str, object], *, current: bool
) -> None:
    screen = invocation.screen
    screen.line("A node of envd runs on this machine, for you alone.", "bold")
    screen.line(f"  data     {data}")
    screen.line(f"  log      {data}/envd.log")
    for name, title in (("listen", "gRPC"), ("http", "HTTP")):
        if name in addresses:
            scheme = "http://" if name == "http" else ""
            screen.line(f"  {title:<9}{scheme}{addresses[name]}")
    if current:
        screen.line("  context  dev, the current one: envctl in every terminal uses this node")
    else:
        screen.line("  context  dev; another one is current, so say: envctl --context dev ...")


DEV = Command(
    usage=("[--data DIR | --ephemeral] [--demo FILE]",),
    about="""
    Run a node of your own to try envd with. The first start shows a guided tour: it imports a
    few variables, runs a program with them, changes one and takes it back, with every command
    as you would type it. Then the node stays until Ctrl-C, and its data stay for the next
    time.

    While it runs, the context dev is the current one, unless you have another; so envctl in
    every terminal uses this node.
    """,
    examples=(
        ("envctl dev", "start, take the tour, and stay"),
        ("envctl dev --ephemeral", "leave nothing behind"),
        ("envctl dev --demo my.env", "take the tour with your own variables"),
    ),
    run=_dev,
    flags=(
        Flag("--data", "keep the data here (default $XDG_STATE_HOME/envd-dev)", "DIR"),
        Flag("--ephemeral", "use a temporary directory that is removed at the end"),
        Flag("--demo", "a file of variables for the tour", "FILE"),
        Flag("--nodes", "how many nodes (this version: one)", "N"),
    ),
)
