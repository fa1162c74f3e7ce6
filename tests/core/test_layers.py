from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core.errors import Conflict, LimitExceeded
from envd.core.layers import MAX_DEPTH, LayerGraph, bases_of, layers, under

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


relations = st.lists(st.tuples(st.sampled_from("abcd"), st.lists(st.sampled_from("bcdef"))))


@given(relations, st.booleans())
def test_a_graph_tells_the_same_upwards_as_downwards(
    puts: list[tuple[str, list[str]]], asked_between: bool
) -> None:
    graph, wanted = LayerGraph(), {}
    for name, bases in puts:
        graph.put(name, bases)
        wanted[name] = bases
        if asked_between:
            [graph.above(each) for each in "abcdef"]

    for name in "abcdef":
        assert (name in graph) == bool(wanted.get(name))
        assert graph.is_base(name) == any(name in bases for bases in wanted.values())
        assert list(graph.above(name)) == sorted(graph.above(name))
        for base in "abcdef":
            assert (base in graph.below(name)) == (name in graph.above(base))
            if base != name:
                assert (base in graph.below(name)) == _extends(wanted, name, base)


def _extends(graph: dict[str, list[str]], name: str, base: str) -> bool:
    """Tell by brute force whether there is a way down from `name` to `base`."""
    reached = {name}
    for _ in graph:
        reached |= {below for each in reached for below in graph.get(each, [])}
    return base in reached


def test_a_graph_that_was_cleared_is_as_new() -> None:
    graph = LayerGraph()
    graph.put("prod", ["base"])
    assert graph.above("base") == ("prod",)

    graph.clear()

    assert (len(graph), graph.above("base"), graph.is_base("base")) == (0, (), False)


def test_many_large_answers_are_not_all_remembered() -> None:
    graph = LayerGraph()
    for number in range(1000):
        graph.put(f"e{number:04}", [f"base{base}" for base in range(200)])

    answers = [graph.above(f"base{base}") for base in range(200)]

    assert {len(answer) for answer in answers} == {1000}
    assert graph.remembered <= 100_000


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("", ["a", "a-b", "a/c", "a/c/d", "a0", "b"]),
        ("a", ["a", "a/c", "a/c/d"]),
        ("a/c", ["a/c", "a/c/d"]),
        ("a/c/d", ["a/c/d"]),
        ("c", []),
    ],
)
def test_sorted_names_below_a_prefix(prefix: str, found: list[str]) -> None:
    assert list(under(["a", "a-b", "a/c", "a/c/d", "a0", "b"], prefix)) == found
