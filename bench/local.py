"""What one node costs on this machine: start, memory, the command line, durable writes.

    python -m bench.local [--runs N]

Prints medians and, where there is an aim, the ratio to it. Absolute figures say little across
machines; the command line is therefore compared with `python -c pass` in the same run.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from envd.client.unix import UnixConnection
from envd.core.requests import Put, WriteRequest

READY_AIM_S = 1.0
RSS_AIM_MB = 90
HELP_AIM = 6.0
GET_AIM = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="runs of each command (20)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="envd-bench-") as scratch:
        home = Path(scratch)
        _disk(home)
        ready_s = [_start_once(home / f"start{n}") for n in range(5)]
        _row("ready after an empty start", statistics.median(ready_s), "s", READY_AIM_S)
        with _daemon(home / "data") as process:
            time.sleep(2)
            _row("idle RSS", _rss_mb(process.pid), "MB", RSS_AIM_MB)
            _fill(home / "data")
            _command_line(home, runs)
            for callers in (1, 16, 64):
                _row(f"durable sets over the socket, {callers} callers", _sets(home, callers), "/s")
            _row("RSS after that", _rss_mb(process.pid), "MB")
        _row("ready after a restart", _start_once(home / "data"), "s", READY_AIM_S)
    return 0


def _disk(home: Path) -> None:
    """How long the disk itself takes to sync a preallocated block."""
    path = home / "calibration"
    with path.open("wb") as file:
        file.write(bytes(4 << 20))
        file.flush()
        os.fsync(file.fileno())
        times = []
        for n in range(300):
            start = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(4096), n * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    path.unlink()
    times.sort()
    _row("fdatasync of 4 KiB, median", times[150] * 1000, "ms")
    _row("fdatasync of 4 KiB, p99", times[297] * 1000, "ms")


@contextmanager
def _daemon(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    flags = ["--data-dir", str(data), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    flags += ["--gossip", "127.0.0.1:0"]
    with (data.parent / "envd.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "envd.daemon", *flags], stderr=log)
    try:
        while True:
            try:
                UnixConnection(str(data / "envd.sock")).close()
                break
            except Exception:
                if process.poll() is not None:
                    raise
                time.sleep(0.005)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _start_once(data: Path) -> float:
    start = time.perf_counter()
    with _daemon(data):
        return time.perf_counter() - start


def _fill(data: Path) -> None:
    connection = UnixConnection(str(data / "envd.sock"))
    puts = tuple(Put(f"VARIABLE_{n}", "x" * 40) for n in range(20))
    connection.write(WriteRequest("bench/get", puts))
    connection.close()


def _command_line(home: Path, runs: int) -> None:
    envctl = str(Path(sys.executable).with_name("envctl"))
    environ = {**os.environ, "ENVD_ADDR": f"unix:{home / 'data' / 'envd.sock'}"}
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "envctl --help": [envctl, "--help"],
        "envctl get": [envctl, "get", "bench/get", "VARIABLE_1"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - start)
    base = statistics.median(times["python -c pass"])
    _row("python -c pass", base * 1000, "ms")
    for name, aim in (("envctl --help", HELP_AIM), ("envctl get", GET_AIM)):
        median = statistics.median(times[name])
        _row(name, median * 1000, "ms")
        _row(f"{name} / python -c pass", median / base, "x", aim)


def _sets(home: Path, callers: int) -> float:
    """Durable single-variable sets per second from callers that each wait for their answer."""
    each = 2000 // callers + 50
    connections = [UnixConnection(str(home / "data" / "envd.sock")) for _ in range(callers)]

    def work(number: int) -> None:
        for n in range(each):
            name = f"bench/set{(number * each + n) % 500}"
            connections[number].write(WriteRequest(name, (Put("A", f"value {n}"),)))

    seconds = _in_threads(callers, work)
    for connection in connections:
        connection.close()
    return callers * each / seconds


def _in_threads(count: int, work: Callable[[int], None]) -> float:
    threads: Sequence[threading.Thread] = [
        threading.Thread(target=work, args=(number,)) for number in range(count)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no VmRSS")


def _row(name: str, figure: float, unit: str, aim: float | None = None) -> None:
    verdict = (
        "" if aim is None else f"   aim {aim:g} {unit}: {'met' if figure <= aim else 'MISSED'}"
    )
    print(f"{name:<48} {figure:>10.2f} {unit}{verdict}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
