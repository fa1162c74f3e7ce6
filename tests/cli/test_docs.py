"""docs/envctl.md does what it says: its files are written and its commands run, in order."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.node import PATIENCE_S, Node

PAGE = Path(__file__).parents[2] / "docs/envctl.md"
BLOCK = re.compile(r"^```(\S+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_the_page_about_envctl_is_true(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.start()
    work = tmp_path / "work"
    work.mkdir()
    binaries = Path(sys.executable).parent
    environ = node.environ(ENVD_ADDR=f"unix:{node.socket}", PATH=f"{binaries}:/usr/bin:/bin")
    ran = []
    try:
        for language, file, text in BLOCK.findall(PAGE.read_text("utf-8")):
            if file:
                path = work / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
                continue
            assert language == "sh"
            done = subprocess.run(
                ["bash", "-eu", "-c", text],
                cwd=work,
                env=environ,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
            ran.append(done.stdout)
    finally:
        node.stop()

    shown = "".join(ran)
    assert "hellohello\n" in shown
    assert "web/prod: at revision" in shown
    assert "debug\n" in shown
    assert "notes.txt:1: web/prod DATABASE_PASSWORD (as it is)" in shown
