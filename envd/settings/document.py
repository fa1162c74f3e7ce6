"""The settings file: reading it, checking its keys against the model, and pointing at lines.

TOML parsers keep no positions, so `line_of` finds a key's line by scanning for headers and
`key =`. It is only used to say where an error is; where it can't tell it returns None.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from envd.core.errors import SettingsError
from envd.settings.model import SCHEMA
from envd.settings.reading import Misfit, read_value, type_in_words
from envd.settings.schema import Leaf, NamedTables, Node, Table, TableArray, dotted_names

KeyPath: TypeAlias = tuple[str | int, ...]

MAX_FILE_BYTES: Final = 1 << 20
MAX_KEY_PARTS: Final = 16
"""Four times what any key has. tomllib takes memory by the square of a key's parts."""
_CLOSE: Final = 0.6  # difflib's own default for a close match
_SLIP: Final = 0.8  # one letter too many, too few or swapped in a word of five

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_ASSIGNMENT: Final = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w"'-]+)*)\s*=""")
_QUOTED: Final = re.compile(r""""(?:[^"\\]|\\.?)*+(?:"|$)|'[^']*+(?:'|$)""")
_LONG_KEY: Final = re.compile(rf"(?<![\w-])(?:[\w-]++\s*+\.\s*+){{{MAX_KEY_PARTS}}}")
_POSITION: Final = re.compile(r"\s*\(at line (\d+), column (\d+)\)$")


def read_document(file: Path, home: Path | None) -> tuple[dict[str, object], list[str]]:
    """Read and check a file; return its values, in sections, and the dotted keys it sets.

    Raises SettingsError with FILE, and the line where it is known.
    """
    text = _read_text(file)
    _check_keys(file, text)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(file, str(error)) from None
    except (ValueError, RecursionError):
        raise SettingsError(
            f"{shown(str(file))}: a number is too long or the nesting too deep"
        ) from None
    try:
        keys: list[str] = []
        values = _checked(SCHEMA, raw, (), home, keys)
    except _Wrong as wrong:
        line = line_of(text, wrong.path)
        place = f"{shown(str(file))}:{line}" if line else shown(str(file))
        raise SettingsError(f"{place}: {wrong}", hint=wrong.hint) from None
    return values, keys


def dotted(path: KeyPath) -> str:
    """Write a path as operators do: `bindings[0].name`."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return words.removeprefix(".")


def shown(text: str) -> str:
    """Return text for a message or a comment: one line, with control characters escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode()
        for char in text
    )


def nearest_key(path: KeyPath, here: Sequence[str], *, is_table: bool) -> tuple[str, bool]:
    """Return the valid key nearest to an unknown one, and whether it is close.

    A slip of the pen among `here`, the keys of the section that it stands in, comes first;
    then a key of that very name in another section (`listen` at the top is `node.listen`),
    then what is roughly alike, here and anywhere.
    """
    unknown = str(path[-1])
    known = list(dotted_names(SCHEMA))
    sections = {name.rpartition(".")[0] for name in known}
    fitting = [name for name in known if (name in sections) == is_table]
    elsewhere = [name for name in fitting if name.rpartition(".")[2] == unknown]
    neighbours = difflib.get_close_matches(unknown, here, n=1, cutoff=_CLOSE)
    if neighbours and (not elsewhere or _likeness(unknown, neighbours[0]) >= _SLIP):
        return dotted((*path[:-1], neighbours[0])), True
    if elsewhere:
        return min(elsewhere, key=lambda name: name.count(".")), True
    scores = {
        name: max(_likeness(dotted(path), name), _likeness(unknown, name.rpartition(".")[2]))
        for name in fitting
    }
    best = max(scores, key=lambda name: scores[name])
    return best, scores[best] >= _CLOSE


