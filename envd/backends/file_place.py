"""Which files a place of the `file` backend is: one, or a directory with one an environment.

    file:/srv/web/.env         the bound environment is this file
    file:/srv/environments     a prefix is bound: `team/app` below it is team/app.env in there

The suffix tells the format: `.env` (also `.env.production`), `.json`, `.yaml`, `.yml`; the setting
`format` tells it where the name does not. A directory has files of one format. Which one is what is
there, or the setting; a directory with several of them, and no setting, is refused: the day when a
first `.env` comes into a directory of JSON files, all the others would seem to be gone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from envd.backends.contract import Options
from envd.backends.errors import (
    InvalidName,
    NameCollision,
    QuotaExceeded,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.file_document import Form
from envd.backends.file_marks import side_of
from envd.core.errors import InvalidRequest
from envd.core.names import ENVIRONMENT_PATTERN, MAX_SEGMENTS, check_environment
from envd.formats.read import Dialect, InputFormat

MAX_FILES: Final = 10_000
ROOT: Final = "_"
"""The file of the bound prefix itself, which is an environment too; none is called so."""

_DOTENV = re.compile(r"(?:.*\.env|\.env\..+)\Z", re.DOTALL)
_SEGMENT = re.compile(ENVIRONMENT_PATTERN.partition("(?:/")[0])
_SUFFIXES: Final[Mapping[str, InputFormat]] = MappingProxyType(
    {".env": "dotenv", ".json": "json", ".yaml": "yaml", ".yml": "yaml"}
)


@dataclass(frozen=True, slots=True)
class FileSettings:
    """The section of the backend. `format` None is told by the names; `poll_s` is for a watch."""

    format: InputFormat | None = None
    dialect: Dialect = "python"
    git_commit: bool = False
    poll_s: float = 2.0


def read_settings(settings: Mapping[str, object]) -> FileSettings:
    """Check the section; StoreUnsupported names what is wrong with it."""
    known = {"format", "dialect", "git_commit", "poll_s"}
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        raise StoreUnsupported(
            f"the file backend has no setting {unknown[:64]!a}", hint=f"use {sorted(known)}"
        )
    git_commit, poll_s = settings.get("git_commit", False), settings.get("poll_s", 2.0)
    if not isinstance(git_commit, bool):
        raise StoreUnsupported("the setting git_commit of the file backend is true or false")
    if isinstance(poll_s, bool) or not isinstance(poll_s, int | float) or not 0.1 <= poll_s <= 3600:
        raise StoreUnsupported("the setting poll_s of the file backend is 0.1 to 3600 seconds")
    return FileSettings(
        _format(settings.get("format")),
        _dialect(settings.get("dialect", "python")),
        git_commit,
        float(poll_s),
    )


def _format(found: object) -> InputFormat | None:
    match found:
        case None | "dotenv" | "json" | "yaml":
            return found
        case _:
            raise StoreUnsupported("the format of the file backend is dotenv, json or yaml")


def _dialect(found: object) -> Dialect:
    match found:
        case "python" | "node":
            return found
        case _:
            raise StoreUnsupported("the dialect of the file backend is python or node")


class OneFile:
    """A place that is a file."""

    def __init__(self, path: Path, settings: FileSettings) -> None:
        found = settings.format or _by_name(path.name)
        if found is None:
            raise InvalidName(
                f"{path}: the name of the file does not tell its format",
                hint="name it *.env, *.json or *.yaml, or set format = ... for the file backend",
            )
        self._path = path
        self._form = Form(found, settings.dialect)

    def environments(self) -> list[str]:
        """The bound environment: a file that is not there yet is empty."""
        return [""]

    def file(self, environment: str) -> tuple[Path, Form]:
        return self._path, self._form

    def prepare(self, environment: str) -> None:
        """There is nothing to make: the directory is the user's."""


class Directory:
    """A place that is a directory with a file for each environment."""

    def __init__(self, path: Path, settings: FileSettings) -> None:
        self._path = path
        self._settings = settings

    def environments(self) -> list[str]:
        """All that have a file, or had one that envd wrote and that is gone; in order."""
        suffixes = self._suffixes()
        found = {
            name for file in self._walk() if (name := _environment(file, suffixes)) is not None
        }
        if len(found) > MAX_FILES:
            raise QuotaExceeded(f"{self._path}: there are more than {MAX_FILES} files")
        return sorted(found)

    def file(self, environment: str) -> tuple[Path, Form]:
        """Where an environment is, or would be; NameCollision where two files are it."""
        suffixes = self._suffixes()
        stem = environment or ROOT
        there = [each for each in suffixes if (self._path / (stem + each)).exists()]
        if len(there) > 1:
            raise NameCollision(
                f"{self._path / stem}: there are a {there[0]} and a {there[1]} of it",
                hint="keep one of them",
            )
        suffix = there[0] if there else suffixes[0]
        return self._path / (stem + suffix), Form(_SUFFIXES[suffix], self._settings.dialect)

    def prepare(self, environment: str) -> None:
        """Make the directories that an environment lies in, for their owner alone."""
        if not self._path.is_dir():
            raise StoreUnavailable(f"{self._path}: there is no such directory")
        directory = self._path
        for segment in environment.split("/")[:-1]:
            directory /= segment
            directory.mkdir(mode=0o700, exist_ok=True)

    def _suffixes(self) -> list[str]:
        """The suffixes of the format that files here have, that of new ones first."""
        wanted = self._settings.format
        if wanted is None:
            there = {
                _SUFFIXES[suffix]
                for file in self._walk()
                for suffix in _SUFFIXES
                if _environment(file, [suffix]) is not None
            }
            if len(there) > 1:
                raise StoreUnsupported(
                    f"{self._path}: there are files of several formats",
                    hint="say which are meant: set format = ... for the file backend",
                )
            wanted = there.pop() if there else "dotenv"
        return [suffix for suffix, each in _SUFFIXES.items() if each == wanted]

    def _walk(self) -> Iterator[str]:
        """The files below, by their relative paths; side files for the files that they are of."""
        if not self._path.is_dir():
            raise StoreUnavailable(f"{self._path}: there is no such directory")
        for root, directories, files in os.walk(self._path, onerror=_raise):
            relative = os.path.relpath(root, self._path)
            start = "" if relative == "." else relative + "/"
            deep = start.count("/") + 1 >= MAX_SEGMENTS
            directories[:] = [] if deep else filter(_SEGMENT.fullmatch, sorted(directories))
            for file in files:
                yield start + (side_of(file) or file)


def _raise(error: OSError) -> None:
    """A directory that can't be read is not an empty one."""
    raise error


def _environment(file: str, suffixes: list[str]) -> str | None:
    """The environment that a file is, None where it is none."""
    suffix = next((each for each in suffixes if file.endswith(each)), None)
    if suffix is None:
        return None
    name = file.removesuffix(suffix)
    if name == ROOT:
        return ""
    try:
        return check_environment(name, system=True)
    except InvalidRequest:
        return None


def _by_name(name: str) -> InputFormat | None:
    if _DOTENV.match(name):
        return "dotenv"
    return _SUFFIXES.get(Path(name).suffix)


def open_place(options: Options, settings: FileSettings) -> OneFile | Directory:
    """The files of a place; InvalidName where it can't be one."""
    path = Path(options.place)
    if not path.is_absolute() or "\0" in options.place:
        raise InvalidName(
            f"{options.place[:64]!a} is no absolute path",
            hint="write the whole path: file:/srv/web/.env",
        )
    return Directory(path, settings) if options.below else OneFile(path, settings)
