"""A write under way: its answer is known, and holds as soon as the store calls it durable."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from envd.core.answers import WriteAnswer
from envd.ports import Logged


@dataclass(frozen=True, slots=True)
class Writing:
    """Awaiting it gives the answer, or raises what the store refused the commit with.

    Who waits may be cancelled, and others may wait for the same: the write goes on. `logged`
    is None where there was nothing to log.
    """

    answer: WriteAnswer
    logged: Logged | None = None

    def done(self) -> bool:
        """Tell whether `result` has it."""
        return self.logged is None or self.logged.done()

    def result(self) -> WriteAnswer:
        """The answer of a write that is done; raises as awaiting it does."""
        if self.logged is not None:
            self.logged.result()
        return self.answer

    def forget(self) -> None:
        """Nobody will ask how it went."""
        if self.logged is not None:
            self.logged.add_done_callback(_look)

    def __await__(self) -> Generator[Any, None, WriteAnswer]:
        if self.logged is not None:
            try:
                yield from asyncio.shield(self.logged).__await__()
            except asyncio.CancelledError:
                self.forget()
                raise
        return self.answer


def _look(logged: Logged) -> None:
    """Take an error out, which else is reported as one that nobody took."""
    logged.exception()
