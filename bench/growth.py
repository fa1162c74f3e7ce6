"""What processes hold while data comes in, looked at now and then, and what grows with the data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from bench.processes import written_mb
from bench.servers import Server


@dataclass(frozen=True, slots=True)
class Look:
    """One moment: `done` environments are in, `at_s` seconds after the begin; by node.

    `written_mb` is what their disk was given to write so far, None where it does not tell.
    """

    at_s: float
    done: int
    rss_mb: Sequence[float]
    anon_mb: Sequence[float]
    disk_mb: Sequence[float]
    cpu_s: Sequence[float]
    flush_lag_s: Sequence[float]
    written_mb: float | None = None


async def look(nodes: Sequence[Server], at_s: float, done: int) -> Look:
    """Look at these now."""
    memory = [node.memory_mb() for node in nodes]
    lags = [await node.client.flush_lag_s() for node in nodes]
    return Look(
        at_s,
        done,
        [resident for resident, _ in memory],
        [anonymous for _, anonymous in memory],
        [node.disk_mb() for node in nodes],
        [node.cpu_s() for node in nodes],
        [0.0 if lag is None else lag for lag in lags],
        written_mb(nodes[0].home),
    )


def as_series(looks: Sequence[Look]) -> list[dict[str, object]]:
    """All looks for a report."""
    return [asdict(one) for one in looks]


def slowing(looks: Sequence[Look]) -> tuple[float, float]:
    """How many times more the last fifth of the data took than the second one: (time, processors).

    The first fifth has the starts in it. 1: a piece takes what it took; where this grows with the
    data, so does the work for each piece. What other programs take of the machine is in the time.
    """
    at_s = [(one.done, one.at_s) for one in looks]
    cpu_s = [(one.done, sum(one.cpu_s)) for one in looks]
    return _last_over_second(at_s), _last_over_second(cpu_s)


def _last_over_second(spent: Sequence[tuple[float, float]]) -> float:
    """`spent` has (done, seconds so far), both growing."""
    total = spent[-1][0]
    before = _spent(spent, 0.4 * total) - _spent(spent, 0.2 * total)
    return (spent[-1][1] - _spent(spent, 0.8 * total)) / before if before else 1.0


def _spent(spent: Sequence[tuple[float, float]], done: float) -> float:
    """The seconds until so much was done, on a straight line between two looks."""
    for (done_a, a), (done_b, b) in pairwise(spent):
        if done_b >= done > done_a:
            return a + (done - done_a) / (done_b - done_a) * (b - a)
    return spent[0][1]


def per_million(looks: Sequence[Look], held_mb: Sequence[Sequence[float]]) -> list[float]:
    """By node: how many MB more each million environments made, over the second half of the data.

    That is the slope of the straight line with the least squares. The caches fill in the first
    half: what still grows then grows with the data.
    """
    late = [at for at, one in enumerate(looks) if one.done >= looks[-1].done / 2]
    millions = [looks[at].done / 1e6 for at in late]
    if len(set(millions)) < 2:
        return [0.0 for _ in held_mb[0]]
    return [
        statistics.linear_regression(millions, [held_mb[at][node] for at in late]).slope
        for node in range(len(held_mb[0]))
    ]
