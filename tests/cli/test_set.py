"""Setting and removing variables."""

from __future__ import annotations

import pytest

from envd.core.names import MAX_VALUE_BYTES
from tests.cli.bench import CANARY, Envctl


def test_set_is_one_commit_and_prints_the_new_revision(envctl: Envctl) -> None:
    shown = envctl.ok("set web/prod A=1 B=2 C=a=b D=")

    document = envctl.json("get web/prod")
    assert shown.out == document["revision"][:12] + "\n"
    assert {name: each["value"] for name, each in document["variables"].items()} == {
        "A": "1",
        "B": "2",
        "C": "a=b",
        "D": "",
    }
    assert len(envctl.json("history web/prod")["commits"]) == 1


def test_json_is_the_write_answer(envctl: Envctl) -> None:
    answer = envctl.json("set web/prod A=1")

    assert answer["environment"] == "web/prod"
    assert len(answer["revision"]) == 32
    assert {"stamp", "token", "acknowledged", "detached"} <= answer.keys()


def test_a_bare_key_asks_without_echo(envctl: Envctl) -> None:
    envctl.ok("set web/prod API --secret", typed="", secret=CANARY)

    assert envctl.questions == ["value of API: "]
    assert envctl.value("web/prod", "API") == CANARY


@pytest.mark.parametrize(
    ("piped", "raw", "value"),
    [
        (b"v", False, "v"),
        (b"v\n", False, "v"),
        (b"v\n\n", False, "v\n"),
        (b"v\n", True, "v\n"),
        (b"", True, ""),
        (b"\n", False, ""),
        (b"two\nlines\n", False, "two\nlines"),
        ("ü\n".encode(), False, "ü"),
    ],
)
def test_a_bare_key_reads_a_pipe(envctl: Envctl, piped: bytes, raw: bool, value: str) -> None:
    envctl.ok("set web/prod KEY" + (" --raw" if raw else ""), stdin=piped)

    assert envctl.value("web/prod", "KEY") == value


def test_a_file_gives_a_value(envctl: Envctl) -> None:
    envctl.file("key.pem", "-----BEGIN-----\nx\n")

    envctl.ok("set web/prod A=1 --from-file CUT=key.pem")
    envctl.ok("set web/prod --raw --from-file WHOLE=key.pem")

    assert envctl.value("web/prod", "CUT") == "-----BEGIN-----\nx"
    assert envctl.value("web/prod", "WHOLE") == "-----BEGIN-----\nx\n"
    assert envctl.value("web/prod", "A") == "1"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "can't read"),
        (b"\xff\xfe", "not valid UTF-8"),
        (b"a\0b", "NUL"),
        (b"x" * (MAX_VALUE_BYTES + 1), "bytes long"),
    ],
)
def test_a_file_that_is_no_value_fails_and_writes_nothing(
    envctl: Envctl, content: bytes | None, complaint: str
) -> None:
    if content is not None:
        envctl.file("value", content)

    result = envctl("set web/prod --from-file A=value")

    assert result.code == 1
    assert complaint in result.err
    assert not envctl.node.writes()


def test_flags_of_a_variable_are_raised_kept_and_lowered(envctl: Envctl) -> None:
    def secret() -> bool:
        flag: bool = envctl.json("get web/prod")["variables"]["A"]["secret"]
        return flag

    envctl.ok("set web/prod A=1 --secret")
    raised = secret()
    envctl.ok("set web/prod A=2")
    kept = secret()
    envctl.ok("set web/prod A=3 --plain")

    assert (raised, kept, secret()) == (True, True, False)


