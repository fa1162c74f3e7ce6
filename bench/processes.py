"""What the comparison starts never outlives it, and what it costs is read from /proc."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

STOP_S: Final = 60.0
_HZ: Final = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


def die_with_parent() -> None:
    """In a child, before it becomes its program: be killed when this process ends, however."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def begin(
    command: Sequence[str], environ: Mapping[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that Ctrl-C reaches it through `end` alone."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=_plain({**os.environ, **environ}),
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - no other thread runs yet
    )


def _plain(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Without what the comparison set for itself."""
    return {name: text for name, text in environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, wait, and kill what is left of it and of its children."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def cpu_s(pid: int) -> float:
    """Processor seconds so far, of all its threads and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _HZ  # utime, stime, cutime, cstime: proc(5)


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory now, and what of it is anonymous: not the pages of files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    said = dict(line.split(":", 1) for line in lines)
    resident, anonymous = (int(said[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon"))
    return resident, anonymous


def written_mb(home: Path) -> float | None:
    """What the disk of `home` was given to write since the boot, by everybody; None: not told.

    The `write_bytes` of a process count whole folios of the page cache: several times too much.
    """
    device = home.stat().st_dev
    number = [str(os.major(device)), str(os.minor(device))]
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if fields[:2] == number:
            return int(fields[9]) * 512 / (1 << 20)
    return None


def own_cpu_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def machine_cpu_s() -> float:
    """Processor seconds that all processes of the machine took since it booted."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, *interrupts = map(int, first.split()[1:9])
    return (user + nice + system + sum(interrupts)) / _HZ


def forget_pages(home: Path) -> None:
    """Have the system drop the pages of these files, so that the next start reads the disk."""
    for path in home.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def room(home: Path) -> tuple[float, float]:
    """GB free on the disk of `home`, and GB of memory to be had."""
    disk = os.statvfs(home)
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(line for line in lines if line.startswith("MemAvailable:"))
    return disk.f_bavail * disk.f_frsize / 1e9, int(available.split()[1]) * 1024 / 1e9
