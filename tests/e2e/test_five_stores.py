"""One environment tied to stores of five kinds: what anybody does anywhere is soon everywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.node import PATIENCE_S, Node, until

pytest.importorskip("moto")
pytest.importorskip("hvac")
pytest.importorskip("azure.keyvault.secrets")
pytest.importorskip("azure.appconfiguration")
pytest.importorskip("google.cloud.secretmanager")

from tests.e2e import rerouted, stores
from tests.e2e.stores import Store
from tests.testing.openbao import openbao
from tests.testing.pinned import NoProgram

SETTINGS = """
[cloud]
enabled = true
"""


class Rerouted(Node):
    """A node whose stores are on the loopback."""

    more: dict[str, str]

    def environ(self, **more: str) -> dict[str, str]:
        return super().environ(**self.more, **more)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Rerouted]:
    made = Rerouted(tmp_path / "node")
    made.more = {"PYTHONPATH": rerouted.installed(tmp_path / "plugin")}
    yield made
    if made.process is not None:
        made.kill()


def start(node: Rerouted, bound: list[Store]) -> None:
    """A daemon with a binding for each store."""
    node.more |= stores.environ_of(bound)
    node.directory.mkdir(exist_ok=True)
    file = node.directory / "envd.toml"
    file.write_text(SETTINGS)
    node.start("--config", str(file))
    for each in bound:
        bind = ("sync", "bind", each.name, "--env", "web/prod", "--to", each.target)
        result = node.envctl(*bind, "--direction", "both", "--interval", "5")
        assert result.code == 0, result.err


def all_in_step(node: Node) -> bool:
    return {each["state"] for each in node.document("sync", "status")["bindings"]} == {"in step"}


def follow(node: Rerouted, output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "envd.cli.main", "watch", "web/prod", "-o", "json"],
            stdout=file,
            env=node.environ(ENVD_ADDR=f"unix:{node.socket}"),
        )


def edit_each(
    node: Rerouted, bound: list[Store], watched: Path, tell: Callable[[str], None]
) -> None:
    """Edit the variable in one store after the other, and see it come to all others and here."""

    def is_everywhere(value: str) -> bool:
        if any(each.values().get("GREETING") != value for each in bound):
            return False
        return node.envctl("get", "web/prod", "GREETING").out == value

    def is_told(actor: str) -> bool:
        return actor in watched.read_text()

    assert node.envctl("set", "web/prod", "GREETING=from envd").code == 0
    tell(f"envd: {until(partial(is_everywhere, 'from envd')):.1f} s to all five")
    for each in bound:
        value = f"from {each.name}"
        each.edit("GREETING", value)
        took_s = until(partial(is_everywhere, value), value)
        tell(f"{each.name}: {took_s:.1f} s to the other four")
        until(partial(is_told, f"store {each.target}"), "the watch")
    until(lambda: all_in_step(node), "all in step")
    assert node.document("conflicts", "web/prod")["conflicts"] == []
    assert node.document("sync", "plan")["operations"] == []


def try_five(
    node: Rerouted, tmp_path: Path, bound: list[Store], tell: Callable[[str], None]
) -> None:
    start(node, bound)
    watched = tmp_path / "watched"
    watching = follow(node, watched)
    try:
        edit_each(node, bound, watched, tell)
    finally:
        watching.terminate()
        watching.wait(PATIENCE_S)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says a line of what was measured; the end of the run has it."""
    return lambda line: record_property("measured", f"an edit in {line}")


def test_an_edit_in_any_of_five_stores_comes_to_all_others(
    node: Rerouted, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    with stores.five() as bound:
        try_five(node, tmp_path, bound, tell)


@pytest.mark.real
def test_an_edit_in_any_of_five_stores_one_of_them_openbao_comes_to_all_others(
    node: Rerouted, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    try:
        with openbao() as server, stores.five(real_vault=(server.url, server.token)) as bound:
            try_five(node, tmp_path, bound, tell)
    except NoProgram as error:
        pytest.skip(f"no SERVER: {error}")
