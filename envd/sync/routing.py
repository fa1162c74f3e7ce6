"""Where to: which of its targets a binding uses now.

    failover    the first as listed
    priority    the one with the lowest number; equals don't take turns
    region      the first in the node's own region, else the first of all
    latency     the one that answers fastest, by a smoothed round trip
    cost        the one whose month is cheapest

Changing targets is dear: the other one has to be read and filled. So whatever the route, a binding
stays where it is while that can be used, until a better one has been well for `settle_s` without a
break; and by latency and by cost a better one must be better by a margin. That is hysteresis, and
it keeps two that are about equal from taking turns. Only a target that can't be used is left at
once.

Pure: `choose` is a function of its arguments. `Wellness` smooths what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

SETTLE_S: Final = 120.0
MARGIN: Final = 0.2
"""By so large a share a faster or cheaper target must be better."""
LATENCY_FLOOR_MS: Final = 5.0
COST_FLOOR_DOLLARS: Final = 0.1
"""... and at least by so much: a fifth of next to nothing is noise."""
PROBE_S: Final = 60.0
"""So often a target that is not in use is probed: nobody else would see that it is well again."""

_GAIN: Final = 1 / 8
"""What a new round trip weighs in the smoothed one, as in TCP (RFC 6298, section 2)."""


class Route(Enum):
    """How a target is chosen; see the module."""

    FAILOVER = "failover"
    LATENCY = "latency"
    COST = "cost"
    PRIORITY = "priority"
    REGION = "region"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one target.

    `usable` tells whether its circuit lets a call through. `well_since_s` is since when it has
    answered without a break (seconds of a steady clock), None while it does not. `round_trip_ms`
    and `dollars_month` are None where nobody has measured; such targets come last. The lowest
    `priority` goes first.
    """

    target: str
    usable: bool
    well_since_s: float | None = None
    round_trip_ms: float | None = None
    dollars_month: float | None = None
    region: str = ""
    priority: int = 100


@dataclass(frozen=True, slots=True)
class Choice:
    """The target to use and why, in words for people; "" where none can be used."""

    target: str
    reason: str


def choose(
    route: Route,
    facts: Sequence[Facts],
    current: str,
    now_s: float,
    *,
    region: str = "",
    settle_s: float = SETTLE_S,
) -> Choice:
    """Choose among targets, given as listed; `current` is the one in use, "" for none yet.

    `region` is the node's own. Example: A is listed before B and was away, so B is in use. A
    answers again: for two minutes it stays with B, and then goes back to A.
    """
    ranked = sorted(facts, key=lambda each: _rank(route, each, region))
    usable = [each for each in ranked if each.usable]
    if not usable:
        return Choice("", "no target can be used now")
    in_use = next((each for each in usable if each.target == current), None)
    if in_use is None:
        gone = f"{current} can't be used now; " if current else ""
        return Choice(usable[0].target, gone + _why(route, usable[0], region))
    for other in usable:
        if other is in_use:
            break
        settled = other.well_since_s is not None and now_s - other.well_since_s >= settle_s
        if settled and _is_better(route, other, in_use, region):
            return Choice(other.target, f"well again for long enough: {_why(route, other, region)}")
    if in_use is usable[0]:
        return Choice(in_use.target, _why(route, in_use, region))
    return Choice(in_use.target, "in use, and no other is better by enough, for long enough")


def _rank(route: Route, facts: Facts, region: str) -> float:
    """Lower is better; equals stay in the order in which they are listed."""
    match route:
        case Route.FAILOVER:
            return 0.0
        case Route.PRIORITY:
            return float(facts.priority)
        case Route.REGION:
            return 0.0 if region and facts.region == region else 1.0
        case Route.LATENCY:
            return float("inf") if facts.round_trip_ms is None else facts.round_trip_ms
        case Route.COST:
            return float("inf") if facts.dollars_month is None else facts.dollars_month
        case _:
            assert_never(route)


def _is_better(route: Route, other: Facts, in_use: Facts, region: str) -> bool:
    """Whether it is worth leaving one for another that is ranked before it."""
    better, worse = _rank(route, other, region), _rank(route, in_use, region)
    match route:
        case Route.FAILOVER | Route.REGION:
            return True
        case Route.PRIORITY:
            return better < worse
        case Route.LATENCY:
            return better < worse and better + max(LATENCY_FLOOR_MS, MARGIN * better) <= worse
        case Route.COST:
            return better < worse and better + max(COST_FLOOR_DOLLARS, MARGIN * better) <= worse
        case _:
            assert_never(route)


def _why(route: Route, facts: Facts, region: str) -> str:
    match route:
        case Route.FAILOVER:
            return "the first as listed that can be used"
        case Route.PRIORITY:
            return f"the best priority of those that can be used: {facts.priority}"
        case Route.REGION if region and facts.region == region:
            return f"in the node's own region, {region}"
        case Route.REGION:
            return "the first that can be used; none is in the node's own region"
        case Route.LATENCY if facts.round_trip_ms is not None:
            return f"the fastest that can be used: {facts.round_trip_ms:.0f} ms"
        case Route.COST if facts.dollars_month is not None:
            return f"the cheapest that can be used: ${facts.dollars_month:.2f} a month"
        case Route.LATENCY | Route.COST:
            return "the first as listed that can be used; none has been measured"
        case _:
            assert_never(route)


class Wellness:
    """How one target answers: since when, how fast, and whether it is time for a probe."""

    __slots__ = ("_heard_s", "_round_trip_ms", "_well_since_s")

    def __init__(self) -> None:
        self._heard_s = float("-inf")
        self._round_trip_ms: float | None = None
        self._well_since_s: float | None = None

    @property
    def round_trip_ms(self) -> float | None:
        """The smoothed round trip, None before the first."""
        return self._round_trip_ms

    @property
    def well_since_s(self) -> float | None:
        """Since when it has answered without a break, None while it does not."""
        return self._well_since_s

    def answered(self, now_s: float, round_trip_ms: float) -> None:
        """It answered, whatever it said, and took so long.

        The smoothed round trip is 7/8 of what it was and 1/8 of this one.
        """
        self._heard_s = now_s
        if self._well_since_s is None:
            self._well_since_s = now_s
        if self._round_trip_ms is None:
            self._round_trip_ms = round_trip_ms
        else:
            self._round_trip_ms += _GAIN * (round_trip_ms - self._round_trip_ms)

    def failed(self, now_s: float) -> None:
        """It did not answer, or said that it can't be used now (`circuit.is_failure`)."""
        self._heard_s = now_s
        self._well_since_s = None

    def wants_probe(self, now_s: float) -> bool:
        """Whether nothing was heard of it for so long that it is to be probed."""
        return now_s - self._heard_s >= PROBE_S
