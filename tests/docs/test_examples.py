"""The example apps: they start, show a variable, and follow its change without a restart."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.e2e.node import PATIENCE_S, Node

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    if made.process is not None:
        made.kill()


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def app(node: Node, address: str, folder: str, command: Sequence[str]) -> Iterator[None]:
    """The app as a process of its own; ended as by Ctrl-C, and killed where that is of no use."""
    log = node.directory / "app.log"
    token = (node.data / "admin.token").read_text().strip()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=EXAMPLES / folder,
            env=node.environ(
                ENVD_ADDR=address,
                ENVD_TOKEN=token,
                PYTHONPATH=str(ROOT),
                PYTHONDONTWRITEBYTECODE="1",
            ),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()


def page(port: int, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
        text: str = answer.read().decode()
        return text


def page_with(port: int, text: str) -> str:
    """The page as soon as it has this text; nobody tells when, so it is asked again."""
    deadline = time.monotonic() + PATIENCE_S
    shown = ""
    while time.monotonic() < deadline:
        try:
            shown = page(port)
        except urllib.error.URLError:
            os.sched_yield()
            continue
        if text in shown:
            return shown
    raise AssertionError(f"the page does not show {text}: {shown}")


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("fastapi_app", ["-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "{port}"]),
        ("django_app", ["shop.py", "runserver", "--noreload", "127.0.0.1:{port}"]),
    ],
)
def test_an_app_shows_a_change_without_a_restart(
    node: Node, folder: str, command: Sequence[str]
) -> None:
    address = f"127.0.0.1:{unused_port()}"
    node.flags = ("--listen", address)
    node.start()
    assert node.envctl("set", "shop/prod", "GREETING=hello", "SECRET_KEY=s-0123456789").code == 0
    port = unused_port()

    with app(node, address, folder, [part.format(port=port) for part in command]):
        page_with(port, "hello")
        assert json.loads(page(port, "/healthz"))["stale"] is False

        assert node.envctl("set", "shop/prod", "GREETING=welcome").code == 0
        page_with(port, "welcome")

        node.kill()
        assert "welcome" in page(port)
        node.start()
        assert node.envctl("set", "shop/prod", "GREETING=again").code == 0
        page_with(port, "again")

    node.kill()
    with app(node, address, folder, [part.format(port=port) for part in command]):
        page_with(port, "again")
        assert json.loads(page(port, "/healthz"))["stale"] is True
