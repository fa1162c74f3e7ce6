"""What `envctl` teaches: help, nearest names, completion."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from envd import __version__
from envd.cli.main import load_command
from envd.cli.table import COMMANDS, SUMMARIES
from tests.cli.bench import Envctl

CONTRACT_NOW = {
    *("get", "set", "unset", "create", "delete", "undelete", "rename", "settings", "list"),
    *("import", "export", "run", "diff", "history", "rollback", "use", "login", "whoami"),
    *("doctor", "dev", "completion", "tree", "find", "copy", "edit", "watch"),
}
WRITES = (
    *("set", "unset", "create", "delete", "undelete", "rename", "settings", "import"),
    "rollback",
)


def test_the_commands_of_the_contract_are_there() -> None:
    assert COMMANDS.keys() >= CONTRACT_NOW


@pytest.mark.parametrize("line", ["--help", "-h", "help", "help --help"])
def test_the_overview_names_every_command_and_fits_80_columns(envctl: Envctl, line: str) -> None:
    shown = envctl.ok(line)

    assert max(map(len, shown.lines)) <= 80
    for name, summary in SUMMARIES.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", shown.out, re.MULTILINE)


def test_no_command_at_all_shows_the_overview_as_an_error(envctl: Envctl) -> None:
    result = envctl("")

    assert (result.code, result.out) == (2, "")
    assert "Usage: envctl COMMAND" in result.err


@pytest.mark.parametrize("words", [("",), ("", "x"), ("--output", "json")])
def test_where_no_command_is_named_that_is_an_error(envctl: Envctl, words: tuple[str, ...]) -> None:
    result = envctl("", *words)

    assert (result.code, result.out) == (2, "")
    assert result.err == "error: no command is named\nhint: see: envctl --help\n"


def test_the_version_is_told(envctl: Envctl) -> None:
    assert envctl.ok("--version").out == f"envctl {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_teaches_itself_within_80_columns(envctl: Envctl, name: str) -> None:
    shown = envctl.ok(f"{name} --help")

    assert max(map(len, shown.lines)) <= 80
    assert shown.lines[0].startswith(f"Usage: envctl {name}")
    assert "Examples:\n" in shown.out
    assert all(flag.name in shown.out for flag in load_command(name).flags)
    assert envctl.ok(f"help {name}").out == shown.out
    assert envctl.ok(f"-h {name}").out == shown.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_have_flags_that_exist(name: str) -> None:
    from envd.cli.grammar import GLOBAL_FLAGS

    command = load_command(name)
    assert 2 <= len(command.examples) <= 4
    for line, _ in command.examples:
        for part in re.findall(r"envctl (\S+)([^|<]*)", line):
            of = load_command(part[0].strip('")'))
            known = {each.name for each in (*of.flags, *GLOBAL_FLAGS)}
            used = set(re.findall(r"(?<=\s)--[a-z-]+", part[1].split(" -- ")[0]))
            assert used <= known


def test_writes_take_a_message_and_an_operation() -> None:
    for name in WRITES:
        flags = {flag.name for flag in load_command(name).flags}
        assert {"--message", "--operation"} <= flags


def test_help_asks_no_node(envctl: Envctl) -> None:
    envctl.ok("get --help")

    assert not envctl.endpoints


def test_help_after_two_dashes_is_for_the_program(envctl: Envctl) -> None:
    envctl.ok("create web/prod")

    result = envctl("run web/prod -- ls --help", environ={"PATH": "/bin:/usr/bin"})

    assert result.executed is not None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_know_every_command_and_flag(envctl: Envctl, shell: str) -> None:
    script = envctl.ok(f"completion {shell}").out

    for name in COMMANDS:
        assert name in script
        for flag in load_command(name).flags:
            assert flag.name.removeprefix("--") in script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_read_their_completion_script(envctl: Envctl, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    script = envctl.ok(f"completion {shell}").out

    done = subprocess.run([program, "-n"], input=script, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (["envctl", "hi"], ["history"]),
        (["envctl", "get", "web/s"], ["web/staging"]),
        (["envctl", "get", "--rev"], ["--reveal"]),
        (["envctl", "-o", "js"], ["json"]),
        (["envctl", "completion", "f"], ["fish"]),
    ],
)
def test_bash_completes(envctl: Envctl, words: list[str], completions: list[str]) -> None:
    for name in ("web/prod", "web/staging"):
        envctl.ok(f"create {name}")
    listed = envctl.ok("list -o json").out
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""{envctl.ok("completion bash").out}
envctl() {{ printf '%s' '{listed}'; }}
COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
_envctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

    done = subprocess.run(["bash", "--norc"], input=script, capture_output=True, text=True)

    assert done.stderr == ""
    assert done.stdout.split() == completions
