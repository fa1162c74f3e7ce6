"""Copying variables from one environment to another."""

from __future__ import annotations

import pytest

from tests.cli.bench import CANARY, Envctl


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.ok("set web/staging A=1 B=2 SAME=s")
    envctl.ok("set web/staging --secret", f"API={CANARY}")
    envctl.ok("set web/prod B=old SAME=s ONLY=o")
    return envctl


def test_only_differences_are_written_in_one_commit(web: Envctl) -> None:
    before = len(web.node.writes())

    shown = web.ok("copy web/staging web/prod")

    (write,) = web.node.writes()[before:]
    assert [put.name for put in write.puts] == ["A", "API", "B"]
    assert write.unsets == ()
    assert write.if_revision
    assert write.message == "copied from web/staging"
    assert shown.lines[:4] == [
        "+ A",
        "+ API",
        "~ B",
        "web/prod: 2 to add, 1 to change, 0 to remove, 1 the same",
    ]
    assert CANARY not in shown.out


def test_secret_flags_come_along_and_stay(web: Envctl) -> None:
    web.ok("set web/prod --secret B=hidden")

    web.ok("copy web/staging web/prod")

    variables = web.json("get web/prod")["variables"]
    assert {name for name, each in variables.items() if each["secret"]} == {"API", "B"}
    assert web.value("web/prod", "B") == "2"


def test_a_revision_and_some_names_can_be_copied(web: Envctl) -> None:
    web.ok("set web/staging A=later")

    web.ok("copy web/staging@~1 web/new A B")

    assert web.ok("export web/new").out == "A=1\nB=2\n"


def test_prune_makes_it_the_same_and_asks(web: Envctl) -> None:
    assert web("copy web/staging web/prod --prune").code == 2
    assert web("copy web/staging web/prod --prune", typed="n\n").code == 1
    assert web.value("web/prod", "ONLY") == "o"

    web.ok("copy web/staging web/prod --prune --yes")

    assert web.ok("diff web/staging web/prod --exit-code").code == 0


def test_a_dry_run_writes_nothing(web: Envctl) -> None:
    before = len(web.node.writes())

    document = web.json("copy web/staging web/prod --prune --dry-run")

    assert len(web.node.writes()) == before
    assert (document["added"], document["removed"]) == (["A", "API"], ["ONLY"])


def test_what_is_the_same_is_no_commit(web: Envctl) -> None:
    before = len(web.node.writes())

    assert "no commit" in web.ok("copy web/staging web/prod SAME").out
    assert len(web.node.writes()) == before


def test_a_change_in_between_is_a_conflict_and_nothing_is_copied(web: Envctl) -> None:
    def before(call: str, request: object) -> None:
        if call == "write":
            web.node.before = lambda call, request: None
            web.ok("set web/prod B=theirs")

    web.node.before = before

    result = web("copy web/staging web/prod")

    assert result.code == 4
    assert web.value("web/prod", "B") == "theirs"
    assert "A=1" not in web.ok("export web/prod").out


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("copy web/staging", 2),
        ("copy web/staging web/staging", 2),
        ("copy web/staging web/prod@~1", 2),
        ("copy web/staging web/prod A --prune", 2),
        ("copy web/none web/prod", 3),
        ("copy web/staging web/prod NONE", 3),
    ],
)
def test_copies_that_can_not_be(web: Envctl, line: str, code: int) -> None:
    before = len(web.node.writes())

    assert web(line).code == code
    assert len(web.node.writes()) == before


def test_secrets_take_the_right_to_reveal(web: Envctl) -> None:
    web.node.rights.denied.add("reveal")

    assert web("copy web/staging web/prod").code == 6
    assert web("copy web/staging web/prod A").code == 0


def test_a_copy_names_what_is_secret_and_no_flag_that_it_lacks(envctl: Envctl) -> None:
    envctl.ok("set web/prod --secret KEY=v")

    shown = envctl.ok("copy web/prod web/staging").out

    assert "secret: KEY" in shown
    assert "--plain" not in shown
