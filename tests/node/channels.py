"""Two ends of a channel between nodes, in memory."""

from __future__ import annotations

import asyncio

from envd.core.errors import Unavailable


class FakeChannel:
    """One end; what one sends the other receives. `sent` keeps what this end said."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.other: FakeChannel = self
        self.sent: list[bytes] = []
        self.closed = False
        self.is_trusted = False

    async def send(self, frame: bytes) -> None:
        if self.closed or self.other.closed:
            raise Unavailable("the channel is closed")
        self.sent.append(frame)
        self.other._inbox.put_nowait(frame)

    async def receive(self) -> bytes:
        frame = await self._inbox.get()
        if frame is None:
            self._inbox.put_nowait(None)
            raise Unavailable("the channel is closed")
        return frame

    def trusted(self) -> None:
        self.is_trusted = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._inbox.put_nowait(None)
            self.other._inbox.put_nowait(None)


def pair() -> tuple[FakeChannel, FakeChannel]:
    """Two ends that belong together."""
    one, two = FakeChannel(), FakeChannel()
    one.other, two.other = two, one
    return one, two


class CountingRng:
    """Different bytes each time, the same in each run."""

    def __init__(self, start: int = 0) -> None:
        self._drawn = start

    def token_bytes(self, size: int) -> bytes:
        self._drawn += 1
        return self._drawn.to_bytes(size)
