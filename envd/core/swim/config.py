"""Every parameter of membership, with its formula, its precedent and what it trades.

All times are milliseconds. LAN is for nodes that see each other in a few milliseconds; WAN
for regions. The formulae stand here as plain functions, so that tests hold them against tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log, log2, log10
from typing import Final

DAY_MS: Final = 86_400_000
SEAL_OVERHEAD_BYTES: Final = 60
"""What sealing adds to a payload, at most: header 41, tag 16."""


@dataclass(frozen=True, slots=True)
class SwimConfig:
    """The parameters of one network; memberlist's `DefaultLANConfig` where nothing else is said.

    probe_interval_ms, probe_timeout_ms: one member is asked each interval; who does not answer
        within the timeout is asked through others until the interval ends. Shorter finds failures
        sooner, and asks more of slow nodes.
    indirect_probes: how many others are asked to try (SWIM, section 3.1).
    nack_share: see `nack_ms`.
    max_health: the worst local health score; timeouts are multiplied by score + 1.
    suspicion_mult, suspicion_max_mult, confirmations: see `suspicion_min_ms` and
        `suspicion_timeout_ms`.
    gossip_interval_ms, gossip_nodes, gossip_to_dead_ms: news goes to so many members, so often,
        and, within a region, to those declared down this lately, so that one who lives finds out.
    retransmit_mult: see `transmit_limit`.
    datagram_bytes: below the smallest common MTU (1,500) with room for IP, UDP and tunnels.
    push_pull_interval_ms, push_pull_threshold: see `push_pull_interval_ms`.
    revive_interval_ms: how often one member that is down is pinged: one datagram, so that a
        partition of any length ends about this long after its cause.
    reconnect_interval_ms: how often a down member or a strange seed is tried over the stream
        (serf's `ReconnectInterval`): mends what datagrams alone can't.
    seed_retry_ms, seed_retry_max_ms: a node that knows nobody asks its seeds after the first,
        then twice as long each time, up to the second.
    catch_up_ms: at least so long between exchanges made because somebody knew more.
    down_kept_ms: seven days, the time after which a silent member is evicted from the topology:
        until then an operator should see it listed, and it is retried. serf drops it after 3 days.
    left_kept_ms: a day, serf's `TombstoneTimeout`: who left only has to be remembered until the
        last stale word of its being alive has died out.
    max_members: the bound of the table, and so of queue, suspicions and exchanges.
    """

    probe_interval_ms: int = 1000
    probe_timeout_ms: int = 500
    indirect_probes: int = 3
    nack_share: float = 0.8
    max_health: int = 7
    suspicion_mult: int = 4
    suspicion_max_mult: int = 6
    confirmations: int = 2
    gossip_interval_ms: int = 200
    gossip_nodes: int = 3
    gossip_to_dead_ms: int = 30_000
    retransmit_mult: int = 4
    datagram_bytes: int = 1400
    push_pull_interval_ms: int = 30_000
    push_pull_threshold: int = 32
    revive_interval_ms: int = 1000
    reconnect_interval_ms: int = 30_000
    seed_retry_ms: int = 500
    seed_retry_max_ms: int = 15_000
    catch_up_ms: int = 1000
    down_kept_ms: int = 7 * DAY_MS
    left_kept_ms: int = DAY_MS
    max_members: int = 10_000

    def __post_init__(self) -> None:
        if not 0 < self.probe_timeout_ms < self.probe_interval_ms:
            raise ValueError("the probe timeout must be positive and below the probe interval")
        if not 0 < self.nack_share < 1:
            raise ValueError("a helper's nack must come before its timeout")
        if min(self.gossip_interval_ms, self.push_pull_interval_ms, self.max_members) < 1:
            raise ValueError("intervals and bounds must be positive")

    @property
    def payload_bytes(self) -> int:
        """What a datagram carries before it is sealed."""
        return self.datagram_bytes - SEAL_OVERHEAD_BYTES


LAN: Final = SwimConfig()
WAN: Final = replace(
    LAN,
    probe_interval_ms=5000,
    probe_timeout_ms=3000,
    suspicion_mult=6,
    gossip_interval_ms=500,
    gossip_nodes=4,
    push_pull_interval_ms=60_000,
)
"""memberlist's `DefaultWANConfig`: fewer false alarms over long ways, found later."""


def suspicion_min_ms(config: SwimConfig, members: int) -> int:
    """How long a suspect has at least: mult * max(1, log10 N) * probe interval.

    News needs O(log N) rounds to reach a suspect and to come back (SWIM, section 4.2; memberlist
    `suspicionTimeout`). Example: LAN, 5 members: 4,000; 1,000 members: 12,000.
    """
    scale = max(1.0, log10(max(1, members)))
    return round(config.suspicion_mult * scale * config.probe_interval_ms)


def suspicion_timeout_ms(least_ms: int, most_ms: int, *, confirmed: int, confirmations: int) -> int:
    """max - (max - min) * ln(confirmed + 1) / ln(confirmations + 1), at least min.

    One accuser may itself be what is slow; each independent one makes the accusation more likely
    and the wait shorter (Lifeguard, section IV.B). Example: 4 s and 24 s with k = 2: 24,000 ms
    with none, 11,381 with one, 4,000 with two.
    """
    if confirmations < 1:
        return least_ms
    share = log(min(confirmed, confirmations) + 1) / log(confirmations + 1)
    return max(least_ms, round(most_ms - (most_ms - least_ms) * share))


def confirmations_wanted(config: SwimConfig, members: int) -> int:
    """k, or 0 where there are not so many others who could confirm (memberlist `suspectNode`)."""
    return config.confirmations if members - 2 >= config.confirmations else 0


def nack_ms(config: SwimConfig) -> int:
    """After what time a helper says "no answer": share * min(timeout, interval - timeout).

    A share of the timeout (Lifeguard, section IV.A), but soon enough to arrive before the interval
    of who asked ends, and it takes itself for unwell. Example: LAN 400, WAN 1,600.
    """
    left_ms = config.probe_interval_ms - config.probe_timeout_ms
    return round(config.nack_share * min(config.probe_timeout_ms, left_ms))


def transmit_limit(config: SwimConfig, members: int) -> int:
    """How often one node sends one piece of news: mult * ceil(log10(N + 1)).

    Example: 4 up to 9 members, 8 up to 99, 16 at 1,000.
    """
    return config.retransmit_mult * ceil(log10(members + 1))


def push_pull_interval_ms(config: SwimConfig, members: int) -> int:
    """The interval of state exchanges, stretched so that their load per node stays bounded.

    (ceil(log2 N - log2 threshold) + 1) * interval above the threshold (memberlist
    `pushPullScale`). Example: 30,000 up to 32 members, 60,000 up to 64, 180,000 at 1,000.
    """
    if members <= config.push_pull_threshold:
        return config.push_pull_interval_ms
    stretch = ceil(log2(members) - log2(config.push_pull_threshold)) + 1
    return stretch * config.push_pull_interval_ms
