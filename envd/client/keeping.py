"""Keeps the offline snapshot of a live environment up to date, off the event loop.

It is written at once after a change, but not twice within a second, so that a burst of changes
is few writes; once a day where a node says that nothing changed (a snapshot is good for seven
days); and at the end. That it can't be written is logged once and harms nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envd.client import snapshot
from envd.client.servers import World
from envd.client.tasks import end
from envd.core.answers import EnvironmentView
from envd.core.errors import EnvdError

QUIET_S: Final = 1.0
REFRESH_MS: Final = 24 * 3600 * 1000
_log: Final = logging.getLogger("envd.client")


@dataclass(frozen=True, slots=True)
class Place:
    """Where snapshots lie, of which servers, and the token of the moment."""

    folder: Path
    context: str
    token: Callable[[], str]


class Keeper:
    """The snapshot of one environment."""

    def __init__(self, place: Place, environment: str, world: World) -> None:
        self._place = place
        self._environment = environment
        self._world = world
        self._state: EnvironmentView | None = None
        self._due = asyncio.Event()
        self._known = False
        self._vouched = False
        self._as_of_ms = 0
        self._warned = False
        self._task: asyncio.Task[None] | None = None
        self._saving: asyncio.Future[None] | None = None

    async def load(self) -> snapshot.Snapshot:
        """What was kept; raises SnapshotError."""
        place = self._place
        return await asyncio.to_thread(
            snapshot.load,
            place.folder,
            place.context,
            self._environment,
            token=place.token(),
            now_ms=self._world.wall_ms(),
        )

    def keep(self, state: EnvironmentView | None) -> None:
        """Have this state written soon; None removes the snapshot."""
        self._vouched = state is None or not state.unresolved
        if not self._vouched:
            return
        self._state = state
        self._known = True
        self._as_of_ms = self._world.wall_ms()
        self.again()

    def again(self) -> None:
        """Have the last state written once more, if there is one, as old as it is."""
        if not self._known:
            return
        self._due.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="envd snapshot")

    def still_so(self) -> None:
        """A node says that nothing has changed: write it again where that is a day old.

        Only then, for what no node vouches for must expire. A clock that went back makes it
        old too: who starts from it would take it for one of the future.
        """
        now_ms = self._world.wall_ms()
        if self._vouched and not 0 <= now_ms - self._as_of_ms < REFRESH_MS:
            self._as_of_ms = now_ms
            self.again()

    async def close(self) -> None:
        """Write what is not written yet.

        In this thread: where the interpreter is about to end, there are no others any more.
        """
        await end(self._task)
        if self._saving is not None:
            await asyncio.wait([self._saving])
            self._try(self._saving.result)
        if self._known and self._due.is_set():
            self._due.clear()
            self._try(lambda: self._save(self._state))

    async def _run(self) -> None:
        while True:
            await self._due.wait()
            await self._write()
            await self._world.sleep(QUIET_S)

    async def _write(self) -> None:
        """Save in a thread, and never two at once: the older one could come last."""
        if self._saving is not None:  # It goes on where the one who waited was cancelled.
            await asyncio.wait([self._saving])
        self._due.clear()
        self._saving = asyncio.ensure_future(asyncio.to_thread(self._save, self._state))
        try:
            await asyncio.wait([self._saving])
        except asyncio.CancelledError:
            self._due.set()
            raise
        self._try(self._saving.result)

    def _try(self, save: Callable[[], None]) -> None:
        try:
            save()
        except (OSError, EnvdError) as error:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "snapshot.failed environment=%s error=%s",
                    self._environment,
                    type(error).__name__,
                )

    def _save(self, state: EnvironmentView | None) -> None:
        place = self._place
        if state is None:
            snapshot.forget(place.folder, place.context, self._environment)
            return
        snapshot.save(
            place.folder,
            place.context,
            state,
            token=place.token(),
            now_ms=self._as_of_ms,
        )
