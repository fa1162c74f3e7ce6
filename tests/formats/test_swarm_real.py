"""Docker itself reads the file for a stack, and gives back what is not secret."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from envd.formats.write import render

pytestmark = pytest.mark.real


def test_docker_fills_in_nothing(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("there is no docker here")
    variables = {"API_KEY": "x", "NO": "no", "TRICKY": "$5 ${HOME} $$ é\n 'q' \" \x85\ttab "}
    file = tmp_path / "stack.yaml"
    text = render(variables, format="docker-swarm", environment="web/prod", secret=["API_KEY"])
    file.write_bytes(text.encode())

    read = subprocess.run(
        [docker, "stack", "config", "--compose-file", str(file)],
        capture_output=True,
        timeout=60,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )

    assert read.returncode == 0, read.stderr
    stack = yaml.safe_load(read.stdout)
    assert stack["services"]["web-prod"]["environment"] == {
        "API_KEY_FILE": "/run/secrets/API_KEY",
        "NO": "no",
        "TRICKY": variables["TRICKY"],
    }
    assert stack["secrets"] == {"API_KEY": {"name": "web-prod-API_KEY", "external": True}}
