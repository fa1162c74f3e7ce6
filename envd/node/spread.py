"""Watches in a cluster whose nodes hold different partitions.

A watch of one environment that this node holds is the hub's (`watch`), until the node holds it no
longer. Any other follows what the feeds tell (`feeds`), whoever holds it: places in one order that
is this node's, and states read from the node that told. So every visible change is told at least
once, in order per environment. Where a partition has a gap, because another node tells of it now,
watches that want it are told to reset and get a snapshot; where nobody tells of it, they go on and
say that they are partial.

A watch that resolves layers of one environment wants the partitions of all its layers; one of a
prefix wants all partitions, as a base may be in any. Each keeps who extends what, as far as it has
read it; it is read again with each change of a setting `extends`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from envd.core import shares
from envd.core.answers import (
    Changed,
    CommitView,
    EnvironmentView,
    Heartbeat,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    WatchEvent,
)
from envd.core.errors import EnvdError, NotFound, Unavailable
from envd.core.layers import EXTENDS, LayerGraph, bases_of, under
from envd.core.names import check_environment, check_prefix
from envd.core.requests import ReadRequest, WatchRequest
from envd.core.ring import partition_of
from envd.node.feeds import SETTLES_S, Feeds
from envd.node.gathering import Gathering, ReadOne, all_of
from envd.node.told import Gap
from envd.node.watch import Sight, WatchHub, is_watched
from envd.node.watch_pages import WatchPages

_AT_ONCE: Final = 32
_LISTED: Final = 1000
_AGAIN_S: Final = 0.2
_ROUNDS: Final = 8


class _Untold:
    """The state of an environment of which nobody tells any more: there will be a gap."""


StateOf = Callable[[str, ReadOne], Awaitable[EnvironmentView | None]]
"""(name, how to read one environment) -> its state; None where it does not exist.

