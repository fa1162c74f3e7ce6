"""What news means: for the table of members, and for this node itself.

Rules, about another member:

1. What supersedes what is known is taken in, told on, and reported as Changed; all else changes
   nothing. A claim about a start that is not known changes nothing either: an exchange mends it.
2. A suspect is declared down when its time runs out. The same suspicion from another accuser
   shortens the time, and is told on (k = 2 of them).
3. What an exchange says to be down, and is believed to live here, becomes suspect only: it can
   then answer for itself. Otherwise two halves of a healed cluster would declare each other down.

About this node:

4. Suspected in this incarnation or a later one: refute with an incarnation above it.
5. Down or gone in this incarnation or a later one: this start is over. Renew, and come back with
   a higher generation.
6. Anything older: whoever says so is behind; tell them again what is.
7. Another start of this generation or a later one: this uid is in use elsewhere, or was (a clone, a
   data directory that was put back). This start yields. Of one generation both do, for a start
   that is no more, of a directory that was put back, can't.
"""

from __future__ import annotations

from dataclasses import replace

from envd.core.members import Member, MemberState
from envd.core.swim.chance import Chance
from envd.core.swim.config import SwimConfig
from envd.core.swim.events import (
    Changed,
    DuplicateIdentity,
    Effect,
    Forgotten,
    Renew,
    RenewReason,
)
from envd.core.swim.health import LocalHealth
from envd.core.swim.messages import NOBODY, Announcement, Claim, Exchange, News, Row
from envd.core.swim.reach import Far, Near, Reach
from envd.core.swim.suspicion import Suspicion
from envd.core.swim.table import MemberTable
from envd.core.swim.timers import Kind, Timers

_FORGET_INTERVAL_MS = 60_000


