"""Membership at 5 to some thousand nodes, beside the formulae of memberlist and Lifeguard.

    python -m chaos.sim.membership --nodes 5,100,1000 --seed 1

Only the machines of `envd.core.swim` run, in the world of `chaos.sim.swarm`, so that a thousand
nodes take a minute or so. With `--regions 3` the nodes are in three, and the questions are those of
`chaos.sim.membership_regions`.

Four questions, each in a cluster of its own that begins with everybody known:

* informed: one node leaves; how long until 99 % know?
* detected: one node is killed; when does the first, when do 99 % declare it down?
* false positives: 5 % of datagrams lost and 20 % of the nodes slow; how often is a live node
  declared down, and how many of those were well?
* bytes: what one node sends per second, sealing and UDP/IP headers included, in peace and with
  that trouble. The same without Lifeguard is the control.

All follows from the seed.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Final

from chaos.sim import membership_regions
from chaos.sim.swarm import (
    EXACT_NODES,
    FIRST_UID,
    PEACE,
    QUORUM,
    SETTLE_MS,
    TROUBLE,
    UDP_IP_BYTES,
    Cluster,
    Weather,
    chance_of,
    quorum,
    uids,
    views,
)
from envd.core.members import MemberState
from envd.core.swim import config as formulae
from envd.core.swim.chance import choose
from envd.core.swim.config import LAN, SEAL_OVERHEAD_BYTES, SwimConfig
from envd.core.swim.events import Leave
from envd.wire.gossip import encode_exchange

PLAIN: Final = replace(LAN, max_health=0, confirmations=0)
"""SWIM without Lifeguard: suspicions last the least time, and no node doubts itself."""

# -- the questions -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happened in a time of trouble without any death.

    `deaths` are starts of nodes that somebody declared down though they lived; `well` those of
    nodes that are not slow; `wrong_views` counts the declarations, each observer once;
    `node_seconds` for how long how many nodes lived; `bytes` are per node and second.
    `detected_ms` is as that of `detected_ms`, of a node that was killed at the end.
    """

    deaths: int
    well: int
    wrong_views: int
    node_seconds: float
    bytes: float
    detected_ms: tuple[int, int]


def informed_ms(count: int, seed: int, weather: Weather = PEACE) -> int:
    """How long after a node leaves 99 % of the others know."""
    cluster = Cluster(count, seed, weather)
    cluster.run_until(SETTLE_MS)
    uid = choose(uids(count), chance_of(seed))
    cluster.tell(uid, Leave())
    times = views(cluster, uid, MemberState.LEFT, SETTLE_MS + 60_000, quorum(count))
    return times[-1] - SETTLE_MS


def detected_ms(count: int, seed: int, weather: Weather = PEACE) -> tuple[int, int]:
    """How long after a node is killed the first, and 99 %, of the others declare it down."""
    cluster = Cluster(count, seed, weather)
    cluster.run_until(SETTLE_MS)
    return _kill_one(cluster)


def _kill_one(cluster: Cluster) -> tuple[int, int]:
    """Kill a node that is not slow."""
    killed_ms = cluster.now_ms
    well = [uid for uid, node in cluster.nodes.items() if not node.slow]
    uid = choose(well, chance_of(cluster.seed))
    cluster.kill(uid)
    cluster.verdicts.clear()
    end_ms = killed_ms + 600_000
    times = views(cluster, uid, MemberState.DOWN, end_ms, quorum(cluster.count))
    return times[0] - killed_ms, times[-1] - killed_ms


def trouble(
    count: int, seed: int, weather: Weather, lasting_ms: int, config: SwimConfig = LAN
) -> Trouble:
    """Let nobody die, and see who is declared down; then kill one."""
    cluster = Cluster(count, seed, weather, config)
    cluster.run_until(SETTLE_MS)
    before = cluster.sent_bytes
    cluster.run_until(SETTLE_MS + lasting_ms)
    wrong = [one for one in cluster.verdicts if one.state is MemberState.DOWN]
    uids = {one.uid for one in wrong}
    node_seconds = count * lasting_ms / 1000
    spent = (cluster.sent_bytes - before) / node_seconds
    return Trouble(
        deaths=len(uids),
        well=sum(not cluster.nodes[uid].slow for uid in uids),
        wrong_views=len({(one.observer, one.uid) for one in wrong}),
        node_seconds=node_seconds,
        bytes=spent,
        detected_ms=_kill_one(cluster),
    )


# -- the formulae --------------------------------------------------------------------------


def expected_informed_ms(config: SwimConfig, count: int) -> float:
    """Rounds until a rumour is at 99 %: log_(f+1) N + ln(100) / f, of one gossip interval each.

    (Pittel 1987, "On Spreading a Rumor"; f nodes a round.) Example: LAN, 1,000: 1,303 ms.
    """
    fanout = config.gossip_nodes
    rounds = log(count) / log(fanout + 1) + log(1 / (1 - QUORUM)) / fanout
    return rounds * config.gossip_interval_ms


