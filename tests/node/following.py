"""Watches of nodes under test, whose events are taken in as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from chaos.sim.cluster import NodeDied
from chaos.sim.nodes import Settings
from envd.core.answers import (
    Changed,
    EnvironmentView,
    Heartbeat,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    WatchEvent,
)
from envd.core.requests import WatchRequest
from tests.node.machines import TESTER, Machines, simulate


class Followed:
    """The events of one watch so far, and what who reads them would hold."""

    def __init__(self, machines: Machines, name: str, request: WatchRequest) -> None:
        self.events: list[WatchEvent] = []
        self.error: Exception | None = None
        self.states: dict[str, dict[str, str | None]] = {}
        self.token = ""
        self._machines = machines
        self._name = name
        self._request = request
        self._told: dict[str, dict[str, str | None]] = {}
        self._inner: asyncio.Task[None] | None = None
        self._task = asyncio.ensure_future(machines.run(name, self._follow()))

    async def _follow(self) -> None:
        self._inner = asyncio.current_task()
        events = self._machines.node(self._name).api.watch(TESTER, self._request)
        try:
            async for event in events:
                self._take(event)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def _take(self, event: WatchEvent) -> None:
        self.events.append(event)
        match event:
            case Reset():
                self._told = {}
                return
            case SnapshotItem(state):
                self._told[state.environment] = values(state)
                return
            case SnapshotEnd():
                self.states, self._told = self._told, {}
            case Changed(commit, _, state):
                if state is None:
                    self.states.pop(commit.environment, None)
                else:
                    self.states[commit.environment] = values(state)
            case Heartbeat():
                pass
        self.token = event.token

    async def until(self, name: str, within_s: float = 5.0, **wanted: str) -> None:
        """Wait until it shows these values of an environment; none: that there is none."""
        state = wanted or None
        await self._machines.until(lambda: self.states.get(name) == state, within_s)

    async def whole(self, within_s: float = 5.0) -> None:
        """Wait for a snapshot."""
        await self._machines.until(lambda: bool(self.of(SnapshotEnd)), within_s)

    async def refused(self, within_s: float = 5.0) -> None:
        """Wait until it fails, and raise what it fails with."""
        await self._machines.until(lambda: self.error is not None, within_s)
        assert self.error is not None
        raise self.error

    def of(self, *kinds: type[Any]) -> list[Any]:
        """The events of these kinds."""
        return [event for event in self.events if isinstance(event, kinds)]

    async def end(self) -> None:
        """Watch no more."""
        if self._inner is not None:
            self._inner.cancel()
            await asyncio.wait((self._inner,))
        self._task.cancel()
        with suppress(asyncio.CancelledError, NodeDied):
            await self._task


Watch = Callable[[str, WatchRequest], Followed]


def watching(
    story: Callable[[Machines, Watch], Awaitable[None]],
    count: int = 4,
    settings: Settings | None = None,
) -> None:
    """Tell a story about machines and watches of theirs, which all end with it."""

    async def told(machines: Machines) -> None:
        watches: list[Followed] = []

        def watch(name: str, request: WatchRequest) -> Followed:
            watches.append(Followed(machines, name, request))
            return watches[-1]

        try:
            await story(machines, watch)
        finally:
            for followed in watches:
                await followed.end()

    simulate(told, count, settings)


def values(state: EnvironmentView) -> dict[str, str | None]:
    return {name: variable.value for name, variable in state.variables.items()}
