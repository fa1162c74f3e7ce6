"""What envd notes beside a file of variables: which are its own, and the stamps of its writes.

The side file `.NAME.envd.json` holds no value. A stamp is kept with the version that it belongs to,
and the version before it is kept too; the side file is written first, then the file itself. So
whichever of the two a crash leaves, its stamp is there, and an edit by others has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from envd.backends.errors import StoreUnavailable
from envd.files import write_private

_VERSION: Final = 1


class Mark(NamedTuple):
    """A write by envd: the version that it made, its stamp, and when (unix ms)."""

    version: str
    stamp: str
    changed_ms: int


Marks = Mapping[str, tuple[Mark, ...]]
"""By the name in the file: the latest write and the one before it. Who has none is not envd's."""


def side_path(path: Path) -> Path:
    """Where the side file of a file is."""
    return path.with_name(f".{path.name}.envd.json")


def lock_path(path: Path) -> Path:
    """Where the lock is that those hold who write a file through envd."""
    return path.with_name(f".{path.name}.envd.lock")


def side_of(name: str) -> str:
    """The name of the file whose side file has this name, "" where it is none.

    Example: side_of(".web.env.envd.json") is "web.env".
    """
    is_side = name.startswith(".") and name.endswith(".envd.json")
    return name[1 : -len(".envd.json")] if is_side else ""


def read_marks(raw: bytes, path: Path) -> Marks:
    """The marks in a side file; StoreUnavailable where it is damaged."""
    try:
        document = json.loads(raw)
        if document["envd"] != _VERSION:
            raise ValueError
        return {
            str(name): tuple(Mark(str(v), str(s), int(ms)) for v, s, ms in marks)
            for name, marks in document["variables"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise StoreUnavailable(
        f"{path}: this is no side file of envd, or it is damaged",
        hint="if you remove it, envd takes no variable of the file for its own any more",
    )


def write_marks(path: Path, marks: Marks) -> None:
    """Write a side file atomically; OSError where it can't be."""
    document = {"envd": _VERSION, "variables": {name: marks[name] for name in sorted(marks)}}
    write_private(path, json.dumps(document, indent=1).encode() + b"\n")


def mark_of(marks: Marks, name: str, version: str) -> Mark | None:
    """The write by envd that made this version, None where it was somebody else's."""
    return next((each for each in marks.get(name, ()) if each.version == version), None)


def marked(marks: Iterable[Mark], current: str, mark: Mark) -> tuple[Mark, ...]:
    """The marks of a variable that is about to go from version `current` to that of `mark`."""
    before = [each for each in marks if each.version == current and each.version != mark.version]
    return (mark, *before[:1])
