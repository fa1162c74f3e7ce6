"""Many environments from the files of a directory: looking, and doing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from envd.core.errors import OutcomeUnknown, Unavailable
from envd.core.names import MAX_OPERATION_ID_BYTES
from envd.core.requests import WriteRequest
from tests.cli.bench import CANARY, Envctl

BASE = """\
secrets = ["*_KEY"]
[settings]
owner = "ops@example.com"
labels = { tier = "1", zone = "b" }
[variables]
PORT = "8080"
SIGN_KEY = "sign-key-of-web"
"""
PROD = """\
keep: [API_TOKEN]
prune: true
settings:
  extends: [web/base]
variables:
  URL: "https://example.com/${PORT}"
"""


def write(envctl: Envctl, **files: str) -> None:
    """Write files below envs; `web__prod_toml` is envs/web/prod.toml."""
    for name, text in files.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = envctl.home / "envs" / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    """Three files, and the secret that one of them leaves to the server."""
    write(envctl, web__base_toml=BASE, web__prod_yaml=PROD, api_env="A=1\nB='two'\n")
    envctl.ok("set web/prod --secret", f"API_TOKEN={CANARY}")
    return envctl


def operations(web: Envctl, line: str = "plan -f envs") -> list[tuple[str, str, str | None]]:
    return [
        (each["environment"], each["action"], each["variable"])
        for each in web.json(line)["operations"]
    ]


def test_a_plan_shows_what_files_would_change_and_changes_nothing(web: Envctl) -> None:
    before = len(web.node.writes())
    web.ok("set web/prod OLD=x")

    shown = web.ok("plan -f envs")

    assert len(web.node.writes()) == before + 1
    assert [line for line in shown.lines if line.startswith("  ")] == [
        "  + A  1",
        "  + B  two",
        "  + PORT            8080",
        "  + SIGN_KEY        ********",
        "  + setting labels  tier=1,zone=b",
        "  + setting owner   ops@example.com",
        "  - OLD              x",
        "  + URL              https://example.com/${PORT}",
        "  + setting extends  web/base",
    ]
    assert "8 to create, 0 to change, 1 to remove in 3 environments" in shown.lines
    assert "api  is new  (envs/api.env)" in shown.lines


def test_applying_makes_it_so_with_one_commit_each_and_bases_first(web: Envctl) -> None:
    web.ok("rename web/prod web/a")
    (web.home / "envs/web/prod.yaml").rename(web.home / "envs/web/a.yaml")
    before = len(web.node.writes())

    shown = web.ok("apply -f envs --yes")

    assert [write.environment for write in web.node.writes()[before:]] == [
        "api",
        "web/base",
        "web/a",
    ]
    assert shown.lines[-1] == "applied; 3 environments changed"
    assert web.ok("export web/a").out == (
        f"API_TOKEN={CANARY}\nPORT=8080\nSIGN_KEY=sign-key-of-web\n"
        "URL='https://example.com/${PORT}'\n"
    )
    assert web.json("get web/base")["variables"]["SIGN_KEY"]["secret"] is True
    assert web.json("history web/a")["commits"][0]["message"] == "applied from envs/web/a.yaml"


def test_what_is_applied_already_is_no_commit(web: Envctl) -> None:
    web.ok("apply -f envs --yes")
    before = len(web.node.writes())

    assert web.ok("apply -f envs --yes").lines == ["nothing differs; no commit was made"]
    assert web("plan -f envs --exit-code").code == 0
    assert len(web.node.writes()) == before


def test_differences_have_an_exit_code(web: Envctl) -> None:
    assert web("plan -f envs --exit-code").code == 9
    assert web("apply -f envs --dry-run --exit-code").code == 9
    assert web("apply -f envs --exit-code").code == 2
    assert web("plan -f envs").code == 0


def test_a_plan_for_programs_names_operations_and_no_value(web: Envctl) -> None:
    document = web.json("plan -f envs")

    assert document["operations"][3] == {
        "environment": "web/base",
        "action": "create",
        "kind": "variable",
        "variable": "SIGN_KEY",
        "secret": True,
        "reason": "",
        "revision": "",
    }
    assert len(document["plan"]) == 16
    assert "8080" not in json.dumps(document)


def test_variables_in_no_file_stay_unless_pruned(web: Envctl) -> None:
    web.ok("set web/base MORE=1")
    web.ok("set web/prod MORE=1")

    assert ("web/prod", "delete", "MORE") in operations(web)
    assert ("web/base", "delete", "MORE") not in operations(web)
    assert ("web/base", "delete", "MORE") in operations(web, "plan -f envs --prune")


def test_keep_protects_from_pruning_by_pattern_too(web: Envctl) -> None:
    write(web, web__prod_yaml=PROD.replace("[API_TOKEN]", '["API_*", "NONE_*"]'))

    assert not [name for _, action, name in operations(web) if action == "delete"]
    assert web("apply -f envs --yes").code == 0


def test_a_kept_variable_that_is_not_there_is_in_the_way(web: Envctl) -> None:
    web.ok("delete web/prod --yes")
    before = len(web.node.writes())

    assert ("web/prod", "conflict", "API_TOKEN") in operations(web)
    assert "1 in the way" in web.ok("plan -f envs").out
    result = web("apply -f envs --yes")

    assert result.code == 3
    assert "hint: set it first: envctl set web/prod API_TOKEN --secret" in result.err
    assert len(web.node.writes()) == before


def test_what_is_secret_stays_so_unless_the_file_says_plain(web: Envctl) -> None:
    web.ok("set api --secret A=0")

    web.ok("apply -f envs --yes")
    assert web.json("get api")["variables"]["A"]["secret"] is True

    (web.home / "envs/api.env").unlink()
    write(web, api_toml='plain = ["A"]\n[variables]\nA = "1"\n')
    assert "is no longer secret, same value" in web.ok("plan -f envs").out
    web.ok("apply -f envs --yes")
    assert web.json("get api")["variables"]["A"]["secret"] is False


def test_an_empty_setting_removes_it(web: Envctl) -> None:
    web.ok("apply -f envs --yes")
    write(web, web__base_toml=BASE.replace("ops@example.com", ""))

    web.ok("apply -f envs --yes")

    assert web.json("settings web/base")["metadata"].keys() >= {"labels"}
    assert "owner" not in web.json("settings web/base")["metadata"]


def test_a_file_that_says_nothing_makes_an_empty_environment(envctl: Envctl) -> None:
    write(envctl, web__prod_toml="", web__dev_yaml="", web__test_env="# nothing\n")

    assert operations(envctl) == [
        ("web/dev", "create", None),
        ("web/prod", "create", None),
        ("web/test", "create", None),
    ]
    envctl.ok("apply -f envs --yes")

    assert [each["variables"] for each in envctl.json("list")["environments"]] == [0, 0, 0]


# -- asking ----------------------------------------------------------------------------


def test_applying_asks(web: Envctl) -> None:
    before = len(web.node.writes())

    assert web("apply -f envs").code == 2
    assert web("apply -f envs", typed="n\n").code == 1
    assert len(web.node.writes()) == before

    assert web("apply -f envs", typed="y\n").code == 0
    assert web.value("api", "A") == "1"


def test_a_named_plan_is_done_or_nothing_is(web: Envctl) -> None:
    name = web.json("plan -f envs")["plan"]
    assert web.json("plan -f envs")["plan"] == name

    web.ok("set web/base PORT=1")
    result = web(f"apply -f envs --plan {name} --yes")
    assert result.code == 4
    assert "hint: look at it again: envctl plan -f envs\n" in result.err
    assert web("get api A").code == 3

    name = web.json("plan -f envs")["plan"]
    write(web, api_env="A=2\n")
    assert web(f"apply -f envs --plan {name} --yes").code == 4

    name = web.json("plan -f envs")["plan"]
    assert web(f"apply -f envs --plan {name} --yes").code == 0
    assert web(f"apply -f envs --plan {name} --yes").code == 0


def test_the_command_that_does_a_plan_is_about_the_same(web: Envctl) -> None:
    web.ok("set web/prod OLD=x")
    web.ok("set web/old A=1")
    (web.home / "envs").rename(web.home / "my envs")

    last = web.ok("plan -f 'my envs' --prune --delete-missing web").lines[-1]

    begin = "to do exactly this: envctl apply -f 'my envs' --prune --delete-missing web --plan "
    assert last.startswith(begin)
    web.ok(f"{last.partition('envctl ')[2]} --yes")
    assert web("get web/old").code == 3
    assert web("apply -f 'my envs' --plan 5c1d0e4f9a7b2233 --prune --yes").code == 0


@pytest.mark.parametrize("flag", ["--plan", "--delete-missing"])
def test_a_flag_whose_variable_is_not_set_is_refused(web: Envctl, flag: str) -> None:
    result = web(f"apply -f envs {flag} '' --yes")

    assert result.code == 2
    assert f"error: {flag} has no value\n" in result.err
    assert web("get api A").code == 3


# -- deleting what has no file ---------------------------------------------------------


def test_environments_without_a_file_stay_unless_asked_for(web: Envctl) -> None:
    web.ok("set web/old A=1")
    web.ok("set website A=1")

    assert not [each for each in operations(web) if each[1] == "delete"]
    assert ("web/old", "delete", None) in operations(web, "plan -f envs --delete-missing web")

    web.ok("apply -f envs --delete-missing web --yes")
    left = [each["environment"] for each in web.json("list")["environments"]]
    assert left == ["api", "web/base", "web/prod", "website"]


def test_a_prefix_that_no_file_is_about_is_not_emptied(web: Envctl) -> None:
    web.ok("set other/prod A=1")

    result = web("apply -f envs --delete-missing other --yes")

    assert result.code == 1
    assert web.value("other/prod", "A") == "1"


def test_nothing_is_deleted_by_a_list_that_is_not_whole(web: Envctl) -> None:
    web.ok("set web/old A=1")
    web.node.partial_reason = "partition 7 did not answer"

    assert web("apply -f envs --delete-missing web --yes").code == 5
    assert web.value("web/old", "A") == "1"


# -- what goes wrong on the way --------------------------------------------------------


def change_before_the_write_of(web: Envctl, environment: str, line: str) -> None:
    """Somebody else is faster, once."""

    def before(call: str, request: Any) -> None:
        if call == "write" and request.environment == environment:
            web.node.before = lambda call, request: None
            web.ok(line)

    web.node.before = before


def test_one_that_was_changed_meanwhile_is_left_alone_and_told(web: Envctl) -> None:
    change_before_the_write_of(web, "web/base", "set web/base PORT=theirs")

    result = web("apply -f envs --yes")

    assert result.code == 7
    assert "web/base: " in result.err
    assert web.value("web/base", "PORT") == "theirs"
    assert web.value("api", "A") == "1"
    assert web.value("web/prod", "URL") == "https://example.com/${PORT}"
    assert web("apply -f envs --yes").code == 0
    assert web.value("web/base", "PORT") == "8080"


def test_an_environment_that_changed_while_asking_is_left_alone(web: Envctl) -> None:
    reads = 0

    def before(call: str, request: Any) -> None:
        nonlocal reads
        reads += call == "get" and request.environment == "api"
        if reads == 2:
            web.node.before = lambda call, request: None
            web.ok("set api A=theirs")

    web.node.before = before

    result = web("apply -f envs --yes")

    assert result.code == 7
    assert "api: it or its file changed meanwhile, so it was left alone" in result.err
    assert web.value("api", "A") == "theirs"


def test_a_single_failure_has_its_own_exit_code(envctl: Envctl) -> None:
    write(envctl, web__prod_env="A=1\n")
    change_before_the_write_of(envctl, "web/prod", "set web/prod A=theirs")

    assert envctl("apply -f envs --yes").code == 4


@pytest.mark.parametrize("error", [Unavailable("away"), OutcomeUnknown("lost")])
def test_where_the_node_is_gone_the_rest_is_not_tried(web: Envctl, error: Exception) -> None:
    tried = []

    def before(call: str, request: Any) -> None:
        if call == "write":
            tried.append(request.environment)
            if request.environment == "web/base":
                raise error

    web.node.before = before

    result = web("apply -f envs --yes -o json")

    assert result.code == 7
    assert tried == ["api", "web/base"]
    document = json.loads(result.out)
    assert [each["environment"] for each in document["applied"]] == ["api"]
    assert [(each["environment"], each["reason"]) for each in document["failed"]] == [
        ("web/base", error.reason),  # type: ignore[attr-defined]
        ("web/prod", "NOT_TRIED"),
    ]


@pytest.mark.parametrize(("error", "code"), [(Unavailable("away"), 5), (OutcomeUnknown("x"), 8)])
def test_where_nothing_is_done_the_exit_code_does_not_say_partly(
    web: Envctl, error: Exception, code: int
) -> None:
    def before(call: str, request: Any) -> None:
        if call == "write":
            raise error

    web.node.before = before

    result = web("apply -f envs --yes")

    assert result.code == code
    assert "0 of 3 environments were changed; these were not:" in result.err
    assert "web/prod: not tried" in result.err


def test_long_operation_ids_stay_different(web: Envctl) -> None:
    for last in "ab":
        write(web, api_env=f"A={last}\n")
        web.ok("apply -f envs --yes --operation", "é" * 63 + last)

    operations = [each.operation for each in web.node.writes() if each.environment == "api"]

    assert len(set(operations)) == 2
    assert all(len(each.encode()) <= MAX_OPERATION_ID_BYTES for each in operations)


def test_each_environment_has_an_operation_of_its_own_that_is_always_the_same(web: Envctl) -> None:
    def sent(line: str) -> list[WriteRequest]:
        before = len(web.node.writes())
        web.ok(line)
        return list(web.node.writes()[before:])

    first = sent("apply -f envs --yes --operation op-1 --message why")
    web.ok("delete api --yes")
    again = sent("apply -f envs --yes --operation op-1")

    assert len({write.operation for write in first}) == 3
    assert all(write.operation.startswith("op-1.") for write in first)
    assert {write.message for write in first} == {"why"}
    assert [write.operation for write in again] == [first[0].operation]


def test_comparing_without_the_right_to_reveal_tells_so(web: Envctl) -> None:
    web.ok("apply -f envs --yes")
    web.node.rights.denied.add("reveal")

    shown = web.ok("plan -f envs")

    assert "can't be compared without the right to reveal" in shown.out
    assert "sign-key-of-web" not in shown.out


# -- files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("a_toml", "prnue = true\n", "envs/a.toml:1: there is no key 'prnue'"),
        ("a_toml", 'PORT = "1"\n', "variables stand below [variables]"),
        ("a_toml", "[variables]\n\nPORT = 80\n", "envs/a.toml:3: the value of PORT is a number"),
        ("a_toml", "[variables]\nA = true\n", "the value of A is a boolean"),
        ("a_toml", "[variables]\nA = 2020-01-01\n", "the value of A is a date"),
        ("a_toml", "[variables]\nA.b = '1'\n", "the value of A is a table"),
        ("a_toml", "[variables]\nA = 'x\n", "envs/a.toml:2: the file is not TOML"),
        ("a_toml", "a = " + "[" * 5000, "envs/a.toml:1: the file is not TOML"),
        ("a_toml", "[variables]\n'1A' = ''\n", "envs/a.toml:2: expected a variable name"),
        ("a_toml", "prune = 'yes'\n", "prune takes true or false"),
        ("a_toml", "keep = 'A'\n", "keep takes a list"),
        ("a_toml", "keep = [1]\n", "a part of keep is a number"),
        ("a_toml", "variables = 1\n", "variables is a number"),
        ("a_toml", "keep = ['A']\n[variables]\nA = ''\n", "a.toml:3: A has a value here"),
        ("a_toml", "[settings]\nownr = 'x'\n", "a.toml:2: 'ownr' is no setting"),
        ("a_toml", "[settings]\nextends = 'A B'\n", "a.toml:2: 'A B' is no environment name"),
        ("a_toml", "[settings]\nowner = 1\n", "a.toml:2: owner is a number"),
        ("a_toml", "[settings]\nprotected = true\n", "a.toml:2: this version has no approvals"),
        ("a_toml", "plain=['A']\nsecrets=['A']\n[variables]\nA=''\n", "a.toml:4: A is matched by"),
        ("a_yaml", "variables:\n  PORT: 80\n", "envs/a.yaml:2: the value of PORT is a number"),
        ("a_yaml", "variables:\n  A: yes\n", "the value of A is a boolean"),
        ("a_yaml", "variables: {A: '1', A: '2'}\n", "stands here a second time"),
        ("a_yaml", "- a\n", "envs/a.yaml:1: the document is a list"),
        ("a_yaml", "a: &x 1\nb: *x\n", "envs/a.yaml:2: this is an alias"),
        ("a_yaml", "[" * 100_000, "envs/a.yaml:1: this is nested too deep"),
        ("a_yaml", "a: 'b\n", "the file is not YAML"),
        ("a_yaml", "a: b\n---\nc: d\n", "found a second document"),
        ("a_yaml", "1: b\n", "found a number where a key is expected"),
        ("a_yml", "variables:\n  A: !!binary aGk=\n", "the value of A is no plain text"),
        ("a_env", "A=1\n???\n", "envs/a.env:2:"),
        ("Web__a_env", "A=1\n", "envs/Web/a.env: 'Web/a' is no environment name"),
        ("sys__a_env", "A=1\n", "envs/sys/a.env: 'sys/a' begins with"),
    ],
)
def test_files_that_can_not_be_are_refused_with_the_place(
    envctl: Envctl, name: str, text: str, error: str
) -> None:
    write(envctl, **{name: text, "good_env": "A=1\n"})

    result = envctl("apply -f envs --yes")

    assert result.code == 1
    assert error in result.err
    assert not envctl.node.asked


def test_no_error_of_a_file_shows_a_value(envctl: Envctl) -> None:
    for name, text in (
        ("a_toml", f"[variables]\nA = {CANARY}\n"),
        ("a_toml", f'[variables]\nA = "{CANARY}\\q"\n'),
        ("a_yaml", f"variables:\n  A: [{CANARY}]\n"),
        ("a_yaml", f"variables:\n  A: '{CANARY}\n"),
        ("a_env", f"A='{CANARY}\n"),
    ):
        write(envctl, **{name: text})
        result = envctl("plan -f envs")
        assert result.code == 1
        assert CANARY not in result.out + result.err
        for path in (envctl.home / "envs").iterdir():
            path.unlink()


def test_settings_may_be_text_lists_tables_flags_and_dates(envctl: Envctl) -> None:
    settings = "extends=['x','y']\nprotected=false\nexpires=2030-01-31\nlabels='a=1'\n"
    write(envctl, x_env="", y_env="", a_toml=f"[settings]\n{settings}")
    write(envctl, b_yaml="settings:\n  expires: 2030-01-31\n  labels: {z: '1', a: '2'}\n")

    envctl.ok("apply -f envs --yes")

    metadata = envctl.json("settings a")["metadata"]
    assert metadata["extends"] == "x,y"
    assert metadata["protected"] == "false"
    assert metadata["expires"] == "2030-01-31"
    assert envctl.json("settings b")["metadata"]["labels"] == "a=2,z=1"
    assert envctl.json("settings b")["metadata"]["expires"] == "2030-01-31"


def test_two_files_for_one_environment_are_refused(envctl: Envctl) -> None:
    write(envctl, a_env="A=1\n", a_toml="")

    assert "envs/a.toml: envs/a.env is about a already" in envctl("plan -f envs").err


def test_layers_that_form_a_circle_are_refused(envctl: Envctl) -> None:
    write(envctl, a_yaml="settings: {extends: [b]}\n", b_yaml="settings: {extends: [a]}\n")

    result = envctl("apply -f envs --yes")

    assert "envs/a.yaml: the layers form a circle" in result.err
    assert not envctl.node.asked


def test_other_files_are_told_hidden_ones_and_links_to_directories_are_not_read(
    envctl: Envctl,
) -> None:
    write(envctl, a_env="A=1\n", README_md="hello", b_json="{}")
    (envctl.home / "envs/.git").mkdir()
    (envctl.home / "envs/.git/x.env").write_text("A=1\n")
    (envctl.home / "envs/link").symlink_to(envctl.home / "envs")
    (envctl.home / "envs/c.env").symlink_to(envctl.home / "envs/a.env")

    result = envctl.ok("plan -f envs")

    assert result.err == (
        "note: not read (no .toml, .yaml or .env, or a link to a directory): "
        "envs/README.md, envs/b.json, envs/link\n"
    )
    assert {name for name, _, _ in operations(envctl)} == {"a", "c"}


def test_a_file_that_can_not_be_read_is_refused_not_taken_as_missing(web: Envctl) -> None:
    web.ok("set web/old A=1")
    old = web.home / "envs/web/old.env"
    old.symlink_to("nowhere")

    line = "apply -f envs --delete-missing web --yes"
    broken = web(line)
    old.unlink()
    os.mkfifo(old)
    pipe = web(line)

    assert (broken.code, pipe.code) == (1, 1)
    assert "error: can't read envs/web/old.env: No such file" in broken.err
    assert "error: envs/web/old.env is no file\n" in pipe.err
    assert web.value("web/old", "A") == "1"


def test_directories_deeper_than_any_name_are_walked(
    web: Envctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(web.home / "envs")
    depth = 1100
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")

    result = web("plan -f envs")

    for _ in range(depth):  # What removes the rest of it may be less patient.
        os.chdir("..")
        Path("d").rmdir()
    assert result.code == 0


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("plan", 2, "no directory is named"),
        ("plan -f none", 1, "none does not exist"),
        ("plan -f file", 1, "file is a file"),
        ("plan -f empty", 1, "empty holds no file of an environment"),
        ("plan -f empty x", 2, "too many arguments"),
        ("apply -f envs --delete-missing 'A B'", 2, "is no environment name"),
    ],
)
def test_directories_that_can_not_be(web: Envctl, line: str, code: int, error: str) -> None:
    web.file("file", "")
    Path(web.home / "empty").mkdir()

    result = web(line)

    assert result.code == code
    assert error in result.err
