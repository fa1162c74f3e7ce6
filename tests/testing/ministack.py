"""A real process that plays AWS, for `make test-real`: MiniStack, on the loopback.

It is not written by those who wrote moto, so what one of them has wrong the other need not have. It
pins an SDK of its own, so it is installed once, into a virtual environment in a cache outside of
the tree, all of it under pinned hashes (`ministack.txt`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

_REQUIREMENTS: Final = Path(__file__).with_name("ministack.txt")
_INSTALL_S: Final = 540
_STARTING: Final = Retry(total=9, backoff_factor=0.1, status_forcelist=(503,))
"""It is asked ten times within some half minute."""


class NoMiniStack(Exception):
    """Why there is no server."""


def python() -> Path:
    """The interpreter that has it; it is made if need be. Raises NoMiniStack where it can't be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "envd-test"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    home = cache / f"ministack-{sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]}-{version}"
    found = home / "bin" / "python"
    if not (home / "complete").exists():
        cache.mkdir(parents=True, exist_ok=True)
        _run(f"{sys.executable} -m venv --clear {home}")
        _run(
            f"{found} -m pip install --quiet --disable-pip-version-check --no-deps "
            f"--only-binary :all: --require-hashes --requirement {_REQUIREMENTS}"
        )
        (home / "complete").touch()
    return found


def _run(command: str) -> None:
    try:
        done = subprocess.run(
            command.split(), capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoMiniStack("it could not be installed in time") from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["pip failed"]
        raise NoMiniStack(f"it can't be installed here: {last[0]}")


@contextmanager
def ministack() -> Iterator[str]:
    """The URL of a server that is ready, for as long as the block; raises NoMiniStack."""
    program = python()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="envd-ministack-") as directory:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": directory,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "LOG_LEVEL": "ERROR",
            "SERVICES": "ssm,secretsmanager",
        }
        with subprocess.Popen(
            [str(program), "-m", "ministack"],
            cwd=directory,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            try:
                _wait(f"http://127.0.0.1:{port}")
                yield f"http://127.0.0.1:{port}"
            finally:
                server.terminate()


def _wait(url: str) -> None:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=_STARTING))
        session.get(f"{url}/_ministack/health", timeout=30).raise_for_status()
