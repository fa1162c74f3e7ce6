"""What controls are made of: channels that are other ones, but for what is said over them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from chaos.sim.nodes import Sabotage
from envd.core.errors import Unavailable
from envd.ports import PeerChannel, PeerTransport
from envd.wire import peers as wire


class Channel:
    """A channel that is another one, but for what `spoil` makes of what is sent."""

    def __init__(self, inner: PeerChannel, spoil: Callable[[bytes], bytes]) -> None:
        self.inner = inner
        self._spoil = spoil

    async def send(self, frame: bytes) -> None:
        await self.inner.send(self._spoil(frame))

    async def receive(self) -> bytes:
        return await self.inner.receive()

    def trusted(self) -> None:
        self.inner.trusted()

    def close(self) -> None:
        self.inner.close()


class Answering(Channel):
    """Answers some of what is sent by itself, whatever the peer does.

    A subclass says with what (`answer`), whether the peer hears of it all the same (`passes`), and
    which answers of the peer are then kept back (`hides`).
    """

    def __init__(self, inner: PeerChannel) -> None:
        super().__init__(inner, lambda frame: frame)
        self._queue: asyncio.Queue[bytes | Unavailable] = asyncio.Queue()
        self._pump: asyncio.Task[None] | None = None

    def answer(self, said: object) -> bytes | None:
        """The answer to what is sent, None for none."""
        raise NotImplementedError

    def passes(self, said: object) -> bool:
        """Whether what is answered here goes to the peer too."""
        raise NotImplementedError

    def hides(self, said: object) -> bool:
        """Whether what the peer says is kept back."""
        raise NotImplementedError

    async def send(self, frame: bytes) -> None:
        said = wire.decode(frame)
        answer = self.answer(said)
        if answer is None or self.passes(said):
            await self.inner.send(frame)
        if answer is not None:
            self._queue.put_nowait(answer)

    async def receive(self) -> bytes:
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._read())
        got = await self._queue.get()
        if isinstance(got, Unavailable):
            raise got
        return got

    async def _read(self) -> None:
        try:
            while True:
                frame = await self.inner.receive()
                if not self.hides(wire.decode(frame)):
                    self._queue.put_nowait(frame)
        except Unavailable as error:
            self._queue.put_nowait(error)


class _Transport:
    """A transport of which the channels that are dialed are wrapped."""

    def __init__(self, inner: PeerTransport, wrap: Callable[[PeerChannel], PeerChannel]) -> None:
        self._inner = inner
        self._wrap = wrap

    async def dial(self, address: str) -> PeerChannel:
        return self._wrap(await self._inner.dial(address))

    def on_channel(self, serve: Callable[[PeerChannel], Awaitable[None]]) -> None:
        self._inner.on_channel(serve)


def over_dialed(wrap: Callable[[PeerChannel], PeerChannel]) -> Sabotage:
    """Wrap the channels that a node opens."""
    return lambda ports: replace(ports, transport=_Transport(ports.transport, wrap))
