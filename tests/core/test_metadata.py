"""The settings of an environment: what each takes, and that refusals never show the text."""

from __future__ import annotations

import traceback

import pytest

from envd.core.errors import InvalidRequest, Unsupported
from envd.core.metadata import CREATED, MAX_TEXT, check_setting, is_setting, unknown_setting

CANARY = "Canary-7f3a"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("description", ""),
        ("description", "caf\u00e9 " * (MAX_TEXT // 5)),
        pytest.param("owner", "x" * MAX_TEXT, id="owner-as-long-as-may-be"),
        ("labels", ""),
        ("labels", "tier=1,team=payments,empty="),
        ("mode", "lww"),
        ("extends", ""),
        ("extends", "team/base, team/app"),
        ("extends", ",".join(f"e{number}" for number in range(8))),
        ("regions", "eu-west,us-east"),
        ("protected", "false"),
        ("expires", "2030-12-31"),
        ("expires", "2030-12-31T00:00:00Z"),
        ("mode", "serial"),
    ],
)
def test_a_setting_takes_what_it_may_be(name: str, value: str) -> None:
    check_setting(name, value)

    assert is_setting(name)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        pytest.param("description", CANARY + "x" * MAX_TEXT, "INVALID_SETTING", id="long"),
        ("labels", CANARY, "INVALID_SETTING"),
        ("labels", f"={CANARY}", "INVALID_SETTING"),
        ("labels", f"a=1, ,b={CANARY}", "INVALID_SETTING"),
        ("mode", CANARY, "INVALID_SETTING"),
        ("mode", "LWW", "INVALID_SETTING"),
        ("mode", "", "INVALID_SETTING"),
        ("extends", ",".join(f"e{number}" for number in range(9)), "INVALID_SETTING"),
        ("extends", "Team", "INVALID_NAME"),
        ("extends", "sys/topology", "RESERVED_NAME"),
        ("protected", "True", "INVALID_SETTING"),
        ("protected", CANARY, "INVALID_SETTING"),
        ("expires", CANARY, "INVALID_SETTING"),
        ("expires", "2030-02-30", "INVALID_SETTING"),
        ("expires", "", "INVALID_SETTING"),
        (CREATED, "2030-12-31", "UNKNOWN_SETTING"),
        ("colour", CANARY, "UNKNOWN_SETTING"),
    ],
)
def test_a_setting_refuses_anything_else_without_showing_it(
    name: str, value: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_setting(name, value)

    refused = caught.value
    assert refused.reason == reason
    assert CANARY not in "".join(traceback.format_exception(refused)) + refused.hint


def test_protection_is_refused_as_not_there_yet() -> None:
    with pytest.raises(Unsupported, match="can't protect"):
        check_setting("protected", "true")


def test_a_misspelt_setting_is_told_with_the_nearest_one() -> None:
    assert unknown_setting("descripton").hint == "did you mean description?"
    assert "the settings are description, owner" in unknown_setting("zzz").hint
    assert unknown_setting("\x1b[31m").message.isprintable()


def test_the_time_of_creation_is_not_for_callers_to_set() -> None:
    assert not is_setting(CREATED)
