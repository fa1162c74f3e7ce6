"""`envctl dev`: a cluster of one's own as child processes, with a guided tour at its first start.

Its data stay in `$XDG_STATE_HOME/envd-dev` (or in `--data`) for the next time, unless it is
`--ephemeral`. A context called dev leads to its nodes, and dev-node1 and so on to each; dev is the
current one while they run, unless another one is current already. Ctrl-C and SIGTERM stop all
nodes gracefully. Of several nodes one that ends is started again, so it may be killed to see what
becomes of the others.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from envd.cli import contexts, endpoint, exits, sources
from envd.cli.commands import dev_nodes
from envd.cli.commands.dev_nodes import Node
from envd.cli.commands.listing import whole_list
from envd.cli.commands.tour import Stop, Tour
from envd.cli.contexts import Context, Contexts
from envd.cli.exits import Failed, UsageError
from envd.cli.grammar import Command, Flag
from envd.cli.invocation import Invocation
from envd.client.unix import UnixConnection
from envd.core.errors import EnvdError

_CONTEXT = "dev"
_DEFAULT_NODES = 3
_MAX_SOCKET_PATH = 107
_AGAIN_S = 3.0
_LONGEST_AGAIN_S = 12.0


def _dev(invocation: Invocation) -> int:
    invocation.take_words(most=0)
    count = invocation.arguments.number("--nodes", _DEFAULT_NODES)
    if count > dev_nodes.MAX_NODES:
        raise UsageError(f"--nodes takes 1 to {dev_nodes.MAX_NODES}")
    demo = invocation.arguments.text("--demo")
    if demo:
        sources.read_assignments(invocation, demo)  # A bad file is told before anything starts.
    with _terminated_as_interrupted(), _data_directory(invocation) as data:
        nodes = dev_nodes.places(data, count)
        dev_nodes.refuse_second(nodes, data)
        environ = dev_nodes.child_environment(invocation.world.environ)
        with (
            dev_nodes.running(nodes, environ) as connections,
            _context(invocation, nodes) as current,
        ):
            _show(invocation, data, nodes, connections, demo, current=current)
            _stay(invocation, nodes)
        kept = "" if invocation.arguments.on("--ephemeral") else f"; the data stay in {data}"
        what = "the node has" if count == 1 else "the nodes have"
        invocation.screen.line(f"{what} stopped{kept}")
    return exits.DONE


def _show(
    invocation: Invocation,
    data: Path,
    nodes: Sequence[Node],
    connections: Sequence[UnixConnection],
    demo: str,
    *,
    current: bool,
) -> None:
    """What runs, and the tour; lets go of the connections."""
    if len(nodes) > 1 and not dev_nodes.together(connections[0], len(nodes)):
        invocation.screen.note("note: not all nodes have found each other yet")
    _welcome(invocation, data, nodes, current=current)
    stops = [
        Stop(f"{_CONTEXT}-{node.name}", node.name, connection)
        for node, connection in zip(nodes, connections, strict=True)
    ]
    addresses = [connection.address for connection in connections]
    tour = Tour(invocation.world, ",".join(addresses), stops, current=current)
    if whole_list(connections[0], "").environments:
        tour.again()
    else:
        tour.first(demo)
    for connection in connections:
        connection.close()


# -- the data -------------------------------------------------------------------------


@contextmanager
def _data_directory(invocation: Invocation) -> Iterator[Path]:
    """The directory of the nodes; an ephemeral one is removed at the end."""
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
    longest = len(os.fsencode(data / "node1" / "envd.sock"))
    if longest > _MAX_SOCKET_PATH:
        raise Failed(
            f"{data} is too long a path: the Unix sockets in it may have {_MAX_SOCKET_PATH} bytes",
            hint="name a shorter directory with --data",
        )
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"can't use {data}: {error.strerror}", hint="--data DIR") from error
    yield data


# -- while they run --------------------------------------------------------------------


def _stay(invocation: Invocation, nodes: Sequence[Node]) -> None:
    """Wait for Ctrl-C. A single daemon that ends is an error; one of several starts again."""
    invocation.screen.flush()
    environ = dev_nodes.child_environment(invocation.world.environ)
    down: dict[Node, float] = {}  # those to start again, and after how many seconds
    try:
        while down or any(node.runs() for node in nodes):
            if down:
                node, pause_s = next(iter(down.items()))
                del down[node]
                invocation.world.sleep(pause_s)
                how = _again(invocation, node, environ)
                if how:
                    _note_down(invocation, node, how, down, min(2 * pause_s, _LONGEST_AGAIN_S))
                ended = [one for one in nodes if one.has_ended()]
            else:
                ended = [_ended(nodes)]
            for node in ended:
                how = _how(node.exit_code)
                if len(nodes) == 1:
                    raise Failed(f"the daemon {how}", hint=f"its log tells why: {node.log}")
                _note_down(invocation, node, how, down, _AGAIN_S)
        invocation.screen.line("no node is left")
    except KeyboardInterrupt:
        return


def _how(code: int) -> str:
    return f"was killed (signal {-code})" if code < 0 else f"ended (code {code})"


def _note_down(
    invocation: Invocation, node: Node, how: str, down: dict[Node, float], pause_s: float
) -> None:
    """Have it started again, unless it ended in good order."""
    if node.exit_code:
        down[node] = pause_s
        invocation.screen.line(f"{node.name} {how}; it starts again in {pause_s:.0f} seconds")
    else:
        invocation.screen.line(f"{node.name} stopped in good order, and stays away")
    invocation.screen.flush()


def _ended(nodes: Sequence[Node]) -> Node:
    """Wait until one of them ends."""
    while True:
        pid = dev_nodes.next_to_end()
        for node in nodes:
            if node.process is not None and node.process.pid == pid:
                node.process.wait()
                return node
        os.waitpid(pid, 0)  # Nobody's child of ours; it must not come up again.


def _again(invocation: Invocation, node: Node, environ: dict[str, str]) -> str:
    """Start a node again; "" where it runs."""
    node.start(environ)
    try:
        node.ready().close()
    except EnvdError as error:
        invocation.screen.note_with("error", error.message, "red")
    else:
        invocation.screen.line(f"{node.name} runs again")
    invocation.screen.flush()
    return "" if node.runs() else "does not run"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does, so that no daemon ever stays behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# -- the contexts ---------------------------------------------------------------------


@contextmanager
def _context(invocation: Invocation, nodes: Sequence[Node]) -> Iterator[bool]:
    """Write the contexts; yields whether dev is the current one. Dead nodes are not."""
    environ = invocation.world.environ
    known = contexts.load(environ)
    current = known.current if known.current in known.named else ""
    mine = {_CONTEXT: Context(server=",".join(f"unix:{node.socket}" for node in nodes))}
    if len(nodes) > 1:
        for node in nodes:
            mine[f"{_CONTEXT}-{node.name}"] = Context(server=f"unix:{node.socket}")
    now_current = current in {"", _CONTEXT}
    named = {**known.named, **mine}
    contexts.save(environ, Contexts(_CONTEXT if now_current else current, named))
    try:
        yield now_current
    finally:
        _leave_contexts(invocation, mine, known)


def _leave_contexts(invocation: Invocation, mine: dict[str, Context], before: Contexts) -> None:
    """No longer current; of ephemeral nodes, and of each of several, nothing stays."""
    environ = invocation.world.environ
    known = contexts.load(environ)
    named = dict(known.named)
    for name in mine:
        if name != _CONTEXT or invocation.arguments.on("--ephemeral"):
            named.pop(name, None)
            if name in before.named:
                named[name] = before.named[name]
    contexts.save(environ, Contexts("" if known.current == _CONTEXT else known.current, named))


def _welcome(invocation: Invocation, data: Path, nodes: Sequence[Node], *, current: bool) -> None:
    screen = invocation.screen
    if len(nodes) == 1:
        screen.line("A node of envd runs on this machine, for you alone.", "bold")
    else:
        title = f"A cluster of {len(nodes)} nodes of envd runs on this machine, for you alone."
        screen.line(title, "bold")
    screen.line(f"  data     {data}")
    screen.line(f"  log      {nodes[0].log}{', ...' if len(nodes) > 1 else ''}")
    told = [node.addresses() for node in nodes]
    for name, title in (("listen", "gRPC"), ("http", "HTTP")):
        scheme = "http://" if name == "http" else ""
        shown = [f"{scheme}{each[name]}" for each in told if name in each]
        if shown:
            screen.line(f"  {title:<9}{shown[0]}")
        for each in shown[1:]:
            screen.line(f"           {each}")
    listening = ",".join(each["listen"] for each in told if "listen" in each)
    if listening:
        screen.line(f"  programs ENVD_ADDR={listening}")
        screen.line(f"           ENVD_TOKEN=$(cat {nodes[0].data}/admin.token)")
    who = "this node" if len(nodes) == 1 else "these nodes"
    if current:
        screen.line(f"  context  dev, the current one: envctl in every terminal uses {who}")
    else:
        screen.line("  context  dev; another one is current, so say: envctl --context dev ...")


DEV = Command(
    usage=("[--nodes N] [--data DIR | --ephemeral] [--demo FILE]",),
    about="""
    Run a cluster of your own to try envd with: three nodes on this machine. The first start shows
    a guided tour: it imports a few variables, runs a program with them, changes one and takes it
    back, and writes on one node what it reads on another, with every command as you would type
    it. Then the nodes stay until Ctrl-C, and their data for the next time.

    While they run, the context dev is the current one, unless you have another; so envctl in
    every terminal uses these nodes. The contexts dev-node1 and so on lead to each alone. Kill a
    node to see that nothing is lost: it is started again after a few seconds.
    """,
    examples=(
        ("envctl dev", "start, take the tour, and stay"),
        ("envctl dev --nodes 1", "one node only"),
        ("envctl dev --ephemeral", "leave nothing behind"),
        ("envctl dev --demo my.env", "take the tour with your own variables"),
    ),
    run=_dev,
    flags=(
        Flag("--nodes", f"how many nodes, 1 to {dev_nodes.MAX_NODES} (default 3)", "N"),
        Flag("--data", "keep the data here (default $XDG_STATE_HOME/envd-dev)", "DIR"),
        Flag("--ephemeral", "use a temporary directory that is removed at the end"),
        Flag("--demo", "a file of variables for the tour", "FILE"),
    ),
)
