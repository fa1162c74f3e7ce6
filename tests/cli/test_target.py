"""Which environment and which variable: the rule of the contract, by table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.bench import Envctl

DEFAULT = "team/default"


@pytest.fixture
def two_environments(envctl: Envctl) -> Envctl:
    for name in (DEFAULT, "web/prod", "single"):
        envctl.ok(f"set {name} WHERE={name} single=lower")
    return envctl


@pytest.mark.parametrize(
    ("line", "default", "answer"),
    [
        ("get web/prod WHERE", False, "web/prod"),
        ("get web/prod WHERE", True, "web/prod"),
        ("get WHERE", True, DEFAULT),
        ("get single", True, "lower"),
        ("get single WHERE", False, "single"),
        ("get single WHERE", True, "single"),
        ("get web/prod@~0 WHERE", True, "web/prod"),
        ("get @~0 WHERE", True, DEFAULT),
        ("get WHERE --env web/prod", True, "web/prod"),
        ("--env web/prod get WHERE", False, "web/prod"),
        ("get single WHERE --env web/prod", True, "single"),
    ],
)
def test_a_value_is_read_from_the_environment_that_the_rule_names(
    two_environments: Envctl, line: str, default: bool, answer: str
) -> None:
    environ = {"ENVD_ENVIRONMENT": DEFAULT} if default else {}

    assert two_environments.ok(line, environ=environ).out == answer


@pytest.mark.parametrize(
    ("line", "default", "title"),
    [
        ("get web/prod", False, "web/prod"),
        ("get web/prod", True, "web/prod"),
        ("get single", False, "single"),
        ("get", True, DEFAULT),
        ("get single@~0", True, "single@~0"),
        ("get --env single", True, "single"),
    ],
)
def test_a_table_is_of_the_environment_that_the_rule_names(
    two_environments: Envctl, line: str, default: bool, title: str
) -> None:
    environ = {"ENVD_ENVIRONMENT": DEFAULT} if default else {}

    assert two_environments.ok(line, environ=environ).lines[0].split()[0] == title


@pytest.mark.parametrize(
    ("line", "default", "environment", "changed"),
    [
        ("set web/prod A=1", True, "web/prod", {"A"}),
        ("set single A=1", False, "single", {"A"}),
        ("set A=1", True, DEFAULT, {"A"}),
        ("set A=1 B=a/b", True, DEFAULT, {"A", "B"}),
        ("set KEY", True, DEFAULT, {"KEY"}),
        ("set web/prod KEY", True, "web/prod", {"KEY"}),
        ("set single KEY", True, "single", {"KEY"}),
        ("set KEY A=1", True, DEFAULT, {"KEY", "A"}),
        ("set single KEY A=1", True, "single", {"KEY", "A"}),
        ("set single A=1 KEY", True, "single", {"KEY", "A"}),
        ("set A=1 --env web/prod", False, "web/prod", {"A"}),
        ("set -- A=1", True, DEFAULT, {"A"}),
        ("unset WHERE", True, DEFAULT, {"WHERE"}),
        ("unset WHERE single", True, DEFAULT, {"WHERE", "single"}),
        ("unset web/prod WHERE", True, "web/prod", {"WHERE"}),
        ("unset single WHERE", False, "single", {"WHERE"}),
    ],
)
def test_a_write_goes_to_the_environment_that_the_rule_names(
    two_environments: Envctl, line: str, default: bool, environment: str, changed: set[str]
) -> None:
    environ = {"ENVD_ENVIRONMENT": DEFAULT} if default else {}

    two_environments.ok(line, environ=environ, stdin="piped")

    request = two_environments.node.writes()[-1]
    names = {put.name for put in request.puts} | {unset.name for unset in request.unsets}
    assert (request.environment, names) == (environment, changed)


@pytest.mark.parametrize(
    "line", ["get", "set A=1", "unset", "export", "import file.env", "run -- true", "history"]
)
def test_without_a_default_the_environment_has_to_be_named(envctl: Envctl, line: str) -> None:
    envctl.file("file.env", "A=1\n")

    result = envctl(line)

    assert result.code == 2
    assert "no environment is named" in result.err
    assert "envctl use ENV" in result.err


def test_the_defaults_beat_each_other_in_order(two_environments: Envctl) -> None:
    envctl = two_environments
    envctl.ok("login --context here --token-stdin", stdin="abc")
    config = envctl.home / ".config/envd/config.json"
    config.write_text(config.read_text().replace('"token"', '"environment": "single", "token"'))
    below = envctl.home / "a" / "b"
    below.mkdir(parents=True)

    from_context = envctl.ok("get WHERE", cwd=below).out
    envctl.ok("use web/prod")
    from_parent = envctl.ok("get WHERE", cwd=below).out
    from_variable = envctl.ok("get WHERE", cwd=below, environ={"ENVD_ENVIRONMENT": DEFAULT}).out
    from_flag = envctl.ok("get WHERE --env single", environ={"ENVD_ENVIRONMENT": DEFAULT}).out

    assert [from_context, from_parent, from_variable, from_flag] == [
        "single",
        "web/prod",
        DEFAULT,
        "single",
    ]


def test_the_nearest_directory_decides(two_environments: Envctl) -> None:
    below = two_environments.home / "below"
    below.mkdir()
    two_environments.ok("use web/prod")

    two_environments.ok("use single", cwd=below)

    assert two_environments.ok("get WHERE", cwd=below).out == "single"
    assert two_environments.ok("get WHERE").out == "web/prod"


def test_use_keeps_what_else_the_file_says(envctl: Envctl) -> None:
    file = envctl.file(".envd.toml", '# ours\nenvironment = "web/old"\nother = 1\n')

    envctl.ok("use web/new")

    assert file.read_text() == '# ours\nenvironment = "web/new"\nother = 1\n'


def test_use_alone_shows_the_default_and_who_says_so(envctl: Envctl) -> None:
    nothing = envctl.ok("use")
    envctl.ok("use web/prod")

    shown = envctl.ok("use")

    assert "no environment is in use" in nothing.err
    assert shown.out == f"web/prod  (from {envctl.home}/.envd.toml)\n"
    assert envctl.json("use")["environment"] == "web/prod"


@pytest.mark.parametrize(
    "text", ["environment = 3\n", 'environment = "Bad"\n', "other = 1\n", "= nonsense", "\xff\xfe"]
)
def test_a_bad_directory_file_is_named(envctl: Envctl, text: str) -> None:
    envctl.file(".envd.toml", text.encode("latin-1"))

    result = envctl("get")

    assert result.code == 1
    assert f"{envctl.home}/.envd.toml" in result.err


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("get web/prod@", "lacks the revision"),
        ("get web/Prod", "is no environment name"),
        ("get web/prod KEY extra", "too many arguments"),
        ("get web/prod 1KEY", "is no variable name"),
        ("create web/prod@~1", "names a revision"),
        ("set web/prod@~1 A=1", "names a revision"),
        ("delete web/prod@~1", "names a revision"),
        ("history web/prod@~1", "of an environment"),
        ("get sys/x", "begins with 'sys'"),
        ("get --env Bad", "--env: 'Bad' is no environment name"),
        ("rename a", "too few arguments"),
    ],
)
def test_words_that_make_no_sense_are_wrong_usage(
    envctl: Envctl, line: str, complaint: str
) -> None:
    result = envctl(line)

    assert result.code == 2
    assert complaint in result.err


def test_a_directory_that_was_removed_has_no_default(envctl: Envctl) -> None:
    result = envctl("get", cwd=Path("/no/such/directory"))

    assert result.code == 2
