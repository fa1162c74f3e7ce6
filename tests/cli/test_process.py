"""`envctl` as a process of its own, over the real Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import IO

import pytest

from envd.client.unix import UnixConnection
from envd.core.answers import Identity
from envd.core.requests import Put, WriteRequest
from envd.net.unix import UnixServer
from tests.cli.bench import CANARY, Envctl, NodeInMemory

Process = Callable[..., "subprocess.CompletedProcess[str]"]

SLOW_TO_IMPORT = {
    *("asyncio", "aiohttp", "cryptography", "dotenv", "google.protobuf", "grpc"),
    *("msgspec", "structlog", "yaml", "email", "http", "unittest", "ssl", "tomllib", "shutil"),
}


class Everybody:
    """Lets everybody on the socket in."""

    def by_token(self, token: str) -> Identity:
        return Identity("admin", "token")

    def by_peer(self, uid: int) -> Identity:
        return Identity(f"uid:{uid}", "socket")


@pytest.fixture
def path(node: NodeInMemory, tmp_path: Path) -> Iterator[str]:
    """The node behind a Unix socket, its event loop in a thread."""
    file = tmp_path / "envd.sock"
    server = UnixServer(node._api, Everybody(), file)
    Envctl(node, tmp_path).ok("set web/prod A=1 B=2")
    Envctl(node, tmp_path).ok("set web/prod --secret", f"S={CANARY}")
    node.loop.run_until_complete(server.start())
    thread = threading.Thread(target=node.loop.run_forever)
    thread.start()
    yield str(file)
    asyncio.run_coroutine_threadsafe(server.stop(1.0), node.loop).result()
    node.loop.call_soon_threadsafe(node.loop.stop)
    thread.join()


@pytest.fixture
def envctl_process(path: str, tmp_path: Path) -> Process:
    def run(
        *arguments: str,
        program: tuple[str, ...] = (sys.executable, "-m", "envd.cli.main"),
        environ: Mapping[str, str] | None = None,
        stdout: int | IO[str] = subprocess.PIPE,
    ) -> subprocess.CompletedProcess[str]:
        given = {
            "HOME": str(tmp_path),
            "PATH": os.environ["PATH"],
            "ENVD_ADDR": f"unix:{path}",
            "ENVD_TOKEN": "t",
            **(environ or {}),
        }
        return subprocess.run(
            [*program, *arguments],
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )

    return run


def variables(output: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in output.split("\0") if item)


def test_get_over_the_socket(envctl_process: Process) -> None:
    done = envctl_process("get", "web/prod", "S")

    assert (done.returncode, done.stdout, done.stderr) == (0, CANARY, "")


def test_a_program_gets_exactly_inherited_and_our_variables(
    envctl_process: Process, tmp_path: Path, path: str
) -> None:
    done = envctl_process("run", "web/prod", "--", "env", "-0", environ={"LANG": "C"})

    assert done.stderr == ""
    assert variables(done.stdout) == {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "ENVD_ADDR": f"unix:{path}",
        "LANG": "C",
        "A": "1",
        "B": "2",
        "S": CANARY,
    }


def test_a_pristine_program_gets_exactly_our_variables(envctl_process: Process) -> None:
    done = envctl_process("run", "web/prod", "--pristine", "--", "env", "-0")

    assert variables(done.stdout) == {"A": "1", "B": "2", "S": CANARY}


@pytest.mark.parametrize(
    ("program", "code"),
    [
        (("sh", "-c", "exit 42"), 42),
        (("sh", "-c", "kill -TERM $$"), -15),
        (("no-such-program",), 127),
        (("/dev/null",), 126),
        (("sh", "-c", 'test "$A" = 1'), 0),
    ],
)
def test_the_exit_code_is_the_programs_own(
    envctl_process: Process, program: tuple[str, ...], code: int
) -> None:
    done = envctl_process("run", "web/prod", "--", *program)

    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_program_has_the_usual_sigpipe(envctl_process: Process) -> None:
    done = envctl_process("run", "web/prod", "--", "grep", "SigIgn", "/proc/self/status")

    assert int(done.stdout.split()[1], 16) & (1 << 12) == 0


def test_no_daemon_is_five_and_for_run_125(envctl_process: Process) -> None:
    nowhere = {"ENVD_ADDR": "unix:/no/such/socket"}

    assert envctl_process("get", "web/prod", environ=nowhere).returncode == 5
    assert envctl_process("run", "web/prod", "--", "env", environ=nowhere).returncode == 125


@pytest.mark.parametrize("arguments", [("--help",), ("get", "web/prod"), ("get", "web/prod", "A")])
def test_what_is_slow_to_import_is_not_imported(
    envctl_process: Process, arguments: tuple[str, ...]
) -> None:
    # Without site, which imports what an editable install needs.
    source = str(Path(__file__).parents[2])
    script = (
        f"import sys; sys.path.insert(0, {source!r})\n"
        "from envd.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "sys.exit(code)"
    )

    done = envctl_process(*arguments, program=(sys.executable, "-S", "-c", script))

    loaded = set(done.stderr.split())
    assert done.returncode == 0
    assert "envd.cli.main" in loaded
    assert loaded.isdisjoint(SLOW_TO_IMPORT)
    if arguments == ("--help",):
        assert loaded.isdisjoint({"argparse", "dataclasses", "json", "socket"})


@pytest.mark.parametrize("arguments", [("--help",), ("get", "web/prod")])
def test_a_full_disk_is_told_without_a_trace(
    envctl_process: Process, arguments: tuple[str, ...]
) -> None:
    with open("/dev/full", "w") as full:
        done = envctl_process(*arguments, stdout=full)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", [("--help",), ("get", "web/prod"), ("set", "web/prod", "A=")])
def test_closed_streams_are_no_fault(
    envctl_process: Process, arguments: tuple[str, ...], closed: str
) -> None:
    script = f'exec "$0" -m envd.cli.main "$@" {closed}'

    done = envctl_process(*arguments, program=("sh", "-c", script, sys.executable))

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", "</dev/null"])
def test_without_anything_to_read_a_value_from_nothing_is_set(
    envctl_process: Process, closed: str
) -> None:
    script = f'exec "$0" -m envd.cli.main "$@" {closed}'

    done = envctl_process("set", "web/prod", "A", program=("sh", "-c", script, sys.executable))

    assert done.returncode == 2
    assert done.stderr.startswith("error: standard input holds no value for A\nhint: ")


@pytest.mark.parametrize("arguments", [("--help",), ("get", "web/prod")])
def test_a_reader_that_went_away_is_no_trace(
    envctl_process: Process, arguments: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = envctl_process(*arguments, stdout=writing)
    os.close(writing)

    assert (done.returncode, done.stderr) == (1, "")


def test_a_watch_is_told_of_changes_and_ended_by_an_interrupt(path: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "envd.cli.main", "watch", "web", "-o", "json"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "ENVD_ADDR": f"unix:{path}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    connection = UnixConnection(path)
    lines = Queue[str]()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)

    reading = threading.Thread(target=read)
    reading.start()

    # It says nothing when it begins to listen, so changes are made until one is told.
    told = ""
    while not told:
        connection.write(WriteRequest("web/prod", (Put("A", "2"), Put("A2", str(time.time())))))
        with suppress(Empty):
            told = lines.get(timeout=0.05)
    process.send_signal(signal.SIGINT)
    code = process.wait()
    reading.join()
    error = process.communicate()[1]
    connection.close()

    assert json.loads(told)["environment"] == "web/prod"
    assert (code, error) == (130, "error: interrupted\n")