def test_lowering_takes_the_right_to_reveal(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1 --secret")
    envctl.node.rights.denied.add("reveal")

    assert envctl("set web/prod A=2 --plain").code == 6


def test_what_looks_like_a_credential_is_kept_as_asked_with_a_hint_that_works(
    envctl: Envctl,
) -> None:
    hinted = envctl.ok("set web/prod", f"DB_PASSWORD={CANARY}")

    assert "hint: DB_PASSWORD looks like a credential" in hinted.err
    assert CANARY not in hinted.err
    command = next(line for line in hinted.err.splitlines() if "envctl set" in line)
    advised = command.split("envctl ")[1].split("   ")[0]
    envctl.ok(advised, typed="", secret=CANARY)
    assert envctl.json("get web/prod")["variables"]["DB_PASSWORD"]["secret"] is True


@pytest.mark.parametrize("flag", ["--secret", "--plain"])
def test_who_decides_about_the_flag_gets_no_hint(envctl: Envctl, flag: str) -> None:
    assert envctl.ok(f"set web/prod DB_PASSWORD=x {flag}").err == ""


def test_what_is_secret_already_gets_no_hint(envctl: Envctl) -> None:
    envctl.ok("set web/prod DB_PASSWORD=x --secret")

    assert envctl.ok("set web/prod DB_PASSWORD=y").err == ""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("set web/prod", "nothing to set"),
        ("set web/prod A=1 A=2", "set twice"),
        ("set web/prod A A=2", "set twice"),
        ("set web/prod A B", "only one value"),
        ("set web/prod 1A=1", "no variable name"),
        ("set web/prod =1", "no variable name"),
        ("set A=1 web/prod KEY", "no environment is named"),
        ("set web/prod A=1 --secret --plain", "exclude each other"),
        ("set web/prod --from-file A", "takes KEY=PATH"),
        ("set web/prod A=1 --if-revision 12", "first 8 digits"),
        ("set web/prod A=1 --if-revision zzzzzzzzzz", "first 8 digits"),
        ("unset web/prod", "no variable is named"),
        ("unset web/prod A A", "stands twice"),
    ],
)
def test_wrong_usage_is_told_and_writes_nothing(envctl: Envctl, line: str, complaint: str) -> None:
    result = envctl(line)

    assert result.code == 2
    assert complaint in result.err
    assert not envctl.json("list")["environments"]


@pytest.mark.parametrize("value", ["a\0b", "\udcff", "x" * (MAX_VALUE_BYTES + 1)])
def test_a_value_that_can_not_be_kept_is_wrong_usage(envctl: Envctl, value: str) -> None:
    result = envctl("set web/prod", f"A={value}")

    assert result.code == 2
    assert value[:50] not in result.err
    assert not envctl.node.asked


def test_no_value_at_the_prompt_changes_nothing(envctl: Envctl) -> None:
    result = envctl("set web/prod A", typed="", secret=EOFError)

    assert result.code == 1
    assert not envctl.node.writes()


def test_a_write_carries_message_operation_and_condition(envctl: Envctl) -> None:
    revision = envctl.json("set web/prod A=1")["revision"]

    envctl.ok(f"set web/prod A=2 -m why --operation op-1 --if-revision {revision[:12]}")

    request = envctl.node.writes()[-1]
    assert (request.message, request.operation) == ("why", "op-1")
    assert request.if_revision == revision[:12]
    assert envctl.json("history web/prod")["commits"][0]["message"] == "why"


def test_each_write_without_an_operation_id_gets_one(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1")
    envctl.ok("set web/prod A=1")

    first, second = (request.operation for request in envctl.node.writes())
    assert first
    assert second
    assert first != second


def test_a_stale_revision_is_a_conflict(envctl: Envctl) -> None:
    revision = envctl.json("set web/prod A=1")["revision"]
    envctl.ok("set web/prod A=2")

    result = envctl(f"set web/prod A=3 --if-revision {revision}")

    assert result.code == 4
    assert envctl.value("web/prod", "A") == "2"


def test_no_create_does_not_create(envctl: Envctl) -> None:
    assert envctl("set web/prod A=1 --no-create").code == 3
    assert envctl.json("list")["environments"] == []


def test_unset_removes_in_one_commit_or_not_at_all(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1 B=2 C=3")

    missing = envctl("unset web/prod A NONE")
    kept = set(envctl.json("get web/prod")["variables"])
    gone = envctl.ok("unset web/prod A B")

    assert missing.code == 3
    assert kept == {"A", "B", "C"}
    assert set(envctl.json("get web/prod")["variables"]) == {"C"}
    assert gone.out == envctl.json("get web/prod")["revision"][:12] + "\n"
