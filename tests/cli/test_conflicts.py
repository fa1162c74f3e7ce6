"""`envctl conflicts` and `resolve`: what a person sees, and settles."""

from __future__ import annotations

import re

import pytest

from envd.core.commit import Kind
from tests.cli.bench import CANARY, Envctl
from tests.conflicting import write_unseen


def unseen(
    envctl: Envctl, name: str, value: str, environment: str = "web/prod", **how: object
) -> None:
    """Another node, cut off, writes."""
    store = envctl.node.store
    work = write_unseen(store, envctl.node.digest_key, environment, name, value, **how)  # type: ignore[arg-type]
    envctl.node.loop.run_until_complete(work)


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.ok("set web/prod PORT=8080 OTHER=x")
    unseen(envctl, "PORT", "9090")
    return envctl


def test_conflicts_show_both_sides_and_the_way_to_settle(web: Envctl) -> None:
    shown = web.ok("conflicts web/prod")

    rows = [re.split(r"\s{2,}", line.strip()) for line in shown.lines]
    number = web.json("conflicts web/prod")["conflicts"][0]["id"][:8]
    assert rows[0] == ["ID", "NAME", "SIDE", "VALUE", "TIME", "BY"]
    assert rows[1][:4] == [number, "PORT", "kept", "8080"]
    assert rows[2][:2] == ["lost", "9090"]
    assert (rows[1][-1], rows[2][-1]) == ("admin on node-1", "bob on n2")
    assert f"envctl resolve web/prod PORT --take {number}\n" in shown.err
    assert "envctl resolve web/prod PORT --take kept\n" in shown.err


def test_the_way_that_is_shown_can_be_typed(web: Envctl) -> None:
    way = re.search(r"envctl (resolve .* --take [0-9a-f]+)", web.ok("conflicts web/prod").err)
    assert way is not None

    shown = web.ok(way[1])

    assert shown.out.startswith("settled: PORT is as the side that you took; web/prod is at ")
    assert web.value("web/prod", "PORT") == "9090"
    assert web.ok("conflicts web/prod").err == "there are no conflicts to settle in web/prod\n"


def test_kept_leaves_it_as_it_is(web: Envctl) -> None:
    before = web.json("get web/prod")["revision"]

    shown = web.ok("resolve web/prod PORT --take kept")

    assert shown.out.startswith("settled: PORT stays as it is; ")
    assert web.json("get web/prod")["revision"] == before
    assert web.json("conflicts web/prod")["conflicts"] == []


def test_the_history_tells_of_the_settlement(web: Envctl) -> None:
    web.ok("resolve web/prod PORT --take kept -m checked")

    assert re.search(r"admin  settled 1 conflict +checked", web.ok("history web/prod").out)


def test_secrets_are_masked_unless_revealed(web: Envctl) -> None:
    web.ok("set web/prod --secret", f"KEY={CANARY}")
    unseen(web, "KEY", f"{CANARY}2")

    assert CANARY not in web.ok("conflicts web/prod").out
    assert CANARY not in web.ok("conflicts web/prod -o json").out
    assert f"{CANARY}2" in web.ok("conflicts web/prod --reveal").out
    web.node.rights.denied.add("reveal")
    assert web("conflicts web/prod --reveal").code == 6


def test_settings_are_named_as_such_and_settled(web: Envctl) -> None:
    web.ok("settings web/prod owner=ann")
    unseen(web, "owner", "bob", kind=Kind.METADATA)
    web.ok("resolve web/prod PORT --take kept")

    shown = web.ok("conflicts web/prod")
    assert "  setting owner  kept  ann" in shown.out
    assert "envctl resolve web/prod owner --setting --take kept\n" in shown.err
    assert web("resolve web/prod owner --take lost").code == 3
    web.ok("resolve web/prod owner --setting --take lost")

    assert web.json("settings web/prod")["metadata"]["owner"] == "bob"


def test_without_a_default_all_environments_are_shown(web: Envctl) -> None:
    web.ok("set api/prod A=1")
    unseen(web, "A", "2", "api/prod")

    shown = web.ok("conflicts")
    default = {"ENVD_ENVIRONMENT": "web/prod"}

    assert shown.lines[0].split() == ["ID", "ENVIRONMENT", "NAME", "SIDE", "VALUE", "TIME", "BY"]
    assert [line.split()[1] for line in shown.lines[1::2]] == ["api/prod", "web/prod"]
    assert len(web.json("conflicts", environ=default)["conflicts"]) == 1
    assert len(web.json("conflicts --all", environ=default)["conflicts"]) == 2


def test_the_default_environment_serves_both(web: Envctl) -> None:
    default = {"ENVD_ENVIRONMENT": "web/prod"}

    web.ok("resolve PORT --take lost", environ=default)

    assert web.value("web/prod", "PORT") == "9090"


def test_a_limit_holds_over_pages_and_says_so(web: Envctl) -> None:
    web.ok("set web/prod A=1 B=1")
    for name in "AB":
        unseen(web, name, "2")

    shown = web.ok("conflicts web/prod --limit 2")

    assert len(shown.lines) == 5
    assert "see them with --limit N" in shown.err
    assert web.json("conflicts web/prod")["next"] == ""


def test_yaml_has_the_shape_of_json(web: Envctl) -> None:
    import yaml

    document = yaml.safe_load(web.ok("conflicts web/prod -o yaml").out)

    assert document == web.json("conflicts web/prod")
    assert document["conflicts"][0]["lost"]["value"] == "9090"


def test_a_repeat_under_its_operation_id_is_done_once(web: Envctl) -> None:
    first = web.json("resolve web/prod PORT --take lost --operation op-1")
    again = web.json("resolve web/prod PORT --take lost --operation op-1")

    assert first["revision"] == again["revision"]
    assert len(web.json("history web/prod")["commits"]) == 3


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("resolve web/prod PORT", 2),
        ("resolve web/prod", 2),
        ("resolve web/prod --take kept", 2),
        ("resolve web/prod@~1 PORT --take kept", 2),
        ("resolve web/prod PORT --take both", 2),
        ("resolve web/prod OTHER --take kept", 3),
        ("resolve web/prod PORT --take ffffffff", 3),
        ("resolve web/none PORT --take kept", 3),
        ("resolve web/prod PORT --take lost --if-revision ffffffff", 4),
        ("conflicts web/prod@~1", 2),
        ("conflicts web/prod --all", 2),
        ("conflicts web/prod PORT", 2),
        ("conflicts web/none", 3),
        ("conflicts --limit 0", 2),
    ],
)
def test_what_can_not_be_done_changes_nothing(web: Envctl, line: str, code: int) -> None:
    result = web(line)

    assert result.code == code
    assert result.err.startswith("error: ")
    assert web.value("web/prod", "PORT") == "8080"
    assert len(web.json("conflicts web/prod")["conflicts"]) == 1


def test_more_than_one_conflict_needs_an_id(web: Envctl) -> None:
    unseen(web, "PORT", "7070", later_ms=-2000)

    result = web("resolve web/prod PORT --take lost")

    assert result.code == 4
    assert "hint: name one of them: " in result.err
