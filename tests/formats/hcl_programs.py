"""HashiCorp's own parser of HCL, for `make test-real`: its commands `hclfmt` and `hcldec`.

They are built by the Go toolchain, once, from a pinned version whose checksum is compared, into a
cache outside of the tree. `ENVD_TEST_HCL` names another directory that has the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

_MODULE = "github.com/hashicorp/hcl/v2"
_VERSION = "v2.24.0"
_SUM = "h1:2QJdZ454DSsYGoaE6QheQZjtKZSUs9Nh2izTWiwQxvE="
_PROGRAMS = ("hclfmt", "hcldec")
_BUILDING_S = 540
_RUNNING_S = 60


class NoProgram(Exception):
    """Why there is no parser."""


def directory() -> Path:
    """Where the programs are; they are built if need be. Raises NoProgram where they can't be."""
    named = os.environ.get("ENVD_TEST_HCL")
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "envd-test"
    home = cache / f"hcl-{_VERSION}"
    if not all((home / program).exists() for program in _PROGRAMS):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            _build(Path(made) / "bin")
            (Path(made) / "bin").rename(home)
    return home


def _build(target: Path) -> None:
    module = json.loads(_go(target, "mod", "download", "-json", f"{_MODULE}@{_VERSION}"))
    if module.get("Sum") != _SUM:
        raise NoProgram(f"{_MODULE} {_VERSION} has another checksum than it had")
    _go(target, "install", *(f"{_MODULE}/cmd/{each}@{_VERSION}" for each in _PROGRAMS))


def _go(target: Path, *words: str) -> str:
    environ = {**os.environ, "GOBIN": str(target), "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    try:
        done = subprocess.run(
            ["go", *words],
            capture_output=True,
            text=True,
            timeout=_BUILDING_S,
            env=environ,
            cwd=target.parent,
        )
    except FileNotFoundError:
        raise NoProgram("there is no go here") from None
    except subprocess.TimeoutExpired:
        raise NoProgram(f"{_MODULE} could not be built in time") from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["go failed"]
        raise NoProgram(f"{_MODULE} {_VERSION} can't be built here: {last[0]}")
    return done.stdout


def formatted(programs: Path, text: str) -> str:
    """The text as `hclfmt` leaves it; raises AssertionError where it is no HCL."""
    return _run([str(programs / "hclfmt"), "-check"], text)


def decoded(programs: Path, spec: str, text: str, into: Path) -> object:
    """What `hcldec` makes of a text, by a specification of its own; `into` is for its files."""
    (into / "spec.hcldec").write_text(spec, "utf-8")
    (into / "text.hcl").write_bytes(text.encode())
    command = [
        *(str(programs / "hcldec"), "--spec", str(into / "spec.hcldec")),
        *("--vars", '{"string": "string"}', str(into / "text.hcl")),
    ]
    found: object = json.loads(_run(command, ""))
    return found


def _run(command: list[str], text: str) -> str:
    done = subprocess.run(
        command, input=text.encode(), capture_output=True, timeout=_RUNNING_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
