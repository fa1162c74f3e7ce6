"""Who wants to know of changes, and from where on they have not seen them.

A watch has no queue. Each holds a position in the order in which this node took commits in
(the lsn), and reads on from there: from a ring of recent commits in memory, else from the
journal, else, where that is recycled, after a reset and a snapshot. So a slow reader costs
nothing, and a watch that breaks off resumes with its token, over restarts too. Every visible
change is told at least once, in order per environment; the state that goes with a change may
be a later one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from itertools import islice

from envd.core.answers import (
    Changed,
    EnvironmentView,
    Heartbeat,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    WatchEvent,
)
from envd.core.commit import Commit
from envd.core.errors import NotFound, Unavailable
from envd.core.names import check_prefix, has_prefix
from envd.core.requests import WatchRequest
from envd.node.views import commit_view, read_watch_token, watch_token
from envd.ports import Applied, Store

RING_COMMITS = 10_000
DEFAULT_HEARTBEAT_S = 15.0
DEFAULT_MAX_WATCHES = 10_000
_BATCH = 256
_SNAPSHOT_PAGE = 1000
ViewOf = Callable[[str], EnvironmentView | None]


class WatchHub:
    """All watches of one node."""

    def __init__(
        self,
        store: Store,
        node_uid: int,
        *,
        heartbeat_s: float = DEFAULT_HEARTBEAT_S,
        max_watches: int = DEFAULT_MAX_WATCHES,
        ring_commits: int = RING_COMMITS,
    ) -> None:
        self._store = store
        self._node_uid = node_uid
        self._heartbeat_s = heartbeat_s
        self._max_watches = max_watches
        self._ring_commits = ring_commits
        self._ring: list[tuple[int, Commit]] = []
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._open = 0
        self._closed = False
        store.subscribe(self._applied)

    @property
    def open_watches(self) -> int:
        """How many watches there are now."""
        return self._open

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    def _applied(self, applied: Applied) -> None:
        commit = applied.record.commit
        self._ring.append((applied.lsn, commit))
        if len(self._ring) > 2 * self._ring_commits:
            del self._ring[: self._ring_commits]
        name = commit.environment
        self._wake("")
        end = name.find("/")
        while end != -1:
            self._wake(name[:end])
            end = name.find("/", end + 1)
        self._wake(name)

    def _wake(self, prefix: str) -> None:
        for event in self._waiting.get(prefix, ()):
            event.set()

    async def events(
        self, request: WatchRequest, snapshot_view: ViewOf, change_view: ViewOf | None
    ) -> AsyncGenerator[WatchEvent, None]:
        """The events of one watch, for ever; ends when the node stops.

        `snapshot_view` renders the state of an environment that the caller may see (None:
        gone); `change_view` too, for changes, None where values were not asked for. Raises
        Unavailable where the node has as many watches as it takes.
        """
        prefix = check_prefix(request.prefix)
        if self._open >= self._max_watches:
            raise Unavailable(
                f"the node has {self._open} watches, as many as it takes",
                hint="watch a prefix instead of single environments, or ask another node",
                reason="OVERLOADED",
                retry_after_ms=1000,
            )
        self._open += 1
        event = asyncio.Event()
        self._waiting.setdefault(prefix, set()).add(event)
        try:
            position, refusal = self._resume(request.token)
            if position is None:
                if request.token:
                    yield Reset(refusal)
                position = self._store.last_lsn()
                for item in self._snapshot(prefix, snapshot_view):
                    yield item
                yield SnapshotEnd(watch_token(self._node_uid, position))
            changes = self._follow(position, prefix, event, snapshot_view, change_view)
            async with aclosing(changes):
                async for change in changes:
                    yield change
        finally:
            self._open -= 1
            waiting = self._waiting[prefix]
            waiting.discard(event)
            if not waiting:
                del self._waiting[prefix]

    def _resume(self, token: str) -> tuple[int | None, str]:
        """The position that a token stands for, or None and why it can't be resumed."""
        point = read_watch_token(token)
        if point is None:
            return None, "the token is none"
        uid, lsn = point
        if uid != self._node_uid:
            return None, "the token is another node's"
        if lsn > self._store.last_lsn():
            return None, "the token is ahead of this node"
        try:
            next(iter(self._after(lsn)), None)
        except NotFound:
            return None, "the changes since the token are no longer kept one by one"
        return lsn, ""

    def _snapshot(self, prefix: str, view: ViewOf) -> Iterator[SnapshotItem]:
        after = ""
        while page := self._store.environments(prefix, after, _SNAPSHOT_PAGE):
            for listed in page:
                state = view(listed.environment)
                if state is not None:
                    yield SnapshotItem(state)
            after = page[-1].environment

    async def _follow(
        self,
        position: int,
        prefix: str,
        event: asyncio.Event,
        snapshot_view: ViewOf,
        change_view: ViewOf | None,
    ) -> AsyncGenerator[WatchEvent, None]:
        while not self._closed:
            event.clear()
            seen = position
            try:
                for lsn, commit in islice(self._after(position), _BATCH):
                    position = lsn
                    if has_prefix(commit.environment, prefix):
                        state = change_view(commit.environment) if change_view else None
                        token = watch_token(self._node_uid, lsn)
                        yield Changed(commit_view(commit), token, state)
            except NotFound:
                yield Reset("the watch fell behind what is kept")
                position = self._store.last_lsn()
                for item in self._snapshot(prefix, snapshot_view):
                    yield item
                yield SnapshotEnd(watch_token(self._node_uid, position))
                continue
            if position != seen:
                await asyncio.sleep(0)  # Nobody may have taken anything: let others have a turn.
            elif not await self._woken(event):
                position = self._store.last_lsn()
                yield Heartbeat(watch_token(self._node_uid, position))

    async def _woken(self, event: asyncio.Event) -> bool:
        """Wait for a change below the prefix; False when a heartbeat is due first."""
        try:
            await asyncio.wait_for(event.wait(), self._heartbeat_s)
        except TimeoutError:
            return event.is_set()
        return True

    def _after(self, lsn: int) -> Iterator[tuple[int, Commit]]:
        """The commits after `lsn`, in order; raises NotFound where they are gone."""
        if lsn >= self._store.last_lsn():
            return iter(())
        if self._ring and self._ring[0][0] <= lsn + 1:
            start = lsn + 1 - self._ring[0][0]
            return iter(self._ring[start : start + _BATCH])
        return ((at, record.commit) for at, record in self._store.replay(lsn))
