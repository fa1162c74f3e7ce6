"""The processes of `bench.membership`: how each is started, and what its log says of others."""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Final

from bench.processes import cpu_s, die_with_parent, memory_mb
from bench.servers import Missing, free_ports

SECRET_S: Final = 30.0
_SERF: Final = re.compile(r"serf: Event(Member(?:Join|Failed|Leave)): (\S+)")


class Told(Enum):
    """What a member may say of another."""

    ALIVE = "alive"
    DOWN = "down"
    LEFT = "left"


_SERF_TOLD: Final = {
    "MemberJoin": Told.ALIVE,
    "MemberFailed": Told.DOWN,
    "MemberLeave": Told.LEFT,
}


@dataclass(frozen=True, slots=True)
class News:
    """`teller` said that of `subject`; `at_s` is monotonic time."""

    teller: str
    subject: str
    told: Told
    at_s: float


Parse = Callable[[str], tuple[str, Told] | None]


def envd_said(line: str) -> tuple[str, Told] | None:
    """Of a line of envd's log: of whom it tells what."""
    if '"member.' not in line:
        return None
    try:
        event = json.loads(line)
        kind, _, state = event["event"].partition(".")
        return (event["member"], Told(state)) if kind == "member" else None
    except (ValueError, KeyError):  # another event, or no JSON
        return None


def serf_said(line: str) -> tuple[str, Told] | None:
    """Of a line of serf's log: of whom it tells what."""
    found = _SERF.search(line)
    return (found[2], _SERF_TOLD[found[1]]) if found else None


class Lines:
    """Reads the logs of all processes, and keeps what they say of each other."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._selector = selectors.DefaultSelector()
        self._rest: dict[int, bytes] = {}
        self.news: list[News] = []

    def add(self, pipe: IO[bytes], teller: str, parse: Parse, copy: Path) -> None:
        """Read this pipe too, until it ends; its lines are kept in a file."""
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, selectors.EVENT_READ, (teller, parse, copy.open("ab")))

    def listen(self, seconds: float) -> None:
        """Read for so long."""
        until = self._clock_s() + seconds
        while (left := until - self._clock_s()) > 0:
            for key, _ in self._selector.select(left):
                self._read(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        teller, parse, copy = key.data
        raw = os.read(key.fd, 1 << 16)
        at_s = self._clock_s()
        if not raw:
            self._selector.unregister(key.fileobj)
            copy.close()
            self._rest.pop(key.fd, None)
            return
        copy.write(raw)
        copy.flush()
        *lines, rest = (self._rest.get(key.fd, b"") + raw).split(b"\n")
        self._rest[key.fd] = rest
        for line in lines:
            said = parse(line.decode(errors="replace"))
            if said is not None:
                self.news.append(News(teller, said[0], said[1], at_s))

    def forget(self) -> None:
        """From now on, what was said before does not count."""
        self.news.clear()

    def known(self, teller: str, told: Told) -> set[str]:
        """Of whom this one said so."""
        return {news.subject for news in self.news if (news.teller, news.told) == (teller, told)}

    def first(self, subject: str, told: Told) -> Mapping[str, float]:
        """When each teller said so of the subject for the first time."""
        found: dict[str, float] = {}
        for news in self.news:
            if (news.subject, news.told) == (subject, told):
                found.setdefault(news.teller, news.at_s)
        return found

    def close(self) -> None:
        """Read nothing any more."""
        for key in list(self._selector.get_map().values()):
            key.data[2].close()
        self._selector.close()


@dataclass(slots=True)
class Gossiper:
    """One member: its process is started and ended any number of times under one name."""

    name: str
    command: Sequence[str]
    log: Path
    parse: Parse
    needs: Path | None = None
    leaves_on_term: bool = True
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, lines: Lines) -> None:
        """Start it, once the file that it needs is there."""
        deadline = time.monotonic() + SECRET_S
        while self.needs is not None and not self.needs.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.needs} did not appear")
            lines.listen(0.05)
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no other thread runs here
        )
        assert self.process.stdout is not None
        lines.add(self.process.stdout, self.name, self.parse, self.log)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def end(self) -> None:
        """End it where it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        assert self.process is not None
        return cpu_s(self.process.pid)

    def memory_mb(self) -> float:
        """Resident memory now."""
        assert self.process is not None
        return memory_mb(self.process.pid)[0]


def _envds(home: Path, count: int) -> Sequence[Gossiper]:
    home.mkdir(parents=True)
    tcp = [f"127.0.0.1:{port}" for port in free_ports(2 * count)]
    udp = [f"127.0.0.1:{port}" for port in free_ports(count, socket.SOCK_DGRAM)]
    secret = home / "n1" / "cluster.secret"
    made = []
    for at in range(count):
        name = f"n{at + 1}"
        command = [sys.executable, "-m", "envd.daemon", "--data-dir", str(home / name)]
        command += ["--node-name", name, "--listen", tcp[2 * at], "--http", tcp[2 * at + 1]]
        command += ["--gossip", udp[at], "--socket", str(home / f"{name}.sock")]
        if at:
            command += ["--join", udp[0], "--cluster-secret-file", str(secret)]
        needs = secret if at else None
        made.append(Gossiper(name, command, home / f"{name}.log", envd_said, needs))
    return made


def _serfs(home: Path, count: int) -> Sequence[Gossiper]:
    binary = shutil.which("serf")
    if binary is None:
        raise Missing("no serf; apt-get install serf")
    home.mkdir(parents=True)
    ports = [f"127.0.0.1:{port}" for port in free_ports(2 * count)]
    made = []
    for at in range(count):
        name = f"n{at + 1}"
        command = [binary, "agent", f"-node={name}", f"-bind={ports[2 * at]}"]
        command += [f"-rpc-addr={ports[2 * at + 1]}", "-profile=lan", "-log-level=info"]
        if at:
            command += [f"-retry-join={ports[0]}", "-retry-interval=1s"]
        made.append(Gossiper(name, command, home / f"{name}.log", serf_said, leaves_on_term=False))
    return made


KINDS: Final[Mapping[str, Callable[[Path, int], Sequence[Gossiper]]]] = {
    "envd": _envds,
    "serf": _serfs,
}
