"""The checks of `envctl doctor`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envd import __version__
from envd.core.errors import Unauthenticated, Unavailable
from envd.core.syncing import SyncStatus
from tests.cli.bench import Envctl


def checks(envctl: Envctl, code: int = 0) -> dict[str, str]:
    import json

    result = envctl("doctor -o json")
    assert result.code == code, result.err
    document = json.loads(result.out)
    for check in document["checks"]:
        assert check.keys() == {"name", "status", "detail", "mend"}
        assert check["detail"]
        assert bool(check["mend"]) == (check["status"] != "ok")
    return {check["name"]: check["status"] for check in document["checks"]}


@pytest.fixture
def local(envctl: Envctl, tmp_path: Path) -> Path:
    """A node on this machine; returns its data directory."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "admin.token").write_text("x")
    (data / "admin.token").chmod(0o600)
    envctl.node.address = f"unix:{data}/envd.sock"
    envctl.node.status_now = replace(
        envctl.node.status_now, version=__version__, data_dir=str(data)
    )
    return data


def test_a_sound_node_passes(envctl: Envctl, local: Path) -> None:
    envctl.node.stores.status_now = SyncStatus(())

    found = checks(envctl)

    assert found.keys() >= {
        *("daemon", "credential", "version", "security", "data directory", "admin token", "disk"),
    }
    assert {status for name, status in found.items() if name != "disk"} == {"ok"}


def test_open_files_fail(envctl: Envctl, local: Path) -> None:
    local.chmod(0o755)
    (local / "admin.token").chmod(0o640)

    found = checks(envctl, code=1)

    assert (found["data directory"], found["admin token"]) == ("fail", "fail")


def test_another_version_and_an_insecure_node_are_warned_about(envctl: Envctl) -> None:
    envctl.node.status_now = replace(envctl.node.status_now, version="0.0.1", insecure=True)

    found = checks(envctl)

    assert (found["version"], found["security"]) == ("warn", "warn")


def test_stores_that_are_not_in_step_are_told_with_their_reason(envctl: Envctl) -> None:
    known = envctl.node.stores.status_now.bindings
    envctl.node.stores.status_now = SyncStatus(
        (replace(known[0], binding="web", state="failing", detail="no answer", hint=""),)
    )

    found = envctl("doctor -o json").out
    envctl.node.stores.status_now = SyncStatus((replace(known[0], state="in step"),))
    well = envctl("doctor")

    assert "web is failing: no answer" in found
    assert "ok    bindings: 1 store is well" in well.out


def test_no_daemon_fails(envctl: Envctl) -> None:
    def gone(where: object) -> Any:
        raise Unavailable("no envd answers", hint="start one")

    envctl._connect = gone  # type: ignore[method-assign, assignment]

    assert checks(envctl, code=1) == {"daemon": "fail"}


def test_a_token_that_does_not_hold_fails(envctl: Envctl) -> None:
    def refuse(call: str, request: Any) -> None:
        raise Unauthenticated("a token is needed")

    envctl.node.before = refuse

    assert checks(envctl, code=1) == {"daemon": "ok", "credential": "fail"}


def test_contexts_that_others_can_read_fail(envctl: Envctl) -> None:
    envctl.ok("login --token-stdin", stdin="token")
    (envctl.home / ".config/envd/config.json").chmod(0o644)

    assert checks(envctl, code=1)["contexts"] == "fail"


def test_people_get_lines_with_mends(envctl: Envctl, local: Path) -> None:
    local.chmod(0o755)

    shown = envctl("doctor")

    assert f"fail  data directory: {local} is open to others (mode 0755)" in shown.out
    assert f"      chmod 700 {local}" in shown.out
