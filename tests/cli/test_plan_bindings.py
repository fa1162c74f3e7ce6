"""`envctl plan` and `apply -f DIR`: bindings that stand in the files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envd.core.errors import Unsupported
from envd.core.syncing import BindingView, BindRequest
from tests.cli.bench import Envctl
from tests.syncing import PAYMENTS, SSM

FILE = """\
[variables]
PORT = "80"
[[bindings]]
name = "web"
targets = ["aws-ssm:/web/prod"]
direction = "both"
interval_seconds = 300
budget_dollars = 2.5
suspended = true
"""
WEB = BindingView(
    *("web", "web/prod", None, ("aws-ssm:/web/prod",)),
    direction="both",
    interval_seconds=300,
    budget_dollars=2.5,
    suspended=True,
)


def write(envctl: Envctl, text: str, name: str = "web/prod.toml") -> None:
    path = envctl.home / "envs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def binds(envctl: Envctl) -> list[BindRequest]:
    return [request for call, request in envctl.node.stores.asked if call == "bind"]


def test_a_binding_of_a_file_is_shown_and_bound_behind_the_write(envctl: Envctl) -> None:
    write(envctl, FILE)

    planned = envctl.ok("plan -f envs")
    shown = envctl.ok("apply -f envs --yes")

    assert planned.lines[2] == (
        "  + binding web  web/prod <-> aws-ssm:/web/prod  interval_seconds=300  suspended=yes  "
        "budget_dollars=2.5"
    )
    assert binds(envctl) == [BindRequest(WEB)]
    assert envctl.value("web/prod", "PORT") == "80"
    assert shown.lines[-1] == "applied; 1 environment changed"


def test_applying_again_changes_nothing(envctl: Envctl) -> None:
    write(envctl, FILE)
    envctl.ok("apply -f envs --yes")

    again = envctl.ok("apply -f envs --yes")

    assert again.lines[-1] == "nothing differs; no commit was made"
    assert len(binds(envctl)) == 1


def test_who_paused_a_binding_and_where_it_came_from_is_no_difference(envctl: Envctl) -> None:
    write(envctl, FILE)
    envctl.ok("apply -f envs --yes")
    envctl.node.stores.kept["web"] = replace(WEB, paused_by="ann", origin="file", revision="9")

    assert envctl("plan -f envs --exit-code").code == 0


def test_a_binding_that_is_not_as_the_file_says_is_bound_anew_without_a_commit(
    envctl: Envctl,
) -> None:
    write(envctl, FILE)
    envctl.ok("apply -f envs --yes")
    revision = envctl.json("get web/prod")["revision"]
    envctl.node.stores.kept["web"] = replace(WEB, direction="push")

    document = envctl.json("plan -f envs")
    applied = envctl.json("apply -f envs --yes")

    (operation,) = document["operations"]
    assert operation.items() >= {
        *{("kind", "binding"), ("action", "update"), ("variable", "web")},
        ("reason", "direction: push, now both"),
    }
    assert envctl.node.stores.kept["web"].direction == "both"
    assert applied["applied"][0]["revision"] == revision
    assert envctl.json("get web/prod")["revision"] == revision


def test_a_binding_that_stands_in_no_file_is_left_alone(envctl: Envctl) -> None:
    write(envctl, FILE)

    envctl.ok("apply -f envs --yes --prune")

    assert envctl.node.stores.kept["payments"] == PAYMENTS


def test_without_bindings_in_files_no_store_is_asked_about(envctl: Envctl) -> None:
    envctl.node.stores.error = Unsupported("this node keeps nothing in step with stores")
    write(envctl, '[variables]\nA = "1"\n')

    envctl.ok("apply -f envs --yes")

    assert not envctl.node.stores.asked


def test_a_plan_is_another_one_once_a_binding_is_another_one(envctl: Envctl) -> None:
    write(envctl, FILE)
    plan = envctl.json("plan -f envs")["plan"]
    write(envctl, FILE.replace("300", "301"))

    result = envctl(f"apply -f envs --yes --plan {plan}")

    assert result.code == 4
    assert not binds(envctl)


def test_a_binding_in_yaml(envctl: Envctl) -> None:
    text = (
        "bindings:\n  - name: web\n    targets: ['file:/x', 'vault:y']\n    priority: 0\n"
        "    windows: ['Sat']\n    budget_stops: true\n"
    )
    write(envctl, text, "web/prod.yaml")

    envctl.ok("apply -f envs --yes")

    assert binds(envctl)[0].binding == BindingView(
        *("web", "web/prod", None, ("file:/x", "vault:y")),
        windows=("Sat",),
        priority=0,
        budget_stops=True,
    )
    assert envctl.json("get web/prod")["variables"] == {}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("bindings = 1\n", "a.toml:1: bindings is a number, expected a list of tables"),
        ("bindings = ['a']\n", "a binding is text, expected a table"),
        ("[[bindings]]\ntargets = ['file:/x']\n", "a.toml:1: a binding has no name"),
        ("[[bindings]]\nname = 'a'\n", "a binding has no targets"),
        ("[[bindings]]\nname = 'a'\ntargets = 'file:/x'\n", "a.toml:3: targets takes a list"),
        ("[[bindings]]\nname = 'a'\ntargets = ['x']\n", "a.toml:3: 'x' is no target"),
        ("[[bindings]]\nname = 1\n", "name is a number, expected text"),
        ("[[bindings]]\ndirecton = 'x'\n", "did you mean direction?"),
        ("[[bindings]]\nprefix = 'x'\n", "those of its own environment"),
        ("[[bindings]]\ndirection = 'up'\n", "direction takes one of push, pull, both"),
        ("[[bindings]]\nsuspended = 'no'\n", "suspended takes true or false"),
        ("[[bindings]]\ninterval_seconds = 4\n", "a whole number from 5 to 86,400"),
        ("[[bindings]]\npriority = 1.5\n", "priority takes a whole number from 0 to 1,000"),
        ("[[bindings]]\nbudget_dollars = nan\n", "budget_dollars takes a number from 0"),
        ("[[bindings]]\nbudget_dollars = '5'\n", "budget_dollars takes a number from 0"),
    ],
)
def test_bindings_that_can_not_be_are_refused_with_the_place(
    envctl: Envctl, text: str, error: str
) -> None:
    write(envctl, text, "a.toml")

    result = envctl("apply -f envs --yes")

    assert result.code == 1
    assert error in result.err
    assert not envctl.node.asked


def test_two_files_with_one_binding_are_refused(envctl: Envctl) -> None:
    write(envctl, FILE)
    write(envctl, f"[[bindings]]\nname = 'web'\ntargets = ['{SSM}']\n", "web/test.toml")

    result = envctl("plan -f envs")

    assert result.code == 1
    assert "envs/web/test.toml: envs/web/prod.toml has a binding web already" in result.err
