"""When a node repairs: after a hole, now and then by comparison, and where a peer is ahead.

One pull runs at a time, since what one peer gave need not come from the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from envd.core.errors import EnvdError
from envd.core.ring import partition_of
from envd.node.guarding import guarded
from envd.node.holdings import Holdings
from envd.node.intake import IdentityLost
from envd.node.peering import KnownPeer, Surroundings
from envd.node.repair import Ask, Repairer

COMPARE_S: Final = 20.0
SOON_S: Final = 2.0
AHEAD_S: Final = 5.0
READ_S: Final = 1.0
_AGAIN_S: Final = 0.1
_MAX_READ: Final = 64
_log = logging.getLogger(__name__)
Work = Callable[[], Awaitable[None]]


class Mending:
    """Pulls from the `peers`; `preferred` is the one to compare with, where there is one."""

    def __init__(
        self,
        around: Surroundings,
        repairer: Repairer,
        holdings: Holdings,
        peers: Mapping[int, KnownPeer],
        preferred: Callable[[], KnownPeer | None],
        on_identity_lost: Callable[[str], None],
    ) -> None:
        self._around = around
        self._repairer = repairer
        self._holdings = holdings
        self._peers = peers
        self._preferred = preferred
        self._on_identity_lost = on_identity_lost
        self._loop = asyncio.get_running_loop()
        self._pulling = asyncio.Lock()
        self._read: dict[str, None] = {}
        self._soon: dict[int, bool] = {}
        self._hastened = asyncio.Event()

    def works(self, *, is_agent: bool) -> Mapping[str, Work]:
        """What is to run for ever, by name; an agent ships to nobody and has fewer worries."""
        if is_agent:
            return {"repair-compare": self._keep_comparing}
        return {
            "repair-compare": self._keep_comparing,
            "repair-read": self._keep_reading,
            "repair-ahead": self._keep_looking_ahead,
        }

    # -- after a hole ------------------------------------------------------------------------

    def begin_catching_up(self, peer: KnownPeer, group: asyncio.TaskGroup) -> None:
        """Pull all that a peer has and this node lacks, in the background, unless it is at it."""
        if not peer.catching_up:
            peer.catching_up = True
            work = guarded("repair-catch-up", partial(self._catch_up, peer), again=False)
            group.create_task(work, name="repair-catch-up")

    async def _catch_up(self, peer: KnownPeer) -> None:
        try:
            async with self._pulling:
                uid = peer.member.uid
                both = self._holdings.both(uid)
                pulled = await self._repairer.catch_up(uid, peer.asking.call, both)
            peer.early = bool(pulled.early)
            extra = {"peer": peer.member.name, "environments": pulled.environments}
            _log.info("repair.caught_up", extra={**extra, "commits": pulled.commits})
        except IdentityLost as error:
            self._on_identity_lost(error.message)
        except EnvdError as error:
            _log.warning("repair.failed", extra={"peer": peer.member.name, "detail": error.message})
            await asyncio.sleep(_AGAIN_S)
        finally:
            peer.catching_up = False

    async def _keep_looking_ahead(self) -> None:
        """Catch up with a peer that holds what nobody ships.

        Its origin may be gone, and the peer may have it by repair, under no name. Where the pull
        brings what must wait in quarantine the peer stays ahead: no more often than by comparing.
        """
        while True:
            await asyncio.sleep(AHEAD_S / 2)
            now, ours = self._loop.time(), self._around.store.vectors()
            for _, peer in sorted(self._peers.items()):
                lacks = peer.link.vectors.ahead_of
                ahead = lacks(ours, self._holdings.complete) if peer.link.answers(now) else ()
                if not ahead or ahead != peer.ahead[1]:
                    peer.ahead = (now, ahead)
                elif now - peer.ahead[0] >= _patience_s(peer) and not peer.catching_up:
                    peer.ahead, peer.catching_up = (now, ()), True
                    _log.info("repair.needed", extra={"peer": peer.member.name, "detail": "ahead"})
                    await self._catch_up(peer)
                await asyncio.sleep(0)

    # -- now and then ------------------------------------------------------------------------

    def hasten(self, uid: int) -> None:
        """Compare with this peer soon: it is new, or back, and may hold what no vector tells of."""
        self._soon[uid] = True
        self._hastened.set()

    async def _keep_comparing(self) -> None:
        while True:
            peer, once_more = await self._due_peer()
            if peer is not None:
                await self._try(partial(self._compare, peer, once_more), peer)

    async def _due_peer(self) -> tuple[KnownPeer | None, bool]:
        """Wait until the next comparison is due: with whom, and whether soon again if it finds."""
        self._hastened.clear()
        if not self._soon:
            with suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_S * (0.75 + self._chance() / 2)):
                    await self._hastened.wait()
        if not self._soon:
            return self._any_peer(), True
        await asyncio.sleep(SOON_S * (0.75 + self._chance() / 2))
        uid = next(iter(self._soon))
        once_more = self._soon.pop(uid)
        peer = self._peers.get(uid)
        able = peer is not None and peer.link.answers(self._loop.time())
        return (peer if able else None), once_more

    async def _compare(self, peer: KnownPeer, once_more: bool, ask: Ask) -> None:
        uid = peer.member.uid
        pulled = await self._repairer.compare(uid, ask, self._holdings.common(uid))
        if once_more and (pulled.commits or pulled.bases):
            self._soon.setdefault(peer.member.uid, False)

    def note_read(self, name: str) -> None:
        """An environment was read: look at it with a peer, in the background."""
        if len(self._read) < _MAX_READ:
            self._read[name] = None

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(READ_S)
            peer = self._any_peer()
            read, self._read = list(self._read), {}
            if peer is None:
                continue
            both = self._holdings.common(peer.member.uid)
            names = [name for name in read if both is None or partition_of(name) in both]
            if names:
                await self._try(partial(self._repairer.look_at, names, peer.member.uid), peer)

    async def _try(self, pull: Callable[[Ask], Awaitable[object]], peer: KnownPeer) -> None:
        try:
            async with self._pulling:
                await pull(peer.asking.call)
        except EnvdError as error:
            _log.info("repair.failed", extra={"peer": peer.member.name, "detail": error.message})

    def _any_peer(self) -> KnownPeer | None:
        preferred = self._preferred()
        if preferred is not None:
            return preferred
        now = self._loop.time()
        able = [peer for _, peer in sorted(self._peers.items()) if peer.link.answers(now)]
        return able[int(self._chance() * len(able))] if able else None

    def _chance(self) -> float:
        """A number from 0 to 1."""
        return int.from_bytes(self._around.rng.token_bytes(4)) / (1 << 32)


def _patience_s(peer: KnownPeer) -> float:
    """How long a peer must be ahead by the same before it is caught up with."""
    return COMPARE_S if peer.early else AHEAD_S
