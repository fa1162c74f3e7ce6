"""What is known of one other storage node from the channels to and from it.

Phi-accrual (`core.phi`) over the heartbeats is a local opinion: it decides whom a write waits
for and who is asked first. Only the membership protocol declares a node down.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from envd.core.phi import PhiDetector
from envd.node.vectors import PeerVectors

HEARTBEAT_S: Final = 0.2
_BRISK_PEERS: Final = 6
"""With more peers than a cluster of this kind should have, each is sent heartbeats less often."""
_OFFSETS_KEPT: Final = 8
_STEP_MS: Final = 100
"""Clocks drift, and are slewed, by less than that between a few heartbeats."""
_OFFSET_HOLDS_S: Final = 10.0
"""A clock may be set at any time: so long after the last answer nobody knows where it is."""


class PeerLink:
    """One peer as seen from this node.

    `streaming`: our log channel to it is up. `synced_lsn`: it has synced our own records up to
    here; before it `has_told`, since our start, how far it got, all of before that start are
    taken for synced (`lsn`). `finds_us_early`: it refused our log for a stamp far ahead of its
    clock, and answered no heartbeat since. All times are those of the event loop, in seconds.
    """

    def __init__(self, uid: int, now_s: float, *, lsn: int = 0) -> None:
        self.uid = uid
        self.streaming = False
        self.synced_lsn = lsn
        self.has_told = False
        self.relay_lsn = 0
        self.heard_s = now_s
        self.vectors = PeerVectors()
        self.problem = ""
        self.finds_us_early = False
        self._phi = PhiDetector(first_interval_ms=HEARTBEAT_S * 1000)
        self._phi_of_its_log: PhiDetector | None = None
        self._offsets: deque[tuple[float, int]] = deque(maxlen=_OFFSETS_KEPT)
        self._measured_s = now_s

    def heard(self, now_s: float) -> None:
        """A heartbeat, or its answer, came."""
        self.heard_s = now_s
        self._phi.heartbeat(now_s * 1000)

    def phi(self, now_s: float) -> float:
        """How implausible it is by now that the peer still beats."""
        return self._phi.phi(now_s * 1000)

    def plausible(self, now_s: float) -> bool:
        """Whether the peer is worth waiting for."""
        return self.streaming and not self._phi.suspects(now_s * 1000)

    def answers(self, now_s: float) -> bool:
        """Whether the peer is worth asking: also while it refuses our log, but sends us its own."""
        beats = self._phi_of_its_log
        return self.plausible(now_s) or (beats is not None and not beats.suspects(now_s * 1000))

    def beat(self, now_s: float) -> None:
        """A heartbeat came on the channel of the peer's own log."""
        self.heard_s = now_s
        if self._phi_of_its_log is None:
            self._phi_of_its_log = PhiDetector(first_interval_ms=HEARTBEAT_S * 1000)
        self._phi_of_its_log.heartbeat(now_s * 1000)

    def beats_no_more(self) -> None:
        """The channel of the peer's own log ended."""
        self._phi_of_its_log = None

    def began(self, now_s: float) -> None:
        """A channel came up: the silence before it says nothing."""
        self._phi = PhiDetector(first_interval_ms=HEARTBEAT_S * 1000)
        self.heard(now_s)

    def measured(self, now_s: float, round_trip_s: float, offset_ms: int) -> None:
        """A heartbeat's answer told how far the peer's wall clock is from ours.

        An answer is at most half its round trip off: where this one and the quickest differ by
        more than that, one of the clocks was set in between, and only this one still holds.
        """
        if self._offsets:
            quickest_s, known_ms = min(self._offsets)
            if abs(offset_ms - known_ms) > (quickest_s + round_trip_s) * 500 + _STEP_MS:
                self._offsets.clear()
        self._offsets.append((round_trip_s, offset_ms))
        self._measured_s = now_s
        self.finds_us_early = False

    @property
    def offset_ms(self) -> int | None:
        """How far the peer's wall clock is ahead of ours, from the quickest of the last
        answers (Cristian 1989); None before the first."""
        return min(self._offsets)[1] if self._offsets else None

    def offset_at(self, now_s: float) -> int:
        """The same where it still holds; else 0, as of a clock of which nothing is known."""
        return (self.offset_ms or 0) if now_s - self._measured_s <= _OFFSET_HOLDS_S else 0

    def is_behind(self, now_s: float, limit_ms: int) -> bool:
        """Whether the peer's clock is so far behind our stamps that it would not take them.

        It says so itself where it refuses our log: its answers, by which its clock is measured,
        come no more then, and an old measure may be of a clock that was set since.
        """
        return self.finds_us_early or self.offset_at(now_s) < -limit_ms


def heartbeat_s(peers: int) -> float:
    """The interval of heartbeats on one stream: stretched so that all of them stay affordable.

    Example: 0.2 up to 6 peers, 0.5 with 15.
    """
    return HEARTBEAT_S * max(1.0, peers / _BRISK_PEERS)
