"""A backend in a package of its own is found by its entry point, and passes the kit.

The package is `tests/plugin`. It is not installed: its metadata is written to a directory that is
on the path during these tests only, as an installer would write it.
"""

from __future__ import annotations

import importlib
import sqlite3
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from envd.backends.contract import Backend, Options
from envd.backends.registry import Registry, Target
from envd.testing.conformance import (
    ALL_ABILITIES,
    Ability,
    BackendConformance,
    Harness,
    ScriptedHarness,
)

_PACKAGE = Path(__file__).parents[1] / "plugin"
_MODULE = "envd_backend_example"
_DATABASE = "variables.db"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry of a process that has the plugin installed."""
    project = tomllib.loads((_PACKAGE / "pyproject.toml").read_text("utf-8"))["project"]
    metadata = tmp_path / f"{_MODULE}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    entries = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(entries))
    monkeypatch.syspath_prepend(_PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield Registry()
    for name in [each for each in sys.modules if each.split(".")[0] == _MODULE]:
        del sys.modules[name]


class SqliteHarness(ScriptedHarness):
    """A database in a file; others use SQLite as well."""

    name = "sqlite (a plugin)"
    abilities = ALL_ABILITIES & ~(Ability.COUNTS | Ability.MEANWHILE)
    foreign = ("two words", "/")

    def __init__(self, registry: Registry, directory: Path) -> None:
        super().__init__()
        self.missing = {
            "COUNTS": "a file is not called",
            "MEANWHILE": "the look and the write are one transaction",
        }
        self.place = str(directory / _DATABASE)
        self._registry = registry

    def backend(self, options: Options) -> Backend:
        return self._registry.make(Target("sqlite", options.place), options)

    async def contents(self) -> Mapping[str, str | None]:
        with closing(sqlite3.connect(self.place)) as database:
            return dict(database.execute("SELECT name, value FROM variables"))

    async def others_put(self, native: str, value: str) -> None:
        self._do(
            "INSERT INTO variables (name, value) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            native,
            value,
        )

    async def others_delete(self, native: str) -> None:
        self._do("DELETE FROM variables WHERE name = ?", native)

    def _do(self, statement: str, *parameters: str) -> None:
        with closing(sqlite3.connect(self.place)) as database, database:
            database.execute(statement, parameters)


class TestSqlite(BackendConformance):
    """The plugin's own tests would be just this."""

    @pytest.fixture
    def harness(self, registry: Registry, quick_directory: Path) -> Harness:
        return SqliteHarness(registry, quick_directory)


def test_a_plugin_is_found_by_its_entry_point(registry: Registry) -> None:
    views = {view.name: view for view in registry.views()}

    assert views["sqlite"].distribution == "envd-backend-example"
    assert views["sqlite"].problem == ""
    assert views["sqlite"].capabilities == ("cas", "stamp-atomic", "list-values")


def test_a_plugin_that_is_not_installed_is_not_found() -> None:
    assert "sqlite" not in Registry().names()


def test_a_plugin_is_not_imported_before_it_is_asked_for(registry: Registry) -> None:
    names = registry.names()

    assert "sqlite" in names
    assert _MODULE not in sys.modules
