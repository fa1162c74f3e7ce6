"""The past: diff, history, rollback."""

from __future__ import annotations

import os
import re
import termios

import pytest

from envd.cli.screen import Screen
from tests.cli.bench import CANARY, Envctl


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.ok("set web/prod A=1 B=2 -m first")
    envctl.ok("set web/prod --secret -m second", f"S={CANARY}")
    envctl.ok("set web/prod A=3 -m third")
    envctl.ok("unset web/prod B -m fourth")
    return envctl


def test_history_tells_who_changed_what_newest_first(web: Envctl) -> None:
    shown = web.ok("history web/prod")

    rows = [re.split(r"\s{2,}", line) for line in shown.lines]
    assert rows[0] == ["REVISION", "TIME", "WHO", "CHANGES", "MESSAGE"]
    assert [(row[2], row[3], row[4]) for row in rows[1:]] == [
        ("admin", "unset B", "fourth"),
        ("admin", "set A", "third"),
        ("admin", "set S", "second"),
        ("admin", "set A, B", "first"),
    ]
    assert all(re.fullmatch(r"2023-11-1\d \d\d:\d\d:\d\d", row[1]) for row in rows[1:])
    assert CANARY not in shown.out


def test_history_of_one_variable(web: Envctl) -> None:
    commits = web.json("history web/prod A")["commits"]

    assert [commit["message"] for commit in commits] == ["third", "first"]
    assert web.ok("history web/prod NEVER").err == "no commit of web/prod touched NEVER\n"


def test_history_is_limited_and_says_so(web: Envctl) -> None:
    shown = web.ok("history web/prod --limit 2")

    assert len(shown.lines) == 3
    assert "see more with --limit N" in shown.err
    assert web.json("history web/prod --limit 2")["next"]


def test_history_goes_through_pages(envctl: Envctl) -> None:
    for number in range(5):
        envctl.ok(f"set web/prod A={number}")
    envctl.node.asked.clear()

    commits = envctl.json("history web/prod --limit 4")["commits"]

    assert len(commits) == 4
    assert envctl.node.asked[0][1].limit == 4


def test_history_tells_of_creation_settings_and_deletion(envctl: Envctl) -> None:
    envctl.ok("create web/prod")
    envctl.ok("settings web/prod owner=x")
    envctl.ok("set web/prod A=1 B=1 C=1 D=1 E=1 F=1 G=1")
    envctl.ok("delete web/prod --yes")

    shown = envctl.ok("history web/prod").out

    assert "deleted the environment" in shown
    assert "set A, B, C, D, E and 2 more" in shown
    assert "set setting owner" in shown
    assert re.search(r"  created$", shown, re.MULTILINE)


def test_on_a_narrow_terminal_the_message_is_seen_beside_many_changes() -> None:
    leader, follower = os.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    changed = "set " + ", ".join(f"VARIABLE_{number}" for number in range(9))

    with open(follower, "w") as terminal, open(leader, "rb") as reader:
        screen = Screen(terminal, terminal, {"NO_COLOR": "1"})
        screen.table(("REVISION", "CHANGES", "MESSAGE"), [("1" * 12, changed, "m" * 40)])
        screen.table(("A", "B", "C", "D"), [("w" * 40,) * 4])
        screen.flush()
        lines = [reader.readline().decode().rstrip() for _ in range(4)]
    header, row, _, narrow = lines

    assert header.endswith("  MESSAGE")
    assert row == f"{'1' * 12}  {changed[:31]}…  {'m' * 31}…"
    assert len(row) == len(narrow) == 80


def test_a_message_can_not_speak_to_the_terminal(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1 --message", "a\x1b[2Jb\nc")

    shown = envctl.ok("history web/prod", terminal=True, environ={"NO_COLOR": "1"})

    assert r"a\x1b[2Jb\nc" in shown.out


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "٣"])
def test_a_limit_is_a_number_above_zero(web: Envctl, limit: str) -> None:
    assert web(f"history web/prod --limit={limit}").code == 2


def test_rollback_undoes_the_last_commit_and_can_be_undone(web: Envctl) -> None:
    shown = web.ok("rollback web/prod --to @~1")
    back = set(web.json("get web/prod")["variables"])
    web.ok("rollback web/prod --to @~1")

    assert shown.lines[:2] == [
        "back to web/prod@~1: 1 to add, 0 to change, 0 to remove",
        "  + B",
    ]
    assert back == {"A", "B", "S"}
    assert set(web.json("get web/prod")["variables"]) == {"A", "S"}


def test_rollback_of_one_variable(web: Envctl) -> None:
    first = web.json("history web/prod --limit 4")["commits"][3]["revision"]

    web.ok(f"rollback web/prod A --to {first[:8]}")

    assert web.value("web/prod", "A") == "1"
    assert set(web.json("get web/prod")["variables"]) == {"A", "S"}


