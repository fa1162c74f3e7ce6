"""Programs that follow their variables: the machine with fakes, and real programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from envd.cli.commands.supervising import (
    GRACE_S,
    RETRY_S,
    SETTLE_S,
    Child,
    Ended,
    GraceOver,
    MayDiffer,
    Notice,
    Settled,
    Signalled,
    Supervisor,
)
from envd.client.unix import UnixConnection
from envd.core.commit import Kind
from envd.core.errors import Denied, Unavailable
from envd.core.requests import Put, Unset, WriteRequest
from tests.cli.test_process import path

__all__ = ["path"]
TERM, KILL, HUP, USR1 = signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR1


@dataclass(eq=False)
class FakeChild:
    variables: Mapping[bytes, bytes]
    signals: list[int] = field(default_factory=list)

    def send_signal(self, sig: int) -> None:
        self.signals.append(sig)


class Stage:
    """A Supervisor whose world is this object."""

    def __init__(self, action: signal.Signals | None = None) -> None:
        self.now: Mapping[bytes, bytes] = {b"A": b"1"}
        self.error: Exception | None = None
        self.refusal: int | None = None
        self.children: list[FakeChild] = []
        self.timers: list[tuple[float, Notice]] = []
        self.said: list[str] = []
        self.machine = Supervisor(
            self._start,
            self._gather,
            lambda delay_s, notice: self.timers.append((delay_s, notice)),
            self.said.append,
            action,
        )
        assert self.machine.begin(self.now) is None

    @property
    def child(self) -> FakeChild:
        return self.children[-1]

    def change(self, value: bytes) -> None:
        """The variables change, and it is looked at."""
        self.now = {b"A": value}
        self.machine.take(MayDiffer())
        self.machine.take(Settled())

    def _start(self, variables: Mapping[bytes, bytes]) -> Child | int:
        if self.refusal is not None:
            return self.refusal
        self.children.append(FakeChild(variables))
        return self.child

    def _gather(self) -> Mapping[bytes, bytes]:
        if self.error is not None:
            raise self.error
        return self.now


def test_a_change_restarts_the_program_with_the_new_variables() -> None:
    stage = Stage()

    stage.change(b"2")
    old = stage.child
    code = stage.machine.take(Ended(old, -15))

    assert code is None
    assert old.signals == [TERM]
    assert stage.child.variables == {b"A": b"2"}
    assert stage.said == ["the variables changed; restarting the program"]


def test_a_program_that_stays_is_killed_after_the_grace() -> None:
    stage = Stage()

    stage.change(b"2")
    assert stage.timers[-1] == (GRACE_S, GraceOver(stage.child))
    stage.machine.take(GraceOver(stage.child))

    assert stage.child.signals == [TERM, KILL]


def test_the_grace_of_an_earlier_program_does_not_kill_the_next() -> None:
    stage = Stage()
    stage.change(b"2")
    old = stage.child
    stage.machine.take(Ended(old, 0))

    stage.machine.take(GraceOver(old))

    assert stage.child.signals == []


def test_changes_that_come_close_together_are_looked_at_once() -> None:
    stage = Stage()

    for _ in range(3):
        stage.machine.take(MayDiffer())

    assert stage.timers == [(SETTLE_S, Settled())]


def test_only_variables_that_really_differ_count() -> None:
    stage = Stage()

    stage.change(b"1")

    assert (stage.child.signals, stage.said) == ([], [])


def test_a_change_during_a_restart_is_in_the_next_start() -> None:
    stage = Stage()

    stage.change(b"2")
    stage.change(b"3")
    stage.machine.take(Ended(stage.child, -15))

    assert [each.variables[b"A"] for each in stage.children] == [b"1", b"3"]
    assert stage.children[0].signals == [TERM]


def test_a_change_is_told_with_a_signal() -> None:
    stage = Stage(HUP)

    stage.change(b"2")
    stage.change(b"2")

    assert stage.child.signals == [HUP]
    assert stage.said == ["the variables changed; sending SIGHUP"]


@pytest.mark.parametrize(("ended", "code"), [(0, 0), (42, 42), (-15, 143), (-9, 137)])
def test_the_exit_code_is_the_programs_own(ended: int, code: int) -> None:
    stage = Stage()

    assert stage.machine.take(Ended(stage.child, ended)) == code


def test_signals_are_passed_on() -> None:
    stage = Stage()

    assert stage.machine.take(Signalled(USR1)) is None
    assert stage.machine.take(Signalled(TERM)) is None

    assert stage.child.signals == [USR1, TERM]


def test_a_signal_to_end_ends_a_restart_too() -> None:
    stage = Stage()
    stage.change(b"2")

    stage.machine.take(Signalled(TERM))

    assert stage.machine.take(Ended(stage.child, -15)) == 143
    assert len(stage.children) == 1


def test_a_program_that_can_not_be_started_again_ends_it() -> None:
    stage = Stage()
    stage.change(b"2")
    stage.refusal = 127

    assert stage.machine.take(Ended(stage.child, 0)) == 127


def test_a_node_that_is_away_is_asked_again() -> None:
    stage = Stage()
    stage.error = Unavailable("away")

    stage.change(b"2")
    assert stage.timers[-1] == (RETRY_S, Settled())
    stage.error = None
    stage.machine.take(Settled())

    assert stage.child.signals == [TERM]


def test_what_can_not_be_read_leaves_the_program_alone() -> None:
    stage = Stage()
    stage.error = Denied("not allowed")

    stage.change(b"2")

    assert stage.child.signals == []
    assert stage.said == ["the program keeps the variables that it has: not allowed"]


# -- real programs -----------------------------------------------------------------

PROGRAM = """
import os, signal
def told(number, frame):
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())
    if number != signal.SIGHUP:
        raise SystemExit(7)
