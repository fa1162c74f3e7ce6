"""Datagrams on their way out, filled up with news."""

from __future__ import annotations

from envd.core.members import Member, MemberState
from envd.core.swim import config as formulae
from envd.core.swim.beliefs import Beliefs, claim_of
from envd.core.swim.chance import Chance, below
from envd.core.swim.config import SwimConfig
from envd.core.swim.events import Effect, Send, Sender
from envd.core.swim.messages import (
    Announcement,
    Gossip,
    Message,
    News,
    Packet,
    room_for_news,
)

_SEQ_BITS = 32


class Outbox:
    """Makes packets of this node's cluster, and puts them among the effects."""

    __slots__ = ("_beliefs", "_chance", "_config", "_seq", "cluster", "may_gossip_ms")

    def __init__(self, cluster: str, beliefs: Beliefs, config: SwimConfig, chance: Chance) -> None:
        self.cluster = cluster
        self._beliefs = beliefs
        self._config = config
        self._chance = chance
        self._seq = below(1 << _SEQ_BITS, chance)
        self.may_gossip_ms = 0
        """News after a silence is told at once, not an interval later."""

    def next_seq(self) -> int:
        """A number for a question, not used lately."""
        self._seq = (self._seq + 1) % (1 << _SEQ_BITS)
        return self._seq

    def add(self, effect: Effect) -> None:
        """Want this done, after what is wanted already."""
        self._beliefs.effects.append(effect)

    def send(
        self,
        address: str,
        message: Message,
        to: Member | None,
        *,
        start: Sender | None = None,
    ) -> None:
        """Send with news, first what is believed of the receiver where that is not good.

        `to` is what is known of the receiver: a stranger gets no news. `start` is which start of
        it asked: one that is over is told of the present one.
        """
        news: list[News] = []
        if to is not None:
            if start is not None and (start.generation, start.boot_id) < to.start:
                news.append(Announcement(to))
            elif to.state is not MemberState.ALIVE:
                news.append(claim_of(to, self._beliefs.me.uid))
            room = room_for_news(self._config.payload_bytes, self.cluster, message)
            room -= sum(item.size_bytes for item in news)
            news += self._beliefs.queue.take(room, self._transmit_limit())
        self.add(Send(address, Packet(self.cluster, message, tuple(news))))

    def gossip(self, now_ms: int) -> None:
        """Send what is in the queue to some members; with nobody to tell, there is no news."""
        beliefs, config = self._beliefs, self._config
        self.may_gossip_ms = now_ms + config.gossip_interval_ms
        targets = beliefs.table.pick(
            config.gossip_nodes,
            self._chance,
            lambda member: member.reachable or self._died_lately(member, now_ms),
        )
        if not targets:
            beliefs.queue.clear()
        room = room_for_news(config.payload_bytes, self.cluster, Gossip())
        for target in targets:
            news = beliefs.queue.take(room, self._transmit_limit())
            if not news:
                break
            self.add(Send(target.gossip, Packet(self.cluster, Gossip(), tuple(news))))

    def _died_lately(self, member: Member, now_ms: int) -> bool:
        age_ms = self._beliefs.table.age_ms(member.uid, now_ms)
        return member.state is MemberState.DOWN and age_ms <= self._config.gossip_to_dead_ms

    def _transmit_limit(self) -> int:
        return formulae.transmit_limit(self._config, self._beliefs.table.reachable_count)
