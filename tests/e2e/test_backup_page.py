"""docs/backup.md does what it says: its shell blocks are run, in order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.node import PATIENCE_S, Node

PAGE = Path(__file__).parents[2] / "docs/backup.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_about_backups_is_true(node: Node, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    environ = node.environ(
        ENVD_ADDR=f"unix:{node.socket}", PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin"
    )
    shown = ""
    for text in BLOCK.findall(PAGE.read_text("utf-8")):
        done = subprocess.run(
            ["bash", "-eu", "-c", text],
            cwd=work,
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        shown += done.stdout

    assert "whole, opened and checked" in shown
    assert "start it:   envd --data-dir" in shown
    restored = Node(tmp_path)
    restored.flags = ("--data-dir", str(work / "restored"))
    restored.start("--socket", str(tmp_path / "s"))
    assert restored.envctl("--server", f"unix:{tmp_path / 's'}", "get", "web/prod").code == 0
    restored.stop()
