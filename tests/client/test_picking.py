"""Who is picked, by tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from envd.client.picking import (
    LeastConnections,
    Picker,
    RoundRobin,
    Server,
    ZoneWeighted,
    picker_for,
)
from envd.core.errors import InvalidRequest

A, B, C = Server("a:1", "east"), Server("b:1", "west"), Server("c:1", "west")


def picks(picker: Picker, count: int, calls: Mapping[str, int] | None = None) -> str:
    under_way = calls or {}
    turns = [picker.pick([A, B, C], lambda at: under_way.get(at, 0)) for _ in range(count)]
    return "".join(server.address[0] for server in turns)


def test_round_robin_takes_each_in_turn_from_where_it_starts() -> None:
    assert picks(RoundRobin(), 5) == "abcab"
    assert picks(RoundRobin(2), 5) == "cabca"


def test_round_robin_goes_on_where_servers_come_and_go() -> None:
    picker = RoundRobin()
    picked = [picker.pick(able, lambda _: 0) for able in ([A, B, C], [A], [B, C], [A, B, C])]

    assert picked == [A, A, B, A]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ({"a:1": 2, "b:1": 1, "c:1": 3}, "bbb"),
        ({"a:1": 1, "b:1": 0, "c:1": 0}, "bcb"),
        ({}, "abc"),
    ],
)
def test_least_connections_takes_the_idlest(calls: Mapping[str, int], expected: str) -> None:
    assert picks(LeastConnections(), 3, calls) == expected


def test_the_own_zone_is_preferred_by_its_weight() -> None:
    assert picks(ZoneWeighted("east", local_weight=2), 8) == "abcaabca"
    assert Counter(picks(ZoneWeighted("west"), 41 * 3)) == {"a": 3, "b": 60, "c": 60}


def test_where_the_own_zone_is_away_the_others_share() -> None:
    picker = ZoneWeighted("east")

    picked = [picker.pick([B, C], lambda _: 0) for _ in range(4)]

    assert picked == [B, C, B, C]


def test_each_way_to_balance_has_its_picker() -> None:
    assert isinstance(picker_for("round_robin", "", 0), RoundRobin)
    assert isinstance(picker_for("least_connections", "", 0), LeastConnections)
    assert isinstance(picker_for("zone", "east", 0), ZoneWeighted)
    with pytest.raises(InvalidRequest):
        picker_for("best", "", 0)  # type: ignore[arg-type]
