"""The texts that a scan looks into: files below a path, and the objects of a git repository.

Links are not followed, and only regular files are read. Every object of the repository is
looked at, also those that no branch reaches any more, since a value that was pushed once is
known. Of git only plumbing is called, which runs no hooks, filters or external programs.
"""

from __future__ import annotations

import codecs
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from envd.cli.exits import Failed
from envd.cli.world import CREDENTIALS

_BINARY_PROBE_BYTES = 8000  # As git does it: a NUL in the first 8000 bytes.
_MAX_NAMED_OBJECTS = 100
_SAFELY = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.quotePath=false")
_GIT = ("git", "--no-pager", *(word for each in _SAFELY for word in ("-c", each)))


class Text(NamedTuple):
    """One file or object: `place` is its path, `object_id` is "" for a file.

    One that is `passed_over` counts for nothing but its name and, for a link, its target; the
    content `is_names` where it is that of a directory.
    """

    place: str
    content: bytes
    object_id: str = ""
    passed_over: bool = False
    is_names: bool = False


@dataclass(slots=True)
class Rules:
    """What is looked into, and what was passed over."""

    max_bytes: int
    binary: bool
    large: list[str] = field(default_factory=list)
    binaries: int = 0
    unreadable: list[str] = field(default_factory=list)

    def takes(self, content: bytes) -> bool:
        """Tell whether a content is looked into; notes one that is not."""
        utf_16 = content[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        if self.binary or utf_16 or b"\0" not in content[:_BINARY_PROBE_BYTES]:
            return True
        self.binaries += 1
        return False


def files(path: Path, shown: str, rules: Rules) -> Iterator[Text]:
    """Every file below `path`, or `path` itself; those of git's own directories are left out."""
    if path.is_file():
        yield _file(str(path), shown, rules)
        return
    waiting = [(str(path), "" if shown == "." else shown.rstrip("/") + "/")]
    while waiting:
        directory, prefix = waiting.pop()
        below = []
        for entry in _entries(directory, prefix, rules):
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".git":
                    below.append((entry.path, f"{name}/"))
            elif entry.is_file(follow_symlinks=False):
                yield _file(entry.path, name, rules)
            elif entry.is_symlink():
                yield Text(name, _target(entry.path), passed_over=True)
        waiting += reversed(below)


def _entries(directory: str, prefix: str, rules: Rules) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        rules.unreadable.append(prefix or directory)
        return []


def _target(link: str) -> bytes:
    try:
        return os.fsencode(Path(link).readlink())
    except OSError:
        return b""


def _file(path: str, shown: str, rules: Rules) -> Text:
    content: bytes | None = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            if status.st_size > rules.max_bytes:
                rules.large.append(shown)
            elif stat.S_ISREG(status.st_mode):
                content = opened.read(rules.max_bytes + 1)
    except OSError:
        rules.unreadable.append(shown)
    if content is None or not rules.takes(content):
        return Text(shown, b"", passed_over=True)
    return Text(shown, content)


class Repository:
    """The git repository around a path; raises Failed where there is none."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._at = path if path.is_dir() else path.parent
        self._environ = {name: each for name, each in environ.items() if name not in CREDENTIALS}
        self._environ |= {"GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        self._output("rev-parse", "--git-dir")

    def objects(self, rules: Rules) -> list[str]:
        """The ids of all contents, directories, messages and tags that are not too large."""
        found = []
        listing = self._output("cat-file", "--batch-all-objects", "--batch-check")
        for line in listing.splitlines():
            name, *_, size = line.split()
            if not size.isdigit():  # "missing", where the repository is damaged
                rules.unreadable.append(f"git object {name[:12]}")
                continue
            if int(size) > rules.max_bytes:
                rules.large.append(f"git object {name[:12]}")
                continue
            found.append(name)
        return found

    def texts(self, names: Iterable[str], rules: Rules) -> Iterator[Text]:
        """The objects of these ids."""
        command = self._command("cat-file", "--batch")
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environ,
        ) as git:
            assert git.stdin is not None
            assert git.stdout is not None
            for name in names:
                with suppress(BrokenPipeError):  # git gives up at a damaged object.
                    os.write(git.stdin.fileno(), f"{name}\n".encode())
                head = git.stdout.readline().split()
                if len(head) != 3:
                    rules.unreadable.append(f"git object {name[:12]}")
                    continue
                content = git.stdout.read(int(head[2]) + 1)[:-1]
                kind = head[1].decode()
                if kind == "tree":
                    yield Text("a directory", content, name, is_names=True)
                elif rules.takes(content):
                    yield Text("" if kind == "blob" else f"{kind} message", content, name)

    def places(self, names: set[str]) -> dict[str, str]:
        """Where contents stand: `COMMIT:PATH`, of the commit that brought it in."""
        found = {name: name[:12] for name in names}
        with suppress(Failed):  # In a damaged repository they are told without.
            for line in self._output("rev-list", "--objects", "--all", "--reflog").splitlines():
                name, _, path = line.partition(" ")
                if name in names and path:
                    found[name] = f"{name[:12]}:{path}"
            for name in sorted(names)[:_MAX_NAMED_OBJECTS]:
                found[name] = self._first_place(name) or found[name]
        return found

    def _first_place(self, name: str) -> str:
        told = self._output(
            *("log", "--all", "--reflog", "--no-ext-diff", "--no-textconv", "--no-renames"),
            *("--format=%x00%h", "--name-only", f"--find-object={name}"),
        )
        commit, _, paths = told.rpartition("\0")[2].partition("\n")
        path = paths.strip("\n").partition("\n")[0]
        return f"{commit}:{path}" if path else ""

    def _command(self, *arguments: str) -> list[str]:
        return [*_GIT, "-C", str(self._at), *arguments]

    def _output(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                self._command(*arguments), capture_output=True, env=self._environ, check=False
            )
        except OSError as error:
            raise Failed(f"can't run git: {error.strerror}", hint="leave out --history") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().partition("\n")[0]
            raise Failed(
                f"git says: {said.removeprefix('fatal: ')[:200]}",
                hint="--history is about a path within a git repository",
            )
        return done.stdout.decode(errors="backslashreplace")