for number in (signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, told)
os.write(1, f"A {os.environ['A']} {os.getpid()}\\n".encode())
while True:
    signal.pause()
"""


@contextmanager
def running(
    path: str, home: Path, action: str
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], list[str]]]]:
    """`envctl run --watch` with the program, and what reads its next line."""
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "ENVD_ADDR": f"unix:{path}"}
    words = ["run", "web/prod", "--watch", action, "--", sys.executable, "-c", PROGRAM]
    process = subprocess.Popen(
        [sys.executable, "-m", "envd.cli.main", *words],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None

    def line() -> list[str]:
        assert process.stdout is not None
        return process.stdout.readline().split()

    try:
        yield process, line
    finally:
        process.kill()
        process.communicate()


def put(path: str, name: str, value: str, environment: str = "web/prod") -> None:
    write(path, WriteRequest(environment, (Put(name, value),)))


def write(path: str, request: WriteRequest) -> None:
    connection = UnixConnection(path)
    connection.write(request)
    connection.close()


def test_a_real_program_is_restarted_and_gets_signals(path: str, tmp_path: Path) -> None:
    with running(path, tmp_path, "restart") as (process, line):
        first = line()
        put(path, "A", "2")
        second = line()
        process.send_signal(USR1)

        assert (first[1], second[1]) == ("1", "2")
        assert first[2] != second[2]
        assert line() == ["got", "SIGUSR1"]
        assert process.wait() == 7


def test_a_program_follows_what_its_environment_extends(path: str, tmp_path: Path) -> None:
    put(path, "A", "of the base", environment="web/base")
    extends = Put("extends", "web/base", kind=Kind.METADATA)
    write(path, WriteRequest("web/prod", (extends,), (Unset("A"),)))

    with running(path, tmp_path, "restart") as (_, line):
        first = line()
        put(path, "A", "new", environment="web/base")
        second = line()

    assert first[1:4] == ["of", "the", "base"]
    assert second[1] == "new"


def test_a_real_program_is_told_with_a_signal(path: str, tmp_path: Path) -> None:
    with running(path, tmp_path, "signal:HUP") as (process, line):
        line()
        put(path, "A", "2")

        assert line() == ["got", "SIGHUP"]
        process.send_signal(TERM)
        assert process.wait() == 143


@pytest.mark.skipif(not Path("/usr/bin/setpriv").exists(), reason="there is no setpriv here")
def test_a_program_does_not_outlive_an_envctl_that_is_killed(path: str, tmp_path: Path) -> None:
    with running(path, tmp_path, "restart") as (process, line):
        assert line()[:2] == ["A", "1"]

        process.kill()

        assert line() == []  # The end of the pipe: nobody holds its other end.


def test_a_program_that_is_not_there_is_127(path: str, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin", "ENVD_ADDR": f"unix:{path}"}

    for program, code in (("no-such-program", 127), ("/dev/null", 126)):
        words = ["run", "web/prod", "--watch", "restart", "--", program]
        done = subprocess.run(
            [sys.executable, "-m", "envd.cli.main", *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

        assert done.returncode == code
        assert done.stderr.startswith("error: ")
