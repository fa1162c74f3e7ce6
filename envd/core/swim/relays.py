"""The probes that this node makes for others, who got no answer themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from envd.core.members import Member
from envd.core.swim.beliefs import Beliefs
from envd.core.swim.config import nack_ms
from envd.core.swim.events import Sender
from envd.core.swim.messages import Ack, Nack, Ping, PingRequest
from envd.core.swim.sending import Outbox
from envd.core.swim.timers import Kind, Timers

MAX_RELAYS: Final = 1024


@dataclass(slots=True)
class _Relay:
    """A probe made for `asker`, who calls it `asker_seq` and listens at `address`."""

    address: str
    asker: int
    asker_seq: int
    target: int
    expires_ms: int


class Relays:
    """At most MAX_RELAYS at a time."""

    def __init__(self, beliefs: Beliefs, outbox: Outbox, timers: Timers) -> None:
        self._beliefs = beliefs
        self._outbox = outbox
        self._timers = timers
        self._relays: dict[int, _Relay] = {}

    def stop(self) -> None:
        """Ask for nobody any more."""
        self._relays.clear()

    def relay(self, asker: Sender, address: str, request: PingRequest, now_ms: int) -> None:
        """Ping a member for another one, and give it the time that its distance from here takes."""
        if len(self._relays) >= MAX_RELAYS:
            return
        target, seq = self._member(request.target), self._outbox.next_seq()
        config = self._beliefs.reach_of(target or self._beliefs.me).config
        expires_ms = now_ms + config.probe_interval_ms
        self._relays[seq] = _Relay(address, asker.uid, request.seq, request.target, expires_ms)
        self._timers.arm((Kind.RELAY, seq), now_ms + nack_ms(config))
        self._outbox.send(request.address, Ping(seq, request.target), target)

    def acked(self, seq: int, sender: Sender) -> None:
        """Somebody answered: pass it on, if it is the one that was asked."""
        relay = self._relays.get(seq)
        if relay is not None and relay.target == sender.uid:
            del self._relays[seq]
            self._timers.disarm((Kind.RELAY, seq))
            self._outbox.send(relay.address, Ack(relay.asker_seq), self._member(relay.asker))

    def due(self, seq: int, now_ms: int) -> None:
        """No answer yet: say so, but pass a late one on."""
        relay = self._relays[seq]
        if now_ms >= relay.expires_ms:
            del self._relays[seq]
            return
        self._timers.arm((Kind.RELAY, seq), relay.expires_ms)
        self._outbox.send(relay.address, Nack(relay.asker_seq), self._member(relay.asker))

    def _member(self, uid: int) -> Member | None:
        return self._beliefs.table.get(uid)
