"""Real daemons that keep a file in step: both ways, through a kill, and taken over by another."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.node import PATIENCE_S, Node, until

CANARY = "canary-5f1c9a"


def settings(directory: Path, more: str = "") -> str:
    file = directory / "envd.toml"
    directory.mkdir(exist_ok=True)
    file.write_text(f"[cloud]\nenabled = true\n{more}")
    return str(file)


def bound(file: Path) -> str:
    return f"""
[[bindings]]
name = "shop"
environment = "shop/prod"
targets = ["file:{file}"]
direction = "both"
interval_seconds = 5
"""


def status(node: Node) -> dict[str, Any]:
    (binding,) = node.document("sync", "status")["bindings"]
    assert isinstance(binding, dict)
    return binding


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    made: list[Node] = []
    yield made
    for node in made:
        if node.process is not None:
            node.kill()


def test_a_binding_of_the_settings_keeps_a_file_in_step_through_a_kill(
    tmp_path: Path, nodes: list[Node]
) -> None:
    file = tmp_path / "shop.env"
    file.write_text(f"# by hand\nPORT=8080 # the port\nAPI_TOKEN={CANARY}\n")
    node = Node(tmp_path / "n1")
    nodes.append(node)
    flags = ("--config", settings(node.directory, bound(file)))
    node.start(*flags)

    until(lambda: node.envctl("get", "shop/prod", "PORT").out == "8080")
    assert node.envctl("set", "shop/prod", "PORT=9090", "NEW=a b").code == 0
    until(lambda: "PORT=9090 # the port" in file.read_text() and "NEW=" in file.read_text())
    # A kill before that is noted makes a conflict of the next edit: nobody knows what it had seen.
    assert node.document("sync", "plan")["operations"] == []
    node.kill()
    file.write_text(file.read_text().replace("9090", "7070"))
    node.start(*flags)
    until(lambda: node.envctl("get", "shop/prod", "PORT").out == "7070")
    until(lambda: status(node)["state"] == "in step")

    assert file.read_text().startswith("# by hand\n")
    assert node.document("sync", "plan")["operations"] == []
    assert node.document("conflicts", "shop/prod")["conflicts"] == []
    history = node.document("history", "shop/prod")["commits"]
    assert {each["actor"] for each in history} >= {f"store file:{file}"}
    node.stop()
    assert not node.files_with(CANARY.encode())
    assert CANARY not in json.dumps(node.events)
    assert CANARY not in (tmp_path / ".shop.env.envd.json").read_text()


def test_the_metrics_tell_of_bindings(tmp_path: Path, nodes: list[Node]) -> None:
    file = tmp_path / "shop.env"
    file.write_text("PORT=8080\n")
    node = Node(tmp_path / "n1")
    nodes.append(node)
    ready = node.start("--config", settings(node.directory, bound(file)))
    until(lambda: status(node)["state"] == "in step")

    token = (node.data / "admin.token").read_text().strip()
    asked = urllib.request.Request(f"http://{ready['http']}/metrics")
    asked.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        text = answer.read().decode()

    assert 'envd_binding_in_step{binding="shop"} 1.0' in text
    assert 'envd_sync_operations_total{action="create",result="applied"} 1.0' in text
    assert 'envd_backend_requests_total{backend="file",code="ok"}' in text


def test_another_node_takes_over_and_any_node_answers(tmp_path: Path, nodes: list[Node]) -> None:
    file = tmp_path / "shop.env"
    file.write_text("PORT=8080\n")
    first = Node(tmp_path / "n1", ("--node-name", "n1"))
    nodes.append(first)
    seed = first.start("--config", settings(first.directory))["gossip"]
    secret = str(first.data / "cluster.secret")
    for name in ("n2", "n3"):
        node = Node(tmp_path / name, ("--node-name", name))
        nodes.append(node)
        join = ("--join", str(seed), "--cluster-secret-file", secret)
        node.start("--config", settings(node.directory), *join)
    until(lambda: len(first.document("cluster", "topology")["nodes"]) == 3)

    bind = ("sync", "bind", "shop", "--env", "shop/prod", "--to", f"file:{file}")
    assert first.envctl(*bind, "--direction", "both").code == 0
    until(lambda: status(nodes[2])["state"] == "in step")
    leader = next(each for each in nodes if each.directory.name == status(nodes[1])["leader"])
    others = [each for each in nodes if each is not leader]
    file.write_text("PORT=8080\nMORE=1\n")
    plans = [each.document("sync", "apply", "shop", "--yes") for each in others]
    leader.kill()
    until(lambda: status(others[0])["leader"] in {each.directory.name for each in others})
    assert others[1].envctl("set", "shop/prod", "PORT=7070").code == 0
    until(lambda: file.read_text() == "PORT=7070\nMORE=1\n")

    assert sum(len(plan["operations"]) for plan in plans) <= 1
    assert others[0].document("get", "shop/prod")["variables"]["MORE"]["value"] == "1"
