"""Datagrams on their way out, filled up with news."""

from __future__ import annotations

from envd.core.members import Member, MemberState
from envd.core.swim.beliefs import Beliefs, claim_of
from envd.core.swim.chance import Chance, below
from envd.core.swim.events import Effect, Send, Sender
from envd.core.swim.messages import (
    Announcement,
    Gossip,
    Message,
    News,
    Packet,
    room_for_news,
)
from envd.core.swim.reach import Reach

_SEQ_BITS = 32


class Outbox:
    """Makes packets of this node's cluster, and puts them among the effects."""

    __slots__ = ("_beliefs", "_chance", "_seq", "cluster")

    def __init__(self, cluster: str, beliefs: Beliefs, chance: Chance) -> None:
        self.cluster = cluster
        self._beliefs = beliefs
        self._chance = chance
        self._seq = below(1 << _SEQ_BITS, chance)

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
            reach = self._beliefs.reach_of(to)
            room = room_for_news(reach.config.payload_bytes, self.cluster, message)
            room -= sum(item.size_bytes for item in news)
            news += reach.queue.take(room, reach.transmit_limit())
        self.add(Send(address, Packet(self.cluster, message, tuple(news))))

    def gossip(self, reach: Reach, now_ms: int) -> None:
        """Send what is in the queue to some members; with nobody to tell, there is no news."""
        if not reach.speaks:
            return
        reach.may_gossip_ms = now_ms + reach.config.gossip_interval_ms
        targets = reach.listeners(now_ms, self._chance)
        if not targets:
            reach.queue.clear()
        room = room_for_news(reach.config.payload_bytes, self.cluster, Gossip())
        for target in targets:
            news = reach.queue.take(room, reach.transmit_limit())
            if not news:
                break
            self.add(Send(target.gossip, Packet(self.cluster, Gossip(), tuple(news))))
