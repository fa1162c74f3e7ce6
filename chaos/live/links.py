"""One direction between two nodes, as the proxies make it: open or shut, and its weather."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from chaos.live.places import Weather


@dataclass(slots=True)
class Traffic:
    """What a link did so far, in datagrams and bytes of streams."""

    datagrams: int = 0
    lost: int = 0
    shut_out: int = 0
    stream_bytes: int = 0


class Link:
    """All chance comes from `chance`, so a link with the same seed and traffic does the same."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._opened = asyncio.Event()
        self._opened.set()
        self.weather = Weather()
        self.traffic = Traffic()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    def shut(self) -> None:
        """Datagrams are lost, streams stand still from now on."""
        self._opened.clear()

    def open(self) -> None:
        """Let pass what comes, and what streams held back."""
        self._opened.set()

    async def passable(self) -> None:
        """Wait until the link is open."""
        await self._opened.wait()

    def datagram_delay_s(self) -> float | None:
        """How long a datagram is under way, None where it does not arrive."""
        self.traffic.datagrams += 1
        if not self.is_open:
            self.traffic.shut_out += 1
            return None
        if self._chance.random() < self.weather.loss:
            self.traffic.lost += 1
            return None
        return self.delay_s()

    def delay_s(self) -> float:
        """Draw how long something is under way now."""
        return self.weather.latency_s + self._chance.random() * self.weather.jitter_s


@dataclass(slots=True)
class Course:
    """When the chunks of one stream arrive over a link: in order, and no faster than it is.

    Example: at 1,000 bytes/s and 0.1 s latency two chunks of 500 bytes that are sent at 0 arrive
    at 0.6 and 1.1.
    """

    link: Link
    free_at_s: float = field(default=0.0)
    last_due_s: float = field(default=0.0)

    def due_s(self, now_s: float, size: int) -> float:
        """When a chunk that is sent now is there."""
        weather = self.link.weather
        self.link.traffic.stream_bytes += size
        begins_s = max(now_s, self.free_at_s)
        self.free_at_s = begins_s + (size / weather.bytes_per_s if weather.bytes_per_s else 0.0)
        due_s = self.free_at_s + self.link.delay_s()
        self.last_due_s = max(self.last_due_s, due_s)
        return self.last_due_s
