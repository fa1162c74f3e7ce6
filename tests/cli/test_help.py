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
    *("context", "plan", "apply", "scan", "bench"),
}
WRITES = (
    *("set", "unset", "create", "delete", "undelete", "rename", "settings", "import"),
    *("rollback", "apply", "copy", "edit"),
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
    assert 2 <= len(command.examples) <= 6
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


CASES = [
    (["envctl", "hi"], "history"),
    (["envctl", "get", "web/s"], "web/staging"),
    (["envctl", "--server", "h:1", "get", "web/s"], "web/staging"),
    (["envctl", "get", "--rev"], "--reveal"),
    (["envctl", "-o", "js"], "json"),
    (["envctl", "-o", "json", "his"], "history"),
    (["envctl", "completion", "f"], "fish"),
    (["envctl", "plan", "-f", "some-d"], "some-dir"),
    (["envctl", "scan", "some-f"], "some-file"),
    (["envctl", "run", "web/prod", "--", "tru"], "true"),
]
NEEDED = pytest.mark.parametrize(("words", "completion"), CASES)


def completed(
    envctl: Envctl, shell: str, script: str, *, before: str = "", listed: str = ""
) -> list[str]:
    """What a shell says to `script`, after `before`, its completions and an envctl that lists."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    for name in ("web/prod", "web/staging"):
        envctl.ok(f"create {name}")
    (envctl.home / "some-dir").mkdir()
    envctl.file("some-file", "")
    listed = listed or envctl.ok("list -o json").out
    quiet = {
        "fish": f"function envctl; printf '%s' '{listed}'; end",
    }.get(shell, f"envctl() {{ printf '%s' '{listed}'; }}")
    source = f"{before}\n{envctl.ok(f'completion {shell}').out}\n{quiet}\n{script}\n"
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [program, *flags],
        input=source,
        capture_output=True,
        text=True,
        cwd=envctl.home,
        env={"PATH": "/usr/bin:/bin", "HOME": str(envctl.home), "TERM": "dumb"},
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@NEEDED
def test_bash_completes(envctl: Envctl, words: list[str], completion: str) -> None:
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
_envctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

    found = completed(envctl, "bash", script)

    assert completion in found
    assert all(each.startswith(words[-1]) for each in found)


def test_bash_runs_nothing_that_a_node_says(envctl: Envctl) -> None:
    script = "COMP_WORDS=(envctl get ''); COMP_CWORD=2; _envctl; printf '%s\\n' \"${COMPREPLY[@]}\""
    names = "".join(f'  "environment": "{name}",\n' for name in ("web/a", "$(touch ran)", "`id`"))

    found = completed(envctl, "bash", script, listed=names)

    assert found == ["web/a"]
    assert not (envctl.home / "ran").exists()


@NEEDED
def test_fish_completes(envctl: Envctl, words: list[str], completion: str) -> None:
    found = completed(envctl, "fish", f"complete --do-complete '{' '.join(words)}'")

    assert completion in [each.partition("\t")[0].rstrip("/") for each in found]


# The functions that zsh's completion system has, saying what they are asked for.
ZSH = """
compdef() { : }
compadd() {
    if [[ "$1" == -a ]]; then print -l -- ${(P)2}; else print -l -- "$@"; fi
}
_describe() { print -l -- ${${(P)2}%%:*} }
_files() { print -l -- * }
_normal() { print -l -- program "$words[CURRENT]" }
"""


@NEEDED
def test_zsh_completes(envctl: Envctl, words: list[str], completion: str) -> None:
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"words=({quoted}); CURRENT={len(words)}; PREFIX='{words[-1]}'; _envctl"

    found = completed(envctl, "zsh", script, before=ZSH)

    assert (completion if "--" not in words else "program") in found
