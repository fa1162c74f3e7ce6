"""Tasks that go on for ever, whatever happens in them.

A node must not end because one of its many loops met something that nobody thought of: the fault
is logged with all that is known of it, and the loop begins anew after a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

AGAIN_S: Final = 1.0
_log = logging.getLogger(__name__)


async def guarded(name: str, work: Callable[[], Awaitable[None]], *, again: bool = True) -> None:
    """Run `work`, which ends by itself only when it is done; after a fault, run it `again`."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the task's outermost guard
            extra = {"task": name, "error": type(error).__name__}
            _log.critical("node.fault", extra=extra, exc_info=True)
            if not again:
                return
            await asyncio.sleep(AGAIN_S)
        else:
            return
