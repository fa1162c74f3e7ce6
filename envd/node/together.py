"""Parts of one work that end together: the sides of a stream, say."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator

from envd.core.errors import EnvdError
from envd.node.intake import IdentityLost


async def run_together(*parts: Coroutine[None, None, None]) -> None:
    """Run these until all are done or one fails, and raise that error: a lost identity first.

    A group of which a task fails just as it is cancelled raises that error alone (CPython below
    3.13), and who goes on after errors would go on for ever. It takes back its own cancellation
    of this task only within its body, so that is where it waits: what is left is another one.
    An error raised in an `except*` comes out in a group of its own before CPython 3.11.4, which
    Debian 12 and Ubuntu 22.04 have: so the group is split by hand.
    """
    this = asyncio.current_task()
    assert this is not None, "a coroutine runs in a task"
    before = this.cancelling()
    try:
        async with asyncio.TaskGroup() as group:
            await asyncio.wait([group.create_task(part) for part in parts])
    except BaseExceptionGroup as errors:
        ours, others = errors.split(EnvdError)
        if ours is None or others is not None:
            raise
        if this.cancelling() > before:
            raise asyncio.CancelledError from None
        raise _first_of(ours) from None


def _first_of(errors: BaseExceptionGroup[EnvdError]) -> EnvdError:
    """The error that matters of those that ended a group of tasks."""
    flat = list(_flat(errors))
    return next((error for error in flat if isinstance(error, IdentityLost)), flat[0])


def _flat(errors: BaseExceptionGroup[EnvdError]) -> Iterator[EnvdError]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flat(error)
        else:
            yield error
