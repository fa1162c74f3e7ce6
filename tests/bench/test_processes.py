"""Servers end with the comparison, however it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bench.processes import begin, end, forget_pages, memory_mb, own_cpu_s, room

GONE_MS = 20_000
PARENT = """
import sys, tempfile
from bench.processes import begin
child = begin(["sleep", "600"], {}, tempfile.TemporaryFile())
print(child.pid, flush=True)
input()
"""


def ends(pid: int) -> bool:
    """Whether the process ends before the time is up."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    try:
        return bool(poll.poll(GONE_MS))
    finally:
        os.close(handle)


def test_a_server_is_killed_when_the_comparison_is() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())

        parent.send_signal(signal.SIGKILL)

        assert ends(child)


def test_what_a_server_started_ends_with_it() -> None:
    with tempfile.TemporaryFile() as log:
        server = begin(["sh", "-c", "sleep 600 & echo $!; wait"], {}, log)
        while not (said := os.pread(log.fileno(), 100, 0)).endswith(b"\n"):
            os.sched_yield()

        end(server)

        assert ends(int(said))
        assert server.returncode == -signal.SIGTERM


def test_a_server_has_a_session_of_its_own_so_that_ctrl_c_is_ours() -> None:
    with tempfile.TemporaryFile() as log:
        server = begin(["sleep", "600"], {}, log)

        assert os.getsid(server.pid) == server.pid

        end(server)


def test_anonymous_memory_is_a_part_of_the_resident() -> None:
    resident, anonymous = memory_mb(os.getpid())

    assert 0 < anonymous < resident


def test_the_processor_time_of_children_that_ended_counts() -> None:
    before_s = own_cpu_s() - time.process_time()

    subprocess.run([sys.executable, "-c", "for n in range(5_000_000): pass"], check=True)

    assert own_cpu_s() - time.process_time() > before_s + 0.03  # more than two clock ticks


def test_files_whose_pages_are_forgotten_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    path = tmp_path / "below" / "data"
    path.write_bytes(b"x" * 10_000)

    forget_pages(tmp_path)

    assert path.read_bytes() == b"x" * 10_000


@pytest.mark.parametrize("at", [0, 1])
def test_a_machine_has_some_room(tmp_path: Path, at: int) -> None:
    assert room(tmp_path)[at] > 0
