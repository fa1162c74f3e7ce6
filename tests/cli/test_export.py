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


def test_a_file_that_only_refers_to_secrets_takes_no_right_to_reveal(web: Envctl) -> None:
    web.node.rights.denied.add("reveal")

    shown = web.ok("export web/prod --format terraform-ssm --file main.tf")

    text = (web.home / "main.tf").read_text()
    assert 'name  = "${var.ssm_prefix}/API"' in text
    assert 'default = "8080"' in text
    assert CANARY not in text
    assert "wrote 3 variables to main.tf (mode 0600), none with the value of a secret" in shown.err


def test_what_was_made_secret_since_a_revision_is_referred_to_as_well(web: Envctl) -> None:
    web.ok("set web/prod PORT=9090 --secret")

    text = web.ok("export web/prod@~1 --format terraform-ssm").out

    assert 'variable "PORT" {\n  type      = string\n  sensitive = true\n}\n' in text
    assert "8080" not in text


def test_a_format_that_holds_secrets_takes_the_right_to_reveal(web: Envctl) -> None:
    assert CANARY in web.ok("export web/prod --format azure-functions-local").out
    web.node.rights.denied.add("reveal")

    assert web("export web/prod --format azure-functions-local").code == 6
    assert web("export web/prod --format azure-container-instances").code == 6


def test_what_a_target_forbids_can_be_left_out(web: Envctl) -> None:
    refused = web("export web/prod --format cloud-run --file service.yaml")

    assert (refused.code, (web.home / "service.yaml").exists()) == (1, False)
    assert "PORT has a name that Cloud Run keeps for itself" in refused.err
    assert "hint: leave it out: --except PORT" in refused.err
    shown = web.ok("export web/prod --format cloud-run --except PORT --except X*")
    assert "name: TEXT" in shown.out
    assert "name: PORT" not in shown.out


def test_a_secret_that_is_left_out_takes_no_right_to_reveal(web: Envctl) -> None:
    web.node.rights.denied.add("reveal")

    assert web("export web/prod --except P*").code == 6
    assert web.ok("export web/prod --except A*").out == "PORT=8080\nTEXT=\"it's 'quoted'\"\n"


def test_a_task_finds_its_secrets_where_it_is_told(web: Envctl) -> None:
    shown = web.ok("export web/prod --format ecs --secrets-from /shop")

    assert json.loads(shown.out)["secrets"] == [{"name": "API", "valueFrom": "/shop/API"}]


@pytest.mark.parametrize(
    ("line", "code", "complaint"),
    [
        ("export web/prod --secrets-from /shop", 2, "the format dotenv does not refer"),
        ("export web/prod --format sam --secrets-from /x", 2, "--secrets-from is for ecs, "),
        ("export web/prod --format ecs --secrets-from shop", 2, "it is a path such as"),
        ("export web/prod --format azure-functions", 2, "use --secrets-from with the name of"),
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
