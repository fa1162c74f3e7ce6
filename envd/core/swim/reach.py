"""Whom this node speaks to, and how fast: its own region, and the gateways of the others.

Within a region everybody speaks to everybody, at LAN pace. Between regions only gateways (see
`regions`) do, at WAN pace, and to gateways; the others hear through them. A gateway also asks
whoever is suspect in another region: nobody else outside could give it a chance to refute, or
confirm. Everybody answers everybody.

News is told in both, each as often as its own number of listeners needs, so each has its queue.
What a node that is no gateway says of itself waits in the far queue for whoever asks it: an old
suspicion in another region is then refuted by the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import ceil
from typing import ClassVar

from envd.core.members import Member, MemberState
from envd.core.swim import config as formulae
from envd.core.swim.broadcasts import Broadcasts
from envd.core.swim.chance import Chance, sample
from envd.core.swim.config import SwimConfig
from envd.core.swim.table import MemberTable


class Reach(ABC):
    """One of the two, with its parameters and its queue of news; `number` tells timers apart."""

    number: ClassVar[int]

    def __init__(self, table: MemberTable, config: SwimConfig) -> None:
        self.config = config
        self.queue = Broadcasts()
        self.may_gossip_ms = 0
        """News after a silence is told at once, not an interval later."""
        self._table = table

    @property
    @abstractmethod
    def speaks(self) -> bool:
        """Whether this node asks and tells here of its own accord."""

    @abstractmethod
    def takes(self, uid: int) -> bool:
        """Tell whether news of this member is for this queue."""

    @property
    @abstractmethod
    def members(self) -> int:
        """Among how many news spreads here."""

    @abstractmethod
    def witnesses(self, suspect: Member) -> int:
        """How many there are who ask `suspect`, and itself: the N of its suspicion."""

    @abstractmethod
    def targets(self, chance: Chance) -> list[Member]:
        """Whom to ask in this interval."""

    @abstractmethod
    def helpers(self, target: Member, chance: Chance) -> list[Member]:
        """Who may ask `target` for this node."""

    @abstractmethod
    def listeners(self, now_ms: int, chance: Chance) -> list[Member]:
        """Whom to tell news now."""

    @abstractmethod
    def partners(self, chance: Chance) -> list[Member]:
        """With whom to exchange all; nobody, or one."""

    def transmit_limit(self) -> int:
        """How often this node tells one piece of news here."""
        return formulae.transmit_limit(self.config, self.members)

    def push_pull_interval_ms(self) -> int:
        """After what time to exchange all again: everybody, so all count."""
        return formulae.push_pull_interval_ms(self.config, self._table.reachable_count)


class Near(Reach):
    """The members of this node's region."""

    number = 0

    @property
    def speaks(self) -> bool:
        return True

    def takes(self, uid: int) -> bool:
        return True

    @property
    def members(self) -> int:
        return self._table.regions.reachable_count(self._table.me.region)

    def witnesses(self, suspect: Member) -> int:
        outside = self._table.regions.gateways_outside(suspect.region)
        return self.members + sum(1 for _ in outside)

    def targets(self, chance: Chance) -> list[Member]:
        target = self._table.near.next(chance, lambda member: member.reachable)
        return [target] if target else []

    def helpers(self, target: Member, chance: Chance) -> list[Member]:
        return self._table.near.pick(
            self.config.indirect_probes,
            chance,
            lambda member: member.state is MemberState.ALIVE and member.uid != target.uid,
        )

    def listeners(self, now_ms: int, chance: Chance) -> list[Member]:
        """Also who was declared down lately, so that it finds out."""
        return self._table.near.pick(
            self.config.gossip_nodes,
            chance,
            lambda member: member.reachable or self._died_lately(member, now_ms),
        )

    def partners(self, chance: Chance) -> list[Member]:
        return self._table.near.pick(1, chance, lambda member: member.reachable)

    def _died_lately(self, member: Member, now_ms: int) -> bool:
        age_ms = self._table.age_ms(member.uid, now_ms)
        return member.state is MemberState.DOWN and age_ms <= self.config.gossip_to_dead_ms


class Far(Reach):
    """The gateways of the other regions, and of this one: news spreads among them."""

    number = 1

    @property
    def exists(self) -> bool:
        """Whether a member of another region is known, in whatever state."""
        return bool(self._table.far)

    @property
    def speaks(self) -> bool:
        """A gateway that leaves goes on: it may be the only one to tell it."""
        return self.exists and self._table.regions.speaks(self._table.me)

    def takes(self, uid: int) -> bool:
        return self.exists and (uid == self._table.me.uid or self.speaks)

    @property
    def members(self) -> int:
        return self._table.regions.gateway_count

    def witnesses(self, suspect: Member) -> int:
        return 1 + len(self._gateways_outside(suspect.region))

    def targets(self, chance: Chance) -> list[Member]:
        """As many that a round lasts no longer than the shortest suspicion.

        It is `suspicion_mult` intervals long, and two more must have accused before it ends. So a
        region that is silent is found so in about the same time whether it is small or large.
        """
        asked = {gateway.uid for gateway in self._gateways_outside(self._region)}
        asked |= {each.uid for each in self._table.far if each.state is MemberState.SUSPECT}
        count = ceil(len(asked) / self.config.suspicion_mult)
        picked = (
            self._table.far.next(chance, lambda member: member.uid in asked) for _ in range(count)
        )
        return list({target.uid: target for target in picked if target}.values())

    def helpers(self, target: Member, chance: Chance) -> list[Member]:
        """Gateways outside the region of `target`.

        They say "no answer" where all of that region is silent; its own would be silent too, and
        this node would take itself for unwell.
        """
        others = self._gateways_outside(target.region)
        fit = [each for each in others if each.state is MemberState.ALIVE and not self._is_me(each)]
        return sample(fit, self.config.indirect_probes, chance)

    def listeners(self, now_ms: int, chance: Chance) -> list[Member]:
        """Nobody who is down: a whole region may be, and news for the living would go there.

        The pings that such members get for ever tell them.
        """
        return sample(self._gateways_outside(self._region), self.config.gossip_nodes, chance)

    def partners(self, chance: Chance) -> list[Member]:
        return sample(self._gateways_outside(self._region), 1, chance)

    @property
    def _region(self) -> str:
        return self._table.me.region

    def _gateways_outside(self, region: str) -> list[Member]:
        return list(self._table.regions.gateways_outside(region))

    def _is_me(self, member: Member) -> bool:
        return member.uid == self._table.me.uid
