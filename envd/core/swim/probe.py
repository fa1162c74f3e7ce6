"""Who is asked whether it lives: the probe under way, and the probes made for others.

A probe asks its target; after the timeout it asks helpers to ask, and a channel; at the end of
the interval it has failed. What failing says of this node itself goes to its health: helpers that
sent a nack show that this node hears well and that the target is to blame (Lifeguard, LHA-Probe).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from envd.core.members import Member, MemberState
from envd.core.swim.beliefs import Beliefs
from envd.core.swim.chance import Chance
from envd.core.swim.config import SwimConfig
from envd.core.swim.events import Sender, StreamPing
from envd.core.swim.messages import Ack, Nack, Ping, PingRequest
from envd.core.swim.sending import Outbox
from envd.core.swim.timers import Kind, Timers

MAX_RELAYS: Final = 1024


@dataclass(slots=True)
class _Probe:
    """One question to one start of one member; of the `helpers`, some said nothing yet."""

    seq: int
    target: int
    generation: int
    helpers: set[int] = field(default_factory=set)
    silent_helpers: set[int] = field(default_factory=set)

    def may_answer(self, uid: int) -> bool:
        return uid == self.target or uid in self.helpers

    @property
    def health_cost(self) -> int:
        """One for each silent helper, one where there were none (memberlist `probeNode`)."""
        return len(self.silent_helpers) if self.helpers else 1


@dataclass(slots=True)
class _Relay:
    """A probe made for `asker`, who calls it `asker_seq` and listens at `address`."""

    address: str
    asker: int
    asker_seq: int
    target: int
    expires_ms: int


class Prober:
    """At most one probe of its own, and MAX_RELAYS for others."""

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
        self._probe: _Probe | None = None
        self._relays: dict[int, _Relay] = {}

    def stop(self) -> None:
        """Judge nobody any more."""
        self._probe = None
        self._relays.clear()

    # -- this node's own probe -----------------------------------------------------------------

    def begin(self, now_ms: int) -> None:
        """The interval is over: judge the last probe, and start the next."""
        self._fail(now_ms)
        health, config = self._beliefs.health, self._config
        self._timers.arm((Kind.PROBE, 0), now_ms + health.scale(config.probe_interval_ms))
        target = self._beliefs.table.next_to_probe(self._chance)
        if target is None:
            return
        self._probe = _Probe(self._outbox.next_seq(), target.uid, target.generation)
        timeout_ms = health.scale(config.probe_timeout_ms)
        self._timers.arm((Kind.PROBE_TIMEOUT, 0), now_ms + timeout_ms)
        self._outbox.send(target.gossip, Ping(self._probe.seq, target.uid), target)

    def ask_others(self) -> None:
        """The target did not answer in time: try by other ways."""
        probe = self._probe
        target = self._member(probe.target) if probe else None
        if probe is None or target is None or not target.reachable:
            return
        helpers = self._beliefs.table.pick(
            self._config.indirect_probes,
            self._chance,
            lambda member: member.state is MemberState.ALIVE and member.uid != target.uid,
        )
        request = PingRequest(probe.seq, target.uid, target.gossip)
        for helper in helpers:
            probe.helpers.add(helper.uid)
            self._outbox.send(helper.gossip, request, helper)
        probe.silent_helpers = set(probe.helpers)
        if target.peer:
            self._outbox.add(StreamPing(probe.seq, target))

    def stream_answered(self, seq: int) -> None:
        """The channel works: the target lives, though datagrams don't come through."""
        if self._probe is not None and self._probe.seq == seq:
            self._end()

    def acked(self, seq: int, sender: Sender) -> None:
        """Somebody answered a ping or a request of this node."""
        probe, relay = self._probe, self._relays.get(seq)
        if probe is not None and probe.seq == seq and probe.may_answer(sender.uid):
            self._end()
            self._beliefs.health.improve()
        elif relay is not None and relay.target == sender.uid:
            del self._relays[seq]
            self._timers.disarm((Kind.RELAY, seq))
            self._outbox.send(relay.address, Ack(relay.asker_seq), self._member(relay.asker))

    def nacked(self, seq: int, sender: Sender) -> None:
        """A helper got no answer from the target."""
        if self._probe is not None and self._probe.seq == seq:
            self._probe.silent_helpers.discard(sender.uid)

    def _fail(self, now_ms: int) -> None:
        probe, self._probe = self._probe, None
        target = self._member(probe.target) if probe else None
        if probe is None or target is None or target.generation != probe.generation:
            return
        if target.reachable:
            self._beliefs.health.worsen(probe.health_cost)
            self._beliefs.suspect(target.uid, now_ms)

    def _end(self) -> None:
        self._probe = None
        self._timers.disarm((Kind.PROBE_TIMEOUT, 0))

    # -- probes for others ---------------------------------------------------------------------

    def relay(self, asker: Sender, address: str, request: PingRequest, now_ms: int) -> None:
        """Ping a member for another one."""
        if len(self._relays) >= MAX_RELAYS:
            return
        config, seq = self._config, self._outbox.next_seq()
        expires_ms = now_ms + config.probe_interval_ms
        self._relays[seq] = _Relay(address, asker.uid, request.seq, request.target, expires_ms)
        nack_ms = round(config.probe_timeout_ms * config.nack_share)
        self._timers.arm((Kind.RELAY, seq), now_ms + nack_ms)
        target = self._member(request.target)
        self._outbox.send(request.address, Ping(seq, request.target), target)

    def relay_due(self, seq: int, now_ms: int) -> None:
        """No answer yet: say so, but pass a late one on."""
        relay = self._relays[seq]
        if now_ms >= relay.expires_ms:
            del self._relays[seq]
            return
        self._timers.arm((Kind.RELAY, seq), relay.expires_ms)
        self._outbox.send(relay.address, Nack(relay.asker_seq), self._member(relay.asker))

    def _member(self, uid: int) -> Member | None:
        return self._beliefs.table.get(uid)
