"""A live environment: a mapping that a watch keeps current, and the changes as they come.

The feed shows it states and changes; whoever reads sees the newest state at once, whoever
follows the changes gets each at least once and in order. It outlives the daemon: while no node
answers it keeps what it has, `stale` says so, and then it catches up.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Final
from weakref import WeakSet

from envd.client.changes import DEFAULT_LIMIT, Backlog, Change, completed, difference
from envd.client.reading import Reading
from envd.client.servers import World, closed
from envd.client.tasks import end, place_of
from envd.core.answers import EnvironmentView
from envd.core.errors import Conflict, EnvdError, Unavailable

Callback = Callable[[Change], Awaitable[None] | None]
_log: Final = logging.getLogger("envd.client")


class Changes(AsyncIterator[Change]):
    """The changes of one environment from when this was made, for one reader."""

    def __init__(self, limit: int) -> None:
        self._backlog = Backlog(limit)
        self._news = asyncio.Event()
        self._ended = False

    def add(self, change: Change) -> None:
        self._backlog.add(change)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def __anext__(self) -> Change:
        while not self._backlog:
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._backlog.take()

    async def aclose(self) -> None:
        """Take no more."""
        self.end()


class LiveEnvironment(Reading):
    """One environment as it is now; made by `Client.environment`."""

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_closing",
        "_ended",
        "_error",
        "_followers",
        "_mirrors",
        "_seen_s",
        "_unresolved",
        "_world",
        "_younger_s",
    )

    def __init__(self, name: str, world: World, closing: Callable[[], Awaitable[None]]) -> None:
        super().__init__(name)
        self._world = world
        self._closing = closing
        self._followers: WeakSet[Changes] = WeakSet()
        self._callbacks: set[asyncio.Task[None]] = set()
        self._mirrors: list[Reading] = []
        self._error: EnvdError | None = Unavailable("no node has answered yet", reason="NO_ANSWER")
        self._unresolved: Conflict | None = None
        self._seen_s = world.monotonic_s()
        self._younger_s = 0.0
        self._ended = False

    # -- how current it is -------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a node tells of changes at the moment."""
        return self._error is None

    @property
    def stale(self) -> bool:
        """Whether there may be changes that it does not show."""
        return self.error is not None

    @property
    def error(self) -> EnvdError | None:
        """Why it is stale, None where it is not.

        It is Conflict where what the environment extends can't be read: then the last state
        in which it could be is shown.
        """
        return self._error or self._unresolved

    @property
    def age_s(self) -> float:
        """For how long it has been stale, in seconds; of a snapshot, since it was saved."""
        if not self.stale:
            return 0.0
        return self._world.monotonic_s() - self._seen_s + self._younger_s

    # -- changes -----------------------------------------------------------------------

    def changes(self, *, limit: int = DEFAULT_LIMIT) -> Changes:
        """Follow the changes from now on: `async for change in env.changes(): ...`.

        Every commit that becomes visible comes at least once, in order; the mapping shows its
        state, or a later one, when it comes. It goes on over restarts of the daemon. A reader
        that leaves `limit` changes behind gets the newest of them merged (`Change.commits`
        counts them), so that memory stays bounded and no name is missed. It ends when the
        environment, or the client, is closed.
        """
        follower = Changes(limit)
        self._followers.add(follower)
        if self._ended:
            follower.end()
        return follower

    def on_change(self, callback: Callback) -> Callable[[], None]:
        """Have `callback(change)` called after each change, one after the other.

        It may be a coroutine function. What it raises is logged by type and place, and it is
        called for the next change all the same. Call the answer to have it called no more.
        """
        changes = self.changes()
        task = asyncio.create_task(self._tell(callback, changes), name="envd on_change")
        self._callbacks.add(task)
        task.add_done_callback(self._callbacks.discard)

        def stop() -> None:
            task.cancel()

        return stop

    async def wait_for(
        self,
        predicate: Callable[[LiveEnvironment], object] | None = None,
        *,
        revision: str = "",
        timeout_s: float | None = None,
    ) -> None:
        """Wait until `predicate(env)` is true, or until `revision` is, or was, shown.

        A revision that a later commit has replaced before this is called is not waited out:
        give a `timeout_s`, in seconds. Raises TimeoutError.
        """
        async with asyncio.timeout(timeout_s), aclosing(self.changes()) as changes:
            while not (self.revision == revision if predicate is None else predicate(self)):
                change = await anext(changes, None)
                if change is None:
                    raise closed()
                if predicate is None and change.revision == revision:
                    return

    async def close(self) -> None:
        """Follow it no more; the mapping keeps its last state."""
        await self._closing()

    async def _tell(self, callback: Callback, changes: Changes) -> None:
        async for change in changes:
            try:
                answer = callback(change)
                if inspect.isawaitable(answer):
                    await answer
            except Exception as error:  # noqa: BLE001 - the task's outermost guard
                _log.error(
                    "callback.failed environment=%s error=%s at=%s",
                    self.name,
                    type(error).__name__,
                    place_of(error),
                )

    # -- for the feed ------------------------------------------------------------------

    def start_from(self, view: EnvironmentView, age_s: float) -> None:
        """Show a snapshot of this age until a node answers."""
        self._younger_s = age_s
        self._seen_s = self._world.monotonic_s()
        self._show(view)

    def caught_up(self, view: EnvironmentView | None, *, first: bool) -> None:
        """Show the state that a node tells whole; unless it is the first, tell the difference."""
        self.reached()
        if self._can_show(view):
            change = None if first else difference(self.name, self._view, view)
            self._show(view)
            if change is not None:
                self._notify(change)

    def changed(self, change: Change, view: EnvironmentView | None) -> None:
        """Show the state after a commit and tell of it.

        Where states could not be shown before this one, it names what differs by them too.
        """
        self.reached()
        hidden = self._unresolved is not None
        if self._can_show(view):
            if hidden:
                change = completed(change, difference(self.name, self._view, view))
            self._show(view)
        self._notify(change)

    def reached(self) -> None:
        """A node tells of changes from now on."""
        self._error = None

    def lost(self, error: EnvdError) -> None:
        """No node tells of changes any more."""
        self._note_age()
        self._error = error

    def mirror(self, reading: Reading) -> None:
        """Show `reading` all that this one is shown."""
        self._mirrors.append(reading)
        reading._show(self._view)  # noqa: SLF001 - a reading of the same module family

    async def end(self) -> None:
        """End the followers and callbacks."""
        self._ended = True
        for follower in list(self._followers):
            follower.end()
        await end(*self._callbacks)
        self.lost(closed())

    def _show(self, view: EnvironmentView | None) -> None:
        super()._show(view)
        for reading in self._mirrors:
            reading._show(view)  # noqa: SLF001

    def _notify(self, change: Change) -> None:
        for follower in list(self._followers):
            follower.add(change)

    def _can_show(self, view: EnvironmentView | None) -> bool:
        """Where what it extends can't be read, what is shown stays, and is stale."""
        if view is None or not view.unresolved:
            self._unresolved = None
            return True
        self._note_age()
        self._unresolved = Conflict(view.unresolved, reason="UNRESOLVED")
        return False

    def _note_age(self) -> None:
        if not self.stale:
            self._seen_s = self._world.monotonic_s()
            self._younger_s = 0.0
