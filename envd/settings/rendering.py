"""The settings in force, as TOML that says where each value came from.

`envd config check FILE` prints this. Secrets are masked; a mask is too short to be taken for
a token when the output is fed back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, assert_never

from envd.settings.document import shown
from envd.settings.model import SCHEMA, Settings, default_of
from envd.settings.schema import Leaf, NamedTables, Table, TableArray
from envd.settings.units import Address, Duration

MASK: Final = "********"


def render_effective(settings: Settings) -> str:
    """Return TOML of every setting: `listen = "127.0.0.1:7000"  # from --listen`.

    A key that is not set and has no default is a comment; one that is changed and does
    nothing in this version says so.
    """
    blocks = _blocks(SCHEMA, settings, "", "", settings)
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def to_toml(value: object) -> str:
    """Write one value as TOML; a duration, path or address is a string."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str() | Path() | Address() | Duration():
            return f'"{_escaped(str(value))}"'
        case tuple():
            return "[" + ", ".join(to_toml(item) for item in value) + "]"
        case _:
            raise TypeError(f"a setting can't be a {type(value).__name__}")


def _blocks(
    table: Table, struct: object, prefix: str, header: str, settings: Settings
) -> Iterator[list[str]]:
    """Yield one block of lines per table, a table before those below it."""
    lines = [header] if header else []
    for name, leaf in table.children.items():
        if isinstance(leaf, Leaf):
            value = getattr(struct, name)
            inert = leaf.inert and value != default_of(leaf, settings)
            lines.append(_line(name, leaf, value, settings.origins.get(prefix + name), inert))
    if len(lines) > 1 or header.startswith(("[regions.", "[[")):
        yield lines
    for name, node in table.children.items():
        key, value = prefix + name, getattr(struct, name)
        match node:
            case Leaf():
                pass
            case Table():
                yield from _blocks(node, value, f"{key}.", f"[{key}]", settings)
            case NamedTables():
                for row_name, row in value.items():
                    at = f"{key}.{row_name}"
                    yield from _blocks(node.table, row, f"{at}.", f"[{at}]", settings)
            case TableArray():
                for number, row in enumerate(value):
                    at = f"{key}[{number}]."
                    yield from _blocks(node.table, row, at, f"[[{key}]]", settings)
            case _:
                assert_never(node)


def _line(name: str, leaf: Leaf, value: object, origin: str | None, inert: bool) -> str:
    if value is None:
        return f"# {name} is not set"
    notes = [f"from {shown(origin)}"] if origin else []
    if inert:
        notes.append("no effect in this version")
    comment = f"  # {'; '.join(notes)}" if notes else ""
    return f"{name} = {to_toml(MASK if leaf.secret else value)}{comment}"


def _escaped(text: str) -> str:
    r"""Escape a TOML basic string; what a terminal would not print becomes \UXXXXXXXX."""
    return "".join(
        f"\\{char}" if char in '"\\' else char if char.isprintable() else f"\\U{ord(char):08X}"
        for char in text
    )
