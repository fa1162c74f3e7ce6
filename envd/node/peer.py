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


class PeerLink:
    """One peer as seen from this node.

    `streaming`: our log channel to it is up. `synced_lsn`: it has synced our own records up to
    here; before it `has_told`, since our start, how far it got, all of before that start are
    taken for synced (`lsn`). All times are those of the event loop, in seconds.
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
        self._phi = PhiDetector(first_interval_ms=HEARTBEAT_S * 1000)
        self._phi_of_its_log: PhiDetector | None = None
        self._offsets: deque[tuple[float, int]] = deque(maxlen=_OFFSETS_KEPT)

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

    def measured(self, round_trip_s: float, offset_ms: int) -> None:
        """A heartbeat's answer told how far the peer's wall clock is from ours."""
        self._offsets.append((round_trip_s, offset_ms))

    @property
    def offset_ms(self) -> int | None:
        """How far the peer's wall clock is ahead of ours, from the quickest of the last
        answers (Cristian 1989); None before the first."""
        return min(self._offsets)[1] if self._offsets else None


def heartbeat_s(peers: int) -> float:
    """The interval of heartbeats on one stream: stretched so that all of them stay affordable.

    Example: 0.2 up to 6 peers, 0.5 with 15.
    """
    return HEARTBEAT_S * max(1.0, peers / _BRISK_PEERS)
