"""The tree of errors is the one drawn in its docstring."""

from __future__ import annotations

import inspect
import re

import pytest

from envd.core import errors
from envd.core.errors import EnvdError, OutcomeUnknown, Unavailable

CLASSES = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, EnvdError)
]


def test_the_tree_is_as_drawn() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([\u2502\u251c\u2514\u2500 ]*)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            if depth:
                drawn[match[2]] = path[depth - 1]

    assert drawn == {
        kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES if kind is not EnvdError
    }


@pytest.mark.parametrize("kind", CLASSES)
def test_each_error_carries_a_constant_reason_unless_it_is_given_one(kind: type[EnvdError]) -> None:
    assert re.fullmatch(r"[A-Z_]+", kind("text").reason)
    assert kind("text", reason="OWN", hint="do this").reason == "OWN"
    assert kind("text", hint="do this").hint == "do this"
    assert str(kind("text")) == kind("text").message == "text"


def test_no_two_errors_share_a_default_reason() -> None:
    reasons = [kind.default_reason for kind in CLASSES]

    assert len(set(reasons)) == len(reasons)


def test_only_an_unknown_outcome_may_have_changed_something() -> None:
    assert [kind for kind in CLASSES if kind.changed != "nothing"] == [OutcomeUnknown]


def test_unavailable_says_how_long_to_wait() -> None:
    assert Unavailable("full", retry_after_ms=250).retry_after_ms == 250
    assert Unavailable("full").retry_after_ms == 0
