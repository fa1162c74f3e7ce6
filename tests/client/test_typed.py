"""Texts as values of other types, and the errors that never quote them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.client import typed
from envd.client.reading import Reading, VariableInvalid, VariableMasked, VariableMissing
from envd.core.answers import EnvironmentView, VariableView
from envd.core.errors import Denied, EnvdError, InvalidRequest, NotFound

CANARY = "canary-41f7"


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (typed.to_int, "42", 42),
        (typed.to_int, " -7 ", -7),
        (typed.to_int, "+0012", 12),
        (typed.to_float, "2.5e3", 2500.0),
        (typed.to_bool, "TRUE", True),
        (typed.to_bool, "off", False),
        (typed.to_json, '{"a": [1, null]}', {"a": [1, None]}),
        (typed.to_list, " a, b ,,c", ["a", "b", "c"]),
        (typed.to_list, "", []),
        (typed.to_bytes, "aGk=", b"hi"),
        (typed.to_bytes, "_-8", b"\xff\xef"),
        (typed.to_duration, "500ms", timedelta(milliseconds=500)),
        (typed.to_duration, "1h30m", timedelta(minutes=90)),
        (typed.to_duration, "1.5 d", timedelta(hours=36)),
        (typed.to_duration, "90", timedelta(seconds=90)),
        (typed.to_size, "512", 512),
        (typed.to_size, "10MiB", 10 << 20),
        (typed.to_size, "1.5 kb", 1500),
    ],
)
def test_a_text_is_read(read: Callable[[str], object], text: str, expected: object) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (typed.to_int, "4.2"),
        (typed.to_int, "1_000"),
        (typed.to_int, "٣"),
        (typed.to_float, "nan"),
        (typed.to_float, "inf"),
        (typed.to_bool, ""),
        (typed.to_bool, "maybe"),
        (typed.to_json, "{"),
        (typed.to_json, "[" * 100_000),
        (typed.to_bytes, "!"),
        (typed.to_duration, "5 parsecs"),
        (typed.to_duration, "-5s"),
        (typed.to_duration, ""),
        (typed.to_duration, "9" * 300),
        (typed.to_duration, "9" * 400 + "d"),
        (typed.to_size, "10 zb"),
        (typed.to_size, "-1"),
    ],
)
def test_a_text_that_is_no_such_value_is_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"number|true|JSON|bytes|duration|size"):
        read(text)


@given(st.binary())
def test_bytes_come_back_from_each_encoding(raw: bytes) -> None:
    import base64

    assert typed.to_bytes(base64.b64encode(raw).decode()) == raw
    assert typed.to_bytes(base64.urlsafe_b64encode(raw).decode().rstrip("=")) == raw
    assert typed.to_bytes(raw.hex(), "hex") == raw


def refusal(read: Callable[[str], object], text: str) -> str:
    try:
        read(text)
    except ValueError as error:
        return str(error)
    return ""


READERS = (typed.to_int, typed.to_float, typed.to_bool, typed.to_duration, typed.to_size)


@given(st.text())
def test_no_text_makes_them_fail_otherwise(text: str) -> None:
    for read in READERS:
        assert refusal(read, text) in {"", refusal(read, "canary"), "a finite number"}


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 400 + ".5", "9" * 400, "1e999", "nan", "1_0"])
def test_a_number_without_measure_is_refused_as_any_other(text: str) -> None:
    for read in (typed.to_duration, typed.to_size, typed.to_float):
        assert refusal(read, text) in {refusal(read, "canary"), "a finite number"}


def test_what_the_program_says_wrong_is_not_laid_at_the_door_of_the_value() -> None:
    env = reading(A="aGk=")

    with pytest.raises(InvalidRequest, match="'base32' is no encoding") as encoding:
        env.bytes("A", encoding="base32")  # type: ignore[call-overload]
    with pytest.raises(InvalidRequest, match="separates nothing") as separator:
        env.list("A", separator="")

    assert not isinstance(encoding.value, VariableInvalid)
    assert not isinstance(separator.value, VariableInvalid)


def test_no_frame_of_a_refusal_holds_the_value() -> None:
    env = reading(A="canary-41f7")

    with pytest.raises(VariableInvalid) as caught:
        env.int("A")

    frames = [entry.frame.f_locals for entry in caught.traceback]
    assert not any("canary-41f7" in repr(value) for frame in frames for value in frame.values())
    assert caught.value.__context__ is None


def test_a_walk_over_items_is_of_one_state() -> None:
    env = reading(A="1", B="2")
    items, names, values = iter(env.items()), iter(env.keys()), iter(env.values())
    first = next(items), next(names), next(values)

    env._show(None)

    assert [first[0], *items] == [("A", "1"), ("B", "2")]
    assert [first[1], *names] == ["A", "B"]
    assert [first[2], *values] == ["1", "2"]


def reading(**values: str | None) -> Reading:
    made = Reading("web/prod")
    variables = {
        name: VariableView(value, value is None, value is None, "00" * 20, "eu", "n", "web/base")
        for name, value in values.items()
    }
    made._show(EnvironmentView("web/prod", "ab", "00", {"owner": "me"}, variables))
    return made


def test_a_reading_is_a_mapping() -> None:
    env = reading(A="1", B="x")

    assert dict(env) == {"A": "1", "B": "x"} == env.copy()
    assert (len(env), "A" in env, "C" in env) == (2, True, False)
    assert (env.get("A"), env.get("C"), env.get("C", "d")) == ("1", None, "d")
    assert env == {"A": "1", "B": "x"}
    assert env.source("A") == "web/base"
    assert not env.is_secret("A")
    assert env.settings == {"owner": "me"}


def test_values_are_read_as_what_is_asked_for() -> None:
    env = reading(N="5", F="2.5", T="yes", J="[1]", L="a b", K="6869", D="1m", S="1KiB")

    assert env.int("N") + env.float("F") == 7.5
    assert env.bool("T") is True
    assert env.json("J") == [1]
    assert env.list("L", separator=" ") == ["a", "b"]
    assert env.bytes("K", encoding="hex") == b"hi"
    assert env.duration("D") == timedelta(minutes=1)
    assert env.size("S") == 1024
    env.require("N", "F")


def test_a_default_stands_for_an_absent_variable_only() -> None:
    env = reading(BAD=CANARY, MASKED=None)

    assert env.int("ABSENT", default=5) == 5
    assert env.duration("ABSENT", default=None) is None
    with pytest.raises(VariableInvalid):
        env.int("BAD", default=5)
    with pytest.raises(VariableMasked):
        env.int("MASKED", default=5)


@pytest.mark.parametrize(
    ("act", "kinds", "said"),
    [
        (lambda env: env["ABSENT"], (VariableMissing, NotFound, KeyError), "no variable ABSENT"),
        (lambda env: env["MASKED"], (VariableMasked, Denied, KeyError), "MASKED of web/prod"),
        (lambda env: env.source("ABSENT"), (VariableMissing,), "ABSENT"),
        (lambda env: env.is_secret("ABSENT"), (VariableMissing,), "ABSENT"),
        (lambda env: env.int("BAD"), (VariableInvalid, InvalidRequest, ValueError), "whole number"),
        (lambda env: env.json("BAD"), (VariableInvalid,), "BAD of web/prod is not JSON"),
        (lambda env: env.require("BAD", "X", "Y"), (VariableMissing,), "X, Y"),
        (lambda env: env.require("MASKED"), (VariableMasked,), "MASKED"),
    ],
)
def test_errors_name_the_variable_and_never_the_value(
    act: Callable[[Reading], object], kinds: tuple[type[Exception], ...], said: str
) -> None:
    env = reading(BAD=CANARY, MASKED=None)

    with pytest.raises(EnvdError) as caught:
        act(env)

    assert all(isinstance(caught.value, kind) for kind in kinds)
    assert said in str(caught.value)
    assert CANARY not in repr(caught.value) + str(caught.value) + caught.value.hint
    assert CANARY not in str(caught.value.__cause__)


def test_a_masked_variable_is_absent_and_listed() -> None:
    env = reading(A="1", MASKED=None)

    assert list(env) == ["A"]
    assert "MASKED" not in env
    assert env.masked == {"MASKED"}


def test_its_repr_shows_no_value() -> None:
    assert repr(reading(A=CANARY)) == "<Reading web/prod: 1 variables>"
