"""Who is asked whether it lives: the probes under way.

A probe asks its target; after the timeout it asks helpers to ask, and a channel; at the end of
the interval it has failed. What failing says of this node itself goes to its health: helpers that
sent a nack show that this node hears well and that the target is to blame (Lifeguard, LHA-Probe).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from envd.core.members import Member
from envd.core.swim.beliefs import Beliefs
from envd.core.swim.chance import Chance
from envd.core.swim.events import Sender, StreamPing
from envd.core.swim.messages import Ping, PingRequest
from envd.core.swim.reach import Reach
from envd.core.swim.sending import Outbox
from envd.core.swim.timers import Kind, Timers


@dataclass(slots=True)
class _Probe:
    """One question to one start of one member; of the `helpers`, some said nothing yet."""

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


class Prober:
    """The probes of one interval at a time, of those whom `reach` has this node ask."""

    def __init__(
        self, reach: Reach, beliefs: Beliefs, outbox: Outbox, timers: Timers, chance: Chance
    ) -> None:
        self._reach = reach
        self._beliefs = beliefs
        self._outbox = outbox
        self._timers = timers
        self._chance = chance
        self._probes: dict[int, _Probe] = {}

    def stop(self) -> None:
        """Judge nobody any more."""
        self._probes.clear()

    def begin(self, now_ms: int) -> None:
        """The interval is over: judge its probes, and start the next."""
        self._fail(now_ms)
        health, reach = self._beliefs.health, self._reach
        if not reach.speaks:
            return
        interval_ms = health.scale(reach.config.probe_interval_ms)
        self._timers.arm((Kind.PROBE, reach.number), now_ms + interval_ms)
        timeout_ms = health.scale(reach.config.probe_timeout_ms)
        for target in reach.targets(self._chance):
            seq = self._outbox.next_seq()
            self._probes[seq] = _Probe(target.uid, target.generation)
            self._timers.arm((Kind.PROBE_TIMEOUT, reach.number), now_ms + timeout_ms)
            self._outbox.send(target.gossip, Ping(seq, target.uid), target)

    def ask_others(self) -> None:
        """These targets did not answer in time: try by other ways."""
        for seq, probe in self._probes.items():
            target = self._beliefs.table.get(probe.target)
            if target is not None and target.reachable:
                self._ask_others(seq, probe, target)

    def _ask_others(self, seq: int, probe: _Probe, target: Member) -> None:
        request = PingRequest(seq, target.uid, target.gossip)
        for helper in self._reach.helpers(target, self._chance):
            probe.helpers.add(helper.uid)
            self._outbox.send(helper.gossip, request, helper)
        probe.silent_helpers = set(probe.helpers)
        if target.peer:
            within_ms = self._reach.config.probe_interval_ms
            self._outbox.add(StreamPing(seq, target, within_ms))

    def stream_answered(self, seq: int) -> None:
        """The channel works: the target lives, though datagrams don't come through."""
        if seq in self._probes:
            self._end(seq)

    def acked(self, seq: int, sender: Sender) -> bool:
        """Somebody answered; tell whether it was asked by a probe of these."""
        probe = self._probes.get(seq)
        if probe is None or not probe.may_answer(sender.uid):
            return False
        self._end(seq)
        self._beliefs.health.improve()
        return True

    def nacked(self, seq: int, sender: Sender) -> None:
        """A helper got no answer from the target."""
        if seq in self._probes:
            self._probes[seq].silent_helpers.discard(sender.uid)

    def _fail(self, now_ms: int) -> None:
        probes, self._probes = self._probes, {}
        for probe in probes.values():
            target = self._beliefs.table.get(probe.target)
            if target is None or target.generation != probe.generation or not target.reachable:
                continue
            self._beliefs.health.worsen(probe.health_cost)
            self._beliefs.suspect(target.uid, now_ms)

    def _end(self, seq: int) -> None:
        del self._probes[seq]
        if not self._probes:
            self._timers.disarm((Kind.PROBE_TIMEOUT, self._reach.number))
