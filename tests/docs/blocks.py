"""The blocks of code of a Markdown page, and who runs them.

    ```python    a program; `await` may stand outside of functions
    ```sh        a script for bash
    ```console   lines with `$ ` are commands (`\\` goes on in the next line), others are output

A block right after `<!-- not run: REASON -->` is not run. Blocks of a page run in order, in a
home of their own with a running node, as someone who reads along would: `.env` is there, and
`npm`, which prints what it is asked to do. The default ports of the page are those of the node.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.node import PATIENCE_S, Node

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("python", "sh", "bash", "console")
_FENCE = re.compile(r"^```(\w*)\s*$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")


@dataclass(frozen=True)
class Block:
    """One block; `reason` is why it is not run, "" where it is."""

    page: str
    line: int
    language: str
    text: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README.md and every page below docs/."""
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return ["README.md", *(str(page.relative_to(ROOT)) for page in docs)]


def blocks(page: str, text: str) -> Iterator[Block]:
    """The blocks of a page that are programs or commands, in order."""
    language, reason, start = "", "", 0
    body: list[str] = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if inside and line.startswith("```"):
            if language in LANGUAGES:
                yield Block(page, start, language, "\n".join(body), reason)
            inside, reason = False, ""
        elif inside:
            body.append(line)
        elif fence:
            inside, language, start, body = True, fence[1], number, []
        elif mark := _NOT_RUN.match(line):
            reason = mark[1]
        elif line.strip():
            reason = ""


def commands(text: str) -> str:
    """The script that the commands of a console block are."""
    taken: list[str] = []
    goes_on = False
    for line in text.splitlines():
        if goes_on or line.startswith("$ "):
            taken.append(line if goes_on else line[2:])
            goes_on = line.rstrip().endswith("\\")
    return "\n".join(taken)


class Reader:
    """Someone at a terminal with a node, who types what a page says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.node = Node(home)
        state = home / ".local" / "state" / "envd"
        state.parent.mkdir(parents=True)
        state.symlink_to(self.node.data)
        self._bin = home / "bin"
        self._bin.mkdir()
        npm = self._bin / "npm"
        npm.write_text('#!/bin/sh\necho "npm $*"\n')
        npm.chmod(0o755)
        self._work = home / "work"
        self._work.mkdir()
        shutil.copy(ROOT / "config" / "example.env", self._work / ".env")
        settings = home / "envd.toml"
        settings.write_text("[cloud]\nenabled = true\n")
        self._ready = self.node.start("--config", str(settings))

    def close(self) -> None:
        self.node.stop()

    def environ(self) -> Mapping[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ENVD_", "XDG_"))}
        path = os.pathsep.join((str(self._bin), str(Path(sys.executable).parent), kept["PATH"]))
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "ENVD_DATA_DIR": str(self.node.data),
        }

    def run(self, block: Block) -> str:
        """Run a block; raises AssertionError with what it said where it fails."""
        text = self._at_this_node(block.text)
        if block.language == "python":
            command = [sys.executable, "-W", "error", "-c", _RUN_PYTHON, text, str(block)]
            environ = {**self.environ(), **self._address()}
        else:
            script = commands(text) if block.language == "console" else text
            command = ["bash", "-e", "-u", "-o", "pipefail", "-c", script]
            environ = dict(self.environ())
        said = self.home / "said"
        with said.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=self._work,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | str = process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                code = "nothing: it went on and on"
            finally:
                with suppress(ProcessLookupError):  # Also what it left in the background.
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert code == 0, f"{block} ended with {code}:\n{said.read_text()}"
        return said.read_text()

    def _at_this_node(self, text: str) -> str:
        for default, address in (("7420", "listen"), ("7422", "http")):
            port = str(self._ready[address]).rpartition(":")[2]
            text = re.sub(rf"(localhost|127\.0\.0\.1):{default}\b", rf"\1:{port}", text)
        return text

    def _address(self) -> Mapping[str, str]:
        """What stands for the default port, which this node does not have."""
        token = (self.node.data / "admin.token").read_text().strip()
        return {"ENVD_ADDR": str(self._ready["listen"]), "ENVD_TOKEN": token}


_RUN_PYTHON = """
import ast, asyncio, inspect, sys
code = compile(sys.argv[1], sys.argv[2], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
waiting = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(waiting):
    asyncio.run(waiting)
"""
