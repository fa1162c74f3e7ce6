"""How a call may end: every exit code, every error told, never a traceback."""

from __future__ import annotations

from typing import Any

import pytest

from envd.backends import errors as stores
from envd.core import errors
from envd.core.errors import (
    Conflict,
    Corrupt,
    Denied,
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from tests.cli.bench import CANARY, Envctl


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EnvdError("x"), 1),
        (Corrupt("x"), 1),
        (InvalidRequest("x"), 2),
        (LimitExceeded("x"), 2),
        (Unsupported("x"), 2),
        (NotFound("x"), 3),
        (Conflict("x"), 4),
        (Unavailable("x"), 5),
        (Unauthenticated("x"), 6),
        (Denied("x"), 6),
        (OutcomeUnknown("x"), 8),
        (stores.ItemNotFound("x"), 3),
        (stores.StaleVersion("x"), 4),
        (stores.SoftDeleted("x"), 4),
        (stores.NotOwned("x"), 4),
        (stores.NameCollision("x"), 4),
        (stores.Throttled("x"), 5),
        (stores.AuthExpired("x"), 5),
        (stores.StoreUnavailable("x"), 5),
        (stores.Forbidden("x"), 6),
        (stores.InvalidName("x"), 2),
        (stores.StoreUnsupported("x"), 2),
        (stores.InvalidValue("x"), 1),
        (stores.ValueTooLarge("x"), 1),
        (stores.QuotaExceeded("x"), 1),
        (stores.MissingLibrary("x"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_of_a_node_has_its_exit_code(
    envctl: Envctl, error: EnvdError, code: int
) -> None:
    def fail(call: str, request: Any) -> None:
        raise error

    envctl.node.before = fail

    result = envctl("set web/prod A=1")

    assert result.code == code
    assert result.err.startswith("error: x\n")
    assert result.out == ""


def test_every_class_of_error_has_an_exit_code_on_purpose() -> None:
    known = {
        each.__name__
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, EnvdError)
    }

    assert known == {
        *("EnvdError", "InvalidRequest", "LimitExceeded", "NotFound", "Conflict"),
        *("Unauthenticated", "Denied", "Unavailable", "OutcomeUnknown", "Unsupported"),
        "SnapshotError",
        *("StartupError", "SettingsError", "StorageError", "Corrupt", "KeyFileError"),
    }


def test_an_error_tells_its_mend(envctl: Envctl) -> None:
    def fail(call: str, request: Any) -> None:
        raise Unavailable("the disk is full", hint="make room")

    envctl.node.before = fail

    assert envctl("list").err == "error: the disk is full\nhint: make room\n"
    assert envctl("list", terminal=True).err == (
        "\x1b[31merror:\x1b[0m the disk is full\n\x1b[33mhint:\x1b[0m make room\n"
    )


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_errors_stay_text_on_standard_error(envctl: Envctl, output: str) -> None:
    result = envctl(f"get web/none -o {output}")

    assert result.code == 3
    assert result.out == ""
    assert result.err.startswith("error: there is no environment web/none\nhint: ")


def test_the_message_of_a_node_does_not_speak_to_the_terminal(envctl: Envctl) -> None:
    def fail(call: str, request: Any) -> None:
        raise NotFound("a\x1b[2Jb")

    envctl.node.before = fail

    assert r"a\x1b[2Jb" in envctl("list").err


def test_an_unknown_outcome_names_the_operation_to_retry_with(envctl: Envctl) -> None:
    def lose(call: str, request: Any) -> None:
        raise OutcomeUnknown("no answer", hint="another hint")

    envctl.node.before = lose
    lost = envctl("set web/prod A=1")
    given = envctl("set web/prod A=1 --operation mine")
    operation = envctl.node.writes()[0].operation

    assert lost.err == f"error: no answer\nhint: retry with --operation {operation}\n"
    assert "hint: retry with --operation mine\n" in given.err


def test_a_repeated_operation_is_done_once(envctl: Envctl) -> None:
    first = envctl.json("set web/prod A=1 --operation op-1")
    envctl.ok("set web/prod A=2")
    again = envctl.json("set web/prod A=1 --operation op-1")

    assert first["revision"] == again["revision"]
    assert envctl.value("web/prod", "A") == "2"


def test_an_operation_of_another_environment_is_a_conflict(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1 --operation op-1")

    assert envctl("set web/other A=1 --operation op-1").code == 4


@pytest.mark.parametrize(
    ("line", "code"),
    [("set web/prod A=1", 130), ("list", 130), ("run web/prod -- env", 130)],
)
def test_an_interruption_ends_with_130(envctl: Envctl, line: str, code: int) -> None:
    def interrupt(call: str, request: Any) -> None:
        raise KeyboardInterrupt

    envctl.node.before = interrupt

    assert envctl(line).code == code


def test_an_interrupted_write_says_that_it_may_be_done(envctl: Envctl) -> None:
    def interrupt(call: str, request: Any) -> None:
        raise KeyboardInterrupt

    envctl.node.before = interrupt

    result = envctl("set web/prod A=1 --operation op-1")

    assert "it may or may not be done" in result.err
    assert "hint: retry with --operation op-1" in result.err


def test_an_unexpected_error_shows_its_kind_and_not_its_text(envctl: Envctl) -> None:
    def fail(call: str, request: Any) -> None:
        raise KeyError(CANARY)

    envctl.node.before = fail

    result = envctl("list")

    assert result.code == 1
    assert result.err.startswith("error: internal error (KeyError)")
    assert "ENVD_DEBUG=1" in result.err
    assert CANARY not in result.err


def test_a_trace_is_shown_when_it_is_asked_for(envctl: Envctl) -> None:
    def fail(call: str, request: Any) -> None:
        raise KeyError

    envctl.node.before = fail

    result = envctl("list", environ={"ENVD_DEBUG": "1"})

    assert result.code == 1
    assert "Traceback (most recent call last)" in result.err


def test_a_reader_that_went_away_is_no_error_to_tell(envctl: Envctl) -> None:
    def gone(call: str, request: Any) -> None:
        raise BrokenPipeError

    envctl.node.before = gone

    result = envctl("list")

    assert (result.code, result.err) == (1, "")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("gte web/prod", "did you mean: envctl get"),
        ("frobnicate", "see: envctl --help"),
        ("get web/prod --reveel", "did you mean --reveal?"),
        ("get web/prod -x", "envctl get has no flag '-x'"),
        ("--reveal get web/prod", "envctl has no flag '--reveal'"),
        ("--outptu json list", "did you mean --output?"),
        ("list --output xml", "invalid choice"),
        ("list --output", "expected one argument"),
        ("list --consistency eventually", "invalid choice"),
        ("list --timeout 0", "takes a time above 0"),
        ("list --timeout 5y", "takes a time above 0"),
        ("list --timeout nan", "takes a time above 0"),
        ("get web/prod --max-lag -1s", "expected one argument"),
        ("get web/prod --max-lag soon", "takes a time above 0"),
        ("list --ca x.pem", "has no TLS"),
        ("list --cert x.pem", "has no TLS"),
        ("list --key x.pem", "has no TLS"),
        ("list --server nonsense", "is no address"),
        ("list --server host:99999", "is no address"),
        ("list --server unix:", "is no address"),
        ("list --server ,", "names no node"),
        ("list --context none", "there is no context"),
        ("list --token 'a b\u00e9'", "no token has"),
        ("list web//x", "is no environment name"),
        ("set web/prod A=1 --operation " + "x" * 129, "at most 128 bytes"),
        ("set web/prod A=1 --message", "expected one argument"),
        ("completion tcsh", "which shell?"),
        ("completion", "which shell?"),
        ("dev --nodes 10", "takes 1 to 9"),
        ("dev --ephemeral --data x", "exclude each other"),
        ("whoami extra", "too many arguments"),
    ],
)
def test_wrong_usage_is_two_and_says_what_would_be_right(
    envctl: Envctl, line: str, complaint: str
) -> None:
    result = envctl(line)

    assert result.code == 2
    assert complaint in result.err
    assert result.err.startswith("error: ")
    assert not envctl.node.asked


def test_text_that_is_not_utf_8_is_wrong_usage(envctl: Envctl) -> None:
    for words in (
        ("set", "web/prod", "A=1", "--message", "\udcff"),
        ("set", "web/prod", "A=1", "--operation", "\udcff"),
        ("get", "web/\udcff"),
        ("get", "web/prod", "\udcff"),
        ("list", "--server", "h\udcff:1"),
        ("\udcff",),
    ):
        assert envctl("", *words).code == 2


@pytest.mark.parametrize(
    "line",
    [
        "--output json get web/prod",
        "get --output json web/prod",
        "get web/prod --output json",
        "-o json get web/prod",
        "-ojson get web/prod",
        "get web/prod --output=json",
        "--output=json get web/prod",
    ],
)
def test_global_flags_stand_before_or_after_the_command(envctl: Envctl, line: str) -> None:
    envctl.ok("set web/prod A=1")

    assert envctl.ok(line).out.startswith("{")