With layers where these are asked for; where they can't be read, it says so in the state. Raises
Unavailable where the environment itself can't be read.
"""


@dataclass(frozen=True, slots=True)
class WideSight:
    """What one watcher may see, whoever holds it; `near` is that of what this node holds."""

    near: Sight
    state: StateOf


class SpreadWatches:
    """The watches of one node that other nodes may have to tell of."""

    def __init__(
        self, hub: WatchHub, gathering: Gathering, feeds: Feeds, pages: WatchPages
    ) -> None:
        self._hub = hub
        self._gathering = gathering
        self._routing = gathering.routing
        self.feeds = feeds
        pages.serve_from(hub)
        self._routing.subscribe(self._table_changed)

    def _table_changed(self) -> None:
        self._hub.nudge()
        self.feeds.table_changed()

    def close(self) -> None:
        """End every watch, once the hub is closed."""
        self.feeds.waiting.wake_all()

    def now(self, request: WatchRequest) -> str:
        """The token by which a watch begins without a snapshot; "" where it must have one."""
        return self._hub.now() if self._is_near(request) else ""

    def _is_near(self, request: WatchRequest) -> bool:
        """Whether this node has all that a watch is about."""
        if self._routing.whole:
            return True
        if request.resolve:
            return False
        if request.exact:
            return self._routing.reads(request.prefix)
        return self._routing.reads_all()

    async def events(
        self, request: WatchRequest, sight: WideSight
    ) -> AsyncGenerator[WatchEvent, None]:
        """The events of one watch, for ever; ends when the node stops.

        Raises Unavailable where the node has as many watches as it takes, or where no node that
        holds the one environment that is watched can be reached.
        """
        if request.exact:
            check_environment(request.prefix)

        def over() -> bool:
            return not self._is_near(request)

        why = ""
        if self._is_near(request):
            async with aclosing(self._hub.events(request, sight.near, over)) as events:
                async for event in events:
                    if over():  # What it has let go of says nothing any more.
                        break
                    yield event
            if self._hub.closed:
                return
            why = "the node no longer holds all that is watched"
            request = replace(request, token="")
        with self._hub.place():
            watch = _Watch(self._hub, self.feeds, self._gathering, request, sight)
            with watch.joined():
                async with aclosing(watch.events(why)) as told:
                    async for event in told:
                        yield event


class _Watch:
    """One watch that follows the feeds."""

    def __init__(
        self,
        hub: WatchHub,
        feeds: Feeds,
        gathering: Gathering,
        request: WatchRequest,
        sight: WideSight,
    ) -> None:
        self._hub = hub
        self._feeds = feeds
        self._gathering = gathering
        self._request = replace(request, prefix=check_prefix(request.prefix))
        self._sight = sight
        self._event = asyncio.Event()
        self._graph = LayerGraph()
        self._heard: set[str] = set()
        self._wanted = 0
        self._since: list[tuple[int, int]] = []
        """(place, partitions): these came to be wanted later, after that place."""
        self._position = 0
        self._short = 0
        """What the last snapshot did not have."""

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be woken, and have the feeds follow what is wanted."""
        request = self._request
        exact = request.exact
        self._wanted = 1 << partition_of(request.prefix) if exact else shares.EVERY
        self._feeds.want(self, self._wanted)
        self._hear("" if request.resolve and not exact else request.prefix)
        try:
            yield
        finally:
            for name in self._heard:
                self._feeds.waiting.leave(name, self._event)
            self._feeds.leave(self)

    def _hear(self, name: str) -> None:
        if name not in self._heard:
            self._heard.add(name)
            self._feeds.waiting.join(name, self._event)

    # -- the course of it ------------------------------------------------------------------

    async def events(self, why: str) -> AsyncGenerator[WatchEvent, None]:
        """All events; `why` it has to begin with a reset, if it was followed elsewhere before."""
        feeds, request = self._feeds, self._request
        await feeds.settled(self._wanted)
        position, moved = None, bool(why)
        if request.token:
            position, why = feeds.resume(request.token)
        if position is None:
            async with aclosing(self._begun(why, first=not moved)) as begun:
                async for event in begun:
                    yield event
        else:
            self._position = position
            async with aclosing(self._learnt()) as beats:
                async for event in beats:
                    yield event
        partial = self._short
        while not self._hub.closed:
            self._event.clear()
            refusal = ""
            async with aclosing(self._changes()) as changes:
                async for change in changes:
                    if isinstance(change, str):
                        refusal = change
                        break
                    yield change
            if refusal:
                async with aclosing(self._begun(refusal)) as begun:
                    async for event in begun:
                        yield event
                partial = self._short
            elif self._missing() != partial:
                partial = self._missing()
                yield self._beat()
            elif self._position != feeds.log.last:
                await asyncio.sleep(0)
            elif not await self._hub.woken(self._event):
                yield self._beat()

    def _missing(self) -> int:
        """Of what is wanted, that of which nobody tells, or which the snapshot lacks yet."""
        return self._wanted & (self._feeds.nobody | self._short & ~self._feeds.fed)

    def _beat(self) -> Heartbeat:
        missing = self._missing()
        why = self._gathering.why(missing)
        return Heartbeat(self._feeds.token(self._position), bool(missing), why)

    async def _begun(self, why: str, *, first: bool = False) -> AsyncGenerator[WatchEvent, None]:
        """A reset, unless there is nothing to forget, and what exists now.

        Of a single environment that nobody tells of, nothing can be said: the `first` time that is
        refused, later it is waited for.
        """
        request, feeds = self._request, self._feeds
        if not first:
            await feeds.settled(self._wanted)
        self._position = feeds.log.last
        self._since.clear()
        states = self._only_state(first=first) if request.exact else self._states()
        if why and not request.exact:
            yield Reset(why)
        async with aclosing(states):
            async for each in states:
                if isinstance(each, Heartbeat):
                    yield each
                    continue
                if why and request.exact:
                    yield Reset(why)
                if each is not None:
                    yield SnapshotItem(each)
        missing = self._short = self._wanted & ~feeds.fed
        yield SnapshotEnd(feeds.token(self._position), bool(missing), self._gathering.why(missing))

    async def _only_state(
        self, *, first: bool
    ) -> AsyncGenerator[EnvironmentView | Heartbeat | None, None]:
        """The state of the one environment, once it can be read; until then, it says so."""
        name = self._request.prefix
        loop = asyncio.get_running_loop()
        until_s, beats_s = loop.time() + SETTLES_S, 0.0
        while not self._hub.closed:
            try:
                state = await self._view(name)
            except Unavailable:
                has_nobody = shares.holds(self._feeds.nobody, partition_of(name))
                if first and (has_nobody or loop.time() >= until_s):
                    raise
                if has_nobody and loop.time() >= beats_s:
                    beats_s = loop.time() + self._hub.heartbeat_s
                    why = self._gathering.why(1 << partition_of(name))
                    yield Heartbeat(
                        "", partial=True, partial_reason=why
                    )  # Resumes with a snapshot.
            else:
                yield state
                return
            await asyncio.sleep(_AGAIN_S)

    async def _states(self) -> AsyncGenerator[EnvironmentView, None]:
        """All that exists below the prefix, as far as somebody tells of it."""
        after = ""
        while True:
            page = await self._page(after)
            names = page.items
            for at in range(0, len(names), _AT_ONCE):
                some = names[at : at + _AT_ONCE]
                for view in await all_of([self._view_if_told(name) for name in some]):
                    if isinstance(view, EnvironmentView):
                        yield view
            if not page.through:
                return
            after = page.through

    async def _page(self, after: str) -> shares.Page[str]:
        """Names of the nodes that tell, for as long as they do."""
        while not self._hub.closed:
            plan = self._feeds.shares(self._wanted)
            asked = [
                self._gathering.names(uid, self._request.prefix, after, _LISTED, share)
                for uid, share in plan.items()
            ]
            pages = await asyncio.gather(*asked, return_exceptions=True)
            found = [page for page in pages if not isinstance(page, BaseException)]
            for page in pages:
                if isinstance(page, BaseException) and not isinstance(page, EnvdError):
                    raise page
            if len(found) == len(pages):
                return shares.merged(found, str, _LISTED)
            await asyncio.sleep(_AGAIN_S)
        return shares.Page(())

    async def _learnt(self) -> AsyncGenerator[Heartbeat, None]:
        """Learn the layers without a snapshot."""
        if not self._request.resolve:
            return
        if self._request.exact:
            async with aclosing(self._only_state(first=True)) as states:
                async for _ in states:
                    pass
            return
        told = 0
        async with aclosing(self._states()) as all_states:
            async for _ in all_states:
                told += 1
                if told % _LISTED == 0:
                    yield Heartbeat(self._request.token)

    # -- changes ---------------------------------------------------------------------------

    async def _changes(self) -> AsyncGenerator[Changed | str, None]:
        """The events of what came since, some of it; a text where a snapshot must follow."""
        try:
            items = list(self._feeds.log.after(self._position, _AT_ONCE * 8))
        except NotFound:
            yield "the watch fell behind what is kept"
            return
        chunk: list[tuple[int, CommitView]] = []
        for place, item in items:
            if isinstance(item, Gap):
                async for event in self._told(chunk):
                    yield event
                chunk = []
                if item.partitions & self._wanted_at(place):
                    yield "other nodes tell of what is watched from now on"
                    return
            elif self._concerns(item.commit):
                chunk.append((place, item.commit))
            if len(chunk) == (1 if self._request.resolve else _AT_ONCE):
                async for event in self._told(chunk):
                    yield event
                chunk = []
            if not chunk:
                self._position = place
        async for event in self._told(chunk):
            yield event
        if items:
            self._position = items[-1][0]

    def _wanted_at(self, place: int) -> int:
        wanted = self._wanted
        for since, partitions in self._since:
            if place <= since:
                wanted &= ~partitions
        return wanted

    def _concerns(self, commit: CommitView) -> bool:
        name = commit.environment
        if is_watched(name, self._request):
            return True
        return self._request.resolve and (self._graph.is_base(name) or name in self._graph)

    async def _told(self, chunk: Sequence[tuple[int, CommitView]]) -> AsyncGenerator[Changed, None]:
        """The events of these commits; those of one without layers are read at the same time."""
        if self._request.resolve:
            for place, commit in chunk:
                async with aclosing(self._told_with_layers(place, commit)) as events:
                    async for event in events:
                        yield event
            return
        if not self._request.values:
            for place, commit in chunk:
                yield Changed(commit, self._feeds.token(place))
            return
        names = dict.fromkeys(commit.environment for _, commit in chunk)
        found = await all_of([self._view_if_told(name) for name in names])
        states = dict(zip(names, found, strict=True))
        for place, commit in chunk:
            state = states[commit.environment]
            if not isinstance(state, _Untold):
                yield Changed(commit, self._feeds.token(place), state)

    async def _told_with_layers(
        self, place: int, commit: CommitView
    ) -> AsyncGenerator[Changed, None]:
        """The events of one commit: its own, and those of what extends it."""
        name = commit.environment
        if _touches_layers(commit) or is_watched(name, self._request):
            await self._view_if_told(name)
        names = [name] if is_watched(name, self._request) else []
        for extender in under(self._graph.above(name), self._request.prefix):
            wanted = is_watched(extender, self._request)
            if wanted and all(map(self._sight.near.may_read, self._graph.below(extender))):
                names.append(extender)
        for at, each in enumerate(names, 1):
            state = await self._view_if_told(each)
            if isinstance(state, _Untold):
                continue
            token = self._feeds.token(place if at == len(names) else place - 1)
            shown = state if self._request.values else None
            if each == name:
                yield Changed(commit, token, shown)
            elif state is not None:
                revision = state.revision
                told = replace(commit, environment=each, revision=revision, deleted=False)
                yield Changed(told, token, shown, name)

    # -- states ----------------------------------------------------------------------------

    async def _view_if_told(self, name: str) -> EnvironmentView | _Untold | None:
        """The state, once it can be read; None where it does not exist."""
        while True:
            try:
                return await self._view(name)
            except Unavailable:
                if not self._feeds.follows(partition_of(name)) or self._hub.closed:
                    return _Untold()
            await asyncio.sleep(_AGAIN_S)

    async def _view(self, name: str) -> EnvironmentView | None:
        """The state of one environment, with all its layers where these are asked for.

        What it extends is wanted from then on; where that is new, it is read again, for the
        feeds have to follow it first. Raises Unavailable.
        """
        for _ in range(_ROUNDS):
            view = await self._sight.state(name, self._read_one)
            if not self._request.resolve:
                return view
            if view is None:
                self._graph.put(name, ())
            wanted = self._wanted
            if self._request.exact:
                layers = {self._request.prefix, *self._graph.below(self._request.prefix)}
                wanted = shares.mask_of(map(partition_of, layers))
                for layer in layers:
                    self._hear(layer)
            if not wanted & ~self._wanted:
                return view
            gained = wanted & ~self._wanted
            self._wanted |= wanted
            self._feeds.want(self, self._wanted)
            await self._feeds.settled(self._wanted)
            self._since.append((self._feeds.log.last, gained))
        return view

    async def _read_one(self, request: ReadRequest) -> EnvironmentView:
        """A read by who tells of the environment, which is noted for the layers."""
        name = request.environment
        try:
            view = await self._feeds.read(request)
        except NotFound:
            self._graph.put(name, ())
            raise
        if self._request.resolve:
            self._graph.put(name, bases_of(view.metadata.get(EXTENDS, "")))
        return view


def _touches_layers(commit: CommitView) -> bool:
    return commit.deleted or any(
        change.metadata and change.variable == EXTENDS for change in commit.changes
    )