def line_of(text: str, path: KeyPath) -> int | None:
    """Return the number of the line that sets `path` or opens its table, if it is plain."""
    table: KeyPath = ()
    opened: dict[KeyPath, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.match(line):
            name: KeyPath = _parts(header[2])
            if header[1] == "[[":
                opened[name] = opened.get(name, -1) + 1
                name = (*name, opened[name])
            table = name
            if table[: len(path)] == path:
                return number
        elif assignment := _ASSIGNMENT.match(line):
            key = (*table, *_parts(assignment[1]))
            if key[: len(path)] == path or path[: len(key)] == key:
                return number
    return None


class _Wrong(Exception):
    """Something is wrong at `path`; the text begins with the key."""

    def __init__(self, path: KeyPath, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.path = path
        self.hint = hint


def _read_text(file: Path) -> str:
    name = shown(str(file))
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise SettingsError(
            f"{name}: there is no such file",
            hint="check --config and ENVD_CONFIG; without them envd runs on its defaults",
        ) from None
    except IsADirectoryError:
        raise SettingsError(
            f"{name}: this is a directory, not a TOML file", hint="name the file in it"
        ) from None
    except PermissionError:
        raise SettingsError(
            f"{name}: this user may not read the file",
            hint="give the user that runs envd the right to read it",
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL"
        raise SettingsError(f"{name}: can't be read: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"{name}: is larger than {MAX_FILE_BYTES} bytes; is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{name}:{line}: is not valid UTF-8, as TOML must be") from None


def _check_keys(file: Path, text: str) -> None:
    """Refuse a key of very many parts before the parser sees it."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") >= MAX_KEY_PARTS and _LONG_KEY.search(_QUOTED.sub("_", line)):
            raise SettingsError(
                f"{shown(str(file))}:{number}: no key has more than {MAX_KEY_PARTS} parts"
            )


def _syntax_error(file: Path, message: str) -> SettingsError:
    position = _POSITION.search(message)
    if position is None:
        return SettingsError(f"{shown(str(file))}: no valid TOML: {shown(message)}")
    what = shown(message[: position.start()])
    return SettingsError(
        f"{shown(str(file))}:{position[1]}: no valid TOML: {what} (column {position[2]})"
    )


def _checked(
    table: Table, raw: object, path: KeyPath, home: Path | None, keys: list[str]
) -> dict[str, object]:
    """Check one table and all below it; leave out what is not set."""
    if not isinstance(raw, dict):
        raise _Wrong(path, f"`{dotted(path)}` must be a table, not {type_in_words(raw)}")
    checked: dict[str, object] = {}
    for name, value in raw.items():
        node = table.children.get(name)
        if node is None:
            raise _unknown((*path, name), table, value)
        checked[name] = _checked_node(node, value, (*path, name), home, keys)
    return checked


def _checked_node(
    node: Node, value: object, path: KeyPath, home: Path | None, keys: list[str]
) -> object:
    match node:
        case Leaf():
            keys.append(dotted(path))
            try:
                return read_value(node, value, home)
            except Misfit as misfit:
                raise _Wrong(path, f"`{dotted(path)}` {misfit}") from None
        case Table():
            return _checked(node, value, path, home, keys)
        case NamedTables():
            return dict(_checked_names(node, value, path, home, keys))
        case TableArray():
            if not isinstance(value, list):
                raise _Wrong(
                    path,
                    f"`{dotted(path)}` must be an array of tables, not {type_in_words(value)}",
                    hint=f"write [[{dotted(path)}]] above each",
                )
            rows = enumerate(value)
            return [_complete(node.table, row, (*path, n), home, keys) for n, row in rows]


def _checked_names(
    node: NamedTables, value: object, path: KeyPath, home: Path | None, keys: list[str]
) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        raise _Wrong(path, f"`{dotted(path)}` must be a table, not {type_in_words(value)}")
    for name, row in value.items():
        try:
            read_value(node.name, name, home)
        except Misfit as misfit:
            place = shown(dotted((*path, name)))
            raise _Wrong((*path, name), f"the name in `{place}` {misfit}") from None
        yield name, _checked(node.table, row, (*path, name), home, keys)


def _complete(
    table: Table, row: object, path: KeyPath, home: Path | None, keys: list[str]
) -> dict[str, object]:
    """Check a row of an array and that it has the keys that have no default."""
    checked = _checked(table, row, path, home, keys)
    for name, node in table.children.items():
        if isinstance(node, Leaf) and node.required and name not in checked:
            raise _Wrong(path, f"`{dotted((*path, name))}` is missing; it must be {node.words}")
    return checked


def _unknown(path: KeyPath, table: Table, value: object) -> _Wrong:
    rows = value if isinstance(value, list) and value else [value]
    is_table = all(isinstance(row, dict) for row in rows)
    key, close = nearest_key(path, list(table.children), is_table=is_table)
    suggestion = f"did you mean `{key}`?" if close else f"the nearest key is `{key}`"
    return _Wrong(
        path,
        f"unknown key `{shown(dotted(path))[:128]}`; {suggestion}",
        hint="config/envd.toml shows every key with its meaning",
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
