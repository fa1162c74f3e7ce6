"""With whom this node exchanges all it knows, and how it finds somebody at all.

Regular exchanges mend what gossip missed. Members that are down are tried again, so that healed
partitions merge; seeds are asked for ever. Whoever turns out to know more is asked for all of it.
"""

from __future__ import annotations

from typing import Final

from envd.core.members import Member
from envd.core.swim.beliefs import Beliefs
from envd.core.swim.chance import Chance, choose
from envd.core.swim.config import SwimConfig
from envd.core.swim.events import PushPull, Sender
from envd.core.swim.messages import Hello, Here, Ping
from envd.core.swim.reach import Reach
from envd.core.swim.sending import Outbox
from envd.core.swim.timers import Kind, Timers

MAX_SEEDS: Final = 64


class Contacts:
    """Wants exchanges (PushPull), and sends the questions that lead to them."""

    def __init__(
        self,
        config: SwimConfig,
        beliefs: Beliefs,
        outbox: Outbox,
        timers: Timers,
        chance: Chance,
    ) -> None:
        self._config = config
        self._beliefs = beliefs
        self._outbox = outbox
        self._timers = timers
        self._chance = chance
        self._seeds: tuple[str, ...] = ()
        self._seed_wait_ms = config.seed_retry_ms
        self._hello_seq: int | None = None
        self._caught_up_ms: int | None = None

    def push_pull(self, reach: Reach, now_ms: int) -> None:
        """The regular exchange with one member."""
        due_ms = now_ms + reach.push_pull_interval_ms()
        self._timers.arm((Kind.PUSH_PULL, reach.number), due_ms)
        if reach.speaks:
            for member in reach.partners(self._chance):
                self._outbox.add(PushPull(member.peer))

    def revive(self, now_ms: int) -> None:
        """Ping one member that is down; if it answers anything, `catch_up` follows."""
        for target in self._one_down(Kind.REVIVE, now_ms + self._config.revive_interval_ms):
            self._outbox.send(target.gossip, Ping(self._outbox.next_seq(), target.uid), target)

    def reconnect(self, now_ms: int) -> None:
        """Try one member that is down over a channel."""
        due_ms = now_ms + self._config.reconnect_interval_ms
        for target in self._one_down(Kind.RECONNECT, due_ms):
            self._outbox.add(PushPull(target.peer))

    def _one_down(self, kind: Kind, again_ms: int) -> list[Member]:
        """One of those that are down, if it is for this node to try it; and try again later."""
        down = self._beliefs.table.down()
        if down:
            self._timers.arm((kind, 0), again_ms)
        tried = [member for member in down if self._beliefs.reach_of(member).speaks]
        return [choose(tried, self._chance)] if tried else []

    def catch_up(self, member: Member, now_ms: int) -> None:
        """This member knows more than this node, or lives although it is held for down."""
        if self._may_catch_up(now_ms):
            self._outbox.add(PushPull(member.peer))

    def ask_stranger(self, address: str, now_ms: int) -> None:
        """Somebody of this cluster is not known here: ask where its channels are."""
        if self._may_catch_up(now_ms):
            self._hello_seq = self._outbox.next_seq()
            self._outbox.send(address, Hello(self._hello_seq), None)

    def _may_catch_up(self, now_ms: int) -> bool:
        last_ms = self._caught_up_ms
        if self._beliefs.leaving:
            return False
        if last_ms is not None and now_ms - last_ms < self._config.catch_up_ms:
            return False
        self._caught_up_ms = now_ms
        return True

    # -- seeds ---------------------------------------------------------------------------------

    def use_seeds(self, addresses: tuple[str, ...], now_ms: int) -> None:
        """Ask at these addresses from now on, at once; the same ones again change nothing."""
        if addresses[:MAX_SEEDS] == self._seeds:
            return
        self._seeds = addresses[:MAX_SEEDS]
        self._seed_wait_ms = self._config.seed_retry_ms
        self._timers.arm((Kind.SEEDS, 0), now_ms)

    def ask_seeds(self, now_ms: int) -> None:
        """All seeds while nobody is known, with back-off; one that is not known after that."""
        if not self._seeds:
            return
        config, table = self._config, self._beliefs.table
        known = {member.gossip for member in table if member.reachable}
        unknown = [address for address in self._seeds if address not in known]
        self._hello_seq = self._outbox.next_seq()
        if table.reachable_count > 1:
            wait_ms, self._seed_wait_ms = config.reconnect_interval_ms, config.seed_retry_ms
            unknown = [choose(unknown, self._chance)] if unknown else []
        else:
            wait_ms = self._seed_wait_ms
            self._seed_wait_ms = min(2 * wait_ms, config.seed_retry_max_ms)
        jittered_ms = round(wait_ms * (0.5 + self._chance.random()))
        self._timers.arm((Kind.SEEDS, 0), now_ms + jittered_ms)
        for address in unknown:
            self._outbox.send(address, Hello(self._hello_seq), None)

    def found(self, here: Here, sender: Sender) -> None:
        """A seed, or a stranger, told where its channels are: exchange all with it."""
        known = self._beliefs.table.get(sender.uid)
        wanted = known is None or not known.reachable
        if here.seq == self._hello_seq and here.member.uid == sender.uid and wanted:
            self._outbox.add(PushPull(here.member.peer))
