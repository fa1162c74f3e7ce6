"""Serial environments of a real node through envctl; what the system keeps for them is hidden."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from envd.security.backup_keys import RecoveryKey, write_recovery_key
from tests.e2e.node import Node, Result

KEY = RecoveryKey(bytes(range(32)))


@pytest.fixture
def ready(stopped: Node) -> tuple[Node, str]:
    """A running node, and where it serves HTTP."""
    return stopped, stopped.start()["http"]


def done(node: Node, *arguments: str) -> Result:
    result = node.envctl(*arguments)
    assert result.code == 0, result.err
    return result


def document(node: Node, *arguments: str) -> Any:
    return json.loads(done(node, *arguments, "-o", "json").out)


def make_serial(node: Node) -> None:
    done(node, "set", "web/prod", "PORT=1", "HOST=a")
    done(node, "settings", "web/prod", "mode=serial")


def test_a_serial_environment_is_used_from_the_command_line(ready: tuple[Node, str]) -> None:
    node, _ = ready
    make_serial(node)
    revision = document(node, "get", "web/prod")["revision"]

    written = document(node, "set", "web/prod", "PORT=2", "--if-revision", revision)
    stale = node.envctl("set", "web/prod", "PORT=3", "--if-revision", revision)
    strong = document(node, "get", "web/prod", "--consistency", "strong")
    topology = document(node, "cluster", "topology")

    assert written["precondition"] == "exact"
    assert stale.code == 4
    assert (strong["level"], strong["variables"]["PORT"]["value"]) == ("strong", "2")
    assert topology["majority"]
    assert [each["votes"] for each in topology["nodes"]] == ["yes"]
    refused = node.envctl("cluster", "recover", "--yes")
    assert (refused.code, "nothing is lost" in refused.err) == (4, True)
    done(node, "settings", "web/prod", "mode=lww")
    assert document(node, "set", "web/prod", "PORT=4")["precondition"] == ""


def test_what_the_system_keeps_is_shown_to_nobody(ready: tuple[Node, str]) -> None:
    node, http = ready
    make_serial(node)
    token = (node.data / "admin.token").read_text().strip()

    def fetched(path: str) -> str:
        request = urllib.request.Request(
            f"http://{http}{path}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    looks = [("list",), ("tree",), ("find", "*"), ("conflicts",)]
    shown = "".join(done(node, *each).out for each in looks)
    shown += fetched("/v1/environments") + fetched("/v1/conflicts")

    assert "web/prod" in shown
    assert "sys" not in shown
    assert document(node, "list")["environments"][0]["environment"] == "web/prod"
    for line in (
        *(("get", "sys/topology"), ("set", "sys/topology", "A=1"), ("export", "sys/topology")),
        *(("delete", "sys/topology", "--yes"), ("history", "sys/topology"), ("watch", "sys")),
    ):
        refused = node.envctl(*line)
        assert (refused.code, "keeps for itself" in refused.err) == (2, True)
    node.stop()
    http = node.start()["http"]
    assert {"envd_environments 1.0", "envd_variables 2.0"} <= set(fetched("/metrics").splitlines())


def test_a_restored_node_votes_in_its_own_cluster(ready: tuple[Node, str], tmp_path: Path) -> None:
    node, _ = ready
    make_serial(node)
    key = tmp_path / "recovery.key"
    write_recovery_key(key, KEY, "2026-01-01")
    backup = str(tmp_path / "b")
    made = done(node, "backup", "create", "--file", backup, "--recovery-key", KEY.public)
    other = Node(tmp_path / "restored")
    other.directory.mkdir()

    restoring = ("backup", "restore", backup, "--data-dir", str(other.data))
    done(node, *restoring, "--recovery-key", str(key))
    other.start()

    assert "1 environment, 2 variables" in made.out
    assert document(other, "cluster", "topology")["majority"]
    assert document(other, "set", "web/prod", "PORT=2")["acknowledged"] == 1
    assert "mode" in done(other, "settings", "web/prod").out
    other.kill()
