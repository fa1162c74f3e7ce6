"""One call of `envctl`: what was typed, the way to the node, and what is shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from envd.cli import endpoint
from envd.cli.exits import Failed, UsageError
from envd.cli.grammar import DRY_RUN, Arguments, Command
from envd.cli.screen import Screen
from envd.cli.world import World
from envd.client.connection import Connection
from envd.core.answers import EnvironmentView, WriteAnswer
from envd.core.errors import EnvdError, InvalidRequest, NotFound
from envd.core.names import MAX_OPERATION_ID_BYTES
from envd.core.requests import (
    Consistency,
    DeleteRequest,
    ReadRequest,
    ResolveRequest,
    RollbackRequest,
    WriteRequest,
)
from envd.wire.plain import to_plain

if TYPE_CHECKING:
    from envd.cli.progress import Progress

SHORT_REVISION = 12
_AnyWrite = TypeVar("_AnyWrite", WriteRequest, DeleteRequest, RollbackRequest, ResolveRequest)


class Invocation:
    """What a command works with. The connection is made when it is first used."""

    def __init__(self, world: World, command: Command, arguments: Arguments) -> None:
        self.world = world
        self.command = command
        self.arguments = arguments
        self.screen = Screen(world.stdout, world.stderr, world.environ)
        self.output = arguments.text("--output") or "table"
        self.write_in_flight = False
        """Whether a write was sent and its answer has not come."""
        self._connection: Connection | None = None
        self._where: endpoint.Endpoint | None = None
        self._operation = ""

    # -- what was typed ------------------------------------------------------------

    def take_words(self, *, most: int | None = None, least: int = 0) -> list[str]:
        """The words, those after `--` too; raises UsageError if there are too many or few."""
        words = [*self.arguments.words, *(self.arguments.literal or ())]
        if (most is not None and len(words) > most) or len(words) < least:
            what = "too few" if len(words) < least else "too many"
            raise UsageError(
                f"{what} arguments for envctl {self.arguments.command}",
                hint=f"usage: envctl {self.arguments.command} {self.command.usage[0]}",
            )
        return words

    @property
    def operation(self) -> str:
        """The id of this write: the caller's, or a new one."""
        if not self._operation:
            given = self.arguments.text("--operation")
            _check_text("--operation", given)
            if len(given.encode()) > MAX_OPERATION_ID_BYTES:
                raise UsageError(f"--operation takes at most {MAX_OPERATION_ID_BYTES} bytes")
            self._operation = given or os.urandom(12).hex()
        return self._operation

    @property
    def message(self) -> str:
        """What the history will say of this write."""
        message = self.arguments.text("--message")
        _check_text("--message", message)
        return message

    @property
    def if_revision(self) -> str:
        """The revision that the caller's write depends on, or ""."""
        given = self.arguments.text("--if-revision")
        if given and not (8 <= len(given) <= 32 and set(given.lower()) <= set("0123456789abcdef")):
            raise UsageError(
                "--if-revision takes a revision or at least its first 8 digits",
                hint="every read and every write prints it",
            )
        return given

    # -- the node ------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The way to the node; raises Unavailable where there is none."""
        if self._connection is None:
            self._where = endpoint.choose(self.arguments, self.world.environ)
            self._connection = self.world.connect(self._where)
        return self._connection

    def another_connection(self, timeout_s: float) -> Connection:
        """A second way to where `connection` leads, for another thread; whose it is closes it."""
        where = self._where or endpoint.choose(self.arguments, self.world.environ)
        return self.world.connect(where._replace(timeout_s=timeout_s))

    def remember(self) -> None:
        """Keep the members of the cluster for when this node does not answer."""
        if self._connection is not None and self._where is not None and self._where.memory:
            from envd.cli import remembered

            where, now_ms = self._where, self.world.wall_ms()
            remembered.note(where.memory, where.addresses, self._connection, now_ms)

    def close(self) -> None:
        """Let go of the node."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(
        self,
        environment: str,
        *,
        at: str = "",
        variables: tuple[str, ...] = (),
        reveal: bool,
        resolve: bool = False,
    ) -> EnvironmentView:
        """Read an environment as fresh as the flags ask for, with `resolve` its layers too."""
        level = Consistency(self.arguments.text("--consistency") or "eventual")
        lag_ms = self.arguments.milliseconds("--max-lag")
        return self.connection.get(
            ReadRequest(
                environment, variables, reveal, at, level, max_lag_ms=lag_ms, resolve=resolve
            )
        )

    def read_real(
        self,
        environment: str,
        *,
        at: str = "",
        variables: tuple[str, ...] = (),
        resolve: bool = False,
    ) -> EnvironmentView:
        """Read real values; the right to reveal is needed only where one is secret."""
        for reveal in (False, True):
            view = self.read(
                environment, at=at, variables=variables, reveal=reveal, resolve=resolve
            )
            if not any(variable.masked for variable in view.variables.values()):
                break
        return view

    def read_if_there(self, environment: str, *, reveal: bool) -> EnvironmentView | None:
        """Read an environment, None where it does not exist."""
        try:
            return self.read(environment, reveal=reveal)
        except NotFound:
            return None

    def write(self, request: WriteRequest) -> WriteAnswer:
        """Send one commit under this call's operation id and message."""
        return self._send(self.connection.write, self._signed(request))

    def delete(self, request: DeleteRequest) -> WriteAnswer:
        """Delete an environment under this call's operation id and message."""
        return self._send(self.connection.delete, self._signed(request))

    def rollback(self, request: RollbackRequest) -> WriteAnswer:
        """Go back under this call's operation id and message."""
        return self._send(self.connection.rollback, self._signed(request))

    def resolve(self, request: ResolveRequest) -> WriteAnswer:
        """Settle conflicts under this call's operation id and message."""
        return self._send(self.connection.resolve, self._signed(request))

    def _signed(self, request: _AnyWrite) -> _AnyWrite:
        return replace(
            request,
            operation=request.operation or self.operation,
            message=request.message or self.message,
        )

    def _send(self, call: Callable[[_AnyWrite], WriteAnswer], request: _AnyWrite) -> WriteAnswer:
        """Send a write; an interruption until its answer has come leaves the flag up."""
        self.write_in_flight = True
        try:
            answer = call(request)
        except EnvdError:
            self.write_in_flight = False
            raise
        self.write_in_flight = False
        return answer

    # -- what is shown -------------------------------------------------------------

    def progress(self, doing: str, total: int | None = None) -> Progress:
        """Tell on a terminal how far something long is, for the time of a `with` block."""
        from envd.cli.progress import Progress

        return Progress(self.screen, self.world.monotonic, doing, total)

    def waiting(
        self, doing: str, how_far: Generator[str, None, None] | None = None
    ) -> AbstractContextManager[None]:
        """Tell on a terminal that one long call is on its way, for the time of a `with` block.

        `how_far` is asked in another thread; see `progress.waiting`.
        """
        from envd.cli.progress import waiting

        return waiting(self.screen, doing, how_far)

    def shows_tables(self) -> bool:
        """Tell whether people read the output, rather than programs."""
        return self.output == "table"

    def document(self, plain: Any) -> None:
        """Write an answer in the shape of `--output`."""
        self.screen.document(plain, self.output)

    def tell(self, text: str) -> None:
        """Say to a person what was done; programs get the answer as a document instead."""
        if self.shows_tables():
            self.screen.line(text)

    def report(self, answer: WriteAnswer, done: str = "") -> None:
        """Tell of a commit: the bare new revision, or the sentence `done` with it."""
        if not self.shows_tables():
            self.document(to_plain(answer))
        elif done:
            self.screen.line(
                f"{done}; {answer.environment} is at revision {short(answer.revision)}"
            )
        elif answer.revision:
            self.screen.line(short(answer.revision))
        if not answer.revision:
            self.screen.note(
                f"note: no node that holds {answer.environment} could be reached, so this was "
                "written without a look at it; its values are secret, and it goes there later"
            )
        if answer.detached:
            self.screen.note("note: it is safe on one node; the usual second copy is missing yet")

    def confirm(self, question: str) -> None:
        """Go on if `--yes` was given or the person agrees, else raise."""
        if self.arguments.on("--yes"):
            return
        if not self.world.stdin.isatty():
            look = "look at it with --dry-run, then " if DRY_RUN in self.command.flags else ""
            raise UsageError(
                "nobody can be asked, since standard input is no terminal; nothing was changed",
                hint=f"{look}repeat it with --yes",
            )
        self.world.stdout.flush()
        self.world.stderr.write(f"{question} [y/N] ")
        self.world.stderr.flush()
        if self.world.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise Failed("not confirmed; nothing was changed", reason="NOT_CONFIRMED")


def short(revision: str) -> str:
    """A revision as people are shown it."""
    return revision[:SHORT_REVISION]


def _check_text(flag: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{flag} is not valid UTF-8") from None
