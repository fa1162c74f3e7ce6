"""`envctl backend`: which kinds of stores there are, and whether places in them answer."""

from __future__ import annotations

import re

import pytest

from envd.core.syncing import CheckRequest
from tests.cli.bench import Envctl
from tests.syncing import SSM


def test_the_kinds_of_stores_are_a_table_of_targets(envctl: Envctl) -> None:
    shown = envctl.ok("backend list")

    rows = [re.split(r"\s{2,}", line) for line in shown.lines]
    assert rows == [
        ["TARGET", "READY", "STORE"],
        ["aws-ssm:/payments/prod", "no", "AWS Systems Manager Parameter Store"],
        ["file:/etc/app/.env", "yes", "a dotenv, JSON or YAML file"],
    ]
    assert shown.err == (
        "aws-ssm can't be used, boto3 is not installed: pip install 'envd-cluster[aws]'\n"
    )


def test_the_kinds_of_stores_as_a_document_have_their_capabilities(envctl: Envctl) -> None:
    document = envctl.json("backend list")

    assert document["backends"][1]["capabilities"] == ["CAS"]


def test_a_target_that_answers_tells_how_fast_and_as_whom(envctl: Envctl) -> None:
    shown = envctl.ok(f"backend check {SSM} --credentials profile:ci")

    assert envctl.node.stores.asked == [("check", CheckRequest((SSM,), "profile:ci"))]
    assert re.split(r"\s{2,}", shown.lines[1]) == [
        *(SSM, "ok", "48 ms", "arn:aws:iam::123456789012:role/envd"),
    ]


@pytest.mark.parametrize(
    ("targets", "code"), [("file:/down", 1), ("file:/down file:/up", 7), ("file:/up", 0)]
)
def test_the_exit_code_tells_whether_all_none_or_some_answer(
    envctl: Envctl, targets: str, code: int
) -> None:
    result = envctl(f"backend check {targets}")
    as_document = envctl(f"backend check {targets} -o json")

    assert (result.code, as_document.code) == (code, code)
    told = "error: file:/down: no answer in 5 s\nhint: is it up?\n"
    assert result.err == (told if code else "")


def test_a_word_without_a_colon_is_a_binding(envctl: Envctl) -> None:
    envctl.ok("backend check payments file:/x")

    assert envctl.node.stores.asked == [("check", CheckRequest(("file:/x",), "", ("payments",)))]


def test_without_a_word_all_that_is_bound_is_tried(envctl: Envctl) -> None:
    shown = envctl.ok("backend check")

    assert [line.split()[0] for line in shown.lines[1:]] == [SSM, "vault:payments/prod"]


def test_where_nothing_is_bound_a_target_is_asked_for(envctl: Envctl) -> None:
    envctl.node.stores.kept.clear()

    result = envctl("backend check")

    assert result.code == 2
    assert "no target is named, and there are no bindings" in result.err


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("backend", "what about stores?"),
        ("backend lst", "there is no envctl backend 'lst'"),
        ("backend list x", "list takes no words"),
        ("backend list --credentials x", "envctl backend list has no --credentials"),
        ("backend check aws-ssm:", "'aws-ssm:' is no target"),
        ("backend check :/x", "':/x' is no target"),
    ],
)
def test_wrong_usage_is_refused(envctl: Envctl, line: str, complaint: str) -> None:
    result = envctl(line)

    assert result.code == 2
    assert complaint in result.err
    assert not envctl.node.stores.asked
