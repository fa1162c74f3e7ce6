"""The `file` backend passes the conformance kit, in each of its formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from envd.backends.contract import Backend, Options
from envd.backends.file import FileBackend
from envd.formats.read import InputFormat, parse
from envd.formats.write import render
from envd.testing.conformance import (
    ALL_ABILITIES,
    Ability,
    BackendConformance,
    Harness,
    ScriptedHarness,
)

_SUFFIXES: Mapping[InputFormat, str] = {"dotenv": ".env", "json": ".json", "yaml": ".yaml"}


class FileHarness(ScriptedHarness):
    """A file, or where a prefix is bound the directory that it lies in."""

    abilities = ALL_ABILITIES & ~(Ability.COUNTS | Ability.MEANWHILE | Ability.FOREIGN_NAMES)
    hint_patience_s = 1.0

    def __init__(self, directory: Path, form: InputFormat) -> None:
        super().__init__()
        self.name = f"file ({form})"
        self.missing = {
            "COUNTS": "a file is not called",
            "FOREIGN_NAMES": "every name in a file is that of a variable",
            "MEANWHILE": "a file is written without asking anybody",
        }
        self._directory = directory / "environments"
        self._form = form
        self._suffix = _SUFFIXES[form]
        self.place = str(self._directory / f"_{self._suffix}")

    async def begin(self) -> None:
        self._directory.mkdir()

    def backend(self, options: Options) -> Backend:
        place = str(self._directory) if options.below else options.place
        settings = {"poll_s": 0.1, "format": self._form}
        return FileBackend(replace(options, place=place, settings=settings))

    async def contents(self) -> Mapping[str, str | None]:
        found: dict[str, str | None] = {}
        for path in sorted(self._directory.rglob(f"[!.]*{self._suffix}")):
            environment = path.relative_to(self._directory).with_suffix("").as_posix()
            start = "" if environment == "_" else f"{environment}:"
            found |= {f"{start}{name}": value for name, value in self._read(path).items()}
        return found

    async def others_put(self, native: str, value: str) -> None:
        path = self._path(native)
        name = native.rpartition(":")[2]
        self._write(path, {**self._read(path), name: value})

    async def others_delete(self, native: str) -> None:
        path = self._path(native)
        left = self._read(path)
        del left[native.rpartition(":")[2]]
        self._write(path, left)

    def _path(self, native: str) -> Path:
        environment = native.rpartition(":")[0] or "_"
        return self._directory / f"{environment}{self._suffix}"

    def _read(self, path: Path) -> dict[str, str]:
        text = path.read_bytes() if path.exists() else b"{}" if self._form == "json" else b""
        found = parse(text, format=self._form, source=path.name)
        return {each.name: each.value for each in found}

    def _write(self, path: Path, variables: Mapping[str, str]) -> None:
        path.write_text(render(variables, format=self._form), "utf-8")


@pytest.mark.parametrize("form", ["dotenv", "json", "yaml"])
class TestFile(BackendConformance):
    """Each case with each format."""

    @pytest.fixture
    def harness(self, quick_directory: Path, form: InputFormat) -> Harness:
        return FileHarness(quick_directory, form)
