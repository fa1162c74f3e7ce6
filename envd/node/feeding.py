"""An agent's copy of everything: fed by storage nodes, kept where it runs.

An agent (a sidecar, an edge device) takes part in gossip and holds a copy, but is no replica: no
write waits for it, no log is kept for it, it relays nothing. It dials one storage node, one
near by first, and is shipped all records, whoever gave them; where that node goes, it dials the
next, and what that one's log does not connect to, it repairs. Where no storage node holds
everything it is fed by few that do together, each for its share of the partitions. Cut off from
all, it serves what it last knew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final

from envd.core import shares
from envd.core.errors import EnvdError, Unavailable
from envd.core.members import Member
from envd.core.partitions import PartitionTable
from envd.core.ring import SYSTEM_PARTITION
from envd.node.holdings import Holdings
from envd.node.intake import IdentityLost, Intake
from envd.node.peer import PeerLink
from envd.node.receiving import LogReceiver, NeedsRepair
from envd.node.repair import Ask, Repairer
from envd.node.vectors import VectorFeed
from envd.ports import Clock, PeerChannel, Store

PAUSE_S: Final = 0.5
SHUNNED_S: Final = 5.0
"""For so long a node that failed is left out, where several feed this agent."""
_log = logging.getLogger(__name__)


class AgentFeed:
    """Keeps an agent's copy fed by few of `storage()`, the nodes to ask, the nearest first.

    `dial(uid)` opens a channel for a feed; `ask(uid)` is how to call that node.
    """

    def __init__(
        self,
        store: Store,
        intake: Intake,
        feed: VectorFeed,
        clock: Clock,
        repairer: Repairer,
        holdings: Holdings,
        storage: Callable[[], Sequence[Member]],
        dial: Callable[[int], Awaitable[PeerChannel]],
        ask: Callable[[int], Ask],
    ) -> None:
        self._store = store
        self._intake = intake
        self._feed = feed
        self._clock = clock
        self._repairer = repairer
        self._holdings = holdings
        self._storage = storage
        self._dial = dial
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._problem = ""
        self._turns = 0
        self._shunned: dict[int, float] = {}
        self._known: dict[int, frozenset[int]] = {}
        """The partitions of which each node's log was taken in without a gap since the start."""
        self._changed = asyncio.Event()
        self._sources: dict[int, Member] = {}
        holdings.subscribe(self._changed.set)

    @property
    def source(self) -> Member | None:
        """One of the nodes that feed this agent, of several another one each time."""
        if not self._sources:
            return None
        self._turns += 1
        return list(self._sources.values())[self._turns % len(self._sources)]

    async def run(self) -> None:
        """Be fed, until cancelled."""
        while True:
            self._changed.clear()
            if self._holdings.placed is None:
                await self._be_fed_by_one()
            else:
                await self._be_fed_by_several(self._holdings.placed)
            await asyncio.sleep(PAUSE_S)

    async def _be_fed_by_one(self) -> None:
        for member in self._storage():
            if await self._until_changed([self._is_behind(member, None)]) or self._changed.is_set():
                return  # It was caught up with: the feed begins anew, from the same node.

    async def _be_fed_by_several(self, table: PartitionTable) -> None:
        """Be fed by as few nodes as have everything, until one ends, or others are to."""
        now = self._loop.time()
        able = [member for member in self._storage() if self._shunned.get(member.uid, 0.0) <= now]
        masks = {member.uid: shares.mask_of(table.read_by(member.uid)) for member in able}
        cover = shares.cover(shares.EVERY, masks)
        feeds = []
        for member in able:
            if member.uid in cover:
                share = shares.members(cover[member.uid]) | {SYSTEM_PARTITION}
                feeds.append(self._is_behind(member, share))
        await self._until_changed(feeds)

    async def _until_changed(self, feeds: Sequence[Coroutine[None, None, bool]]) -> bool:
        """Let feeds run until one of them ends, or the table is another; tell what that one did."""
        tasks = [self._loop.create_task(feed, name="agent-feed-part") for feed in feeds]
        changed = self._loop.create_task(self._changed.wait(), name="agent-feed-changed")
        try:
            await asyncio.wait({*tasks, changed}, return_when=asyncio.FIRST_COMPLETED)
            return any(task.done() and task.result() for task in tasks)
        finally:
            for task in (*tasks, changed):
                task.cancel()
            await asyncio.gather(*tasks, changed, return_exceptions=True)

    async def _is_behind(self, member: Member, share: frozenset[int] | None) -> bool:
        """Be fed by one node until that ends; tell whether a repair made it worth another try."""
        try:
            if share is not None:
                if not share <= self._known.get(member.uid, frozenset()):
                    await self._repairer.catch_up(member.uid, self._ask(member.uid), share)
                self._known[member.uid] = share
            await self._take_from(member, share)
        except NeedsRepair:
            return await self._catch_up(member, share)
        except EnvdError as error:
            self._note(member, error)
            self._shunned[member.uid] = self._loop.time() + SHUNNED_S
        finally:
            self._sources.pop(member.uid, None)
        return False

    async def _catch_up(self, member: Member, share: frozenset[int] | None) -> bool:
        try:
            await self._repairer.catch_up(member.uid, self._ask(member.uid), share)
        except EnvdError as error:
            self._note(member, error)
            return False
        return True

    async def _take_from(self, member: Member, share: frozenset[int] | None) -> None:
        """Be fed by one node until its channel ends, which raises."""
        channel = await self._dial(member.uid)
        try:
            self._sources[member.uid], self._problem = member, ""
            _log.info("agent.fed", extra={"by": member.name})
            link = PeerLink(member.uid, self._loop.time())
            receiver = LogReceiver(
                link,
                self._store,
                self._intake,
                self._feed,
                self._clock,
                origins=False,
                share=share,
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
