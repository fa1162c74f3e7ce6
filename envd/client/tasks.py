"""Ending tasks so that nothing of them is left and nothing hangs."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any


def place_of(error: Exception) -> str:
    """FILE:LINE where an error was raised: what may be logged of one that may hold a value."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{place.filename}:{place.lineno}"


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they have ended, however they do.

    The one that calls this, where it is among them, goes on.
    """
    own = asyncio.current_task()
    running = [task for task in tasks if task is not None and task is not own and not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
