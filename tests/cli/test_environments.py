"""Environments as wholes: list, create, delete, undelete, rename, settings."""

from __future__ import annotations

from typing import Any

import pytest

from envd.core.errors import Unavailable
from tests.cli.bench import CANARY, Envctl


def names(envctl: Envctl) -> list[str]:
    return [each["environment"] for each in envctl.json("list")["environments"]]


def test_list_shows_environments_below_a_prefix_of_whole_segments(envctl: Envctl) -> None:
    for name in ("web", "web/prod", "website", "api/prod"):
        envctl.ok(f"set {name} A=1 B=2")

    shown = envctl.ok("list web")

    assert [line.split()[:2] for line in shown.lines] == [
        ["ENVIRONMENT", "VARIABLES"],
        ["web", "2"],
        ["web/prod", "2"],
    ]
    assert names(envctl) == ["api/prod", "web", "web/prod", "website"]


def test_list_goes_through_every_page(envctl: Envctl) -> None:
    for number in range(7):
        envctl.ok(f"create e{number}")
    envctl.node.page_limit = 3

    document = envctl.json("list")

    assert [each["environment"] for each in document["environments"]] == [
        f"e{number}" for number in range(7)
    ]
    assert document["next"] == ""
    assert sum(call == "list" for call, _ in envctl.node.asked) == 3


def test_a_partial_list_is_shown_and_is_partly_done(envctl: Envctl) -> None:
    envctl.ok("create web/prod")
    envctl.node.partial_reason = "node-2 did not answer"

    result = envctl("list")

    assert result.code == 7
    assert "web/prod" in result.out
    assert "node-2 did not answer" in result.err


def test_an_empty_list_says_so_beside_the_output(envctl: Envctl) -> None:
    shown = envctl.ok("list web")

    assert shown.out == ""
    assert "no environments below web" in shown.err


def test_create_makes_an_empty_environment_once(envctl: Envctl) -> None:
    created = envctl.ok("create web/prod --message 'to come'")
    again = envctl("create web/prod")

    assert created.out.startswith("created web/prod; web/prod is at revision ")
    assert again.code == 4
    assert envctl.json("history web/prod")["commits"][0]["message"] == "to come"


