"""A file in a git working tree: one commit for each apply, of what it wrote and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from envd.backends.contract import Options
from envd.backends.errors import StoreUnavailable, StoreUnsupported
from envd.backends.file import FileBackend
from envd.backends.file_git import GitTree
from tests.backends.driving import do, items, key, one, put, results


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which git knows no settings but those of the repository."""
    home = tmp_path / "home"
    home.mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CONFIG_HOME": str(home)}


@pytest.fixture
def tree(tmp_path: Path, environ: dict[str, str]) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    git(top, environ, "init", "--quiet", "--initial-branch", "main")
    (top / "web.env").write_text("# ours\nA=1\n")
    git(top, environ, "add", ".")
    git(top, environ, *THEM, "commit", "--quiet", "--message", "Begin")
    return top


THEM = ("-c", "user.name=them", "-c", "user.email=them@localhost")


def git(top: Path, environ: dict[str, str], *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(top), *arguments],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def opened(path: Path, environ: dict[str, str], *, below: bool = False) -> FileBackend:
    options = Options(str(path), below=below, settings={"git_commit": True})
    return FileBackend(options, git=GitTree(environ))


def changed(top: Path, environ: dict[str, str]) -> list[str]:
    """The files of the latest commit."""
    return sorted(git(top, environ, "show", "--format=", "--name-only").splitlines())


async def test_an_apply_is_one_commit_by_envd_without_values(
    tree: Path, environ: dict[str, str]
) -> None:
    file = opened(tree, environ, below=True)

    outcomes = await do(
        file,
        put("B", "HIDDEN", environment="web"),
        put("C", "HIDDEN", environment="web"),
        put("A", "HIDDEN", environment="team/new"),
    )

    message = git(tree, environ, "log", "-1", "--format=%an: %B").strip()
    assert results(outcomes) == ["applied"] * 3
    assert message == "envd: Set or unset A, B, C in web.env, team/new.env"
    assert changed(tree, environ) == ["team/new.env", "web.env"]
    assert git(tree, environ, "log", "--format=%an").split() == ["envd", "them"]


async def test_what_others_staged_stays_staged(tree: Path, environ: dict[str, str]) -> None:
    (tree / "theirs.txt").write_text("not yet\n")
    git(tree, environ, "add", "theirs.txt")

    await do(opened(tree / "web.env", environ), put("B", "2"))

    assert changed(tree, environ) == ["web.env"]
    assert git(tree, environ, "diff", "--cached", "--name-only").split() == ["theirs.txt"]


async def test_what_is_so_already_makes_no_commit(tree: Path, environ: dict[str, str]) -> None:
    file = opened(tree / "web.env", environ)
    version = (await items(file))[key("A")].version

    outcome = await one(file, put("A", "1", expect=version))

    assert outcome.result.value == "noop"
    assert git(tree, environ, "log", "--format=%an").split() == ["them"]


async def test_without_the_setting_nothing_is_committed(
    tree: Path, environ: dict[str, str]
) -> None:
    file = FileBackend(Options(str(tree / "web.env")), git=GitTree(environ))

    await do(file, put("B", "2"))

    assert git(tree, environ, "log", "--format=%an").split() == ["them"]


@pytest.mark.parametrize("mark", ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge"])
async def test_nothing_is_written_while_a_merge_or_the_like_is_under_way(
    tree: Path, environ: dict[str, str], mark: str
) -> None:
    (tree / ".git" / mark).write_text(git(tree, environ, "rev-parse", "HEAD"))

    outcome = await one(opened(tree / "web.env", environ), put("B", "2"))

    assert outcome.result.value == "failed"
    assert isinstance(outcome.error, StoreUnavailable)
    assert (tree / "web.env").read_text() == "# ours\nA=1\n"


async def test_an_ignored_file_is_refused_before_it_is_written(
    tree: Path, environ: dict[str, str]
) -> None:
    (tree / ".gitignore").write_text("*.local.env\n")

    outcome = await one(opened(tree / "my.local.env", environ), put("B", "2"))

    assert isinstance(outcome.error, StoreUnsupported)
    assert not (tree / "my.local.env").exists()


async def test_a_file_in_no_working_tree_is_refused(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    outcome = await one(opened(tmp_path / "web.env", environ), put("B", "2"))

    assert isinstance(outcome.error, StoreUnsupported)
    assert "no working tree" in outcome.error.message


async def test_a_hook_that_refuses_is_told_and_what_it_says_is_not(
    tree: Path, environ: dict[str, str]
) -> None:
    hook = tree / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ncat web.env >&2\nexit 1\n")
    hook.chmod(0o755)

    outcome = await one(opened(tree / "web.env", environ), put("B", "HIDDEN"))

    assert outcome.result.value == "failed"
    assert isinstance(outcome.error, StoreUnavailable)
    assert "HIDDEN" not in f"{outcome.error.message} {outcome.error.hint}"
    assert (tree / "web.env").read_text() == "# ours\nA=1\nB=HIDDEN\n"


async def test_names_that_mean_something_to_git_are_names_of_files(
    tree: Path, environ: dict[str, str]
) -> None:
    path = tree / ":(exclude)*.env"

    outcome = await one(opened(path, environ), put("B", "2"))

    assert outcome.result.value == "applied"
    assert changed(tree, environ) == [path.name]


async def test_a_machine_without_git_is_told(tree: Path, environ: dict[str, str]) -> None:
    outcome = await one(opened(tree / "web.env", {**environ, "PATH": "/nowhere"}), put("B", "2"))

    assert isinstance(outcome.error, StoreUnsupported)
    assert "git is not installed" in outcome.error.message
