"""The term of a leader: what is asked of it is done while it leads, and ends when that does.

Its own work is cancelled with its lease; what callers asked for would go on, and write to a store
that another node keeps in step by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from envd.core.errors import OutcomeUnknown, Unavailable

AnswerT = TypeVar("AnswerT")


class Term:
    """That of one binding's leader."""

    def __init__(self, binding: str) -> None:
        self._binding = binding
        self._under_way: set[asyncio.Future[Any]] = set()
        self._is_over = False

    async def during(self, work: Coroutine[Any, Any, AnswerT]) -> AnswerT:
        """Do `work`; Unavailable where the term is over, OutcomeUnknown where it ends meanwhile."""
        if self._is_over:
            work.close()
            raise Unavailable(
                f"this node does not lead the binding {self._binding} any more; nothing was done",
                hint="try again",
                reason="NO_LEADER",
                retry_after_ms=1000,
            )
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        try:
            await asyncio.wait((task,))
        finally:
            task.cancel()
            await asyncio.wait((task,))
            self._under_way.discard(task)
        if task.cancelled():
            raise OutcomeUnknown(
                f"this node does not lead the binding {self._binding} any more, and had begun",
                hint="the next leader finds out what was done: envctl sync plan",
                reason="NO_LEADER",
            )
        return task.result()

    async def end(self) -> None:
        """End what is under way, and let nothing begin."""
        self._is_over = True
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
