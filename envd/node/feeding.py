"""An agent's copy of everything: fed by one storage node, kept where it runs.

An agent (a sidecar, an edge device) takes part in gossip and holds a copy, but is no replica: no
write waits for it, no log is kept for it, it relays nothing. It dials one storage node, one
near by first, and is shipped all records, whoever gave them; where that node goes, it dials the
next, and what that one's log does not connect to, it repairs. Cut off from all, it serves what it
last knew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from envd.core.errors import EnvdError, Unavailable
from envd.core.members import Member
from envd.node.intake import IdentityLost, Intake
from envd.node.peer import PeerLink
from envd.node.receiving import LogReceiver, NeedsRepair
from envd.node.repair import Ask, Repairer
from envd.node.vectors import VectorFeed
from envd.ports import Clock, PeerChannel, Store

PAUSE_S: Final = 0.5
_log = logging.getLogger(__name__)


class AgentFeed:
    """Keeps an agent's copy fed by one of `storage()`, the nodes to ask, the nearest first.

    `dial(uid)` opens a channel for a feed; `ask(uid)` is how to call that node.
    """

    def __init__(
        self,
        store: Store,
        intake: Intake,
        feed: VectorFeed,
        clock: Clock,
        repairer: Repairer,
        storage: Callable[[], Sequence[Member]],
        dial: Callable[[int], Awaitable[PeerChannel]],
        ask: Callable[[int], Ask],
    ) -> None:
        self._store = store
        self._intake = intake
        self._feed = feed
        self._clock = clock
        self._repairer = repairer
        self._storage = storage
        self._dial = dial
        self._ask = ask
        self._problem = ""
        self.source: Member | None = None

    async def run(self) -> None:
        """Be fed, until cancelled."""
        while True:
            for member in self._storage():
                if await self._is_behind(member):
                    break  # It was caught up with: the feed begins anew, from the same node.
            await asyncio.sleep(PAUSE_S)

    async def _is_behind(self, member: Member) -> bool:
        """Be fed by one node until that ends; tell whether a repair made it worth another try."""
        try:
            await self._take_from(member)
        except NeedsRepair:
            return await self._catch_up(member)
        except EnvdError as error:
            self._note(member, error)
        finally:
            self.source = None
        return False

    async def _catch_up(self, member: Member) -> bool:
        try:
            await self._repairer.catch_up(member.uid, self._ask(member.uid))
        except EnvdError as error:
            self._note(member, error)
            return False
        return True

    async def _take_from(self, member: Member) -> None:
        """Be fed by one node until its channel ends, which raises."""
        channel = await self._dial(member.uid)
        try:
            self.source, self._problem = member, ""
            _log.info("agent.fed", extra={"by": member.name})
            link = PeerLink(member.uid, asyncio.get_running_loop().time())
            receiver = LogReceiver(
                link, self._store, self._intake, self._feed, self._clock, origins=False
            )
            await receiver.run(channel)
        except IdentityLost:
            raise Unavailable("a node claims commits of this agent, which makes none") from None
        finally:
            channel.close()

    def _note(self, member: Member, error: EnvdError) -> None:
        if error.message != self._problem:
            self._problem = error.message
            extra = {"by": member.name, "reason": error.reason, "detail": error.message}
            _log.warning("agent.not_fed", extra=extra)
