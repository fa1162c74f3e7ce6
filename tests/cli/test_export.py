"""Exporting: formats, files, and the right to reveal."""

from __future__ import annotations

import json
import os
import stat

import pytest

from tests.cli.bench import CANARY, Envctl


@pytest.fixture
def web(envctl: Envctl) -> Envctl:
    envctl.ok("set web/prod PORT=8080", "TEXT=it's 'quoted'")
    envctl.ok("set web/prod --secret", f"API={CANARY}")
    return envctl


def test_dotenv_is_the_default(web: Envctl) -> None:
    assert web.ok("export web/prod").out == (f"API={CANARY}\nPORT=8080\nTEXT=\"it's 'quoted'\"\n")


def test_formats_hold_the_same_values(web: Envctl) -> None:
    assert json.loads(web.ok("export web/prod --format json").out)["API"] == CANARY
    assert "export PORT='8080'" in web.ok("export web/prod --format shell").out
    assert "PORT=8080\n" in web.ok("export web/prod --format docker").out


def test_a_file_is_for_its_owner_alone_and_replaces_another(web: Envctl) -> None:
    path = web.file("out.env", "old")
    path.chmod(0o644)

    shown = web.ok("export web/prod --file out.env")

    assert shown.out == ""
    assert path.read_text().startswith("API=")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in web.home.iterdir()] == ["out.env"]


def test_a_link_is_followed_and_stays_one(web: Envctl) -> None:
    path = web.file("kept.env", "old")
    (web.home / "out.env").symlink_to("kept.env")

    web.ok("export web/prod --file out.env")

    assert (web.home / "out.env").is_symlink()
    assert path.read_text().startswith("API=")


def test_a_pipe_is_written_to_and_not_replaced(web: Envctl) -> None:
    pipe = web.home / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    shown = web.ok("export web/prod --file pipe")

    assert os.read(reader, 1 << 16).startswith(b"API=")
    assert pipe.is_fifo()
    assert "mode" not in shown.err
    os.close(reader)


def test_a_revision_can_be_exported(web: Envctl) -> None:
    web.ok("set web/prod PORT=9090")

    assert "PORT=8080" in web.ok("export web/prod@~1").out


def test_secrets_take_the_right_to_reveal(web: Envctl) -> None:
    web.ok("set web/open PORT=1")
    web.node.rights.denied.add("reveal")

    assert web("export web/prod --file out.env").code == 6
    assert not (web.home / "out.env").exists()
    assert web("export web/open").code == 0


def test_what_a_format_can_not_hold_fails_and_names_the_variable(web: Envctl) -> None:
    web.ok("set web/prod", f"LINES=a\n{CANARY}")

    result = web("export web/prod --format docker --file out.env")

    assert result.code == 1
    assert "LINES" in result.err
    assert CANARY not in result.err
    assert not (web.home / "out.env").exists()


@pytest.mark.parametrize(
    ("line", "code", "complaint"),
    [
        ("export web/prod --format toml", 2, "invalid choice"),
        ("export web/prod -o json", 2, "--format json"),
        ("export web/none", 3, "no environment"),
        ("export web/prod --file no/such/dir/x", 1, "can't write"),
        ("export web/prod extra", 2, "too many"),
    ],
)
def test_exports_that_can_not_be(web: Envctl, line: str, code: int, complaint: str) -> None:
    result = web(line)

    assert result.code == code
    assert complaint in result.err
    assert CANARY not in result.out


def test_on_a_terminal_controls_are_escaped(envctl: Envctl) -> None:
    envctl.ok("set web/prod", "X=\x1b[2J")

    assert "\x1b" not in envctl.ok("export web/prod", terminal=True).out
    assert "\x1b[2J" in envctl.ok("export web/prod").out
