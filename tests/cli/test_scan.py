"""Looking for secret values in files and in git's history, without ever showing one."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import textwrap
from urllib.parse import quote

import pytest

from envd.cli.commands.scanning import Search
from envd.cli.haystack import Text
from envd.cli.secret_values import Holdings, Owner, forms, is_everyday
from tests.cli.bench import CANARY, Envctl

ODD = 'p@ss "wörd"/x+\n2'


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.ok("set web/prod PORT=80801234")
    envctl.ok("set web/prod --secret", f"API={CANARY}")
    envctl.ok("set web/prod --secret", f"ODD={ODD}")
    (envctl.home / "tree").mkdir()
    return envctl


def lines_found(result_out: str) -> list[str]:
    return [line for line in result_out.splitlines() if ": web/" in line]


def test_a_value_is_told_by_place_and_owner_and_never_shown(web: Envctl) -> None:
    web.file("tree/a.txt", f"one\ntwo {CANARY} {CANARY}\n\n{CANARY}\n")

    result = web("scan tree")

    assert result.code == 9
    assert lines_found(result.out) == [
        "tree/a.txt:2: web/prod API (as it is)",
        "tree/a.txt:4: web/prod API (as it is)",
    ]
    assert CANARY not in result.out + result.err


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("as it is", ODD),
        ("URL-encoded", quote(ODD, safe="")),
        ("URL-encoded", quote(ODD)),
        ("URL-encoded", quote(ODD, safe="").replace("%C3", "%c3").replace("%B6", "%b6").lower()),
        ("escaped", json.dumps({"a": ODD})),
        ("escaped", json.dumps({"a": ODD}, ensure_ascii=False)),
        ("escaped", json.dumps({"a": ODD}).replace("/", "\\/")),
        ("escaped", ODD.replace('"', '\\"')),
        ("escaped", ODD.replace('"', "&quot;")),
        ("base64", base64.b64encode(ODD.encode()).decode()),
        ("base64", base64.b64encode(f"u:{ODD}@".encode()).decode()),
        ("base64", base64.b64encode(f"us:{ODD}@h".encode()).decode()),
        ("base64", base64.urlsafe_b64encode(f"use:{ODD}@ho".encode()).decode()),
    ],
)
def test_a_value_is_found_in_other_forms(web: Envctl, form: str, text: str) -> None:
    web.file("tree/a.txt", f"x {text} y")

    result = web("scan tree")

    assert lines_found(result.out) == [f"tree/a.txt:1: web/prod ODD ({form})"]


@pytest.mark.parametrize("rest", ["!", "'", "(", ")*~"])
def test_what_javascript_encodes_is_found(web: Envctl, rest: str) -> None:
    web.ok("set web/dev KEY --secret --raw", stdin=f"a b/9xQz{rest}")
    web.file("tree/a.txt", quote(f"a b/9xQz{rest}", safe="!~*'()"))

    assert lines_found(web("scan tree").out) == ["tree/a.txt:1: web/dev KEY (URL-encoded)"]


KEY_LINES = [base64.b64encode(bytes(range(at, at + 48))).decode() for at in (3, 60, 130)]
KEY = "\n".join(["-----BEGIN PRIVATE KEY-----", *KEY_LINES, "-----END PRIVATE KEY-----", ""])


@pytest.mark.parametrize(
    ("text", "line", "form"),
    [
        (KEY, 1, "as it is"),
        (KEY.replace("\n", "\r\n"), 2, "in other lines"),
        ("key: |\n" + textwrap.indent(KEY, "      "), 3, "in other lines"),
        (" ".join(KEY_LINES), 0, ""),
        ("\n".join(KEY_LINES), 0, ""),
    ],
)
def test_a_value_of_several_lines_is_found_however_they_stand(
    web: Envctl, text: str, line: int, form: str
) -> None:
    web.ok("set web/dev KEY --secret --raw", stdin=KEY)
    web.file("tree/a.txt", text)

    found = lines_found(web("scan tree").out)

    assert found == ([f"tree/a.txt:{line}: web/dev KEY ({form})"] if line else [])


@pytest.mark.parametrize("width", [60, 64, 76])
@pytest.mark.parametrize("value", [KEY, CANARY])
def test_base64_is_found_wherever_its_lines_end(value: str, width: int) -> None:
    search = Search.of(Holdings({value: [Owner("web/dev", "KEY")]}))

    def forms_in(text: str) -> set[str]:
        lines = textwrap.wrap(base64.b64encode(text.encode()).decode(), width)
        return {each.form for each in search.look_into(Text("a", "\r\n".join(lines).encode()))}

    for before in range(100):
        assert forms_in("#" * before + value + "###") == {"base64"}
        assert not forms_in("#" * before + value[:-1] + "?###")


def test_no_form_is_part_of_an_unrelated_text() -> None:
    for value in (CANARY, ODD, "12345678abc", "ééééèèàà"):
        for raw in forms(value):
            assert len(raw) >= 8


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_text_in_utf_16_is_no_binary(web: Envctl, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    web.file("tree/a.txt", f"{mark}one\n{CANARY}\n".encode(encoding))

    assert lines_found(web("scan tree").out) == ["tree/a.txt:2: web/prod API (UTF-16)"]


def test_what_is_clean_is_told_so(web: Envctl) -> None:
    web.file("tree/a.txt", "PORT=80801234\n")

    result = web.ok("scan tree")

    assert result.lines == ["nothing found  (2 secret values, 1 file searched)"]


def test_older_values_count_unless_only_those_of_now_do(web: Envctl) -> None:
    web.ok("set web/prod API=another-value-9f")
    web.ok("unset web/prod ODD")
    web.file("tree/a.txt", f"{CANARY}\n{ODD}\n")

    result = web("scan tree")

    assert lines_found(result.out) == [
        "tree/a.txt:1: web/prod API (as it is, an older value)",
        "tree/a.txt:2: web/prod ODD (as it is, an older value)",
    ]
    assert web("scan tree --current").code == 0


def test_a_value_of_several_is_told_once(web: Envctl) -> None:
    web.ok("set web/dev --secret", f"SAME={CANARY}")
    web.file("tree/a.txt", CANARY)

    assert lines_found(web("scan tree").out) == [
        "tree/a.txt:1: web/dev SAME (as it is, and 1 more with this value)"
    ]


def test_short_and_common_values_are_not_looked_for_and_counted(web: Envctl) -> None:
    web.ok("set web/dev --secret A=1234567 B=password C=aaaaaaaaaaaa D=20240131 E=")
    web.file("tree/a.txt", "1234567 password aaaaaaaaaaaa 20240131")

    result = web("scan tree")

    assert result.code == 0
    assert "note: 4 values too short or too common to look for\n" in result.err


@pytest.mark.parametrize("value", ["1234567", "Passw0rd", "abababab", "12345678901"])
def test_everyday_values(value: str) -> None:
    assert is_everyday(value)
    assert not is_everyday(f"{value}-x7Qz!9")


def test_directories_are_walked_but_not_git_nor_links(web: Envctl) -> None:
    for name in ("b/c/deep.txt", ".git/config", ".hidden", "a.txt"):
        path = web.home / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CANARY)
    (web.home / "outside").write_text(CANARY)
    (web.home / "tree/link").symlink_to(web.home / "outside")
    (web.home / "tree/loop").symlink_to(web.home / "tree")
    os.mkfifo(web.home / "tree/pipe")

    found = lines_found(web("scan tree").out)

    assert [line.partition(":")[0] for line in found] == [
        "tree/.hidden",
        "tree/a.txt",
        "tree/b/c/deep.txt",
    ]
    inside = web("scan", cwd=web.home / "tree").out
    assert [line.partition(":")[0] for line in lines_found(inside)] == [
        ".hidden",
        "a.txt",
        "b/c/deep.txt",
    ]


def test_binary_and_large_files_are_passed_over_and_told(web: Envctl) -> None:
    web.file("tree/a.bin", b"\0" + CANARY.encode())
    web.file("tree/large", CANARY + " " * (1 << 20))

    result = web("scan tree --max-size 1")

    assert result.code == 0
    assert "note: 1 binary file passed over (--binary)\n" in result.err
    assert "note: larger than 1 MiB (--max-size): tree/large\n" in result.err
    assert len(lines_found(web("scan tree --binary").out)) == 2


def test_a_name_that_is_a_secret_is_found_and_masked(web: Envctl) -> None:
    web.file(f"tree/{CANARY}.txt", "")

    result = web("scan tree")

    assert lines_found(result.out) == ["tree/********.txt: web/prod API (in the file's name)"]
    assert CANARY not in web("scan tree -o json").out


def test_names_of_what_is_passed_over_are_looked_at_and_masked(web: Envctl) -> None:
    web.file(f"tree/large-{CANARY}", b" " * ((1 << 20) + 1))
    web.file(f"tree/binary-{CANARY}", b"\0")
    (web.home / f"tree/link-{CANARY}").symlink_to("nowhere")
    (web.home / "tree/target").symlink_to(CANARY)

    result = web("scan tree --max-size 1")

    assert lines_found(result.out) == [
        "tree/binary-********: web/prod API (in the file's name)",
        "tree/large-********: web/prod API (in the file's name)",
        "tree/link-********: web/prod API (in the file's name)",
        "tree/target:1: web/prod API (as it is)",
    ]
    assert "note: larger than 1 MiB (--max-size): tree/large-********\n" in result.err
    assert CANARY not in result.err + web("scan tree --max-size 1 -o json").out


def test_the_name_of_what_can_not_be_read_is_masked(web: Envctl) -> None:
    directory = web.home / f"tree/{CANARY}"
    directory.mkdir()

    def before(call: str, request: object) -> None:
        if directory.exists():
            directory.rmdir()

    web.node.before = before

    result = web(f"scan tree/{CANARY}")

    assert result.err == "error: 1 file could not be read: tree/********/\n"


def test_standard_input_is_searched(web: Envctl) -> None:
    result = web("scan -", stdin=f"+ key = {CANARY}\n")

    assert (result.code, lines_found(result.out)) == (
        9,
        ["standard input:1: web/prod API (as it is)"],
    )
    assert web("scan - --history").code == 2


def test_findings_for_programs(web: Envctl) -> None:
    web.file("tree/a.txt", CANARY)

    result = web("scan tree -o json")

    assert result.code == 9
    assert json.loads(result.out)["findings"] == [
        {
            "file": "tree/a.txt",
            "line": 1,
            "object": None,
            "form": "as it is",
            "secrets": [{"environment": "web/prod", "variable": "API", "older": False}],
        }
    ]
    assert CANARY not in result.out


def test_secrets_that_may_not_be_read_are_told(web: Envctl) -> None:
    web.node.rights.denied.add("reveal")

    result = web("scan tree")

    assert result.code == 6
    assert CANARY not in result.err


def test_without_secrets_there_is_nothing_to_look_for(envctl: Envctl) -> None:
    envctl.ok("set web/prod A=1")

    assert envctl.ok("scan").lines == ["there are no secret values to look for"]


@pytest.mark.parametrize(
    ("line", "code"), [("scan none", 1), ("scan a b", 2), ("scan --max-size x", 2)]
)
def test_what_can_not_be_scanned(web: Envctl, line: str, code: int) -> None:
    assert web(line).code == code


def test_what_can_not_be_read_is_listed_and_not_called_clean(web: Envctl) -> None:
    def before(call: str, request: object) -> None:
        if (web.home / "tree").exists():
            (web.home / "tree").rmdir()

    web.node.before = before

    result = web("scan tree")

    assert result.code == 7
    assert result.err == "error: 1 file could not be read: tree/\n"


# -- git -------------------------------------------------------------------------------


def git(web: Envctl, *arguments: str) -> str:
    program = shutil.which("git")
    if program is None:
        pytest.skip("there is no git here")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    done = subprocess.run(
        [program, *who, *arguments],
        cwd=web.home / "tree",
        env={"PATH": "/usr/bin:/bin", "HOME": str(web.home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(web: Envctl) -> Envctl:
    web.environ["PATH"] = "/usr/bin:/bin"
    git(web, "init", "-q")
    return web


def test_values_in_the_history_are_found_with_their_commit(repository: Envctl) -> None:
    repository.file("tree/a.txt", f"x\n{CANARY}\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "first")
    commit = git(repository, "log", "--format=%h")
    repository.file("tree/a.txt", "clean\n")
    git(repository, "commit", "-qam", "clean")

    assert repository("scan tree").code == 0
    result = repository("scan tree --history")

    assert result.code == 9
    assert lines_found(result.out) == [f"{commit}:a.txt:2: web/prod API (as it is)"]


def test_the_path_is_that_in_the_commit_which_brought_it(repository: Envctl) -> None:
    repository.file("tree/ältere.txt", f"{CANARY}\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "first")
    commit = git(repository, "log", "--format=%h")
    git(repository, "mv", "ältere.txt", "newer.txt")
    git(repository, "commit", "-qm", "renamed")
    (repository.home / "tree/newer.txt").unlink()

    result = repository("scan tree --history")

    assert lines_found(result.out) == [f"{commit}:ältere.txt:1: web/prod API (as it is)"]


def test_messages_and_what_no_branch_reaches_are_found(repository: Envctl) -> None:
    repository.file("tree/a.txt", "x\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", f"uses {CANARY}")
    repository.file("tree/lost", CANARY)
    git(repository, "hash-object", "-w", "lost")
    (repository.home / "tree/lost").unlink()

    found = lines_found(repository("scan tree --history").out)

    assert len(found) == 2
    assert any("(commit message)" in line for line in found)
    assert CANARY not in "".join(found)


def test_a_name_in_the_history_is_found_once(repository: Envctl) -> None:
    repository.file(f"tree/{CANARY}.txt", "x\n")
    for number in range(3):
        repository.file("tree/b.txt", str(number))
        git(repository, "add", ".")
        git(repository, "commit", "-qm", str(number))
    git(repository, "rm", "-q", f"{CANARY}.txt")
    git(repository, "commit", "-qm", "gone")

    result = repository("scan tree --history")

    (found,) = lines_found(result.out)
    assert found.endswith(" (a directory): web/prod API (in the file's name)")
    assert CANARY not in result.out + result.err


def test_a_damaged_repository_is_not_called_clean(repository: Envctl) -> None:
    for number in range(3):
        repository.file(f"tree/{number}.txt", os.urandom(200).hex())
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "first")
    git(repository, "repack", "-adq")
    (pack,) = (repository.home / "tree/.git/objects/pack").glob("*.pack")
    pack.chmod(0o644)
    raw = pack.read_bytes()
    pack.write_bytes(raw[:20] + bytes(len(raw) - 40) + raw[-20:])

    result = repository("scan tree --history")

    assert result.code in {1, 7}
    assert result.err.startswith("error: ")


def test_the_token_is_not_given_to_git_nor_is_a_hook_run(repository: Envctl) -> None:
    marker = repository.home / "ran"
    hook = repository.file("tree/hook.sh", f"#!/bin/sh\nenv > {marker}\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    git(repository, "config", "diff.external", str(hook))

    assert repository("scan tree --history", environ={"ENVD_TOKEN": "t"}).code == 0
    assert not marker.exists()


def test_without_a_repository_there_is_no_history(web: Envctl) -> None:
    web.environ["PATH"] = "/usr/bin:/bin"

    result = web("scan tree --history", environ={"GIT_CEILING_DIRECTORIES": str(web.home.parent)})

    assert result.code == 1
    assert "hint: --history is about a path within a git repository" in result.err