def test_delete_shows_what_goes_and_asks(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1 --secret", f"B={CANARY}")
    envctl.ok("settings web/prod owner=ops")

    refused = envctl("delete web/prod", typed="n\n")
    done = envctl("delete web/prod", typed="y\n")

    assert refused.code == 1
    assert "2 variables: A, B" in refused.out
    assert "1 settings: owner" in refused.out
    assert "delete web/prod? [y/N]" in refused.err
    assert done.code == 0
    assert names(envctl) == []


def test_delete_without_a_terminal_takes_yes(envctl: Envctl) -> None:
    envctl.ok("create web/prod")

    assert envctl("delete web/prod").code == 2
    assert names(envctl) == ["web/prod"]
    assert envctl("delete web/prod -y").code == 0


def test_delete_dry_run_deletes_nothing(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1")

    shown = envctl.ok("delete web/prod --dry-run --yes")

    assert "1 variables: A" in shown.out
    assert names(envctl) == ["web/prod"]


def test_a_change_between_question_and_deletion_is_a_conflict(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1")

    def change(call: str, request: Any) -> None:
        if call == "delete":
            envctl.node.before = lambda call, request: None
            envctl.ok("set web/prod A=2")

    envctl.node.before = change

    assert envctl("delete web/prod --yes").code == 4
    assert envctl.value("web/prod", "A") == "2"


def test_a_deletion_may_be_repeated_under_its_operation_id(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1")

    first = envctl.json("delete web/prod --yes --operation op-1")
    second = envctl.json("delete web/prod --yes --operation op-1")

    assert first["revision"] == second["revision"]
    assert envctl("delete web/prod --yes").code == 3


def test_undelete_brings_back_variables_flags_and_settings(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1 --secret")
    envctl.ok("settings web/prod owner=ops")
    envctl.ok("delete web/prod --yes")

    envctl.ok("undelete web/prod")

    document = envctl.json("get web/prod --reveal")
    assert document["variables"]["A"]["value"] == "1"
    assert document["variables"]["A"]["secret"] is True
    assert document["metadata"] == {"owner": "ops"}


def test_undelete_does_not_replace_what_exists(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1")
    envctl.ok("delete web/prod --yes")
    envctl.ok("set web/prod B=2")

    result = envctl("undelete web/prod")

    assert result.code == 4
    assert "envctl rollback web/prod --to @deleted" in result.err
    assert set(envctl.json("get web/prod")["variables"]) == {"B"}


def test_undelete_of_what_was_never_deleted_is_not_found(envctl: Envctl) -> None:
    assert envctl("undelete web/prod").code == 3


@pytest.fixture
def live(envctl: Envctl) -> Envctl:
    envctl.ok("set web/live A=1")
    envctl.ok("set web/live --secret", f"B={CANARY}")
    envctl.ok("settings web/live owner=ops")
    return envctl


def content(envctl: Envctl, name: str) -> tuple[dict[str, tuple[str, bool]], dict[str, str]]:
    document = envctl.json(f"get {name} --reveal")
    values = {key: (v["value"], v["secret"]) for key, v in document["variables"].items()}
    settings = {key: v for key, v in document["metadata"].items() if key != "created"}
    return values, settings


def test_rename_moves_values_flags_and_settings(live: Envctl) -> None:
    before = content(live, "web/live")

    shown = live.ok("rename web/live web/prod")

    assert names(live) == ["web/prod"]
    assert content(live, "web/prod") == before
    assert CANARY not in shown.out + shown.err


def test_an_interrupted_rename_is_told_and_completed_by_another(live: Envctl) -> None:
    before = content(live, "web/live")

    def fail(call: str, request: Any) -> None:
        if call == "delete":
            raise Unavailable("the disk is full")

    live.node.before = fail
    cut = live("rename web/live web/prod")
    both = names(live)
    live.node.before = lambda call, request: None
    live.ok("rename web/live web/prod")

    assert cut.code == 7
    assert "web/prod was created" in cut.err
    assert "web/live was not deleted: the disk is full" in cut.err
    assert both == ["web/live", "web/prod"]
    assert names(live) == ["web/prod"]
    assert content(live, "web/prod") == before


def test_rename_does_not_overwrite(live: Envctl) -> None:
    live.ok("set web/prod C=3")

    result = live("rename web/live web/prod")

    assert result.code == 4
    assert names(live) == ["web/live", "web/prod"]


def test_rename_keeps_what_changed_in_between(live: Envctl) -> None:
    def change(call: str, request: Any) -> None:
        if call == "delete":
            live.node.before = lambda call, request: None
            live.ok("set web/live A=2")

    live.node.before = change

    assert live("rename web/live web/prod").code == 7
    assert live.value("web/live", "A") == "2"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("rename web/none web/prod", 3),
        ("rename web/live web/live", 2),
        ("rename web/live Web", 2),
        ("rename web/live web/prod --if-revision ffffffffff", 4),
    ],
)
def test_rename_that_can_not_be(live: Envctl, line: str, code: int) -> None:
    assert live(line).code == code
    assert names(live) == ["web/live"]


def test_rename_of_what_was_renamed_already_says_so(live: Envctl) -> None:
    live.ok("rename web/live web/prod")

    result = live("rename web/live web/prod")

    assert result.code == 3
    assert "may be renamed already" in result.err


def test_rename_takes_the_right_to_reveal_where_something_is_secret(live: Envctl) -> None:
    live.node.rights.denied.add("reveal")

    assert live("rename web/live web/prod").code == 6
    assert names(live) == ["web/live"]


def test_settings_are_set_shown_and_removed(envctl: Envctl) -> None:
    envctl.ok("create web/prod")

    envctl.ok("settings web/prod owner=ops labels=tier=1,team=web")
    shown = envctl.ok("settings web/prod")
    one = envctl.ok("settings web/prod owner")
    envctl.ok("settings web/prod owner=")

    assert [line.split()[0] for line in shown.lines[1:]] == [
        "SETTING",
        "created",
        "labels",
        "owner",
    ]
    assert one.out == "ops"
    assert "owner" not in envctl.json("settings web/prod")["metadata"]


def test_a_setting_of_the_default_environment_may_be_named_alone(envctl: Envctl) -> None:
    envctl.ok("settings web/prod owner=ops")

    assert envctl.ok("settings owner --env web/prod").out == "ops"


@pytest.mark.parametrize(
    ("line", "code", "complaint"),
    [
        ("settings web/prod ower=x", 2, "did you mean owner"),
        ("settings web/prod ower", 2, "did you mean owner"),
        ("settings web/prod protected=maybe", 2, "true or false"),
        ("settings web/prod mode=fast", 2, "lww or serial"),
        ("settings web/prod owner labels=a=b", 2, "not both"),
        ("settings web/prod owner", 3, "no setting owner"),
        ("settings web/prod owner=", 3, "no setting owner"),
        ("settings web/none", 3, "no environment"),
    ],
)
def test_settings_that_can_not_be(envctl: Envctl, line: str, code: int, complaint: str) -> None:
    envctl.ok("set web/prod A=1")

    result = envctl(line)

    assert result.code == code
    assert complaint in result.err
