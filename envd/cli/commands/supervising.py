"""`envctl run --watch`: a program that follows the variables it was started with.

The program is a child here. Where the variables that it would get now differ from those it
has, it is restarted (SIGTERM, after 10 seconds SIGKILL) or sent a signal. Changes that come
close together count as one. Signals are passed on, and envctl ends when the program does, with
its exit code. Where envctl is killed, the kernel ends the program (PR_SET_PDEATHSIG, set by
setpriv of util-linux; it can't be set between fork and exec here, for there are threads). Where
there is no such setpriv, passing signals on and waiting must do.

Everything that happens comes as a notice through one queue, so the `Supervisor` is a machine
without threads, clocks or processes of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread, Timer
from types import FrameType
from typing import Protocol

from envd.cli import exits
from envd.cli.commands.watching import resumed
from envd.cli.exits import UsageError
from envd.cli.invocation import Invocation
from envd.core.answers import Changed, Reset, SnapshotEnd
from envd.core.errors import EnvdError, Unavailable

SETTLE_S = 0.2
GRACE_S = 10.0
RETRY_S = 2.0
_PASSED_ON = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
# These a terminal sends to every process in its foreground, the program too.
_FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT})
_SETPRIV = "/usr/bin/setpriv"
Variables = Mapping[bytes, bytes]


class Child(Protocol):
    """What a Supervisor does to a program."""

    def send_signal(self, sig: int) -> None: ...


@dataclass(frozen=True, slots=True)
class MayDiffer:
    """One of the environments changed, or may have."""


@dataclass(frozen=True, slots=True)
class Settled:
    """It is time to look whether the variables differ."""


@dataclass(frozen=True, slots=True)
class Signalled:
    number: signal.Signals


@dataclass(frozen=True, slots=True)
class Ended:
    child: Child
    code: int


@dataclass(frozen=True, slots=True)
class GraceOver:
    child: Child


Notice = MayDiffer | Settled | Signalled | Ended | GraceOver
Later = Callable[[float, Notice], None]


class Supervisor:
    """Runs a program until it ends by itself; `signal_number` None means restarts.

    `start` starts it with variables and returns it, or the exit code of a failure; `gather`
    reads what it would get now; `later` makes a notice come after so many seconds; `say` tells
    the person.
    """

    def __init__(
        self,
        start: Callable[[Variables], Child | int],
        gather: Callable[[], Variables],
        later: Later,
        say: Callable[[str], None],
        signal_number: signal.Signals | None,
    ) -> None:
        self._start = start
        self._gather = gather
        self._later = later
        self._say = say
        self._signal = signal_number
        self._variables: Variables = {}
        self._child: Child | None = None
        self._looking = False
        self._restarting = False

    def begin(self, variables: Variables) -> int | None:
        """Start the program; its exit code where that fails."""
        self._variables = variables
        started = self._start(variables)
        if isinstance(started, int):
            return started
        self._child = started
        return None

    def take(self, notice: Notice) -> int | None:
        """Do what a notice asks for; the exit code once everything is over."""
        match notice:
            case MayDiffer():
                self._look_in(SETTLE_S)
            case Settled():
                self._looking = False
                self._look()
            case Signalled(number):
                self._restarting = self._restarting and number not in _ENDING
                self._send(number)
            case GraceOver(child):
                if child is self._child:
                    self._send(signal.SIGKILL)
            case Ended(child, code):
                if child is self._child:
                    return self._after_end(code)
        return None

    def _look_in(self, delay_s: float) -> None:
        if not self._looking:
            self._looking = True
            self._later(delay_s, Settled())

    def _look(self) -> None:
        try:
            wanted = self._gather()
        except Unavailable:
            self._look_in(RETRY_S)
            return
        except EnvdError as error:
            self._say(f"the program keeps the variables that it has: {error.message}")
            return
        if wanted == self._variables:
            return
        self._variables = wanted
        if self._signal is not None:
            self._say(f"the variables changed; sending {self._signal.name}")
            self._send(self._signal)
        elif not self._restarting:
            self._say("the variables changed; restarting the program")
            self._restarting = True
            self._send(signal.SIGTERM)
            if self._child is not None:
                self._later(GRACE_S, GraceOver(self._child))

    def _send(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def _after_end(self, code: int) -> int | None:
        self._child = None
        if not self._restarting:
            return 128 - code if code < 0 else code
        self._restarting = False
        return self.begin(self._variables)


# -- the real thing --------------------------------------------------------------------


def read_action(text: str) -> signal.Signals | None:
    """The signal of `signal:HUP`, None for `restart`; raises UsageError for anything else."""
    if text == "restart":
        return None
    kind, _, name = text.partition(":")
    number = getattr(signal, f"SIG{name.upper().removeprefix('SIG')}", None)
    if kind != "signal" or not isinstance(number, signal.Signals):
        raise UsageError("--watch takes restart, or a signal such as signal:HUP")
    if number in {signal.SIGKILL, signal.SIGSTOP}:
        raise UsageError(f"--watch: no program can act on {number.name}", hint="--watch restart")
    return number


def supervise(
    invocation: Invocation,
    candidates: Iterable[str],
    command: list[str],
    environments: Iterable[str],
    gather: Callable[[], Variables],
    variables: Variables,
) -> int:
    """Run `command`, the first of `candidates` that is there, until it ends."""
    inbox: SimpleQueue[Notice] = SimpleQueue()
    say = partial(invocation.screen.note_with, "envctl", colour="dim")
    supervisor = Supervisor(
        partial(_start, invocation, inbox, tuple(candidates), command),
        gather,
        partial(_later, inbox),
        say,
        read_action(invocation.arguments.text("--watch")),
    )
    _pass_signals_on(inbox)
    code = supervisor.begin(variables)
    for environment in environments if code is None else ():
        arguments = (invocation, environment, inbox, say)
        Thread(target=_follow, args=arguments, daemon=True).start()
    while code is None:
        code = supervisor.take(inbox.get())
        invocation.screen.flush()
    return code


def _pass_signals_on(inbox: SimpleQueue[Notice]) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        if not (number in _FROM_TERMINAL and _in_foreground()):
            inbox.put(Signalled(signal.Signals(number)))

    for number in _PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, handle)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _later(inbox: SimpleQueue[Notice], delay_s: float, notice: Notice) -> None:
    timer = Timer(delay_s, inbox.put, (notice,))
    timer.daemon = True
    timer.start()


def _follow(
    invocation: Invocation, environment: str, inbox: SimpleQueue[Notice], say: Callable[[str], None]
) -> None:
    """Tell of what happens to one environment, on a connection of its own."""
    own = Invocation(invocation.world, invocation.command, invocation.arguments)
    try:
        for event in resumed(own, environment, patient=True):
            concerns = isinstance(event, Changed) and event.commit.environment == environment
            if concerns or isinstance(event, SnapshotEnd | Reset):
                inbox.put(MayDiffer())
    except EnvdError as error:
        say(f"{environment} is no longer watched: {error.message}")
    finally:
        own.close()


def _start(
    invocation: Invocation,
    inbox: SimpleQueue[Notice],
    candidates: Iterable[str],
    command: list[str],
    variables: Variables,
) -> Child | int:
    guard = _guard()
    refusal: str | None = ""
    for path in candidates:
        try:
            if not os.access(path, os.X_OK) or os.path.isdir(path):  # noqa: PTH112
                if os.path.exists(path):  # noqa: PTH110
                    refusal = refusal or "it is not executable"
                continue
            child = subprocess.Popen([*guard, path, *command[1:]], env=variables)
        except OSError as error:
            refusal = refusal or error.strerror
            continue
        Thread(target=_await_end, args=(child, inbox), daemon=True).start()
        return child
    if refusal:
        invocation.screen.error(f"can't run {command[0]}: {refusal}", "")
        return exits.NOT_EXECUTABLE
    invocation.screen.error(f"there is no program {command[0]}", "")
    return exits.COMMAND_NOT_FOUND


def _await_end(child: subprocess.Popen[bytes], inbox: SimpleQueue[Notice]) -> None:
    inbox.put(Ended(child, child.wait()))


def _guard() -> tuple[str, ...]:
    """What makes the kernel end the program when envctl dies, nothing where that can't be had."""
    guard = (_SETPRIV, "--pdeathsig", "TERM", "--")
    try:
        tried = subprocess.run([*guard, "/bin/true"], capture_output=True, check=False, env={})
    except OSError:
        return ()
    return guard if tried.returncode == 0 else ()
