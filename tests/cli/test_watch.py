"""Watching changes, over restarts of the node too."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from envd.core.errors import Unavailable
from envd.core.requests import WatchRequest
from tests.cli.bench import CANARY, Envctl


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.environ["TZ"] = "UTC"
    envctl.ok("set web/prod OLD=1")
    return envctl


def doing(web: Envctl, line: str) -> Callable[[], object]:
    return lambda: web.ok(line)


def breaking(message: str = "the connection broke") -> None:
    raise Unavailable(message)


def tokens(web: Envctl) -> list[str]:
    return [request.token for _, request in web.node.asked if isinstance(request, WatchRequest)]


def test_each_change_is_a_line_without_values(web: Envctl) -> None:
    web.node.while_watching = [
        doing(web, f"set web/prod A={CANARY} B=2 --message why"),
        doing(web, "unset web/prod OLD"),
        doing(web, "delete web/prod --yes"),
    ]

    result = web("watch")

    assert result.code == 130
    assert [line.split("  ", 1)[1] for line in result.lines] == [
        "web/prod  admin  set A, B  (why)",
        "web/prod  admin  unset OLD",
        "web/prod  admin  deleted the environment",
    ]
    assert CANARY not in result.out


def test_only_what_is_below_the_prefix_is_shown(web: Envctl) -> None:
    web.node.while_watching = [doing(web, "set api/dev A=1"), doing(web, "set web/qa A=1")]

    assert [line.split("  ")[1] for line in web("watch web/").lines] == ["web/qa"]


def test_a_change_of_a_base_is_shown_where_it_is_asked_for(web: Envctl) -> None:
    web.ok("set web/base A=1")
    web.ok("settings web/prod extends=web/base")
    for line, shown in (
        ("watch web/prod", []),
        ("watch web/prod --resolved", ["web/prod through web/base  admin  set A"]),
    ):
        web.node.while_watching = [doing(web, "set web/base A=2")]

        assert [each.split("  ", 1)[1] for each in web(line).lines] == shown

    web.node.while_watching = [doing(web, "set web/base A=3")]
    document = json.loads(web("watch web/prod --resolved -o json").out)
    assert (document["environment"], document["through"]) == ("web/prod", "web/base")


def test_json_is_a_document_in_each_line(web: Envctl) -> None:
    web.node.while_watching = [doing(web, "set web/prod A=1"), doing(web, "unset web/prod A")]

    first, second = map(json.loads, web("watch -o json").lines)

    assert first.keys() >= {
        *("id", "time", "environment", "revision", "stamp", "node", "region", "actor"),
        *("message", "changes", "token"),
    }
    assert first["changes"] == [{"variable": "A", "kind": "set", "metadata": False}]
    assert second["changes"][0]["kind"] == "unset"


def test_yaml_is_a_document_for_each_change(web: Envctl) -> None:
    import yaml

    web.node.while_watching = [doing(web, "set web/prod A=1"), doing(web, "set web/prod B=1")]

    documents = list(yaml.safe_load_all(web("watch -o yaml").out))

    assert [each["changes"][0]["variable"] for each in documents] == ["A", "B"]


def test_a_watch_goes_on_where_it_was_after_the_node_was_away(web: Envctl) -> None:
    web.node.while_watching = [
        doing(web, "set web/prod A=1"),
        breaking,
        doing(web, "set web/prod C=1"),
    ]
    left = 2

    def before(call: str, request: WatchRequest) -> None:
        nonlocal left
        if call == "watch" and request.token and left:
            left -= 1
            if not left:
                web.node.before = lambda call, request: None
                web.ok("set web/prod B=1")
                return
            breaking("nobody answers")

    web.node.before = before

    result = web("watch")

    assert [line.rpartition("  ")[2] for line in result.lines] == ["set A", "set B", "set C"]
    assert result.err == (
        "note: the connection broke; trying again until it is back\n"
        "note: watching again, at memory:1\n"
        "error: interrupted\n"
    )
    assert web.slept == [0.25, 0.5]
    assert tokens(web)[0] == ""
    assert len(set(tokens(web)[1:])) == 1


def test_pauses_grow_and_have_a_bound(web: Envctl) -> None:
    def before(call: str, request: WatchRequest) -> None:
        if call == "watch" and request.token:
            if len(web.slept) == 9:
                raise KeyboardInterrupt
            breaking()

    web.node.while_watching = [breaking]
    web.node.before = before

    assert web("watch").code == 130
    assert web.slept == [0.25, 0.5, 1, 2, 4, 8, 10, 10, 10]


def test_a_node_that_can_not_resume_says_so(web: Envctl) -> None:
    def before(call: str, request: object) -> None:
        if call == "watch" and isinstance(request, WatchRequest) and request.token:
            object.__setattr__(request, "token", "of another node")

    web.node.while_watching = [breaking]
    web.node.before = before

    result = web("watch")

    assert result.code == 130
    assert "note: changes may be missing here: the token is none\n" in result.err


def test_a_node_that_never_answered_is_an_error(web: Envctl) -> None:
    web.node.before = lambda call, request: breaking()

    result = web("watch")

    assert result.code == 5
    assert web.slept == []


@pytest.mark.parametrize(("line", "code"), [("watch a b", 2), ("watch Bad", 2)])
def test_watches_that_can_not_be(web: Envctl, line: str, code: int) -> None:
    assert web(line).code == code


def test_the_right_to_read_is_needed(web: Envctl) -> None:
    web.node.rights.denied.add("read")

    assert web("watch").code == 6
