"""What processes hold while data comes in, looked at now and then, and what grows with the data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.servers import Server


@dataclass(frozen=True, slots=True)
class Look:
    """One moment: `done` environments are in, `at_s` seconds after the begin; by node."""

    at_s: float
    done: int
    rss_mb: Sequence[float]
    anon_mb: Sequence[float]
    disk_mb: Sequence[float]
    cpu_s: Sequence[float]
    flush_lag_s: Sequence[float]


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
    )


def as_series(looks: Sequence[Look]) -> list[dict[str, object]]:
    """All looks for a report."""
    return [asdict(one) for one in looks]


def slowing(looks: Sequence[Look]) -> float:
    """How many times longer the last fifth of the data took than the second one.

    The first fifth has the starts in it. 1: the rate is what it was; it falls with the data where
    this grows with it.
    """
    total = looks[-1].done
    return _took_s(looks, 0.8 * total, total) / _took_s(looks, 0.2 * total, 0.4 * total)


def _took_s(looks: Sequence[Look], first: float, last: float) -> float:
    return _when_s(looks, last) - _when_s(looks, first)


def _when_s(looks: Sequence[Look], done: float) -> float:
    """When so many were in, on a straight line between two looks."""
    before = looks[0]
    for one in looks[1:]:
        if one.done >= done:
            share = (done - before.done) / ((one.done - before.done) or 1)
            return before.at_s + share * (one.at_s - before.at_s)
        before = one
    return before.at_s


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
