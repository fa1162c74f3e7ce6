"""Editing an environment as a file."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from envd.cli.commands.editing import MARK
from tests.cli.bench import CANARY, Envctl

EDITOR = {"VISUAL": "", "EDITOR": "nano -w", "ENVD_TOKEN": "t", "ENVD_BACKUP_PASSPHRASE": "p"}


@pytest.fixture
def web(envctl: Envctl, tmp_path: Path) -> Envctl:
    runtime = tmp_path / "run"
    runtime.mkdir()
    envctl.environ.update(EDITOR, XDG_RUNTIME_DIR=str(runtime))
    envctl.ok("set web/prod A=1 B='two words'")
    envctl.ok("set web/prod --secret", f"API={CANARY}")
    return envctl


def editing(*steps: Callable[[str], str]) -> Callable[[Path], int]:
    """An editor that changes the text in these ways, one each time, and then not at all."""
    left = list(steps)

    def editor(path: Path) -> int:
        if left:
            path.write_text(left.pop(0)(path.read_text()))
        return 0

    return editor


def replacing(old: str, new: str) -> Callable[[str], str]:
    def step(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return step


def leftovers(web: Envctl) -> list[Path]:
    return list((web.home / "run").rglob("*.env"))


def test_what_was_changed_is_shown_and_saved_as_one_commit(web: Envctl) -> None:
    web.editor = editing(lambda text: text.replace("A=1", "A=9\nNEW=n").replace("B=", "#B="))
    before = len(web.node.writes())

    shown = web.ok("edit web/prod -m why")

    (write,) = web.node.writes()[before:]
    assert (write.message, bool(write.if_revision)) == ("why", True)
    assert shown.lines[:3] == ["~ A", "- B", "+ NEW"]
    assert web.ok("export web/prod").out == f"A=9\nAPI={CANARY}\nNEW=n\n"
    assert web.edited[0][0] == ["nano", "-w"]
    assert leftovers(web) == []


def test_the_file_is_private_and_explains_itself(web: Envctl) -> None:
    seen: list[tuple[int, int, str]] = []

    def editor(path: Path) -> int:
        modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)]
        seen.append((modes[0], modes[1], path.read_text()))
        return 0

    web.editor = editor
    web.ok("edit web/prod")

    ((mode, above, text),) = seen
    assert (mode, above) == (0o600, 0o700)
    assert text.startswith("# web/prod, at revision ")
    assert f"API='{MARK}'\n" in text
    assert CANARY not in text


def test_without_a_change_nothing_is_done(web: Envctl) -> None:
    before = len(web.node.writes())

    assert "nothing was changed" in web.ok("edit web/prod").out
    assert len(web.node.writes()) == before
    assert leftovers(web) == []


def test_secrets_are_shown_with_reveal_and_stay_secret(web: Envctl) -> None:
    web.editor = editing(replacing(CANARY, "other"))

    shown = web.ok("edit web/prod --reveal")

    assert web.value("web/prod", "API") == "other"
    assert web.json("get web/prod")["variables"]["API"]["secret"]
    assert "other" not in shown.out


def test_reveal_takes_the_right_to(web: Envctl) -> None:
    web.node.rights.denied.add("reveal")

    assert web("edit web/prod --reveal").code == 6
    assert web.edited == []


def test_a_new_variable_that_looks_like_a_credential_becomes_secret(web: Envctl) -> None:
    web.editor = editing(lambda text: text + "DB_PASSWORD=hunter\n")

    web.ok("edit web/prod")

    assert web.json("get web/prod")["variables"]["DB_PASSWORD"]["secret"]


def test_an_environment_can_be_made(web: Envctl) -> None:
    web.editor = editing(lambda text: text + "A=1\n")

    web.ok("edit web/new")

    assert web.value("web/new", "A") == "1"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda text: text + "no assignment\n",
        lambda text: text.replace(MARK, "<secret>"),
        lambda text: text.replace("API=", "OTHER="),
        lambda text: text.replace("A=1", f"A='{MARK}'"),
    ],
)
def test_a_file_that_can_not_be_saved_is_opened_again(
    web: Envctl, wrong: Callable[[str], str]
) -> None:
    texts: list[str] = []

    def right(text: str) -> str:
        texts.append(text)
        return "# mine\nA=3\nB=2\n" + f"API='{MARK}'\n"

    web.editor = editing(wrong, right)

    web.ok("edit web/prod")

    assert texts[0].startswith("# error: ")
    assert web.value("web/prod", "A") == "3"
    assert web.value("web/prod", "API") == CANARY
    assert leftovers(web) == []


def test_the_number_of_a_line_is_right_in_the_file_with_the_reason(web: Envctl) -> None:
    texts: list[str] = []

    def look(text: str) -> str:
        texts.append(text)
        return text

    web.editor = editing(replacing("A=1", "no assignment"), look)

    web("edit web/prod")

    number = texts[0].split("\n").index("no assignment") + 1
    assert f"web-prod.env:{number}: " in texts[0].split("\n")[0]


def test_giving_up_saves_nothing_and_keeps_what_was_written(web: Envctl) -> None:
    web.editor = editing(lambda text: text + "no assignment\n")
    before = len(web.node.writes())

    result = web("edit web/prod")

    (kept,) = leftovers(web)
    assert result.code == 1
    assert str(kept) in result.err
    assert "no assignment" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(web.node.writes()) == before


def test_a_conflict_saves_nothing_and_keeps_what_was_written(web: Envctl) -> None:
    def editor(path: Path) -> int:
        web.ok("set web/prod A=theirs")
        path.write_text(path.read_text().replace("A=1", "A=mine"))
        return 0

    web.editor = editor

    result = web("edit web/prod")

    (kept,) = leftovers(web)
    assert result.code == 4
    assert str(kept) in result.err
    assert web.value("web/prod", "A") == "theirs"


def test_an_interruption_removes_the_file(web: Envctl) -> None:
    def editor(path: Path) -> int:
        path.write_text("A=9\n")
        raise KeyboardInterrupt

    web.editor = editor

    assert web("edit web/prod").code == 130
    assert leftovers(web) == []


def test_an_editor_that_fails_changes_nothing(web: Envctl) -> None:
    web.editor = lambda path: 3

    result = web("edit web/prod")

    assert result.code == 1
    assert "exit code 3" in result.err
    assert leftovers(web) == []


def test_an_editor_that_is_not_there_is_told(web: Envctl) -> None:
    def editor(path: Path) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    web.editor = editor

    result = web("edit web/prod")

    assert result.code == 1
    assert "hint: name one in EDITOR" in result.err
    assert leftovers(web) == []


def test_visual_beats_editor_and_vi_is_the_last_resort(web: Envctl) -> None:
    web.ok("edit web/prod", environ={"VISUAL": "code --wait"})
    web.ok("edit web/prod", environ={"EDITOR": ""})

    assert [words for words, _ in web.edited] == [["code", "--wait"], ["vi"]]


# -- what killed edits left ------------------------------------------------------------

DAY_S = 86_400


def left_behind(web: Envctl, name: str, *, age_s: int) -> Path:
    """A directory as an edit that was killed leaves it, last touched so long ago."""
    directory = web.home / "run" / name
    directory.mkdir(mode=0o700)
    file = directory / "web-prod.env"
    file.write_text("A=1\n")
    for path in (file, directory):
        os.utime(path, (web.wall_ms / 1000 - age_s,) * 2)
    return directory


def test_what_killed_edits_left_is_removed_after_a_day(web: Envctl) -> None:
    old = left_behind(web, "envctl-edit-old", age_s=DAY_S + 1)
    young = left_behind(web, "envctl-edit-young", age_s=DAY_S - 1)
    kept = left_behind(web, "envctl-kept-x", age_s=9 * DAY_S)
    other = left_behind(web, "something-else", age_s=9 * DAY_S)

    web.ok("edit web/prod")

    assert not old.exists()
    assert young.exists()
    assert kept.exists()
    assert other.exists()


def test_a_directory_that_an_edit_still_works_in_is_not_removed(web: Envctl) -> None:
    held = left_behind(web, "envctl-edit-held", age_s=9 * DAY_S)
    lock = os.open(held, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    web.ok("edit web/prod")

    assert held.exists()
    os.close(lock)
    web.ok("edit web/prod")
    assert not held.exists()


def test_a_link_is_not_taken_for_a_directory_of_ours(web: Envctl) -> None:
    target = left_behind(web, "precious", age_s=9 * DAY_S)
    (web.home / "run/envctl-edit-link").symlink_to(target)

    web.ok("edit web/prod")

    assert (target / "web-prod.env").exists()


def test_the_directory_of_a_running_edit_is_locked(web: Envctl) -> None:
    def editor(path: Path) -> int:
        lock = os.open(path.parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
        return 0

    web.editor = editor

    web.ok("edit web/prod")

    assert web.edited
