"""Real daemons as a cluster, through envctl: dev, members, conflicts that are settled."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from envd.datadir import open_data_directory
from envd.system import SystemRng
from tests.e2e.node import PATIENCE_S, Node

ENVIRONMENT = "web/prod"


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def until(claim: Callable[[], bool]) -> None:
    """Ask again and again, until it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, "it never came to hold"


def document(node: Node, *arguments: str) -> Any:
    result = node.envctl(*arguments, "-o", "json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def nodes_of(node: Node) -> set[str]:
    """The uids of the topology, as a node has it."""
    return {each["uid"] for each in document(node, "cluster", "topology")["nodes"]}


def value(node: Node, name: str) -> str:
    return node.envctl("get", ENVIRONMENT, name).out


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes of one cluster, running; each has the same addresses at every start."""
    made: list[Node] = []
    ports = free_ports(4)
    for at, name in enumerate("ab"):
        flags = [
            *("--node-name", name),
            *("--listen", f"127.0.0.1:{ports[at]}", "--gossip", f"127.0.0.1:{ports[2 + at]}"),
        ]
        if made:
            secret = made[0].data / "cluster.secret"
            flags += ["--join", f"127.0.0.1:{ports[2]}", "--cluster-secret-file", str(secret)]
        node = Node(tmp_path / name, flags)
        node.directory.mkdir()
        node.start()
        made.append(node)
    yield made[0], made[1]
    for node in made:
        if node.process is not None:
            node.kill()


def test_writes_of_nodes_that_were_apart_are_a_conflict_that_is_settled_on_both(
    pair: tuple[Node, Node],
) -> None:
    a, b = pair
    assert a.envctl("set", ENVIRONMENT, "PORT=base").code == 0
    until(lambda: value(b, "PORT") == "base")

    b.stop()
    lone = document(a, "set", ENVIRONMENT, "PORT=of-a")
    a.stop()
    b.start()
    assert b.envctl("set", ENVIRONMENT, "PORT=of-b").code == 0
    a.start()
    until(lambda: len(document(a, "conflicts", ENVIRONMENT)["conflicts"]) == 1)
    until(lambda: len(document(b, "conflicts", ENVIRONMENT)["conflicts"]) == 1)
    (on_a,) = document(a, "conflicts", ENVIRONMENT)["conflicts"]
    (on_b,) = document(b, "conflicts", ENVIRONMENT)["conflicts"]
    settled = b.envctl("resolve", ENVIRONMENT, "PORT", "--take", on_b["id"][:8])
    until(lambda: not document(a, "conflicts", ENVIRONMENT)["conflicts"])

    assert lone["acknowledged"] == 1
    assert on_a == on_b
    assert (on_a["kept"]["value"], on_a["lost"]["value"]) == ("of-b", "of-a")
    assert (on_a["kept"]["node"], on_a["lost"]["node"]) == ("b", "a")
    assert settled.code == 0, settled.err
    assert value(a, "PORT") == value(b, "PORT") == "of-a"
    assert (
        document(a, "get", ENVIRONMENT)["revision"] == document(b, "get", ENVIRONMENT)["revision"]
    )


def test_a_member_is_seen_to_be_down_and_back_and_a_lone_one_says_what_is_not_well(
    pair: tuple[Node, Node],
) -> None:
    a, b = pair

    def states() -> dict[str, str]:
        return {
            each["name"]: each["state"] for each in document(a, "cluster", "members")["members"]
        }

    until(lambda: states() == {"a": "alive", "b": "alive"})
    until(lambda: "All is well: 2 nodes, and each holds" in a.envctl("cluster", "status").out)
    b.kill()
    until(lambda: states()["b"] == "down")
    alive = a.envctl("cluster", "remove", "a", "--yes")
    lone = a.envctl("cluster", "status").out
    doctor = document(a, "doctor")["checks"]
    b.start()
    until(lambda: states() == {"a": "alive", "b": "alive"})

    assert alive.code == 4
    assert "b does not answer" in lone
    assert next(each["status"] for each in doctor if each["name"] == "members") == "warn"


def test_a_node_whose_store_was_emptied_is_filled_again_and_nobody_waits_for_what_it_was(
    pair: tuple[Node, Node],
) -> None:
    a, b = pair
    assert a.envctl("set", ENVIRONMENT, "PORT=1").code == 0
    until(lambda: value(b, "PORT") == "1")
    before = b.stop()
    directory = open_data_directory(
        b.data, key_file=b.data / "local.key", admin_token="", insecure=False, rng=SystemRng()
    )
    was = f"{directory.record.node_uid:016x}"
    now = f"{directory.renew_empty(SystemRng()).node_uid:016x}"
    directory.close()

    b.start()
    until(lambda: value(b, "PORT") == "1")
    until(lambda: nodes_of(a) >= {now} and was not in nodes_of(a))

    assert before == 0
    assert nodes_of(b) == nodes_of(a)
    assert len(nodes_of(a)) == 2
    assert b.envctl("set", ENVIRONMENT, "PORT=2").code == 0
    until(lambda: value(a, "PORT") == "2")


def test_a_node_leaves_for_good_and_stops(pair: tuple[Node, Node]) -> None:
    a, b = pair
    assert b.envctl("set", ENVIRONMENT, "A=1").code == 0

    other = a.envctl("cluster", "leave", "b", "--yes")
    left = b.envctl("cluster", "leave", "--yes")
    assert b.process is not None
    code = b.process.wait(PATIENCE_S)
    until(lambda: "alive" not in [each["state"] for each in members(a) if each["name"] == "b"])

    assert other.code == 4
    assert left.code == 0, left.err
    assert code == 0
    assert value(a, "A") == "1"


def members(node: Node) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document(node, "cluster", "members")["members"]
    return found


# -- dev -------------------------------------------------------------------------------


class Dev:
    """`envctl dev` as a process."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.node = Node(directory)
        self.environ = self.node.environ(TMPDIR=str(directory))
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "envd.cli.main", "dev", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environ,
            start_new_session=True,
        )

    def until_shown(self, text: str) -> None:
        """Read what it shows until `text` is there."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while text not in self.shown:
            readable, _, _ = select.select([descriptor], [], [], PATIENCE_S)
            piece = os.read(descriptor, 1 << 16) if readable else b""
            assert piece, self.shown
            self.shown += piece.decode()

    def envctl(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "envd.cli.main", *arguments],
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        self.until_shown(" stopped")
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    made = Dev(tmp_path, "--ephemeral")
    yield made
    if made.process.poll() is None:
        made.process.terminate()
        made.process.wait(PATIENCE_S)
    assert made.process.stdout is not None
    made.process.stdout.close()


def test_dev_runs_three_nodes_with_a_tour_and_starts_one_again_that_was_killed(
    dev: Dev, tmp_path: Path
) -> None:
    dev.until_shown("Ctrl-C stops these nodes.")
    known = json.loads(dev.envctl("cluster", "members", "-o", "json"))["members"]
    read = [dev.envctl("--context", f"dev-node{n}", "get", "demo/dev", "COLOUR") for n in (1, 2, 3)]
    (directory,) = tmp_path.glob("envd-dev-*")
    os.kill(int((directory / "node2" / "lock").read_text()), signal.SIGKILL)
    dev.until_shown("node2 was killed (signal 9); it starts again in")
    written = dev.envctl("set", "demo/dev", "COLOUR=red")
    dev.until_shown("node2 runs again")
    until(lambda: dev.envctl("--context", "dev-node2", "get", "demo/dev", "COLOUR") == "red")
    code = dev.end(signal.SIGINT)

    assert [each["state"] for each in known] == ["alive"] * 3
    assert read == ["blue"] * 3
    assert re.search(r"Measured: a write on node1 was answered after [\d.]+ ms,", dev.shown)
    assert re.search(r"read on node2 after [\d.]+ ms, on node3 after [\d.]+ ms\.", dev.shown)
    assert written.strip()
    assert code == 0
    assert not directory.exists()
    assert "dev" not in dev.envctl("context")


def test_dev_goes_on_with_its_data_and_with_that_of_an_earlier_version(tmp_path: Path) -> None:
    old = Node(tmp_path / "old")
    old.directory.mkdir()
    old.start()
    assert old.envctl("set", "mine/dev", "KEPT=yes").code == 0
    old.stop()

    dev = Dev(tmp_path, "--data", str(old.data), "--nodes", "2")
    dev.until_shown("Ctrl-C stops these nodes.")
    read = [dev.envctl("--context", f"dev-node{n}", "get", "mine/dev", "KEPT") for n in (1, 2)]
    code = dev.end(signal.SIGTERM)
    assert dev.process.stdout is not None
    dev.process.stdout.close()

    assert "The data of the last time are here:" in dev.shown
    assert read == ["yes", "yes"]
    assert code == 0
    assert (old.data / "node2" / "node.json").exists()
    assert not (old.data / "node1").exists()
