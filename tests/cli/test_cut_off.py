"""`envctl` on a node that reaches none of those that hold what is asked for."""

from __future__ import annotations

import json

import pytest

from tests.cli.bench import CANARY, Envctl

LOST = "web/prod"


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.ok(f"set {LOST} A=1")
    envctl.ok("set web/dev A=2")
    envctl.node.cut_off.lose([LOST])
    return envctl


def test_a_write_says_that_it_was_made_without_a_look(web: Envctl) -> None:
    shown = web.ok(f"set {LOST} A=3")

    assert shown.out == ""
    assert f"no node that holds {LOST} could be reached" in shown.err
    assert web.json(f"set {LOST} A=4")["revision"] == ""


def test_such_a_write_is_told_apart_in_the_history(web: Envctl) -> None:
    web.ok(f"set {LOST} A={CANARY}")
    web.node.cut_off.regain()

    shown = web.ok(f"history {LOST}")

    assert shown.lines[1].startswith("(blind) ")
    assert web.json(f"get {LOST}")["variables"]["A"]["masked"]


def test_the_value_of_such_a_write_is_looked_for_once_it_is_an_older_one(web: Envctl) -> None:
    for value in (CANARY, "another-value-9f", "the-one-of-now-7c"):
        web.ok(f"set {LOST} A={value}")
    web.node.cut_off.regain()
    web.ok(f"set {LOST} B=1")
    (web.home / "tree").mkdir()
    web.file("tree/a.txt", f"{CANARY}\nanother-value-9f\nthe-one-of-now-7c\n")

    found = [line for line in web("scan tree").out.splitlines() if LOST in line]

    assert [line.partition(" (")[2] for line in found] == [
        "as it is, an older value)",
        "as it is, an older value)",
        "as it is)",
    ]


@pytest.mark.parametrize(
    "line",
    [
        f"get {LOST}",
        f"history {LOST}",
        f"conflicts {LOST}",
        f"delete {LOST} --yes",
        f"set {LOST} A=3 --no-create",
        f"set {LOST} A=3 --plain",
        f"set {LOST} A=3 --if-revision 0123456789",
        f"settings {LOST} mode=serial",
        f"resolve {LOST} A --take kept",
    ],
)
def test_what_takes_a_holder_is_refused_with_what_to_do(web: Envctl, line: str) -> None:
    result = web(line)

    assert result.code == 5
    assert result.out == ""
    assert "nothing was done" in result.err
    assert "hint: " in result.err
    web.node.cut_off.regain()
    assert web.value(LOST, "A") == "1"


@pytest.mark.parametrize("line", ["list", "tree", "find A", "conflicts --all"])
def test_what_is_not_whole_says_so_and_is_partly_done(web: Envctl, line: str) -> None:
    result = web(line)

    assert result.code == 7
    assert "1 of 4096 partitions are missing" in result.err
    assert LOST not in result.out
    assert ("web/dev" in result.out or "dev" in result.out) == ("conflicts" not in line)


@pytest.mark.parametrize("line", ["list", "tree", "find A", "conflicts --all"])
def test_what_is_not_whole_says_so_to_programs(web: Envctl, line: str) -> None:
    result = web(f"{line} --output json")

    assert result.code == 7
    assert json.loads(result.out)["partial"] is True
    web.node.cut_off.regain()
    assert web.json(line)["partial"] is False


def test_nothing_is_deleted_by_a_list_that_is_not_whole(web: Envctl) -> None:
    (web.home / "envs/web").mkdir(parents=True)
    web.file("envs/web/dev.env", "A=2\n")

    for command in ("plan", "apply --yes"):
        result = web(f"{command} -f envs --delete-missing web")
        assert result.code == 5
        assert "not whole" in result.err
    web.node.cut_off.regain()
    assert web.value(LOST, "A") == "1"
