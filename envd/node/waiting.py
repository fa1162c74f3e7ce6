"""Who waits for a change of an environment, or of any below a prefix."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable


class Waiting:
    """Events to be set, by the prefix that they are about."""

    def __init__(self) -> None:
        self._events: dict[str, dict[asyncio.Event, None]] = {}

    def __len__(self) -> int:
        """How many prefixes somebody waits for."""
        return len(self._events)

    def join(self, prefix: str, event: asyncio.Event) -> None:
        """Set `event` whenever something at or below `prefix` changes."""
        self._events.setdefault(prefix, {})[event] = None

    def leave(self, prefix: str, event: asyncio.Event) -> None:
        """The inverse of `join`."""
        events = self._events[prefix]
        events.pop(event, None)
        if not events:
            del self._events[prefix]

    def wake(self, name: str) -> None:
        """Wake those who wait for a prefix of `name`."""
        waiting = self._events
        _set(waiting.get("", ()))
        end = name.find("/")
        while end != -1:
            _set(waiting.get(name[:end], ()))
            end = name.find("/", end + 1)
        _set(waiting.get(name, ()))

    def wake_where(self, concerns: Callable[[str], bool]) -> None:
        """Wake those whose prefix this concerns."""
        for prefix, events in self._events.items():
            if concerns(prefix):
                _set(events)

    def wake_all(self) -> None:
        """Wake everybody."""
        for events in self._events.values():
            _set(events)


def _set(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()