def expected_detection_ms(config: SwimConfig, count: int) -> tuple[float, float]:
    """The first probe of the dead, that probe's interval, and the least or the longest suspicion.

    The first is e / (e - 1) intervals away on average (SWIM, section 3.1). Example: LAN, 5:
    6.6 s to 26.6 s; the more independent suspicions, the nearer to the former.
    """
    probe_ms = config.probe_interval_ms * (1.582 + 1)
    least_ms = formulae.suspicion_min_ms(config, count)
    most_ms = least_ms
    if formulae.confirmations_wanted(config, count):
        most_ms *= config.suspicion_max_mult
    return probe_ms + least_ms, probe_ms + most_ms


def expected_bytes(config: SwimConfig, count: int, state_bytes: int) -> float:
    """In peace: a ping and an ack a probe interval, and two states an exchange interval."""
    ping_and_ack = 2 * (45 + SEAL_OVERHEAD_BYTES + UDP_IP_BYTES)
    exchange = 2 * state_bytes / formulae.push_pull_interval_ms(config, count)
    return 1000 * (ping_and_ack / config.probe_interval_ms + exchange)


# -- the report ----------------------------------------------------------------------------


def report(counts: Sequence[int], seed: int, lasting_ms: int) -> str:
    """A Markdown table, with one column for each size."""
    columns = [_column(count, seed, lasting_ms) for count in counts]
    names = list(columns[0])
    head = "| |" + "|".join(f" {count:,} nodes " for count in counts) + "|"
    rule = "|---|" + "---:|" * len(counts)
    rows = [
        f"| {name} |" + "|".join(f" {column[name]} " for column in columns) + "|" for name in names
    ]
    return "\n".join((head, rule, *rows))


def _column(count: int, seed: int, lasting_ms: int) -> dict[str, str]:
    runs = max(1, min(9, 500 // count))
    seeds = range(seed, seed + runs)
    if count > EXACT_NODES:
        lasting_ms //= 3
    informed = _median(informed_ms(count, one) for one in seeds)
    quiet = [detected_ms(count, one) for one in seeds]
    peace = trouble(count, seed, PEACE, lasting_ms)
    storms = [trouble(count, one, TROUBLE, lasting_ms) for one in seeds]
    plain = [trouble(count, one, TROUBLE, lasting_ms, PLAIN) for one in seeds if runs > 1]
    least_ms, most_ms = expected_detection_ms(LAN, count)
    state = len(encode_exchange(Cluster(count, seed, PEACE).nodes[FIRST_UID].swim.exchange(0)))
    node_hours = sum(storm.node_seconds for storm in storms) / 3600
    return {
        "99 % informed of a leave": _seconds(informed),
        "informed, by formula": _seconds(expected_informed_ms(LAN, count)),
        "killed node: first declares it down": _seconds(_median(one[0] for one in quiet)),
        "killed node: 99 % know": _seconds(_median(one[1] for one in quiet)),
        "detection, by formula": f"{_seconds(least_ms)} to {_seconds(most_ms)}",
        "in trouble: first declares it down": _seconds(
            _median(storm.detected_ms[0] for storm in storms)
        ),
        "in trouble: 99 % know": _seconds(_median(storm.detected_ms[1] for storm in storms)),
        "trouble, node hours": f"{node_hours:.2f}",
        "live nodes declared down, slow": str(sum(one.deaths - one.well for one in storms)),
        "live nodes declared down, well": str(sum(one.well for one in storms)),
        "… by SWIM without Lifeguard": str(sum(one.well for one in plain)) if plain else "",
        "bytes per node and second, peace": f"{peace.bytes:,.0f}",
        "bytes, by formula": f"{expected_bytes(LAN, count, state):,.0f}",
        "bytes per node and second, trouble": f"{storms[0].bytes:,.0f}",
    }


def _median(values: Iterable[int]) -> int:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _seconds(time_ms: float) -> str:
    return f"{time_ms / 1000:.2f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; see the module."""
    parser = argparse.ArgumentParser(prog="python -m chaos.sim.membership")
    parser.add_argument("--nodes", default="5,100,1000", help="sizes, with commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--seconds", type=int, default=60, help="of trouble; a third above 200 nodes"
    )
    parser.add_argument("--regions", type=int, default=1)
    parser.add_argument("--far-ms", type=int, default=80, help="one way to another region")
    chosen = parser.parse_args(arguments)
    counts = [int(count) for count in chosen.nodes.split(",")]
    if min(counts) < 2:
        parser.error("a cluster has two nodes at least")
    gc.disable()  # nothing here makes cycles, and a thousand tables are slow to look through
    lasting_ms = chosen.seconds * 1000
    if chosen.regions > 1:
        regions = (chosen.regions, chosen.far_ms)
        told = membership_regions.report(counts, *regions, chosen.seed, lasting_ms)
    else:
        told = report(counts, chosen.seed, lasting_ms)
    sys.stdout.write(told + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
