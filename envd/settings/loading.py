"""Defaults, file, environment and flags, merged into one checked `Settings`.

Apart from reading the file nothing here touches the machine: the environment and the facts
about the machine come in as arguments.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, cast

import msgspec

from envd.core.errors import SettingsError
from envd.settings import rules
from envd.settings.document import read_document
from envd.settings.flags import FLAGS
from envd.settings.model import SCHEMA, Settings
from envd.settings.reading import Misfit, from_text, read_value
from envd.settings.schema import Leaf, NamedTables, Node, Table, TableArray, leaf_at
from envd.settings.units import Address

FLAG_REASON = "WRONG_FLAG"
"""The reason of a SettingsError that a flag on the command line is to blame for."""

Sections: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts that defaults depend on; each is asked for only where it is needed."""

    host_name: Callable[[], str]
    is_root: Callable[[], bool]

    @classmethod
    def here(cls) -> Machine:
        return cls(host_name=socket.gethostname, is_root=lambda: os.geteuid() == 0)


def load(
    argv_flags: Mapping[str, str | bool | int | None],
    environ: Mapping[str, str],
    file: Path | None,
    *,
    machine: Machine | None = None,
) -> Settings:
    """Merge defaults < `file` < `environ` < `argv_flags` and check the whole.

    `argv_flags` is keyed as argparse does it (`data_dir`); None is "not given", and entries
    that are no settings (`config`, subcommands) are passed over. So are an empty variable
    and any `ENVD_*` variable that belongs to no flag. Relative paths stay relative to the
    working directory; `~/` is $HOME. `machine` defaults to the one this runs on.

    Raises SettingsError, whose message begins with where the wrong value came from.
    """
    machine = machine or Machine.here()
    home = _home(environ)
    sections: Sections = {}
    origins: dict[str, str] = {}
    if file is not None:
        sections, keys = read_document(file, home)
        origins.update(dict.fromkeys(keys, str(file)))
        if "bindings" in sections:
            origins["bindings"] = str(file)
    for origin, key, leaf, value in _overrides(argv_flags, environ):
        try:
            parsed = from_text(leaf, value) if isinstance(value, str) else value
            _put(sections, key, read_value(leaf, parsed, home))
        except Misfit as misfit:
            reason = FLAG_REASON if origin.startswith("--") else ""
            raise SettingsError(f"{origin}: `{key}` {misfit}", reason=reason) from None
        origins[key] = origin
    _derive(sections, environ, machine, home)
    settings = cast(Settings, _built(SCHEMA, sections))
    settings = msgspec.structs.replace(settings, origins=origins)
    rules.check(settings)
    return settings


def default_data_dir(environ: Mapping[str, str], *, is_root: bool) -> Path:
    """Return where a node keeps its data if nobody says.

    As the XDG base directory specification has it, a relative XDG_STATE_HOME is ignored.
    """
    if is_root:
        return Path("/var/lib/envd")
    state_home = environ.get("XDG_STATE_HOME", "")
    if PurePosixPath(state_home).is_absolute():
        return Path(state_home) / "envd"
    home = _home(environ)
    if home is None:
        raise SettingsError(
            "no data directory: neither XDG_STATE_HOME nor HOME is set",
            hint="pass --data-dir DIR or set ENVD_DATA_DIR",
        )
    return home / ".local" / "state" / "envd"


def _overrides(
    argv_flags: Mapping[str, str | bool | int | None], environ: Mapping[str, str]
) -> Iterator[tuple[str, str, Leaf, str | bool | int]]:
    """Yield (origin, key, leaf, value) of all variables that are set, then of all flags."""
    for flag in FLAGS:
        text = environ.get(flag.variable, "").strip()
        if text:
            yield flag.variable, flag.key, flag.leaf, text
    for flag in FLAGS:
        value = argv_flags.get(flag.destination)
        if value is not None:
            yield flag.name, flag.key, flag.leaf, value


def _derive(
    sections: Sections, environ: Mapping[str, str], machine: Machine, home: Path | None
) -> None:
    """Fill in the defaults that depend on the machine, then those that depend on settings."""
    node = _section(sections, "node")
    if "data_dir" not in node:
        node["data_dir"] = default_data_dir(environ, is_root=machine.is_root())
    if "name" not in node:
        try:
            node["name"] = read_value(leaf_at(SCHEMA, "node.name"), machine.host_name(), home)
        except Misfit as misfit:
            raise SettingsError(
                f"this machine's host name can't be the node's name: it {misfit}",
                hint="pass --node-name NAME or set ENVD_NODE_NAME",
            ) from None
    data_dir = cast(Path, node["data_dir"])
    listen = cast(Address, node.get("listen", leaf_at(SCHEMA, "node.listen").default))
    for name, table in SCHEMA.children.items():
        if not isinstance(table, Table):
            continue
        section = _section(sections, name)
        for key, leaf in table.children.items():
            if isinstance(leaf, Leaf) and leaf.derived is not None and leaf.derived.of is not None:
                section.setdefault(key, leaf.derived.of(data_dir, listen))


def _built(node: Node, value: object) -> Any:
    """Build the Structs of a table from checked values; what is missing takes its default."""
    match node:
        case Leaf():
            return value
        case Table():
            assert isinstance(value, dict)
            rows = {name: _built(node.children[name], below) for name, below in value.items()}
            return node.struct(**rows)
        case NamedTables():
            assert isinstance(value, dict)
            return {name: _built(node.table, row) for name, row in value.items()}
        case TableArray():
            assert isinstance(value, list)
            return tuple(_built(node.table, row) for row in value)


def _put(sections: Sections, key: str, value: object) -> None:
    section, name = key.split(".")
    _section(sections, section)[name] = value


def _section(sections: Sections, name: str) -> Sections:
    section = sections.setdefault(name, {})
    assert isinstance(section, dict)
    return section


def _home(environ: Mapping[str, str]) -> Path | None:
    home = environ.get("HOME", "")
    return Path(home) if PurePosixPath(home).is_absolute() else None
