"""A real daemon to be fed rubbish, and what must still hold of it afterwards."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings

from envd.core.requests import Put, ReadRequest, WriteRequest
from tests.e2e.node import Node

EXAMPLES_VARIABLE = "ENVD_FUZZ_EXAMPLES"
EXAMPLES = int(os.environ.get(EXAMPLES_VARIABLE, "0"))
"""How many examples each test tries; 0 is a fixed, small choice of them for every day."""
GROWTH_BYTES = 96 << 20
"""So much more memory may be in use afterwards: caches, pages of the allocator, the memtable."""


def fuzzing(everyday: int) -> settings:
    """As many examples as asked for; every day the same ones, else new ones each time."""
    return settings(
        max_examples=EXAMPLES or everyday,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        print_blob=bool(EXAMPLES),
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class Victim:
    """A daemon with one environment that has a secret, `web/prod`."""

    node: Node
    grpc: str
    http: str
    token: str
    rss_before: int = 0

    @property
    def resident_bytes(self) -> int:
        """What the daemon holds in memory."""
        assert self.node.process is not None
        text = Path(f"/proc/{self.node.process.pid}/status").read_text("ascii")
        (line,) = (line for line in text.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) << 10

    def seed(self) -> None:
        """Write its environment, again where it was deleted or changed."""
        puts = (Put("A", "1"), Put("KEY", "canary", secret=True))
        with self.node.connection() as connection:
            connection.write(WriteRequest("web/prod", puts))

    def answers(self) -> None:
        """Assert that it lives, answers, and that nothing went wrong unforeseen."""
        assert self.node.process is not None
        assert self.node.process.poll() is None
        self.seed()
        with self.node.connection() as connection:
            view = connection.get(ReadRequest("web/prod", reveal=True))
        assert (view.variables["A"].value, view.variables["KEY"].value) == ("1", "canary")
        wrong = [event for event in self.node.events if event["level"] not in {"debug", "info"}]
        assert not wrong, wrong

    def is_sound(self) -> None:
        """Assert what `answers` does, that memory did not grow without bound, and a clean stop."""
        self.answers()
        grown = self.resident_bytes - self.rss_before
        assert grown < GROWTH_BYTES, f"{grown >> 20} MiB more"
        assert self.node.stop() == 0


@contextmanager
def victim() -> Iterator[Victim]:
    """A daemon that must be sound when all is over."""
    with tempfile.TemporaryDirectory(prefix="envd-fuzz-") as directory:
        node = Node(Path(directory))
        ready = node.start()
        try:
            token = (node.data / "admin.token").read_text("ascii").strip()
            made = Victim(node, ready["listen"], f"http://{ready['http']}", token)
            made.seed()
            made.rss_before = made.resident_bytes
            yield made
            made.is_sound()
        finally:
            if node.process is not None:
                node.kill()
