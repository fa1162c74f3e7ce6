"""A real `envd` process in a directory of its own, started, used, killed and read back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envd.client.unix import UnixConnection

PATIENCE_S = 60


def until(claim: Callable[[], bool], what: str = "it") -> float:
    """Ask again and again, until it holds; how long that took (s)."""
    began_s = time.monotonic()
    while not claim():
        assert time.monotonic() < began_s + PATIENCE_S, f"{what} never came to hold"
    return time.monotonic() - began_s


@dataclass
class Result:
    """What a finished command left."""

    code: int
    out: str
    err: str


@dataclass
class Node:
    """`directory` holds the data and a home for envctl; nothing outside is touched."""

    directory: Path
    flags: Sequence[str] = ()
    process: subprocess.Popen[str] | None = field(default=None, repr=False)
    events: list[dict[str, Any]] = field(default_factory=list, repr=False)
    _reader: threading.Thread | None = field(default=None, repr=False)

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def socket(self) -> Path:
        return self.data / "envd.sock"

    def environ(self, **more: str) -> dict[str, str]:
        """An environment that knows nothing of the user's own envd."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ENVD_", "XDG_"))}
        return {
            **kept,
            "HOME": str(self.directory),
            "XDG_STATE_HOME": str(self.directory / "state"),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "NO_COLOR": "1",
            **more,
        }

    def command(self, *flags: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "envd.daemon",
            "--data-dir",
            str(self.data),
            "--listen",
            "127.0.0.1:0",
            "--gossip",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            *self.flags,
            *flags,
        ]

    def start(self, *flags: str) -> dict[str, Any]:
        """Start and wait for the log line that says ready; return its fields."""
        self.events.clear()
        self.process = subprocess.Popen(
            self.command(*flags),
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ(),
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event: dict[str, Any] = json.loads(line)
            self.events.append(event)
            if event["event"] == "node.ready":
                self._reader = threading.Thread(target=self._drain, daemon=True)
                self._reader.start()
                return event
        raise AssertionError(f"envd ended with {self.process.wait()}: {self.events}")

    def _drain(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.events.append(json.loads(line))

    def fails_to_start(self, *flags: str) -> Result:
        """Run to its end a start that must not succeed."""
        done = subprocess.run(
            self.command(*flags),
            capture_output=True,
            text=True,
            env=self.environ(),
            timeout=PATIENCE_S,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        if self._reader is not None:
            self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process = None
        return code

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def envctl(self, *arguments: str, stdin: str | None = None, **environ: str) -> Result:
        """Run the real `envctl` against this node."""
        done = subprocess.run(
            [sys.executable, "-m", "envd.cli.main", *arguments],
            capture_output=True,
            text=True,
            input=stdin,
            env=self.environ(ENVD_ADDR=f"unix:{self.socket}", **environ),
            timeout=PATIENCE_S,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def document(self, *arguments: str) -> Any:
        """What `envctl` answers to programs; it must succeed."""
        result = self.envctl(*arguments, "-o", "json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    @contextmanager
    def connection(self) -> Iterator[UnixConnection]:
        connection = UnixConnection(str(self.socket))
        try:
            yield connection
        finally:
            connection.close()

    def files_with(self, needle: bytes) -> list[str]:
        """Every file below the data directory that holds these bytes."""
        return [
            str(path.relative_to(self.data))
            for path in sorted(self.data.rglob("*"))
            if path.is_file() and needle in path.read_bytes()
        ]
