"""The nodes of `envctl dev`: daemons as children, each in a directory of its own.

The first one founds a cluster; the others get its cluster secret and join it. Where a directory of
an earlier version holds the data of one node, that one stays where it is and is the first.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from envd.cli.exits import Failed
from envd.client.unix import UnixConnection
from envd.core.errors import EnvdError, Unavailable

MAX_NODES = 9
_READY_S = 60.0
_STOP_S = 20.0
_POLL_S = 0.05
_LISTEN_PORT, _GOSSIP_PORT, _HTTP_PORT = 7420, 7421, 7422
_PORTS_APART = 10


class Node:
    """One node: where its data are, and its process while it runs."""

    def __init__(self, number: int, data: Path) -> None:
        self.number = number
        self.name = f"node{number}"
        self.data = data
        self.process: subprocess.Popen[bytes] | None = None
        self._command: list[str] = []
        self._begin = 0

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.data / "envd.sock"

    @property
    def log(self) -> Path:
        """What the daemon says."""
        return self.data / "envd.log"

    def start(self, environ: Mapping[str, str], more: Sequence[str] = ()) -> None:
        """Start the daemon, with `more` flags; its addresses stay the same when it is repeated."""
        self._command = self._command or [*self._usual_command(), *more]
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._begin = os.fstat(descriptor).st_size
        try:
            # A session of its own: Ctrl-C is for us, and we stop it in order.
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
                env=dict(environ),
            )
        finally:
            os.close(descriptor)

    def _usual_command(self) -> list[str]:
        """Loopback only, on the usual ports where they are free, else on free ones."""
        further = (self.number - 1) * _PORTS_APART
        tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
        return [
            *(sys.executable, "-m", "envd.daemon"),
            *("--data-dir", str(self.data), "--socket", str(self.socket)),
            *("--node-name", self.name),
            *("--listen", f"127.0.0.1:{free_port(_LISTEN_PORT + further, tcp)}"),
            *("--gossip", f"127.0.0.1:{free_port(_GOSSIP_PORT + further, udp)}"),
            *("--http", f"127.0.0.1:{free_port(_HTTP_PORT + further, tcp)}"),
        ]

    def ready(self) -> UnixConnection:
        """Wait until the daemon answers; raises Failed with what it said where it does not."""
        assert self.process is not None
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self._did_not_start()
            try:
                connection = UnixConnection(str(self.socket))
                connection.status()
            except EnvdError:
                time.sleep(_POLL_S)
            else:
                return connection
        raise Failed(
            f"{self.name} does not answer after {_READY_S:.0f} s", hint=f"its log is {self.log}"
        )

    def _did_not_start(self) -> Failed:
        """The daemon's own error and hint where it gave them, else the last thing it said."""
        text = self.log.read_bytes()[self._begin :].decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()] or ["it said nothing"]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
        return Failed(
            f"{self.name} did not start: {(errors or lines)[-1]}",
            hint="\n      ".join([*hints[-1:], f"its log is {self.log}"]),
        )

    def addresses(self) -> dict[str, str]:
        """What the log says of its addresses; nothing where it can't be told."""
        for line in reversed(self.log.read_text("utf-8", "replace").splitlines()):
            if '"node.ready"' in line:
                try:
                    event = json.loads(line)
                except ValueError:
                    return {}
                known = ("listen", "gossip", "http")
                return {key: str(event[key]) for key in known if key in event}
        return {}

    def runs(self) -> bool:
        """Whether the daemon runs, or has ended and nobody noticed."""
        return self.process is not None and self.process.returncode is None

    def has_ended(self) -> bool:
        """Whether the daemon has ended since this was last asked."""
        return self.runs() and self.process is not None and self.process.poll() is not None

    @property
    def exit_code(self) -> int:
        """How the daemon ended, below 0 by a signal; 0 while it runs."""
        return (self.process.returncode or 0) if self.process is not None else 0

    def ask_to_end(self) -> None:
        """Ask for a graceful end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def end(self, deadline_s: float) -> None:
        """Wait for the end, and insist on it at the deadline (of `time.monotonic`)."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port(wanted: int, kind: socket.SocketKind) -> int:
    """The port, or 0 (any free one) where somebody has it."""
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def places(base: Path, count: int) -> list[Node]:
    """The nodes of a data directory; the first is in it where an earlier version had one there."""
    first = base if (base / "node.json").exists() else base / "node1"
    return [Node(1, first), *(Node(n, base / f"node{n}") for n in range(2, count + 1))]


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Ours without envd's own settings, which are about another node."""
    return {name: value for name, value in environ.items() if not name.startswith("ENVD_")}


def refuse_second(nodes: Sequence[Node], base: Path) -> None:
    """Raise Failed where one of the nodes runs already."""
    for node in nodes:
        with suppress(Unavailable):
            UnixConnection(str(node.socket), timeout_s=5).close()
            raise Failed(
                f"a node runs on {base} already",
                hint="use it: envctl --context dev list   "
                "(or name another --data, or stop it with Ctrl-C where it runs)",
            )


@contextmanager
def running(nodes: Sequence[Node], environ: Mapping[str, str]) -> Iterator[list[UnixConnection]]:
    """Start them, wait until all of them answer, and stop them at the end."""
    connections: list[UnixConnection] = []
    try:
        nodes[0].start(environ, settings_of(nodes[0]))
        connections.append(nodes[0].ready())
        for node in nodes[1:]:
            node.start(environ, joining(nodes[0], node))
        connections += [node.ready() for node in nodes[1:]]
        yield connections
    finally:
        for connection in connections:
            connection.close()
        stop(nodes)


def joining(first: Node, node: Node) -> Sequence[str]:
    """The flags by which `node` joins the cluster of the first, and takes its token."""
    seed = first.addresses().get("gossip", "")
    if not seed:
        raise Failed(f"{first.name} does not say where to join it", hint=f"its log is {first.log}")
    flags = ["--join", seed, "--cluster-secret-file", str(first.data / "cluster.secret")]
    token = ""
    with suppress(OSError):
        token = (first.data / "admin.token").read_text().strip()
    return [*flags, *settings_of(node, f'[security]\nadmin_token = "{token}"\n' if token else "")]


def settings_of(node: Node, more: str = "") -> Sequence[str]:
    """The flags by which a node takes its settings: stores can be tried here, and `more`."""
    from envd.files import write_private

    node.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = node.data / "envd.toml"
    write_private(settings, f"[cloud]\nenabled = true\n{more}".encode())
    return ["--config", str(settings)]


def stop(nodes: Sequence[Node]) -> None:
    """Have all of them end gracefully, together; insist after a while."""
    for node in nodes:
        node.ask_to_end()
    deadline_s = time.monotonic() + _STOP_S
    for node in nodes:
        node.end(deadline_s)


def together(connection: UnixConnection, count: int) -> bool:
    """Wait until the node knows of `count` members that are alive; False where that takes long."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        members = connection.members().members
        if sum(each.state == "alive" for each in members) >= count:
            return True
        time.sleep(_POLL_S)
    return False


def next_to_end() -> int:
    """Wait until a child ends, and return its process id; it stays to be waited for.

    Not by `Popen.wait`: a second signal within it can leave its lock held, and then the wait for
    the daemon's end never ends.
    """
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_pid
