"""Running programs: what they get, and who wins."""

from __future__ import annotations

import pytest

from tests.cli.bench import CANARY, Envctl, Result

PATH = "/no/such/directory:/usr/bin:/bin"


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.environ["PATH"] = PATH
    envctl.ok("set web/base A=base B=base")
    envctl.ok("set web/prod B=prod C=prod DB_URL=x")
    envctl.ok("set web/prod --secret", f"API={CANARY}")
    return envctl


def got(result: Result) -> dict[str, str]:
    assert result.executed is not None, result.err
    return result.executed[2]


def test_a_program_gets_inherited_variables_and_ours(web: Envctl) -> None:
    secrets = {"ENVD_TOKEN": "t", "ENVD_BACKUP_PASSPHRASE": "p"}
    result = web("run web/prod -- env -0", environ={"MINE": "1", **secrets})

    assert result.executed is not None
    path, arguments, environment = result.executed
    assert path == "/usr/bin/env"
    assert arguments == ["env", "-0"]
    assert environment == {
        "HOME": str(web.home),
        "PATH": PATH,
        "MINE": "1",
        "B": "prod",
        "C": "prod",
        "DB_URL": "x",
        "API": CANARY,
    }
    assert result.out + result.err == ""


def test_later_environments_win(web: Envctl) -> None:
    environment = got(web("run web/base,web/prod -- env"))

    assert (environment["A"], environment["B"]) == ("base", "prod")
    assert got(web("run web/prod,web/base -- env"))["B"] == "base"


def test_ours_beat_inherited_ones_but_those_to_keep(web: Envctl) -> None:
    inherited = {"B": "inherited", "C": "inherited"}

    assert got(web("run web/prod -- env", environ=inherited))["B"] == "prod"
    kept = got(web("run web/prod --keep 'B*' --keep API -- env", environ=inherited))
    assert (kept["B"], kept["C"], kept["API"]) == ("inherited", "prod", CANARY)


def test_pristine_is_exactly_ours(web: Envctl) -> None:
    result = web("run web/base --pristine -- env")

    assert got(result) == {"A": "base", "B": "base"}
    assert result.executed is not None
    assert result.executed[0] == "/usr/bin/env"


def test_only_some_and_under_a_prefix(web: Envctl) -> None:
    result = web("run web/prod --pristine --only 'D*' --only B --name-prefix APP_ -- env")

    assert got(result) == {"APP_B": "prod", "APP_DB_URL": "x"}


def test_a_revision_can_be_run(web: Envctl) -> None:
    assert "API" not in got(web("run web/prod@~1 -- env"))


def test_the_program_keeps_its_own_flags(web: Envctl) -> None:
    result = web("run web/base -- env --help -- --output json -h")

    assert result.executed is not None
    assert result.executed[1] == ["env", "--help", "--", "--output", "json", "-h"]


def test_the_default_environment_is_used(web: Envctl) -> None:
    assert got(web("run -- env", environ={"ENVD_ENVIRONMENT": "web/base"}))["A"] == "base"


def test_values_are_utf_8(web: Envctl) -> None:
    web.ok("set web/base A=ü")

    assert got(web("run web/base -- env"))["A"] == "ü"


@pytest.mark.parametrize(
    "name", ["PATH", "LD_PRELOAD", "NODE_OPTIONS", "BASH_ENV", "PYTHONPATH", "IFS", "GIT_SSH"]
)
def test_risky_variables_are_warned_about_and_set(web: Envctl, name: str) -> None:
    web.ok(f"set web/base {name}=x")

    result = web("run web/base -- env")

    assert f"warning: sets {name}" in result.err
    assert got(result)[name] == "x"


def test_the_program_is_looked_for_along_our_own_path(web: Envctl) -> None:
    web.ok("set web/base PATH=/nowhere")

    assert got(web("run web/base -- env"))["PATH"] == "/nowhere"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("run web/none -- env", 125),
        ("run web/base -- no-such-program", 127),
        ("run web/base -- /no/such/program", 127),
        ("run web/base -- ''", 127),
        ("run web/base env", 2),
        ("run web/base --", 2),
        ("run web/base web/prod -- env", 2),
        ("run web/base --offline -- env", 125),
        ("run web/base --watch often -- env", 2),
        ("run web/base --watch signal: -- env", 2),
        ("run web/base --watch signal:KILL -- env", 2),
        ("run web/base --watch signal:SIG_DFL -- env", 2),
        ("run web/base@~1 --watch restart -- env", 2),
        ("run web/none --watch restart -- env", 125),
        ("run web/base --name-prefix 1 -- env", 2),
        ("run Web -- env", 2),
    ],
)
def test_what_can_not_be_run(web: Envctl, line: str, code: int) -> None:
    result = web(line)

    assert result.code == code
    assert result.err.startswith("error: ")
    assert result.executed is None


def test_denied_is_a_failure_of_envd(web: Envctl) -> None:
    web.node.rights.denied.add("reveal")

    result = web("run web/prod -- env")

    assert result.code == 125
    assert CANARY not in result.err


def test_a_program_gets_what_its_environment_extends(envctl: Envctl) -> None:
    envctl.ok("set web/base A=base B=base")
    envctl.ok("set web/prod B=prod")
    envctl.ok("settings web/prod extends=web/base")

    variables = got(envctl("run web/prod --pristine -- env"))

    assert variables == {"A": "base", "B": "prod"}
