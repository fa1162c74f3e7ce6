"""Showing an environment, and one real value."""

from __future__ import annotations

import pytest

from tests.cli.bench import CANARY, Envctl


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.ok("set web/prod PORT=8080 LOG_LEVEL=info")
    envctl.ok("set web/prod --secret", f"API={CANARY}")
    return envctl


def test_a_table_shows_names_and_values_and_masks_secrets(web: Envctl) -> None:
    revision = web.json("get web/prod")["revision"]

    shown = web.ok("get web/prod")

    assert shown.lines == [
        f"web/prod  revision {revision[:12]}  3 variables",
        "NAME       VALUE",
        "API        ********",
        "LOG_LEVEL  info",
        "PORT       8080",
    ]


def test_reveal_shows_secrets(web: Envctl) -> None:
    assert CANARY in web.ok("get web/prod --reveal").out


def test_one_value_is_exact_in_a_pipe_and_ends_its_line_on_a_terminal(web: Envctl) -> None:
    assert web.ok("get web/prod API").out == CANARY
    assert web.ok("get web/prod API", terminal=True).out == CANARY + "\n"


def test_a_plain_value_does_not_take_the_right_to_reveal(web: Envctl) -> None:
    web.node.rights.denied.add("reveal")

    assert web.ok("get web/prod PORT").out == "8080"


@pytest.mark.parametrize("line", ["get web/prod API", "get web/prod --reveal"])
def test_a_secret_without_the_right_to_reveal_is_denied(web: Envctl, line: str) -> None:
    web.node.rights.denied.add("reveal")

    result = web(line)

    assert result.code == 6
    assert CANARY not in result.out + result.err


def test_an_environment_is_read_as_it_was(web: Envctl) -> None:
    before = web.json("get web/prod")["revision"]
    web.ok("set web/prod PORT=9090")

    assert web.ok("get web/prod@~1 PORT").out == "8080"
    assert web.ok(f"get web/prod@{before[:8]} PORT").out == "8080"
    assert web.value("web/prod", "PORT") == "9090"


def test_a_deleted_environment_is_read_as_it_was(web: Envctl) -> None:
    web.ok("delete web/prod --yes")

    assert web.ok("get web/prod@deleted PORT").out == "8080"


@pytest.mark.parametrize("line", ["get web/none", "get web/prod NONE", "get web/prod@ffffffff"])
def test_what_is_not_there_is_not_found(web: Envctl, line: str) -> None:
    result = web(line)

    assert result.code == 3
    assert result.err.startswith("error: ")


def test_json_has_the_shape_of_the_contract(web: Envctl) -> None:
    document = web.json("get web/prod")

    assert {"environment", "revision", "metadata", "variables"} <= document.keys()
    assert document["variables"]["PORT"]["value"] == "8080"
    assert document["variables"]["API"]["value"] is None
    assert document["variables"]["API"]["masked"] is True
    assert document["variables"]["API"]["secret"] is True
    assert {"stamp", "region", "node"} <= document["variables"]["API"].keys()


def test_yaml_says_the_same_as_json(web: Envctl) -> None:
    import yaml

    assert yaml.safe_load(web.ok("get web/prod -o yaml").out) == web.json("get web/prod")


def test_an_empty_environment_is_a_header_only(envctl: Envctl) -> None:
    envctl.ok("create web/empty")

    assert len(envctl.ok("get web/empty").lines) == 1


HOSTILE = "a\nb\tc\r\x1b[2J\x07\x9b31m\u202eevil"


def test_no_value_breaks_the_table_or_speaks_to_the_terminal(envctl: Envctl) -> None:
    envctl.ok("set web/prod", f"X={HOSTILE}")

    for terminal in (False, True):
        shown = envctl.ok("get web/prod", terminal=terminal, environ={"NO_COLOR": "1"})
        assert r"a\nb\tc\r\x1b[2J\x07\x9b31m\u202eevil" in shown.out
        assert len(shown.lines) == 3


def test_one_value_does_not_speak_to_the_terminal_but_is_exact_in_a_pipe(envctl: Envctl) -> None:
    envctl.ok("set web/prod", f"X={HOSTILE}")

    on_terminal = envctl.ok("get web/prod X", terminal=True)

    assert on_terminal.out == "a\nb\tc\\r\\x1b[2J\\x07\\x9b31m\\u202eevil\n"
    assert "shown escaped" in on_terminal.err
    assert envctl.value("web/prod", "X") == HOSTILE


def test_json_escapes_controls_and_means_the_same(envctl: Envctl) -> None:
    envctl.ok("set web/prod", f"X={HOSTILE}\x7f\U000e0001ü")

    document = envctl.ok("get web/prod -o json").out

    assert not {"\x1b", "\x9b", "\x7f", "\u202e", "\U000e0001"} & set(document)
    assert "ü" in document
    assert envctl.json("get web/prod")["variables"]["X"]["value"] == f"{HOSTILE}\x7f\U000e0001ü"


def test_colours_are_for_terminals_that_want_them(web: Envctl) -> None:
    assert "\x1b[" in web.ok("get web/prod", terminal=True).out
    assert "\x1b[" not in web.ok("get web/prod").out
    assert "\x1b[" not in web.ok("get web/prod", terminal=True, environ={"NO_COLOR": "1"}).out
    assert "\x1b[" not in web.ok("get web/prod", terminal=True, environ={"TERM": "dumb"}).out


def test_a_read_says_how_fresh_it_must_be(web: Envctl) -> None:
    web.ok("get web/prod --consistency strong --max-lag 500ms")

    _, request = web.node.asked[-1]
    assert request.consistency.value == "strong"
    assert request.max_lag_ms == 500


def test_a_strong_read_of_a_serial_environment_asks_a_majority(envctl: Envctl) -> None:
    envctl.node.vote()
    envctl.ok("set web/prod PORT=1")
    envctl.ok("settings web/prod mode=serial")

    shown = envctl.ok("get web/prod PORT --consistency strong").out
    document = envctl.json("get web/prod --consistency strong")

    assert (shown, document["level"]) == ("1", "strong")
    assert set(envctl.node.confirmed) == {"web/prod"}


def test_a_strong_read_of_a_plain_environment_is_refused_with_a_mend(envctl: Envctl) -> None:
    envctl.node.vote()
    envctl.ok("set web/prod PORT=1")

    result = envctl("get web/prod PORT --consistency strong")

    assert result.code == 2
    assert result.err.startswith("error: web/prod is a plain environment")
    assert "hint: " in result.err
    assert "envctl settings web/prod mode=serial" in result.err


def test_resolved_shows_the_layers_and_where_each_value_comes_from(envctl: Envctl) -> None:
    envctl.ok("set web/base A=base B=base")
    envctl.ok("set web/prod B=prod")
    envctl.ok("settings web/prod extends=web/base")

    shown = envctl.ok("get web/prod --resolved").out
    alone = envctl.ok("get web/prod").out

    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["NAME", "VALUE", "FROM"],
        ["A", "base", "web/base"],
        ["B", "prod", "web/prod"],
    ]
    assert "FROM" not in alone
    assert envctl.ok("get web/prod A --resolved").out == "base"
    assert envctl("get web/prod A").code == 3
    assert envctl("get web/prod@~1 --resolved").code == 2


def test_an_export_has_what_an_environment_extends(envctl: Envctl) -> None:
    envctl.ok("set web/base A=base B=base")
    envctl.ok("set web/prod B=prod")
    envctl.ok("settings web/prod extends=web/base")

    assert envctl.ok("export web/prod").out == "A=base\nB=prod\n"
