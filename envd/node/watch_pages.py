"""What a node tells other nodes that follow its log for their watches (`feeds`).

A page has the commits to some partitions after a place in this node's log, which is a watch token:
as soon as there is one, else after a while none. A peer asks for one page after the other, so of
two questions of one peer the first is answered at once when the second comes.

It answers for partitions of which it has all and gets every write, whether they are read here or,
because they are on their way to others, no longer are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from envd.core import shares
from envd.core.commit import Commit
from envd.core.errors import NotFound, Unsupported
from envd.core.names import check_environment
from envd.core.ring import partition_of
from envd.core.versions import ROOT_BYTES
from envd.node.calls import Method, Patient
from envd.node.handshake import Peer
from envd.node.held import Held
from envd.node.routing import Routing, not_holder
from envd.node.views import commit_view
from envd.node.watch import WatchHub
from envd.ports import Store
from envd.wire import api
from envd.wire import peers as wire
from envd.wire._pb import environment_pb2 as pb

PAGE: Final = "watch.page"
STATE: Final = "watch.state"
MAX_WAIT_S: Final = 30.0
PAGE_BYTES: Final = 256 << 10
_SCANNED: Final = 256
_SCANS: Final = 40
"""After so many commits of which none is asked for, a page is answered empty, and says where."""


class WatchPages:
    """Serves pages once it is told of the hub that has the log: `serve_from`."""

    def __init__(self, store: Store, routing: Routing, held: Held) -> None:
        self._store = store
        self._held = held
        self._routing = routing
        self._hub: WatchHub | None = None
        self._asked: dict[int, asyncio.Event] = {}

    def serve_from(self, hub: WatchHub) -> None:
        """Tell what this hub is told."""
        self._hub = hub

    def methods(self) -> Mapping[str, Method]:
        """What a channel for calls serves. A page may wait."""
        return {PAGE: Patient(self._page), STATE: self._state}

    async def _state(self, _: Peer, body: bytes) -> bytes:
        """A state as new as the pages tell, of whatever they tell of."""
        said = wire.unpack(wire.ForwardedRead, body)
        request = api.read_from(pb.GetRequest.FromString(said.message))
        partition = partition_of(check_environment(request.environment))
        if not shares.holds(self._routing.followable(), partition):
            raise not_holder(request.environment)
        return api.get_bytes(await self._held.read(request))

    async def _page(self, peer: Peer, body: bytes) -> bytes:
        asked = wire.unpack(wire.WatchAsked, body)
        hub = self._hub
        if hub is None:
            raise Unsupported("this node follows no log for others", reason="UNKNOWN_CALL")
        wanted = wire.mask_in(asked.partitions)
        event = asyncio.Event()
        before = self._asked.get(peer.uid)
        if before is not None:
            before.set()
        self._asked[peer.uid] = event
        try:
            with hub.hearing(event):
                share = await self._share(hub, asked, wanted, event, peer.uid)
        finally:
            if self._asked.get(peer.uid) is event:
                del self._asked[peer.uid]
        return wire.pack(share)

    async def _share(
        self,
        hub: WatchHub,
        asked: wire.WatchAsked,
        wanted: int,
        event: asyncio.Event,
        uid: int,
    ) -> wire.WatchShare:
        answered = wanted & self._routing.followable()
        roots = wire.mask_in(asked.roots) & answered if asked.roots else 0
        if not asked.token:
            return wire.WatchShare(shares.pack_mask(answered), hub.now())
        position, refusal = hub.resume(asked.token)
        if position is None:
            return wire.WatchShare(shares.pack_mask(answered), hub.now(), (), refusal)
        if roots:
            await settle(self._store, roots)
        loop = asyncio.get_running_loop()
        until = loop.time() + min(asked.wait_ms / 1000, MAX_WAIT_S)
        while True:
            event.clear()
            try:
                position, commits, whole = await _scanned(hub, position, answered)
            except NotFound:
                why = "the changes since are no longer kept one by one"
                return wire.WatchShare(shares.pack_mask(answered), hub.now(), (), why)
            is_last = hub.closed or self._asked.get(uid) is not event
            if commits or not whole or is_last or answered != wanted or loop.time() >= until:
                break
            await _set_by(event, until - loop.time())
            answered = wanted & self._routing.followable()
        return wire.WatchShare(
            shares.pack_mask(answered),
            hub.token(position),
            commits,
            roots=settled_roots(self._store, roots) if roots and whole else {},
        )


async def settle(store: Store, partitions: int) -> None:
    """See to it that the fingerprints of these can be said, unless more comes meanwhile."""
    if store.roots().unsettled & shares.members(partitions):
        await store.flush()


def settled_roots(store: Store, partitions: int) -> dict[int, bytes]:
    """The fingerprints of these partitions as they are visible now, where that can be said."""
    roots = store.roots()
    return {
        at: roots.partitions[at].to_bytes(ROOT_BYTES)
        for at in sorted(shares.members(partitions) - roots.unsettled)
    }


async def _scanned(hub: WatchHub, position: int, mask: int) -> tuple[int, Sequence[bytes], bool]:
    """(where it ends, the commits up to there, whether that is all there is)."""
    found: list[bytes] = []
    size = 0
    for _ in range(_SCANS):
        page: Iterable[tuple[int, Commit]] = islice(hub.after(position), _SCANNED)
        before = position
        for position, commit in page:
            if shares.holds(mask, partition_of(commit.environment)):
                found.append(api.commit_message(commit_view(commit)).SerializeToString())
                size += len(found[-1])
                if size >= PAGE_BYTES:
                    return position, found, False
        if position == before:
            return position, found, True
        await asyncio.sleep(0)
    return position, found, False


async def _set_by(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
