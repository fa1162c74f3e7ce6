from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import Conflict, LimitExceeded
from envd.core.layers import MAX_DEPTH, bases_of, layers

Graph = dict[str, tuple[str, ...]]


def layers_of(name: str, graph: Graph) -> list[str]:
    return layers(name, lambda each: graph.get(each, ()))


@pytest.mark.parametrize(
    ("setting", "bases"),
    [("", ()), ("a", ("a",)), ("a, b/c", ("a", "b/c")), (" a ,, b ", ("a", "b"))],
)
def test_the_setting_lists_bases_from_the_lowest(setting: str, bases: tuple[str, ...]) -> None:
    assert bases_of(setting) == bases


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({}, ["prod"]),
        ({"prod": ("base",)}, ["base", "prod"]),
        ({"prod": ("base", "team")}, ["base", "team", "prod"]),
        ({"prod": ("base", "team"), "team": ("base",)}, ["base", "team", "prod"]),
        ({"prod": ("team", "base"), "team": ("base",)}, ["team", "base", "prod"]),
        ({"prod": ("a", "b"), "a": ("x",), "b": ("x",)}, ["a", "x", "b", "prod"]),
        ({"prod": ("base", "base")}, ["base", "prod"]),
    ],
)
def test_later_bases_beat_earlier_ones_and_the_environment_beats_all(
    graph: Graph, expected: list[str]
) -> None:
    assert layers_of("prod", graph) == expected


@pytest.mark.parametrize(
    "graph",
    [{"prod": ("prod",)}, {"prod": ("a",), "a": ("prod",)}, {"prod": ("a",), "a": ("b", "a")}],
)
def test_a_circle_is_refused_with_its_names(graph: Graph) -> None:
    with pytest.raises(Conflict, match=" extends ") as caught:
        layers_of("prod", graph)

    assert caught.value.reason == "EXTENDS_CIRCLE"


def test_eight_layers_below_are_taken_and_nine_refused() -> None:
    chain: Graph = {f"e{n}": (f"e{n + 1}",) for n in range(MAX_DEPTH)}

    assert len(layers_of("e0", chain)) == MAX_DEPTH + 1
    with pytest.raises(LimitExceeded):
        layers_of("e0", {**chain, f"e{MAX_DEPTH}": ("deeper",)})


def test_many_ways_to_one_base_take_no_more_time_than_ways_are_needed() -> None:
    calls = 0
    wide: Graph = {f"e{n}": tuple(f"e{n + 1}" for _ in range(8)) for n in range(MAX_DEPTH)}

    def bases(name: str) -> tuple[str, ...]:
        nonlocal calls
        calls += 1
        return wide.get(name, ())

    assert len(layers("e0", bases)) == MAX_DEPTH + 1
    assert calls <= 8 * (MAX_DEPTH + 1)


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from("bcdefg"), max_size=3)))
def test_whatever_the_graph_it_ends_with_each_layer_once_or_is_refused(
    graph: dict[str, list[str]],
) -> None:
    try:
        found = layers("a", lambda name: graph.get(name, []))
    except (Conflict, LimitExceeded):
        return

    assert found[-1] == "a"
    assert len(found) == len(set(found))
    for name in found:
        assert all(base in found for base in graph.get(name, []))
