"""Messages of a stream, of which those that are there at the same time go out as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from envd.net.grpc_calls import Context, send_bytes

MOST_BYTES: Final = 32 << 10
MOST_MESSAGES: Final = 128


class Outbox:
    """What is put within one turn of the event loop, or while an earlier message is on its way,
    leaves as what `join` makes of it; not `together`, each message leaves alone.

    Close it at the end: what was put and not sent is dropped.
    """

    def __init__(
        self, context: Context, join: Callable[[Sequence[bytes]], bytes], *, together: bool
    ) -> None:
        self._context = context
        self._join = join
        self._together = together
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._sending: asyncio.Task[None] | None = None

    async def put(self, message: bytes) -> None:
        """Have it sent; waits while the client does not read. Raises ClientGone."""
        if not self._together:
            await send_bytes(self._context, message)
            return
        while self._waiting and self._is_full(len(message)):
            await self.flush()
        self._waiting.append(message)
        self._bytes += len(message)
        if self._sending is None or self._sending.done():
            self._check()
            self._sending = asyncio.create_task(self._send(), name="outbox")

    def _is_full(self, more_bytes: int) -> bool:
        return self._bytes + more_bytes > MOST_BYTES or len(self._waiting) >= MOST_MESSAGES

    async def flush(self) -> None:
        """Wait until all is sent; raises ClientGone."""
        if self._sending is not None:
            await asyncio.wait((self._sending,))
            self._check()

    def _check(self) -> None:
        if self._sending is not None and self._sending.done():
            self._sending.result()

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting, self._bytes = self._waiting, [], 0
            await send_bytes(self._context, self._join(batch))

    async def aclose(self) -> None:
        """Stop sending."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))
            if not self._sending.cancelled():
                self._sending.exception()
