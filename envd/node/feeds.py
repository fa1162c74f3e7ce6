"""What happens in partitions that this node's watches want, told by nodes that hold them.

One feed for each peer, however many watches there are: for the partitions that some watch wants and
that this node does not have all of, as few peers as possible are asked (`core.shares.cover`), each
for the pages of its log (`watch_pages`). What they tell, and what this node takes in itself of
partitions that it has all of, goes into one order (`told`), in which watches hold places.

A peer that fails is asked again where it stopped; meanwhile others take over what they can, with a
gap, since nobody knows what they took in before the one that failed told of it. What nobody takes
over stays with it for a while; then those partitions have `nobody`. Where the table says that a
partition is read elsewhere now, that one takes over likewise.

What no watch wants any more is followed for a while yet, so that a watch can break off and resume.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from envd.core import shares
from envd.core.answers import CommitView, EnvironmentView
from envd.core.errors import EnvdError, Unavailable, Unsupported
from envd.core.requests import ReadRequest
from envd.core.ring import partition_of
from envd.node.held import Held
from envd.node.routing import READS_S, Routing
from envd.node.teller import Teller
from envd.node.told import Gap, Told, ToldLog
from envd.node.views import commit_view, read_spread_token, spread_token
from envd.node.waiting import Waiting
from envd.node.watch_pages import PAGE, STATE, settle, settled_roots
from envd.ports import Applied, Rng, Store
from envd.wire import api
from envd.wire import peers as wire
from envd.wire._pb import environment_pb2 as pb

WAIT_S: Final = 5.0
"""A peer that has nothing to tell says so after so long."""
PATIENCE_S: Final = 3.0
"""So much longer it is waited for."""
KEPT_S: Final = 10.0
"""So long a peer that fails, and that nobody stands in for, may come back without a gap."""
LINGER_S: Final = 60.0
SETTLES_S: Final = 5.0
_PAUSE_S: Final = 0.25
_GATHERS_S: Final = 0.02
"""Watches come in crowds: what they want in so short a time is asked for together."""
_REFUSED_S: Final = 1.0
_GIVEN_UP_S: Final = 3.0
_DOUBTS_S: Final = 2.0
"""So long a peer may seem to be gone before others take over."""
_LOOKS_S: Final = 1.0
_COMPARES_S: Final = 0.1
"""A move leaves less than a second for it."""
_STARTS: Final = 8
_log = logging.getLogger(__name__)


class Feeds:
    """The feeds of one node; nothing happens until `want`. `run` it on each storage node."""

    def __init__(self, uid: int, store: Store, held: Held, routing: Routing, rng: Rng) -> None:
        self._uid = uid
        self._store = store
        self._held = held
        self._routing = routing
        self._rng = rng
        self._start = b""
        self._wants: dict[object, int] = {}
        self._left = 0
        self._lingering: list[tuple[float, int]] = []
        self._far: dict[int, Teller] = {}
        self._reading: dict[ReadRequest, tuple[int, asyncio.Future[EnvironmentView]]] = {}
        self._refused: dict[int, tuple[float, int]] = {}
        self._near = Teller(uid)
        self._news = asyncio.Event()
        self._settling: set[asyncio.Event] = set()
        self.log = ToldLog()
        self.waiting = Waiting()
        self.nobody = 0
        """The partitions that are wanted, and for which nobody answers."""
        store.subscribe(self._applied)

    # -- what watches want -----------------------------------------------------------------

    def want(self, watch: object, partitions: int) -> None:
        """A watch wants these partitions, and those no longer that it wanted before."""
        if self._wants.get(watch) != partitions:
            self._wants[watch] = partitions
            self._news.set()

    def leave(self, watch: object) -> None:
        """A watch is over."""
        self._left |= self._wants.pop(watch, 0)
        self._news.set()

    async def settled(self, partitions: int) -> None:
        """Wait until these are followed, or it is known that nobody answers for the rest."""
        event = asyncio.Event()
        self._settling.add(event)
        try:
            async with asyncio.timeout(SETTLES_S):
                while partitions & ~(self.fed | self.nobody):
                    event.clear()
                    await event.wait()
        except TimeoutError:
            return
        finally:
            self._settling.discard(event)

    @property
    def fed(self) -> int:
        """The partitions that are followed."""
        fed = 0
        for teller in self._tellers():
            fed |= teller.fed
        return fed

    def _tellers(self) -> Iterator[Teller]:
        yield self._near
        for _, teller in sorted(self._far.items()):
            yield teller

    def follows(self, partition: int) -> bool:
        """Whether a partition is followed."""
        return self._teller(partition) is not None

    def shares(self, partitions: int) -> dict[int, int]:
        """Who tells of these: the set of each; this node's own too."""
        found = {teller.uid: teller.fed & partitions for teller in self._tellers()}
        return {uid: share for uid, share in found.items() if share}

    def _teller(self, partition: int) -> int | None:
        for teller in self._tellers():
            if shares.holds(teller.fed, partition):
                return teller.uid
        return None

    async def read(self, request: ReadRequest) -> EnvironmentView:
        """A read by the node that tells of the environment: as new as what it told.

        Watches that ask for the same at the same time share one.

        Raises as `Coordinator.read`, and Unavailable where nobody tells of it, or that node
        does not answer.
        """
        uid = self._teller(partition_of(request.environment))
        if uid is None:
            raise self._routing.no_holder(request.environment)
        if uid == self._uid:
            return await self._held.read(request)
        place, reading = self._reading.get(request, (0, None))
        if reading is None or place != self.log.last:
            reading = asyncio.ensure_future(self._read_from(uid, request))
            self._reading[request] = (self.log.last, reading)
            reading.add_done_callback(partial(self._was_read, request))
        return await asyncio.shield(reading)

    async def _read_from(self, uid: int, request: ReadRequest) -> EnvironmentView:
        body = wire.pack(wire.ForwardedRead(api.read_message(request).SerializeToString()))
        raw = await self._routing.ask(uid, STATE, body, READS_S)
        return api.get_from(pb.GetResponse.FromString(raw))

    def _was_read(self, request: ReadRequest, reading: asyncio.Future[EnvironmentView]) -> None:
        if self._reading.get(request, (0, None))[1] is reading:
            del self._reading[request]
        if not reading.cancelled():
            reading.exception()  # Who asked may be gone.

    # -- places ----------------------------------------------------------------------------

    def token(self, place: int) -> str:
        """What resumes after a place, on this node and during this start."""
        self._start = self._start or self._rng.token_bytes(_STARTS)
        return spread_token(self._uid, self._start, place)

    def resume(self, token: str) -> tuple[int | None, str]:
        """The place that a token stands for, or None and why it can't be resumed."""
        point = read_spread_token(token)
        if point is None:
            return None, "the token is of a time when the node held all that is watched"
        uid, start, place = point
        if uid != self._uid:
            return None, "the token is another node's"
        if start != self._start:
            return None, "the node was started anew, and what others hold it follows from then on"
        if not self.log.has(place):
            return None, "the changes since the token are no longer kept one by one"
        return place, ""

    def _applied(self, applied: Applied) -> None:
        near = self._near
        if near.asked and shares.holds(near.asked, applied.record.partition):
            self._hear(near, commit_view(applied.record.commit))

    def _hear(self, teller: Teller, commit: CommitView) -> None:
        if teller.hears(commit):
            self._tell(commit)

    def _tell(self, commit: CommitView) -> None:
        self.log.append(Told(commit))
        self.waiting.wake(commit.environment)

    def _gap(self, partitions: int) -> None:
        self.log.append(Gap(partitions))
        self._settle()
        self.waiting.wake_all()

    def _settle(self) -> None:
        for event in self._settling:
            event.set()

    # -- whom to ask -----------------------------------------------------------------------

    def table_changed(self) -> None:
        """Others hold what is wanted, or may."""
        self._news.set()

    async def run(self) -> None:
        """Follow what is wanted, until cancelled."""
        self._begin()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._look(group)
        finally:
            self._begin()

    def _begin(self) -> None:
        self._far.clear()
        self._near = Teller(self._uid)
        self._reading.clear()
        if self._wants:
            self._news.set()

    async def _look(self, group: asyncio.TaskGroup) -> None:
        busy = bool(self._far or self._near.asked or self._wants)
        pause_s = _COMPARES_S if self._handing() else _LOOKS_S
        try:
            async with asyncio.timeout(pause_s if busy else None):
                await self._news.wait()
        except TimeoutError:
            pass
        else:
            await asyncio.sleep(_GATHERS_S)
        self._news.clear()
        await self._plan(group)
        if self._handing() & (self._near.fed | self._near.ready):
            with suppress(EnvdError):  # What can't be said now may be said later.
                await settle(self._store, self._handing())
            mine = self._handing() & (self._near.fed | self._near.ready)
            self._near.shows(settled_roots(self._store, mine))
            self._hand_over()

    def _wanted(self, now_s: float) -> int:
        if self._left:
            self._lingering.append((now_s + LINGER_S, self._left))
            self._left = 0
        self._lingering = [each for each in self._lingering if each[0] > now_s]
        wanted = 0
        for _, partitions in self._lingering:
            wanted |= partitions
        for partitions in self._wants.values():
            wanted |= partitions
        return wanted

    async def _plan(self, group: asyncio.TaskGroup) -> None:
        """Decide whom to follow for what; see the head of this module."""
        routing, now_s = self._routing, asyncio.get_running_loop().time()
        able = {self._uid: shares.EVERY} if routing.whole else self._able(now_s)
        wanted = left = self._wanted(now_s)
        expected = set(await routing.expected(able))
        plan: dict[int, int] = {}
        kept: dict[int, int] = {}
        moving = 0
        for teller in self._tellers():
            uid = teller.uid
            mask = teller.wanted & left & able.get(uid, 0)
            if uid == self._uid or self._is_good(teller, uid in expected, now_s):
                leaving = teller.fed & left & ~able.get(uid, 0) & self._goes_on(uid)
                plan[uid] = mask | leaving
                moving |= leaving
                left &= ~plan[uid]
            elif teller.failed_s is None or now_s - teller.failed_s < KEPT_S:
                kept[uid] = mask
            else:
                self._refused[uid] = (now_s + _GIVEN_UP_S, shares.EVERY)
        gained = left & able.get(self._uid, 0)
        plan[self._uid] |= gained
        left &= ~gained
        others = [uid for uid in able if uid not in (self._uid, *kept)]
        for there in (routing.expected, routing.awake):
            if left:
                uids = await there([uid for uid in others if not self._is_refused(uid)])
                for uid, share in shares.cover(left, {uid: able[uid] for uid in uids}).items():
                    plan[uid] = plan.get(uid, 0) | share
                    left &= ~share
        for uid, mask in kept.items():
            plan[uid] = mask & left
            left &= ~mask
        next_ones = {uid: able[uid] for uid in able if uid in expected or uid == self._uid}
        self._follow_plan(group, plan, shares.cover(moving, next_ones), left)
        if not wanted:
            self.log.clear()

    def _goes_on(self, uid: int) -> int:
        """Of which partitions a node gets the writes yet, even if they are read elsewhere."""
        _, refused = self._refused.get(uid, (0.0, 0))
        return self._routing.writable().get(uid, 0) & ~refused

    def _is_good(self, teller: Teller, expected: bool, now_s: float) -> bool:
        """Whether a peer goes on to be followed without a look at others."""
        if expected:
            teller.doubted_s = None
        elif teller.doubted_s is None:
            teller.doubted_s = now_s
        doubted = teller.doubted_s is not None and now_s - teller.doubted_s >= _DOUBTS_S
        return teller.failed_s is None and not doubted

    def _is_refused(self, uid: int) -> bool:
        return uid in self._refused and self._refused[uid][1] == shares.EVERY

    def _able(self, now_s: float) -> Mapping[int, int]:
        """Whom to ask for what: not those again that just said they do not hold it."""
        able = dict(self._routing.readable())
        for uid, (until_s, mask) in list(self._refused.items()):
            if until_s <= now_s:
                del self._refused[uid]
            elif uid in able:
                able[uid] &= ~mask
        return able

    def _follow_plan(
        self,
        group: asyncio.TaskGroup,
        plan: Mapping[int, int],
        pending: Mapping[int, int],
        nobody: int,
    ) -> None:
        assigned = {uid: (plan.get(uid, 0), pending.get(uid, 0)) for uid in (*plan, *pending)}
        for uid in [uid for uid in self._far if not any(assigned.get(uid, ()))]:
            teller = self._far.pop(uid)
            if teller.task is not None:
                teller.task.cancel()
        for uid, (wanted, coming) in assigned.items():
            if uid != self._uid and wanted | coming:
                self._follow(group, uid, wanted, coming)
        near = self._near
        near.assign(*assigned[self._uid])
        before = near.ready
        if gained := near.answers_for(near.asked, near.asked):
            self._gap(gained)
        self._compare(near.ready & ~before)
        if nobody != self.nobody:
            self.nobody = nobody
            self._settle()
            self.waiting.wake_all()

    def _follow(self, group: asyncio.TaskGroup, uid: int, wanted: int, pending: int) -> None:
        teller = self._far.get(uid)
        if teller is None:
            teller = self._far[uid] = Teller(uid)
            teller.assign(wanted, pending)
            teller.task = group.create_task(self._keep(teller), name="watch-feed")
        else:
            teller.assign(wanted, pending)

    # -- one peer --------------------------------------------------------------------------

    async def _keep(self, teller: Teller) -> None:
        """Follow one peer until cancelled."""
        failures = 0
        while True:
            teller.changed.clear()
            try:
                answer = await self._asked(teller)
                if answer is not None:
                    self._take(teller, *answer)
                failures = 0
                if self._handing() & (teller.fed | teller.ready):
                    await asyncio.sleep(_COMPARES_S)
            except (EnvdError, ValueError) as error:
                failures += 1
                if failures > 1 or not isinstance(error, Unavailable):
                    self._failed(teller, error)
                    await asyncio.sleep(_PAUSE_S)

    async def _asked(self, teller: Teller) -> tuple[int, wire.WatchShare] | None:
        """(asked for what, the answer); None where something else is to be asked meanwhile."""
        wanted, handing = teller.asked, self._handing() & (teller.fed | teller.ready)
        is_quiet = not handing and teller.fed == teller.wanted
        wait_ms = int(WAIT_S * 1000) if is_quiet else 0
        roots = shares.pack_mask(handing) if handing else b""
        asked = wire.WatchAsked(shares.pack_mask(wanted), teller.token, wait_ms, roots)
        page = asyncio.ensure_future(
            self._routing.ask(teller.uid, PAGE, wire.pack(asked), wait_ms / 1000 + PATIENCE_S)
        )
        changed = asyncio.ensure_future(teller.changed.wait())
        try:
            await asyncio.wait((page, changed), return_when=asyncio.FIRST_COMPLETED)
            if not page.done():
                return None
            return wanted, wire.unpack(wire.WatchShare, page.result())
        finally:
            page.cancel()
            changed.cancel()

    def _take(self, teller: Teller, asked: int, share: wire.WatchShare) -> None:
        answered = asked & wire.mask_in(share.partitions)
        if teller.failed_s is not None:
            teller.failed_s = None
            self._news.set()
        if asked & ~answered:
            until_s = asyncio.get_running_loop().time() + _REFUSED_S
            self._refused[teller.uid] = (until_s, asked & ~answered)
            self._news.set()
        if share.reset:
            teller.forget()
        before = teller.ready
        gained = teller.answers_for(answered, asked)
        self._compare(teller.ready & ~before)
        teller.token = share.token
        if gained:
            self._gap(gained)
        for raw in share.commits:
            self._hear(teller, api.commit_from(pb.Commit.FromString(raw)))
        teller.shows(share.roots)
        self._hand_over()

    # -- from one to the next --------------------------------------------------------------

    def _handing(self) -> int:
        """The partitions that a teller is to hand over to one that is ready."""
        ready = 0
        for teller in self._tellers():
            ready |= teller.ready
        return ready

    def _compare(self, ready: int) -> None:
        """Ask those for the fingerprints who are to hand over these, and wait for news in vain."""
        for teller in self._tellers() if ready else ():
            if teller.fed & ready:
                teller.changed.set()
                self._news.set()

    def _hand_over(self) -> None:
        """Have the next teller of a partition take over where it is equal to the last one."""
        for coming in self._tellers():
            for last in self._tellers() if coming.ready else ():
                if agreed := shares.mask_of(coming.agrees(last)):
                    for commit in coming.follows_upon(last, agreed):
                        self._tell(commit)
                    last.changed.set()
                    self._news.set()

    def _failed(self, teller: Teller, error: Exception) -> None:
        if teller.failed_s is not None:
            return
        teller.failed_s = now_s = asyncio.get_running_loop().time()
        if isinstance(error, Unsupported):
            self._refused[teller.uid] = (now_s + KEPT_S, shares.EVERY)
        reason = error.reason if isinstance(error, EnvdError) else type(error).__name__
        _log.info("watches.feed_failed", extra={"peer": f"{teller.uid:016x}", "reason": reason})
        self._news.set()
