"""The tree of environments, and finding variables in all of them."""

from __future__ import annotations

import pytest

from tests.cli.bench import CANARY, Envctl


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.ok("set web/prod PORT=8080 DB_URL=host1")
    envctl.ok("set web/prod/eu PORT=1")
    envctl.ok("set api/dev DB_URL=host2")
    envctl.ok("set web/prod --secret", f"API={CANARY}")
    return envctl


def test_the_tree_has_a_line_for_each_segment(web: Envctl) -> None:
    assert web.ok("tree").lines == [
        "api/",
        "└── dev  (1 variable)",
        "web/",
        "└── prod  (3 variables)",
        "    └── eu  (1 variable)",
    ]


def test_branches_that_go_on_have_a_bar(web: Envctl) -> None:
    web.ok("set web/qa A=1")

    assert web.ok("tree web").lines == [
        "web/",
        "├── prod  (3 variables)",
        "│   └── eu  (1 variable)",
        "└── qa  (1 variable)",
    ]


def test_the_tree_as_a_document(web: Envctl) -> None:
    (top,) = web.json("tree api")["tree"]

    assert (top["segment"], top["environment"]) == ("api", None)
    assert top["below"] == [
        {"segment": "dev", "environment": "api/dev", "variables": 1, "below": []}
    ]


def test_a_tree_of_nothing_says_so(envctl: Envctl) -> None:
    result = envctl.ok("tree none")

    assert (result.out, result.err) == ("", "there are no environments below none yet\n")


@pytest.mark.parametrize("line", ["tree", "find PORT"])
def test_what_is_not_whole_is_shown_and_told(web: Envctl, line: str) -> None:
    web.node.partial_reason = "node 2 is away"

    result = web(line)

    assert result.code == 7
    assert "web" in result.out
    assert "node 2 is away" in result.err


def test_a_name_is_found_in_every_environment_without_values(web: Envctl) -> None:
    result = web.ok("find PORT")

    assert result.lines == ["ENVIRONMENT  NAME", "web/prod     PORT", "web/prod/eu  PORT"]
    assert all(not request.reveal for call, request in web.node.asked if call == "get")


def test_a_name_may_be_a_pattern(web: Envctl) -> None:
    found = web.json("find D*")["found"]

    assert found == [
        {"environment": "api/dev", "variable": "DB_URL", "secret": False},
        {"environment": "web/prod", "variable": "DB_URL", "secret": False},
    ]


def test_values_are_shown_with_reveal_only(web: Envctl) -> None:
    assert CANARY not in web.ok("find API").out
    assert CANARY in web.ok("find API --reveal").out
    assert web.json("find API --reveal")["found"][0]["value"] == CANARY


def test_values_are_searched_and_not_shown(web: Envctl) -> None:
    result = web.ok("find host* --value")

    assert result.lines == ["ENVIRONMENT  NAME", "api/dev      DB_URL", "web/prod     DB_URL"]
    assert [each["variable"] for each in web.json(f"find {CANARY} --value")["found"]] == ["API"]


@pytest.mark.parametrize("flag", ["--value", "--reveal"])
def test_real_values_take_the_right_to_reveal(web: Envctl, flag: str) -> None:
    web.node.rights.denied.add("reveal")

    assert web(f"find * {flag}").code == 6
    assert web("find *").code == 0


def test_what_is_deleted_while_it_is_searched_is_left_out(web: Envctl) -> None:
    def before(call: str, request: object) -> None:
        if call == "get":
            web.node.before = lambda call, request: None
            web.ok("delete api/dev --yes")

    web.node.before = before

    assert "api/dev" not in web.ok("find DB_URL").out


def test_nothing_found_is_said(web: Envctl) -> None:
    assert web.ok("find NONE").err == "no variable is like that\n"
    assert web.ok("find NONE --value").err == "no value is like that\n"
    assert web("find").code == 2
