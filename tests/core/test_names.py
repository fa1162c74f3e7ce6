"""Names and sizes: what is legal, at the exact boundary, and that errors show no value."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.core import names
from envd.core.errors import InvalidRequest, LimitExceeded

CANARY = "canary-7f3a"
CHECKS = (names.check_environment, names.check_variable, names.check_metadata_name)
EVIL = ("\x1b[31m", "\r", "\n", "\t", "\0", "\x7f", "\x9b", "\u202e", "\u2028", "\ud800", "\u0430")


def test_the_limits_are_those_of_the_architecture() -> None:
    assert names.MAX_ENVIRONMENT_NAME_BYTES == 255
    assert names.MAX_SEGMENTS == 8
    assert names.MAX_VARIABLE_NAME_BYTES == 255
    assert names.MAX_VALUE_BYTES == 1024 * 1024


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "0",
        "team/app/prod",
        "team/app.v2/eu-west_1",
        "a..b",
        "a--b",
        "a_b/c",
        "sysadmin/x",
        "a/sys",
        "/".join("abcdefgh"),
        pytest.param("x" * 255, id="255-bytes"),
    ],
)
def test_a_legal_environment_name_comes_back(name: str) -> None:
    assert names.check_environment(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        ".a",
        "a.",
        "-a",
        "a-",
        "_a",
        "a_",
        "a/.b",
        "a/b-",
        "A",
        "team/App",
        "a b",
        " a",
        "a ",
        "a\n",
        "a\0",
        "a\\b",
        "a:b",
        "a*",
        "\u00e4",
        "\u0430",
        "\u0663",
        "\uff41",
        "a\u200bb",
        "\ud800",
    ],
)
def test_an_illegal_environment_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        names.check_environment(name)

    assert caught.value.reason == "INVALID_NAME"
    assert "team/app/prod" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        pytest.param("x" * 256, "256", id="256-bytes"),
        pytest.param("/".join("abcdefghi"), "9", id="9-segments"),
    ],
)
def test_an_environment_name_one_over_a_limit_is_refused(name: str, figure: str) -> None:
    with pytest.raises(LimitExceeded, match=figure):
        names.check_environment(name)


@pytest.mark.parametrize("name", ["sys", "sys/topology", "sys/a/b"])
def test_the_first_segment_sys_is_reserved(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        names.check_environment(name)

    assert caught.value.reason == "RESERVED_NAME"


@pytest.mark.parametrize(
    ("prefix", "trimmed"),
    [("", ""), ("/", ""), ("team", "team"), ("team/", "team"), ("team/app/", "team/app")],
)
def test_a_legal_prefix_loses_its_closing_slash(prefix: str, trimmed: str) -> None:
    assert names.check_prefix(prefix) == trimmed


@pytest.mark.parametrize("prefix", ["//", "team//", "/team", "te*", "Team", "sys/"])
def test_an_illegal_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidRequest):
        names.check_prefix(prefix)


@pytest.mark.parametrize(
    ("name", "prefix", "held"),
    [
        ("team/app", "", True),
        ("team/app", "team", True),
        ("team/app", "team/app", True),
        ("team/app", "team/ap", False),
        ("team", "team/app", False),
        ("teams/app", "team", False),
        ("team-a", "team", False),
        ("team.a", "team", False),
    ],
)
def test_a_prefix_matches_whole_segments(name: str, prefix: str, held: bool) -> None:
    assert names.has_prefix(name, prefix) is held


@pytest.mark.parametrize(
    "name",
    [
        "A",
        "_",
        "a",
        "PATH",
        "_a.b-c",
        "A1",
        "spring.datasource.url",
        pytest.param("X" * 255, id="255"),
    ],
)
def test_a_legal_variable_name_comes_back(name: str) -> None:
    assert names.check_variable(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "1A", "-A", ".A", "A=B", "A B", "A\n", "A\0", "\u00c4", "\uff21", "A/B", "A$", "\udcff"],
)
def test_an_illegal_variable_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        names.check_variable(name)

    assert caught.value.reason == "INVALID_NAME"
    assert caught.value.hint


def test_a_variable_name_of_256_bytes_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="256 bytes"):
        names.check_variable("X" * 256)


@pytest.mark.parametrize(
    "name", ["a", "owner", "label.team", "a-b_c1", pytest.param("x" * 255, id="255")]
)
def test_a_legal_metadata_name_comes_back(name: str) -> None:
    assert names.check_metadata_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "Owner", "1a", "_a", "a b", "a\n", "\u00e4", pytest.param("x" * 256, id="256")],
)
def test_an_illegal_metadata_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        names.check_metadata_name(name)

    assert caught.value.reason == "INVALID_NAME"


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("evil", EVIL)
def test_control_characters_and_lookalikes_in_a_name_are_escaped_in_the_message(
    check: Callable[[str], str], evil: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(f"a{evil}b")

    assert evil not in caught.value.message
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


@given(st.text(max_size=300))
def test_a_name_is_either_legal_or_refused_in_a_short_printable_message(name: str) -> None:
    for check in CHECKS:
        message = ""
        try:
            check(name)
        except InvalidRequest as refused:
            message = refused.message

        accepted = name.isascii() and name.isprintable() and 1 <= len(name) <= 255
        assert accepted or message
        assert message.isprintable()
        assert len(message) < 800


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("", 0),
        ("a\nb\t\x1b\u202e", 8),
        ("\u00e4", 2),
        ("\U0001f511", 4),
        pytest.param("x" * names.MAX_VALUE_BYTES, names.MAX_VALUE_BYTES, id="1-MiB"),
        pytest.param(
            "\u00e4" * (names.MAX_VALUE_BYTES // 2), names.MAX_VALUE_BYTES, id="1-MiB-of-umlauts"
        ),
    ],
)
def test_a_legal_value_is_measured_in_bytes(value: str, size: int) -> None:
    assert names.check_value("TOKEN", value) == size


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(f"{CANARY}\0", "INVALID_VALUE", id="nul"),
        pytest.param(f"\0{CANARY}", "INVALID_VALUE", id="nul-first"),
        pytest.param(f"{CANARY}\ud800", "INVALID_VALUE", id="high-surrogate"),
        pytest.param(f"\udcff{CANARY}", "INVALID_VALUE", id="low-surrogate"),
        pytest.param(
            CANARY + "x" * (names.MAX_VALUE_BYTES - len(CANARY) + 1), "LIMIT_EXCEEDED", id="long"
        ),
        pytest.param(
            CANARY + "\u00e4" * (names.MAX_VALUE_BYTES // 2), "LIMIT_EXCEEDED", id="long-in-bytes"
        ),
    ],
)
def test_an_illegal_value_is_refused_by_name_and_never_shown(value: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        names.check_value("TOKEN", value)

    refused = caught.value
    shown = "".join(traceback.format_exception(refused))
    assert refused.reason == reason
    assert "TOKEN" in refused.message
    assert CANARY not in f"{refused!r}{refused.message}{refused.hint}{shown}"
    assert CANARY not in repr(refused.__cause__)
