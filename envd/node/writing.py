"""A write under way: its answer is known, and holds as soon as it is confirmed.

That is once the store calls it durable, and in a cluster once enough nodes have synced it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from envd.core.answers import WriteAnswer


class Copies(NamedTuple):
    """How many nodes have synced a write, this one too, and whether that is less than usual."""

    acknowledged: int
    detached: bool


class Confirmation(Protocol):
    """What the answer of a write waits for: the store's `Logged`, its copies, another node."""

    def __await__(self) -> Generator[Any, None, int | Copies | WriteAnswer]: ...

    def done(self) -> bool: ...

    def result(self) -> int | Copies | WriteAnswer: ...

    def exception(self) -> BaseException | None: ...

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None: ...


@dataclass(frozen=True, slots=True)
class Writing:
    """Awaiting it gives the answer, or raises what the store refused the commit with.

    Who waits may be cancelled, and others may wait for the same: the write goes on.
    `confirmation` is None where there was nothing to log. `answer` is None where another node
    makes the write, whose answer is the confirmation.
    """

    answer: WriteAnswer | None
    confirmation: Confirmation | None = None

    def done(self) -> bool:
        """Tell whether `result` has it."""
        return self.confirmation is None or self.confirmation.done()

    def result(self) -> WriteAnswer:
        """The answer of a write that is done; raises as awaiting it does."""
        return self._told(self.confirmation.result() if self.confirmation is not None else 0)

    def forget(self) -> None:
        """Nobody will ask how it went."""
        if self.confirmation is not None:
            self.confirmation.add_done_callback(_look)

    def __await__(self) -> Generator[Any, None, WriteAnswer]:
        if self.confirmation is None:
            return self._told(0)
        try:
            outcome = yield from asyncio.shield(self.confirmation).__await__()
        except asyncio.CancelledError:
            self.forget()
            raise
        return self._told(outcome)

    def _told(self, outcome: int | Copies | WriteAnswer) -> WriteAnswer:
        if type(outcome) is WriteAnswer:
            return outcome
        assert self.answer is not None, "what is made here has an answer"
        if type(outcome) is not Copies:
            return self.answer
        copies, detached = outcome
        return replace(self.answer, acknowledged=copies, detached=detached)


def _look(confirmation: Confirmation) -> None:
    """Take an error out, which else is reported as one that nobody took."""
    confirmation.exception()
