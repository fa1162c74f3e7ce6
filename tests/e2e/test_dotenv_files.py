"""What a developer does with the `.env` files of real projects, through envd and envctl."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from envd.core.requests import ListRequest, ReadRequest
from tests.e2e.node import Node

FILES = Path(__file__).parent.parent / "data" / "dotenv"
MULTILINE = FILES / "dotenv-js-multiline.env"
PYTHON_READS = sorted(set(FILES.glob("*.env")) - {MULTILINE})
NODE_READS = sorted(FILES.glob("*.node.json"))


def exported(node: Node, environment: str) -> dict[str, str]:
    done = node.envctl("export", environment, "--format", "json")
    assert done.code == 0, done.err
    values: dict[str, str] = json.loads(done.out)
    return values


@pytest.mark.parametrize("path", PYTHON_READS, ids=lambda path: path.stem)
def test_import_then_export_is_what_python_dotenv_reads(node: Node, path: Path) -> None:
    done = node.envctl("import", "web/prod", str(path))

    assert done.code == 0, done.err
    assert exported(node, "web/prod") == dotenv_values(path, interpolate=False)


@pytest.mark.parametrize("path", NODE_READS, ids=lambda path: path.name)
def test_the_node_dialect_reads_what_the_npm_package_reads(node: Node, path: Path) -> None:
    source = path.with_name(path.name.replace(".node.json", ".env"))

    done = node.envctl("import", "web/prod", str(source), "--dialect", "node")

    assert done.code == 0, done.err
    assert exported(node, "web/prod") == json.loads(path.read_text())


def test_a_file_with_a_bad_line_is_refused_by_line_and_nothing_is_written(node: Node) -> None:
    done = node.envctl("import", "web/prod", str(MULTILINE))

    assert done.code == 1
    assert f"{MULTILINE}:35" in done.err
    assert "--dialect node" in done.err
    with node.connection() as connection:
        assert connection.list(ListRequest()).environments == ()


def test_run_gives_the_program_exactly_the_variables(node: Node) -> None:
    path = FILES / "laravel.env"
    node.envctl("import", "web/prod", str(path))

    token = (node.data / "admin.token").read_text().strip()
    inherited = node.envctl("run", "web/prod", "--", "env", "-0", ENVD_TOKEN=token)
    alone = node.envctl("run", "web/prod", "--pristine", "--", "env", "-0")

    wanted = dotenv_values(path, interpolate=False)
    assert dict(pair.split("=", 1) for pair in alone.out.split("\0") if pair) == wanted
    seen = dict(pair.split("=", 1) for pair in inherited.out.split("\0") if pair)
    assert seen.items() >= wanted.items()
    assert "PATH" in seen
    assert "ENVD_TOKEN" not in seen


def test_rollback_restores_names_values_and_flags_as_a_new_commit(node: Node) -> None:
    node.envctl("import", "web/prod", str(FILES / "langfuse-dev.env"))
    with node.connection() as connection:
        before = connection.get(ReadRequest("web/prod", reveal=True))
    secret = next(name for name, view in before.variables.items() if view.secret)
    plain = next(name for name, view in before.variables.items() if not view.secret)
    node.envctl("set", "web/prod", f"{secret}=other", "NEW=1", "--plain")
    node.envctl("unset", "web/prod", plain)

    done = node.envctl("rollback", "web/prod", "--to", before.revision[:12])

    assert done.code == 0, done.err
    with node.connection() as connection:
        after = connection.get(ReadRequest("web/prod", reveal=True))
    assert {n: (v.value, v.secret) for n, v in after.variables.items()} == {
        n: (v.value, v.secret) for n, v in before.variables.items()
    }
    assert after.revision != before.revision
    history = json.loads(node.envctl("history", "web/prod", "--output", "json").out)
    assert len(history["commits"]) == 4


def test_a_program_started_by_run_ends_with_its_own_code(node: Node) -> None:
    node.envctl("set", "e", "A=1")

    assert node.envctl("run", "e", "--", sys.executable, "-c", "exit(7)").code == 7
    assert node.envctl("run", "e", "--", "no-such-program").code == 127
    assert node.envctl("run", "absent", "--", "true").code == 125
