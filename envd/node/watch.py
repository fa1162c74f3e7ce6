"""Who wants to know of changes, and from where on they have not seen them.

A watch has no queue. Each holds a position in the order in which this node took commits in
(the lsn), and reads on from there: from a ring of recent commits in memory, else from the
journal, else, where that is recycled, after a reset and a snapshot. So a slow reader costs
nothing here, and a watch that breaks off resumes with its token, over restarts too. Every visible
change is told at least once, in order per environment; the state that goes with a change may
be a later one.

A watch that resolves layers is told of a commit to a base once for each environment it watches
that extends the base. Only the last of these events carries a token behind the commit, so one
that breaks off in between is told all of them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise

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
from envd.core.layers import under
from envd.core.names import check_environment, check_prefix, has_prefix
from envd.core.requests import WatchRequest
from envd.node.extenders import Extenders
from envd.node.views import commit_view, read_watch_token, watch_mark, watch_token
from envd.node.waiting import Waiting
from envd.ports import Applied, Store

RING_COMMITS = 10_000
RING_BYTES = 8 << 20
"""An estimate. Commits may be of megabytes, so a number of them says nothing of memory."""
_CHANGE_BYTES = 200
DEFAULT_HEARTBEAT_S = 15.0
DEFAULT_MAX_WATCHES = 10_000
_BATCH = 256
_SNAPSHOT_PAGE = 1000
_LEARNT_A_BEAT = 10_000
ViewOf = Callable[[str], EnvironmentView | None]


@dataclass(frozen=True, slots=True)
class Sight:
    """What one watcher may see.

    `view` renders the state of an environment, None where it is gone; where its layers are
    asked for and can't be read, it says so in the state. `may_read` tells whether the watcher
    may read an environment that another one extends.
    """

    view: ViewOf
    may_read: Callable[[str], bool]


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
        ring_bytes: int = RING_BYTES,
    ) -> None:
        self._store = store
        self._node_uid = node_uid
        self.heartbeat_s = heartbeat_s
        self._max_watches = max_watches
        self._most_commits = ring_commits
        self._most_bytes = ring_bytes
        self._ring: list[tuple[int, Commit, int]] = []
        self._ring_bytes = 0
        self._looked_up: tuple[int, Commit | None] = (0, None)
        self._waiting = Waiting()
        self._resolving = Waiting()
        self._extenders = Extenders(store)
        self._open = 0
        self.closed = False
        """Whether no watch goes on."""
        store.subscribe(self._applied)

    @property
    def open_watches(self) -> int:
        """How many watches there are now."""
        return self._open

    @property
    def known_layers(self) -> int:
        """How many environments that extend others are kept in mind for the watches."""
        return len(self._extenders)

    def close(self) -> None:
        """End every watch."""
        self.closed = True
        self._waiting.wake_all()

    def nudge(self) -> None:
        """Have every watch look whether it is over."""
        self._waiting.wake_all()

    def _applied(self, applied: Applied) -> None:
        commit = applied.record.commit
        size = applied.size_bytes + _CHANGE_BYTES * len(commit.changes)
        self._ring.append((applied.lsn, commit, size))
        self._ring_bytes += size
        if len(self._ring) > 2 * self._most_commits or self._ring_bytes > 2 * self._most_bytes:
            self._shorten_ring()
        self._waiting.wake(commit.environment)
        self._extenders.applied(applied)
        above = self._extenders.of(commit.environment)
        if len(above) < len(self._resolving):
            for name in above:
                self._resolving.wake(name)
        elif above:
            self._resolving.wake_where(lambda prefix: next(under(above, prefix), None) is not None)

    def _shorten_ring(self) -> None:
        """Let go of the oldest commits, down to half of what makes the ring too long."""
        dropped = 0
        for _, _, size in self._ring:
            left = len(self._ring) - dropped
            if left <= self._most_commits and self._ring_bytes <= self._most_bytes:
                break
            self._ring_bytes -= size
            dropped += 1
        del self._ring[:dropped]

    async def events(
        self, request: WatchRequest, sight: Sight, over: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[WatchEvent, None]:
        """The events of one watch, until it is `over` or the node stops; see `nudge`.

        Raises Unavailable where the node has as many watches as it takes.
        """
        prefix = check_prefix(request.prefix)
        if request.exact:
            check_environment(prefix)
        with self.place():
            event = asyncio.Event()
            self._join(prefix, event, resolve=request.resolve)
            try:
                events = self._follow(replace(request, prefix=prefix), sight, event, over)
                async with aclosing(events):
                    async for told in events:
                        yield told
            finally:
                self._leave(prefix, event, resolve=request.resolve)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Count as one of the watches; raises Unavailable where the node takes no more."""
        if self._open >= self._max_watches:
            raise Unavailable(
                f"the node has {self._open} watches, as many as it takes",
                hint="watch a prefix instead of single environments, or ask another node",
                reason="OVERLOADED",
                retry_after_ms=1000,
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    @contextmanager
    def hearing(self, event: asyncio.Event) -> Iterator[None]:
        """Have an event set at every commit, without being a watch."""
        self._waiting.join("", event)
        try:
            yield
        finally:
            self._waiting.leave("", event)

    def _join(self, prefix: str, event: asyncio.Event, *, resolve: bool) -> None:
        self._waiting.join(prefix, event)
        if resolve:
            self._extenders.join()
            self._resolving.join(prefix, event)

    def _leave(self, prefix: str, event: asyncio.Event, *, resolve: bool) -> None:
        self._waiting.leave(prefix, event)
        if resolve:
            self._resolving.leave(prefix, event)
            self._extenders.leave()

    def resume(self, token: str) -> tuple[int | None, str]:
        """The position that a token stands for, or None and why it can't be resumed."""
        point = read_watch_token(token)
        if point is None:
            return None, "the token is none"
        uid, lsn, mark = point
        if uid != self._node_uid:
            return None, "the token is another node's"
        if lsn > self._store.last_lsn():
            return None, "the token is ahead of this node"
        last = self._commit_at(lsn)
        if mark is not None and last is not None and watch_mark(last) != mark:
            return None, "this node's log has lost its end since"
        try:
            next(iter(self.after(lsn)), None)
        except NotFound:
            return None, "the changes since the token are no longer kept one by one"
        return lsn, ""

    def _snapshot(self, position: int, request: WatchRequest, sight: Sight) -> Iterator[WatchEvent]:
        """What exists now; changes follow from `position`, which is now's."""
        for name in self._names(request.prefix):
            if request.resolve:
                self._extenders.learn(name)
            state = sight.view(name) if is_watched(name, request) else None
            if state is not None:
                yield SnapshotItem(state)
        if request.resolve:
            self._extenders.cover(request.prefix)
        yield SnapshotEnd(self.token(position))

    def _names(self, prefix: str) -> Iterator[str]:
        after = ""
        while page := self._store.environments(prefix, after, _SNAPSHOT_PAGE):
            for listed in page:
                yield listed.environment
            after = page[-1].environment

    async def _learnt(self, request: WatchRequest) -> AsyncGenerator[Heartbeat, None]:
        """Learn the layers below the prefix without a snapshot; beats, for it may take long."""
        if not request.resolve or self._extenders.covers(request.prefix):
            return
        for number, name in enumerate(self._names(request.prefix), 1):
            self._extenders.learn(name)
            if number % _BATCH == 0:
                await asyncio.sleep(0)
            if number % _LEARNT_A_BEAT == 0:
                yield Heartbeat(request.token)
        self._extenders.cover(request.prefix)

    async def _follow(
        self,
        request: WatchRequest,
        sight: Sight,
        event: asyncio.Event,
        over: Callable[[], bool],
    ) -> AsyncGenerator[WatchEvent, None]:
        position, refusal = self.resume(request.token)
        if position is None:
            if request.token:
                yield Reset(refusal)
            position = self._store.last_lsn()
            for told in self._snapshot(position, request, sight):
                yield told
        else:
            async with aclosing(self._learnt(request)) as beats:
                async for beat in beats:
                    yield beat
        last: Commit | None = None
        while not (self.closed or over()):
            event.clear()
            seen = position
            try:
                for lsn, commit in islice(self.after(position), _BATCH):
                    events = self._told(lsn, commit, last, request, sight)
                    for number, changed in enumerate(events, 1):
                        yield changed
                        if number % _BATCH == 0:
                            await asyncio.sleep(0)
                    position, last = lsn, commit
            except NotFound:
                yield Reset("the watch fell behind what is kept")
                position, last = self._store.last_lsn(), None
                for told in self._snapshot(position, request, sight):
                    yield told
                continue
            if position != seen:
                await asyncio.sleep(0)  # Nobody may have taken anything: let others have a turn.
            elif not await self.woken(event):
                if position != self._store.last_lsn():
                    position, last = self._store.last_lsn(), None
                yield Heartbeat(self.token(position))

    def _told(
        self, lsn: int, commit: Commit, last: Commit | None, request: WatchRequest, sight: Sight
    ) -> Iterator[Changed]:
        """The events that a commit means for one watch: its own, and those of its extenders.

        `last` is the commit before it, where that is at hand.
        """
        names = self._names_told(commit.environment, request, sight)
        first = next(names, "")
        if not first:
            return
        view = sight.view if request.values else _no_view
        behind = watch_token(self._node_uid, lsn, commit)
        own = commit_view(commit)
        for name, following in pairwise(chain((first,), names, ("",))):
            token = watch_token(self._node_uid, lsn - 1, last) if following else behind
            if name == commit.environment:
                yield Changed(own, token, view(name))
                continue
            state = self._store.visible(name)
            revision = state.revision.hex() if state else ""
            told = replace(own, environment=name, revision=revision, deleted=False)
            yield Changed(told, token, view(name), commit.environment)

    def _names_told(self, changed: str, request: WatchRequest, sight: Sight) -> Iterator[str]:
        """Which environments of a watch a change of one is told for, that one first.

        Those that extend it count where they exist, and where all that they extend may be read
        by the watcher. They may be many, so they are looked at only as they are asked for.
        """
        if is_watched(changed, request):
            yield changed
        if not request.resolve:
            return
        for name in under(self._extenders.of(changed), request.prefix):
            state = self._store.visible(name)
            exists = state is not None and state.environment.exists
            wanted = exists and is_watched(name, request)
            if wanted and all(map(sight.may_read, self._extenders.bases(name))):
                yield name

    async def woken(self, event: asyncio.Event) -> bool:
        """Wait for a change below the prefix; False when a heartbeat is due first."""
        try:
            await asyncio.wait_for(event.wait(), self.heartbeat_s)
        except TimeoutError:
            return event.is_set()
        return True

    def token(self, lsn: int) -> str:
        """What resumes after the commit at a place in the log."""
        return watch_token(self._node_uid, lsn, self._commit_at(lsn))

    def now(self) -> str:
        """What resumes after the last commit."""
        return self.token(self._store.last_lsn())

    def _commit_at(self, lsn: int) -> Commit | None:
        """The commit at a place in the log, None where it is no longer kept."""
        first = self._ring[0][0] if self._ring else lsn + 1
        if first <= lsn < first + len(self._ring):
            return self._ring[lsn - first][1]
        if self._looked_up[0] != lsn and lsn > 0:
            try:
                found = next(iter(self._store.replay(lsn - 1)), None)
            except NotFound:
                found = None
            self._looked_up = (lsn, found[1].commit if found else None)
        return self._looked_up[1] if self._looked_up[0] == lsn else None

    def after(self, lsn: int) -> Iterator[tuple[int, Commit]]:
        """The commits after `lsn`, in order; raises NotFound where they are gone."""
        if lsn >= self._store.last_lsn():
            return iter(())
        if self._ring and self._ring[0][0] <= lsn + 1:
            start = lsn + 1 - self._ring[0][0]
            return ((at, commit) for at, commit, _ in self._ring[start : start + _BATCH])
        return ((at, record.commit) for at, record in self._store.replay(lsn))


def is_watched(name: str, request: WatchRequest) -> bool:
    """Whether a watch is of an environment, apart from what extends it."""
    return name == request.prefix if request.exact else has_prefix(name, request.prefix)


def _no_view(name: str) -> EnvironmentView | None:
    """The view of a watch that asked for no values."""
    return None