def test_rollback_restores_settings_too_and_shows_it(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1")
    envctl.ok("settings web/prod owner=ops")

    shown = envctl.ok("rollback web/prod --to @~1")

    assert "  - setting owner" in shown.lines
    assert envctl.json("get web/prod")["metadata"] == {}


def test_a_rollback_to_the_same_state_makes_no_commit(web: Envctl) -> None:
    shown = web.ok("rollback web/prod --to @~0")

    assert "nothing differs" in shown.out
    assert len(web.json("history web/prod")["commits"]) == 4


def test_a_dry_run_rolls_nothing_back(web: Envctl) -> None:
    shown = web.ok("rollback web/prod --to @~1 --dry-run")

    assert "  + B" in shown.lines
    assert len(web.json("history web/prod")["commits"]) == 4
    assert web.json("rollback web/prod --to @~1 --dry-run")["added"] == ["B"]


def test_rollback_brings_a_deleted_environment_back(web: Envctl) -> None:
    web.ok("delete web/prod --yes")

    web.ok("rollback web/prod --to @deleted")

    assert web.value("web/prod", "A") == "3"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("rollback web/prod", 2),
        ("rollback web/prod --to nonsense", 2),
        ("rollback web/prod@~1 --to @~1", 2),
        ("rollback web/prod --to @~99", 3),
        ("rollback web/prod --to ffffffff", 3),
        ("rollback web/prod NEVER --to @~1", 3),
        ("rollback web/none --to @~1", 3),
        ("rollback web/prod --to @~1 --if-revision ffffffff", 4),
        ("history web/none", 3),
    ],
)
def test_a_past_that_there_is_not(web: Envctl, line: str, code: int) -> None:
    assert web(line).code == code
    assert len(web.json("history web/prod")["commits"]) == 4


def test_diff_of_revisions_shows_values_and_masks_secrets(web: Envctl) -> None:
    shown = web.ok("diff web/prod@~3 web/prod")

    assert shown.lines[0].startswith("--- web/prod@~3 (revision ")
    assert shown.lines[1].startswith("+++ web/prod (revision ")
    assert [line.split() for line in shown.lines[2:]] == [
        ["NAME", "BEFORE", "AFTER"],
        ["~", "A", "1", "3"],
        ["-", "B", "2"],
        ["+", "S", "********"],
    ]
    assert CANARY not in shown.out
    assert CANARY in web.ok("diff web/prod@~3 web/prod --reveal").out


def test_diff_tells_by_its_exit_code(web: Envctl) -> None:
    assert web("diff web/prod@~1 web/prod").code == 0
    assert web("diff web/prod@~1 web/prod --exit-code").code == 9
    assert web("diff web/prod web/prod --exit-code").code == 0


def test_diff_with_a_file(web: Envctl) -> None:
    web.file(".env", f"A=3\nS={CANARY}\nDB_PASSWORD={CANARY}2\n")

    shown = web.ok("diff web/prod .env")

    assert shown.lines[1] == "+++ file .env"
    assert [line.split() for line in shown.lines[3:]] == [["+", "DB_PASSWORD", "********"]]
    assert CANARY not in shown.out


def test_diff_with_a_file_that_is_not_there(web: Envctl) -> None:
    result = web("diff web/prod .env")

    assert result.code == 1
    assert result.err.startswith("error: there is no file .env\nhint: ")


def test_diff_with_the_default_environment_and_standard_input(web: Envctl) -> None:
    result = web(
        "diff - --exit-code", stdin=f"A=3\nS={CANARY}\n", environ={"ENVD_ENVIRONMENT": "web/prod"}
    )

    assert result.code == 0


def test_diff_of_secrets_without_the_right_to_reveal_goes_by_stamps(web: Envctl) -> None:
    web.ok("set web/prod --secret", f"T={CANARY}")
    web.ok("set web/prod", f"T={CANARY}x")
    web.node.rights.denied.add("reveal")

    document = web.json("diff web/prod@~1 web/prod")

    assert [(each["variable"], each["kind"]) for each in document["differences"]] == [
        ("T", "changed")
    ]
    assert document["differences"][0]["masked"] is True
    assert web("diff web/prod@~1 web/prod --reveal").code == 6


def test_json_diff_masks_too(web: Envctl) -> None:
    assert CANARY not in web.ok("diff web/prod@~3 web/prod -o json").out


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("diff", 2),
        ("diff web/prod", 2),
        ("diff web/prod web/none", 3),
        ("diff web/prod no-such-file.ENV", 2),
        ("diff a b c", 2),
        ("diff web/prod " + "x" * 300, 2),
    ],
)
def test_diffs_that_can_not_be(web: Envctl, line: str, code: int) -> None:
    assert web(line).code == code
