"""Work in a thread that its caller waits for to the end, also when the caller is cancelled.

`asyncio.to_thread` answers a cancelled caller at once while the thread goes on: locks that
guard the work would be free too early, and files closed under it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def finish_in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Run `work` in a thread; a cancellation is passed on once it has ended."""
    return await finish_in(None, work, *arguments)


async def finish_in(executor: Executor | None, work: Callable[..., T], *arguments: object) -> T:
    """The same in a thread of this pool, None for the loop's own.

    Work that may hang belongs in a pool of its own, or it takes the loop's threads from all else.
    """
    # A future, not a task: a loop that ends cancels all tasks, and can't cancel this.
    running = asyncio.get_running_loop().run_in_executor(executor, partial(work, *arguments))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # Seen: the cancellation is what the caller asked for.
        raise cancelled
    return running.result()