class Beliefs:
    """The table with its suspicions and the queues of news; effects go to `effects`."""

    def __init__(
        self, me: Member, lan: SwimConfig, wan: SwimConfig, chance: Chance, timers: Timers
    ) -> None:
        self._uid = me.uid
        self._config = lan
        self._chance = chance
        self._timers = timers
        self.table = MemberTable(me, lan.max_members)
        self.near = Near(self.table, lan)
        self.far = Far(self.table, wan)
        self.reaches: tuple[Reach, Reach] = (self.near, self.far)
        self.health = LocalHealth(lan.max_health)
        self.suspicions: dict[int, Suspicion] = {}
        self.effects: list[Effect] = []
        self.leaving = False
        self.renewing = False
        self.yielded = False
        self.behind = False
        """Somebody spoke of a start that is not known here; the machine asks them, and resets."""
        self._reported: tuple[int, bytes] | None = None
        self._previous_start: tuple[int, bytes] | None = None

    @property
    def me(self) -> Member:
        return self.table.me

    def reach_of(self, member: Member) -> Reach:
        """How this node speaks to a member, or waits for it."""
        return self.near if member.region == self.me.region else self.far

    # -- what is heard -----------------------------------------------------------------------

    def hear(self, news: News, now_ms: int) -> None:
        """Take in one piece of news; most of it is known already, so that is looked at first."""
        if isinstance(news, Announcement):
            self._hear_of(news.member, news.by, now_ms)
            return
        known = self.table.get(news.uid)
        if known is None:
            self.behind = True
        elif known.uid == self._uid:
            self._hear_claim_of_me(news, now_ms)
        elif news.generation != known.generation:
            self.behind = self.behind or news.generation > known.generation
        elif (news.incarnation, news.state) > (known.incarnation, known.state):
            told = replace(known, incarnation=news.incarnation, state=news.state)
            self._accept(told, news.by, now_ms)
        elif news.state is MemberState.SUSPECT and _confirms(news.incarnation, known):
            self._confirm(known, news.by, now_ms)

    def _hear_claim_of_me(self, claim: Claim, now_ms: int) -> None:
        me = self.me
        if claim.generation > me.generation:
            self.meet_double(claim.generation, b"")
        elif claim.generation < me.generation:
            self._told_of_the_past()
        else:
            self._about_me(claim.incarnation, claim.state, now_ms)

    def merge(self, exchange: Exchange, now_ms: int) -> None:
        """Take in all that a peer knows."""
        for row in exchange.rows:
            if self.yielded:
                return
            if row.member.reachable:
                # The speaker may only have heard of a suspicion: that confirms nothing.
                self._hear_of(row.member, NOBODY, now_ms)
            else:
                self._hear_of_loss(row, exchange.speaker, now_ms)

    def _hear_of(self, told: Member, by: int, now_ms: int) -> None:
        known = self.table.get(told.uid)
        if known is not None and known.uid == self._uid:
            self._hear_of_me(told, now_ms)
        elif known is None or told.supersedes(known):
            self._accept(told, by, now_ms)
        elif (
            told.state is MemberState.SUSPECT
            and known.start == told.start
            and _confirms(told.incarnation, known)
        ):
            self._confirm(known, by, now_ms)

    def _hear_of_loss(self, row: Row, by: int, now_ms: int) -> None:
        """A row of an exchange says that a member is down or gone."""
        told, known = row.member, self.table.get(row.member.uid)
        if known is None:
            kept_ms = self._kept_ms(told)
            if row.age_ms < kept_ms and told.uid != self._uid:
                self._accept(told, by, now_ms, quietly=True)
        elif known.uid != self._uid and known.reachable and told.state is MemberState.DOWN:
            self._hear_of(replace(told, state=MemberState.SUSPECT), by, now_ms)
            return
        else:
            self._hear_of(told, by, now_ms)
        now_known = self.table.get(told.uid)
        if now_known is not None and (now_known.start, now_known.state) == (told.start, told.state):
            self.table.make_older(told.uid, row.age_ms, now_ms)

    def _kept_ms(self, member: Member) -> int:
        down = member.state is MemberState.DOWN
        return self._config.down_kept_ms if down else self._config.left_kept_ms

    def _accept(self, told: Member, by: int, now_ms: int, *, quietly: bool = False) -> None:
        previous = self.table.get(told.uid)
        if not self.table.put(told, now_ms, self._chance):
            return
        self._timers.disarm((Kind.SUSPICION, told.uid))
        self.suspicions.pop(told.uid, None)
        if told.state is MemberState.SUSPECT:
            reach = self.reach_of(told)
            suspicion = Suspicion(
                reach.config,
                reach.members,
                witnesses=reach.witnesses(told),
                by=by,
                now_ms=now_ms,
            )
            self.suspicions[told.uid] = suspicion
            self._timers.arm((Kind.SUSPICION, told.uid), suspicion.deadline_ms)
        if not told.reachable:
            self._arm_for_loss(now_ms)
        if not quietly:
            whole = previous is None or previous.start != told.start
            self.tell(told, by, whole=whole)
        self.effects.append(Changed(told, previous))

    def _arm_for_loss(self, now_ms: int) -> None:
        config, timers = self._config, self._timers
        timers.arm_if_idle((Kind.REVIVE, 0), now_ms + config.revive_interval_ms)
        timers.arm_if_idle((Kind.RECONNECT, 0), now_ms + config.reconnect_interval_ms)
        timers.arm_if_idle((Kind.FORGET, 0), now_ms + _FORGET_INTERVAL_MS)

    def _confirm(self, known: Member, by: int, now_ms: int) -> None:
        suspicion = self.suspicions.get(known.uid)
        if suspicion is None or by == NOBODY:
            return
        if suspicion.confirm(by):
            # Not in the past: a timer that fires late says that this node slept.
            due_ms = max(now_ms, suspicion.deadline_ms)
            self._timers.arm((Kind.SUSPICION, known.uid), due_ms)
            self.tell(known, by, whole=False)
        elif by == self._uid and self.reach_of(known) is self.far:
            # Where the suspect lives more may be needed: a region of two has no third accuser.
            self.tell(known, by, whole=False)

    # -- what this node finds out ------------------------------------------------------------

    def suspect(self, uid: int, now_ms: int) -> None:
        """This node's own probe of a member failed."""
        known = self.table.get(uid)
        if known is None or not known.reachable:
            return
        if known.state is MemberState.SUSPECT:
            self._confirm(known, self._uid, now_ms)
        else:
            self._accept(replace(known, state=MemberState.SUSPECT), self._uid, now_ms)

    def declare_down(self, uid: int, now_ms: int) -> None:
        """The time of a suspect ran out."""
        known = self.table.get(uid)
        if known is not None and known.state is MemberState.SUSPECT:
            self._accept(replace(known, state=MemberState.DOWN), self._uid, now_ms)

    def remove(self, uid: int, now_ms: int) -> None:
        """An operator says so: the member is gone, in this start of it."""
        known = self.table.get(uid)
        if known is not None and uid != self._uid:
            self._accept(replace(known, state=MemberState.GONE), self._uid, now_ms)

    def forget(self, now_ms: int) -> None:
        """Drop who was down or gone for long."""
        config = self._config
        for member in self.table.forget(config.down_kept_ms, config.left_kept_ms, now_ms):
            for reach in self.reaches:
                reach.queue.drop(member.uid)
            self.effects.append(Forgotten(member))
        if self.table.has_unreachable:
            self._timers.arm((Kind.FORGET, 0), now_ms + _FORGET_INTERVAL_MS)

    def delay(self, by_ms: int, now_ms: int) -> None:
        """This node slept so long: nobody had a chance to answer meanwhile."""
        for uid, suspicion in self.suspicions.items():
            suspicion.delay(by_ms, now_ms)
            self._timers.arm((Kind.SUSPICION, uid), max(now_ms, suspicion.deadline_ms))

    # -- this node itself --------------------------------------------------------------------

    def leave(self, now_ms: int, *, for_good: bool) -> None:
        """This node is gone from now on."""
        self.leaving = True
        state = MemberState.GONE if for_good else MemberState.LEFT
        self._become(replace(self.me, state=state), now_ms, whole=False)

    def renewed(self, generation: int, boot_id: bytes, now_ms: int) -> None:
        """This node is its next start."""
        self.renewing = False
        if self.leaving or generation <= self.me.generation:
            return
        self._previous_start = self.me.start
        fresh = replace(
            self.me,
            generation=generation,
            boot_id=boot_id,
            incarnation=0,
            state=MemberState.ALIVE,
        )
        self._become(fresh, now_ms, whole=True)

    def meet_double(self, generation: int, boot_id: bytes) -> None:
        """Another start of this uid is known somewhere, or speaks; no boot id: not which one."""
        if not boot_id and generation == self.me.generation:
            return  # It may be this one, as somebody remembers it.
        start = (generation, boot_id)
        if start in (self.me.start, self._previous_start, self._reported):
            return
        self._reported = start
        self.yielded = generation >= self.me.generation
        self.effects.append(DuplicateIdentity(generation, boot_id, self.yielded))
        if self.yielded:
            self._timers.clear()
            for reach in self.reaches:
                reach.queue.clear()

    def _hear_of_me(self, told: Member, now_ms: int) -> None:
        me = self.me
        if told.start == me.start:
            self._about_me(told.incarnation, told.state, now_ms)
        elif told.generation >= me.generation:
            self.meet_double(told.generation, told.boot_id)
            self._told_of_the_past()
        else:
            self._told_of_the_past()

    def _about_me(self, incarnation: int, state: MemberState, now_ms: int) -> None:
        me = self.me
        if self.leaving or (incarnation, state) <= (me.incarnation, me.state):
            if incarnation < me.incarnation:
                self._told_of_the_past()
            return
        if state <= MemberState.SUSPECT:
            if state is MemberState.SUSPECT:
                self.health.worsen()
            refuting = replace(me, incarnation=incarnation + 1)
            self._become(refuting, now_ms, whole=False)
        elif not self.renewing:
            self.renewing = True
            removed = state is MemberState.GONE
            reason = RenewReason.REMOVED if removed else RenewReason.DECLARED_DOWN
            self.effects.append(Renew(me.generation, reason))

    def _told_of_the_past(self) -> None:
        """Somebody does not know this node's present start or incarnation: say it again."""
        for reach in self.reaches:
            if reach.takes(self._uid) and reach.queue.about(self._uid) is None:
                reach.queue.put(Announcement(self.me))

    def _become(self, me: Member, now_ms: int, *, whole: bool) -> None:
        previous = self.me
        self.table.put(me, now_ms, self._chance)
        self.tell(me, NOBODY, whole=whole)
        if previous.state is not me.state or previous.start != me.start:
            self.effects.append(Changed(me, previous))

    # -- telling -----------------------------------------------------------------------------

    def tell(self, member: Member, by: int, *, whole: bool) -> None:
        """Put news in the queues; `whole` for those who may not know this start yet."""
        accuser = by if member.state is not MemberState.ALIVE else NOBODY
        for reach in self.reaches:
            if not reach.takes(member.uid):
                continue
            if whole or _is_untold(member, reach):
                reach.queue.put(Announcement(member, accuser))
            else:
                reach.queue.put(claim_of(member, accuser))


def _is_untold(member: Member, reach: Reach) -> bool:
    """What was to be told whole, and has not been yet, stays whole."""
    told = reach.queue.about(member.uid)
    return isinstance(told, Announcement) and told.member.start == member.start


def claim_of(member: Member, by: int = NOBODY) -> Claim:
    """What is believed of a member, in short."""
    return Claim(member.uid, member.generation, member.incarnation, member.state, by)


def _confirms(incarnation: int, known: Member) -> bool:
    """Tell whether suspecting this incarnation is what is believed already."""
    return known.state is MemberState.SUSPECT and incarnation == known.incarnation
