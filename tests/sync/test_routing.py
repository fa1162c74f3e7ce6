"""Which target a binding uses: by table, and no flapping whatever is measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.sync.routing import PROBE_S, Choice, Facts, Route, Wellness, choose

NOW_S = 1_000.0


def up(target: str, **more: object) -> Facts:
    """A target that has been well for long."""
    known: dict[str, object] = {"usable": True, "well_since_s": 0.0, **more}
    return Facts(target, **known)  # type: ignore[arg-type]


def down(target: str, **more: object) -> Facts:
    """A target whose circuit is open."""
    return up(target, usable=False, well_since_s=None, **more)


@pytest.mark.parametrize(
    ("route", "facts", "current", "expected"),
    [
        ("failover", [up("a"), up("b")], "", "a"),
        ("failover", [down("a"), up("b"), up("c")], "a", "b"),
        ("failover", [down("a"), up("b"), up("c")], "c", "b"),
        ("failover", [up("a"), up("b")], "b", "a"),
        ("failover", [up("a", well_since_s=NOW_S - 119), up("b")], "b", "b"),
        ("failover", [up("a", well_since_s=NOW_S - 120), up("b")], "b", "a"),
        ("failover", [up("a", well_since_s=None), up("b")], "b", "b"),
        ("failover", [up("a", well_since_s=NOW_S), up("b"), up("c")], "c", "b"),
        ("failover", [down("a"), down("b")], "b", ""),
        ("failover", [up("a"), up("b")], "no longer listed", "a"),
        ("priority", [up("a", priority=20), up("b", priority=10)], "", "b"),
        ("priority", [up("a", priority=20), up("b", priority=10)], "a", "b"),
        ("priority", [up("a"), up("b")], "b", "b"),
        ("priority", [up("a", priority=5), down("b", priority=1), up("c", priority=3)], "b", "c"),
        ("region", [up("a", region="us"), up("b", region="eu"), up("c", region="eu")], "", "b"),
        ("region", [up("a", region="us"), down("b", region="eu")], "b", "a"),
        ("region", [up("a", region="us"), up("b", region="eu")], "a", "b"),
        ("region", [up("a", region=""), up("b", region="us")], "", "a"),
        ("latency", [up("a", round_trip_ms=80), up("b", round_trip_ms=20)], "", "b"),
        ("latency", [up("a", round_trip_ms=100), up("b", round_trip_ms=90)], "a", "a"),
        ("latency", [up("a", round_trip_ms=100), up("b", round_trip_ms=83)], "a", "b"),
        ("latency", [up("a", round_trip_ms=6), up("b", round_trip_ms=2)], "a", "a"),
        ("latency", [up("a"), up("b", round_trip_ms=900)], "", "b"),
        ("latency", [up("a"), up("b")], "", "a"),
        ("latency", [up("a"), up("b")], "b", "b"),
        ("latency", [up("a", round_trip_ms=900), up("b")], "b", "a"),
        (
            "latency",
            [up("a", round_trip_ms=99), up("b", round_trip_ms=9, well_since_s=NOW_S)],
            "a",
            "a",
        ),
        ("cost", [up("a", dollars_month=40.0), up("b", dollars_month=0.4)], "", "b"),
        ("cost", [up("a", dollars_month=40.0), up("b", dollars_month=0.4)], "a", "b"),
        ("cost", [up("a", dollars_month=40.0), up("b", dollars_month=35.0)], "a", "a"),
        ("cost", [up("a", dollars_month=0.08), up("b", dollars_month=0.0)], "a", "a"),
        ("cost", [up("a", dollars_month=40.0), down("b", dollars_month=0.4)], "b", "a"),
    ],
)
def test_which_target_is_used(route: str, facts: list[Facts], current: str, expected: str) -> None:
    choice = choose(Route(route), facts, current, NOW_S, region="eu")

    assert choice.target == expected
    assert choice.reason


def test_a_node_without_a_region_takes_the_targets_as_listed() -> None:
    facts = [up("a", region="us"), up("b", region="")]

    assert choose(Route.REGION, facts, "", NOW_S).target == "a"


def test_the_reason_says_what_was_left_and_why_the_other_is_used() -> None:
    choice = choose(Route.COST, [down("a"), up("b", dollars_month=0.4)], "a", NOW_S)

    assert choice == Choice(
        "b", "a can't be used now; the cheapest that can be used: $0.40 a month"
    )


_FACTS = st.lists(
    st.builds(
        Facts,
        target=st.sampled_from("abcde"),
        usable=st.booleans(),
        well_since_s=st.none() | st.floats(0, NOW_S),
        round_trip_ms=st.none() | st.floats(0, 500),
        dollars_month=st.none() | st.floats(0, 500),
        region=st.sampled_from(["", "eu", "us"]),
        priority=st.integers(1, 3),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda facts: facts.target,
)


@given(route=st.sampled_from(Route), facts=_FACTS, current=st.sampled_from(["", *"abcde"]))
def test_a_choice_can_be_used_and_holds_while_nothing_changes(
    route: Route, facts: list[Facts], current: str
) -> None:
    usable = {each.target for each in facts if each.usable}

    first = choose(route, facts, current, NOW_S, region="eu").target
    second = choose(route, facts, first, NOW_S, region="eu").target

    assert first in (usable or {""})
    # Going to one that is better still is no flapping; coming back would be.
    third = choose(route, facts, second, NOW_S, region="eu").target
    assert third == second


@given(st.lists(st.floats(90, 110), min_size=2, max_size=100))
def test_two_targets_about_as_fast_never_take_turns(round_trips_ms: list[float]) -> None:
    current, used = "a", {"a"}
    for number, round_trip_ms in enumerate(round_trips_ms):
        facts = [up("a", round_trip_ms=100.0), up("b", round_trip_ms=round_trip_ms)]
        current = choose(Route.LATENCY, facts, current, NOW_S + number).target
        used.add(current)

    assert used == {"a"}


def test_a_round_trip_is_smoothed() -> None:
    wellness = Wellness()
    wellness.answered(10, 80)
    wellness.answered(20, 160)

    assert wellness.round_trip_ms == 90


def test_a_failure_ends_being_well_and_the_next_answer_begins_it_anew() -> None:
    wellness = Wellness()
    well_since_s = [wellness.well_since_s]
    for now_s, ok in ((10, True), (20, True), (30, False), (35, False), (40, True)):
        if ok:
            wellness.answered(now_s, 80)
        else:
            wellness.failed(now_s)
        well_since_s.append(wellness.well_since_s)

    assert well_since_s == [None, 10, 10, None, None, 40]


def test_a_target_that_nobody_heard_of_for_a_while_wants_a_probe() -> None:
    wellness = Wellness()

    assert wellness.wants_probe(0)
    wellness.failed(0)
    assert not wellness.wants_probe(PROBE_S - 1)
    assert wellness.wants_probe(PROBE_S)
