"""Importing files: what is shown, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envd.core.errors import OutcomeUnknown
from tests.cli.bench import CANARY, Envctl

DOTENV = Path(__file__).parents[1] / "data" / "dotenv"
FILE = f"""\
# a file
PORT=8080
DB_PASSWORD={CANARY}
URL="https://example.com/a b"
"""


@pytest.fixture
def env_file(envctl: Envctl) -> Envctl:
    envctl.file(".env", FILE)
    return envctl


def test_an_import_shows_what_changes_and_makes_one_commit(env_file: Envctl) -> None:
    shown = env_file.ok("import web/prod .env --message first")

    assert shown.lines[:6] == [
        "+ DB_PASSWORD",
        "+ PORT",
        "+ URL",
        "web/prod: 3 to add, 0 to change, 0 to remove, 0 the same",
        "secret: DB_PASSWORD",
        "  (to keep one plain: --plain NAME)",
    ]
    assert CANARY not in shown.out + shown.err
    assert len(env_file.json("history web/prod")["commits"]) == 1
    assert env_file.value("web/prod", "DB_PASSWORD") == CANARY
    assert env_file.json("get web/prod")["variables"]["PORT"]["secret"] is False


def test_a_second_import_changes_nothing(env_file: Envctl) -> None:
    env_file.ok("import web/prod .env")
    writes = len(env_file.node.writes())

    again = env_file.ok("import web/prod .env")

    assert "nothing differs; no commit was made" in again.out
    assert len(env_file.node.writes()) == writes


def test_only_what_differs_is_written(env_file: Envctl) -> None:
    env_file.ok("import web/prod .env")
    env_file.file(".env", FILE.replace("8080", "9090") + "NEW=1\n")

    shown = env_file.ok("import web/prod .env")

    assert [put.name for put in env_file.node.writes()[-1].puts] == ["NEW", "PORT"]
    assert shown.lines[:3] == [
        "+ NEW",
        "~ PORT",
        "web/prod: 1 to add, 1 to change, 0 to remove, 2 the same",
    ]


@pytest.mark.parametrize(
    ("flags", "secret"),
    [
        ("", {"DB_PASSWORD"}),
        ("--plain 'DB_*'", set()),
        ("--secret 'P*' --secret URL", {"DB_PASSWORD", "PORT", "URL"}),
        ("--secret '*' --plain 'NONE*'", {"DB_PASSWORD", "PORT", "URL"}),
    ],
)
def test_globs_decide_what_is_secret(env_file: Envctl, flags: str, secret: set[str]) -> None:
    env_file.ok(f"import web/prod .env {flags}")

    variables = env_file.json("get web/prod")["variables"]
    assert {name for name, each in variables.items() if each["secret"]} == secret


def test_a_pattern_that_matches_nothing_is_told(env_file: Envctl) -> None:
    assert "--plain PROT matches no name" in env_file.ok("import web/prod .env --plain PROT").err


def test_an_import_raises_flags_and_lowers_them_only_when_told(env_file: Envctl) -> None:
    def secret() -> set[str]:
        variables = env_file.json("get web/prod")["variables"]
        return {name for name, each in variables.items() if each["secret"]}

    env_file.ok("set web/prod PORT=8080 --secret")
    env_file.ok("set web/prod --plain", f"DB_PASSWORD={CANARY}")

    raised = env_file.ok("import web/prod .env")
    after_import = secret()
    lowered = env_file.ok("import web/prod .env --plain PORT --plain DB_PASSWORD")

    assert "~ DB_PASSWORD  (becomes secret, same value)" in raised.out
    assert "PORT" not in raised.out
    assert after_import == {"PORT", "DB_PASSWORD"}
    assert "~ PORT  (is no longer secret, same value)" in lowered.out
    assert secret() == set()


def test_a_dry_run_writes_nothing_and_tells_by_its_exit_code(env_file: Envctl) -> None:
    dry = env_file("import web/prod .env --dry-run")
    differs = env_file("import web/prod .env --dry-run --exit-code")
    env_file.ok("import web/prod .env")
    same = env_file("import web/prod .env --dry-run --exit-code")

    assert (dry.code, differs.code, same.code) == (0, 9, 0)
    assert "+ PORT" in dry.out
    assert len(env_file.node.writes()) == 1


def test_prune_removes_what_the_file_lacks_after_asking(env_file: Envctl) -> None:
    env_file.ok("set web/prod OLD=1 PORT=8080")

    unasked = env_file("import web/prod .env --prune")
    refused = env_file("import web/prod .env --prune", typed="\n")
    kept = "OLD" in env_file.json("get web/prod")["variables"]
    done = env_file("import web/prod .env --prune", typed="yes\n")

    assert (unasked.code, refused.code, done.code) == (2, 1, 0)
    assert kept
    assert "- OLD" in done.out
    assert set(env_file.json("get web/prod")["variables"]) == {"PORT", "DB_PASSWORD", "URL"}


def test_prune_that_removes_nothing_does_not_ask(env_file: Envctl) -> None:
    env_file.ok("import web/prod .env --prune")


def test_json_tells_what_an_import_did(env_file: Envctl) -> None:
    env_file.ok("set web/prod OLD=1 PORT=1")

    dry = env_file.json("import web/prod .env --prune --dry-run")
    done = env_file.json("import web/prod .env --prune --yes")

    for document in (dry, done):
        assert document["added"] == ["DB_PASSWORD", "URL"]
        assert document["changed"] == ["PORT"]
        assert document["removed"] == ["OLD"]
        assert document["secret"] == ["DB_PASSWORD"]
    assert done["revision"] == env_file.json("get web/prod")["revision"]
    assert {"stamp", "token", "acknowledged"} <= done.keys()


def test_the_default_environment_and_standard_input_do_too(envctl: Envctl) -> None:
    envctl.ok("import - --env web/prod --format json", stdin='{"A": "1"}')

    assert envctl.value("web/prod", "A") == "1"


def test_the_dialect_matters(envctl: Envctl) -> None:
    envctl.file(".env", "A=`b`\n")

    envctl.ok("import web/node .env --dialect node")
    envctl.ok("import web/python .env")

    assert envctl.value("web/node", "A") == "b"
    assert envctl.value("web/python", "A") == "`b`"


def test_a_concurrent_change_is_compared_again(env_file: Envctl) -> None:
    env_file.ok("set web/prod A=1")

    def change(call: str, request: Any) -> None:
        if call == "write" and request.bulk:
            env_file.node.before = lambda call, request: None
            env_file.ok("set web/prod PORT=8080")

    env_file.node.before = change

    env_file.ok("import web/prod .env")

    assert [put.name for put in env_file.node.writes()[-1].puts] == ["DB_PASSWORD", "URL"]


def test_an_environment_that_appears_meanwhile_is_compared_again(env_file: Envctl) -> None:
    def appear(call: str, request: Any) -> None:
        if call == "write" and request.bulk:
            env_file.node.before = lambda call, request: None
            env_file.ok("set web/prod PORT=1")

    env_file.node.before = appear

    env_file.ok("import web/prod .env")

    assert env_file.value("web/prod", "PORT") == "8080"


def test_changes_without_end_are_a_conflict(env_file: Envctl) -> None:
    env_file.ok("set web/prod A=0")
    count = 0

    def change(call: str, request: Any) -> None:
        nonlocal count
        if call == "write" and request.bulk:
            count += 1
            before, env_file.node.before = env_file.node.before, lambda call, request: None
            env_file.ok(f"set web/prod A={count}")
            env_file.node.before = before

    env_file.node.before = change

    result = env_file("import web/prod .env")

    assert result.code == 4
    assert count == 3


def test_a_stale_revision_of_the_caller_is_not_retried(env_file: Envctl) -> None:
    revision = env_file.json("set web/prod A=1")["revision"]
    env_file.ok("set web/prod A=2")

    assert env_file(f"import web/prod .env --if-revision {revision}").code == 4
    assert sum(request.bulk for request in env_file.node.writes()) == 1


def test_prune_does_not_remove_what_appeared_after_the_question(env_file: Envctl) -> None:
    env_file.ok("set web/prod OLD=1")

    def appear(call: str, request: Any) -> None:
        if call == "write" and request.bulk:
            env_file.node.before = lambda call, request: None
            env_file.ok("set web/prod NEWCOMER=1")

    env_file.node.before = appear

    result = env_file("import web/prod .env --prune --yes")

    assert result.code == 4
    assert set(env_file.json("get web/prod")["variables"]) == {"OLD", "NEWCOMER"}


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        (".env", "A=1\nB='open\n", ".env:2"),
        (".env", f"A=1\n{CANARY} {CANARY}\n", ".env:2"),
        (".env", b"A=\xff\n", ".env:1"),
        ("x.json", '{"A": 1}', "x.json:1"),
        ("x.json", '{"A": "1",\n "A": "2"}', "x.json:2"),
        ("x.yaml", "A: 1.10\n", "x.yaml:1"),
        ("x.yml", "- A\n", "x.yml:1"),
    ],
)
def test_a_bad_file_fails_at_its_line_and_nothing_is_written(
    envctl: Envctl, name: str, content: str | bytes, place: str
) -> None:
    envctl.file(name, content)

    result = envctl(f"import web/prod {name}")

    assert result.code == 1
    assert result.err.startswith(f"error: {place}: ")
    assert CANARY not in result.err
    assert not envctl.node.asked


def test_a_file_that_asks_for_too_much_fails(envctl: Envctl) -> None:
    envctl.file(".env", "".join(f"A{number}=1\n" for number in range(4097)))

    result = envctl("import web/prod .env")

    assert result.code == 1
    assert "4096" in result.err
    assert "split it into several" in result.err


def test_a_missing_file_fails(envctl: Envctl) -> None:
    result = envctl("import web/prod none.env")

    assert result.code == 1
    assert "none.env" in result.err


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("import", "no file is named"),
        ("import web/prod .env --from aws-ssm:/x", "too many arguments"),
        ("import web/prod --from aws-ssm", "is no target"),
        ("import web/prod --from aws-ssm:/x --format json", "--from is about a store"),
        ("import web/prod --from aws-ssm:/x --rename a=b*", "is no OLD=NEW"),
        ("import web/prod .env --rename a=b", "goes with --from"),
        ("import web/prod .env --credentials x", "goes with --from"),
        ("import web/prod .env --exit-code", "goes with --dry-run"),
        ("import web/prod .env --format toml", "invalid choice"),
        ("import web/prod .env --secret 'D*' --plain 'D*'", "both --secret and --plain"),
        ("import web/prod@~1 .env", "names a revision"),
    ],
)
def test_wrong_usage_is_told(env_file: Envctl, line: str, complaint: str) -> None:
    result = env_file(line)

    assert result.code == 2
    assert complaint in result.err
    assert not env_file.node.asked


def test_an_interrupted_import_changes_nothing(env_file: Envctl) -> None:
    def interrupt(call: str, request: Any) -> None:
        raise KeyboardInterrupt

    env_file.node.before = interrupt
    result = env_file("import web/prod .env")
    env_file.node.before = lambda call, request: None

    assert result.code == 130
    assert result.err == "error: interrupted\n"
    assert not env_file.json("list")["environments"]


def test_an_import_with_unknown_outcome_is_repeated_under_its_id(env_file: Envctl) -> None:
    def lose(call: str, request: Any) -> None:
        if call == "write":
            raise OutcomeUnknown("no answer")

    env_file.node.before = lose
    lost = env_file("import web/prod .env")
    env_file.node.before = lambda call, request: None
    operation = env_file.node.writes()[0].operation

    assert lost.code == 8
    assert f"hint: retry with --operation {operation}" in lost.err
    env_file.ok(f"import web/prod .env --operation {operation}")


def test_without_the_right_to_reveal_secrets_count_as_changed(env_file: Envctl) -> None:
    env_file.ok("import web/prod .env")
    env_file.node.rights.denied.add("reveal")

    shown = env_file.ok("import web/prod .env --dry-run")

    assert "~ DB_PASSWORD  (may be the same" in shown.out
    assert "PORT" not in shown.out


@pytest.mark.parametrize("path", sorted(DOTENV.glob("*.env")), ids=lambda path: path.name)
@pytest.mark.parametrize("form", ["dotenv", "json", "yaml"])
def test_real_files_survive_import_and_export(envctl: Envctl, path: Path, form: str) -> None:
    envctl.ok("import web/first", str(path), "--dialect", "node")
    envctl.ok(f"export web/first --format {form} --file out.{form}")

    envctl.ok(f"import web/second out.{form} --format {form}")

    first, second = (envctl.json(f"get {name} --reveal") for name in ("web/first", "web/second"))
    values = [
        {name: each["value"] for name, each in document["variables"].items()}
        for document in (first, second)
    ]
    assert values[0] == values[1]
    assert values[0]


@pytest.mark.parametrize("path", sorted(DOTENV.glob("*.node.json")), ids=lambda path: path.name)
def test_a_real_file_means_what_node_says_it_means(envctl: Envctl, path: Path) -> None:
    source = path.with_name(path.name.replace(".node.json", ".env"))

    envctl.ok("import web/prod", str(source), "--dialect", "node")

    document = envctl.json("get web/prod --reveal")
    values = {name: each["value"] for name, each in document["variables"].items()}
    assert values == json.loads(path.read_text("utf-8"))


def test_the_example_of_the_project_can_be_imported(envctl: Envctl) -> None:
    example = Path(__file__).parents[2] / "config" / "example.env"

    shown = envctl.ok("import demo/dev", str(example))

    assert "secret: API_TOKEN, DATABASE_URL, SMTP_PASSWORD" in shown.out
    assert envctl.value("demo/dev", "WELCOME_TEXT") == "Hello,\nand welcome to envd."
