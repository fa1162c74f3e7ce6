"""`--rename MAP`: what the names of a store are here.

MAP is `OLD=NEW,OLD2=NEW2`, or a file with one of them a line (`#` begins a remark). OLD may hold
one `*`, which stands for anything, and NEW one that stands for the same: `prod_*=*` takes a prefix
off. The first that matches holds; an empty NEW leaves the name out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from envd.cli.exits import Failed, UsageError

MAX_FILE_BYTES = 1 << 20


class Rename(NamedTuple):
    """One line of a map."""

    old: str
    new: str

    def of(self, name: str) -> str | None:
        """The new name, "" for none, or None where this line is not about `name`."""
        start, star, end = self.old.partition("*")
        if not star:
            return self.new if name == self.old else None
        fits = len(name) >= len(start) + len(end)
        if not (fits and name.startswith(start) and name.endswith(end)):
            return None
        return self.new.replace("*", name[len(start) : len(name) - len(end)])


def renamed(renames: Iterable[Rename], *names: str) -> str | None:
    """What the first line that is about one of these names makes of it; None for no line."""
    for rename in renames:
        for name in names:
            found = rename.of(name)
            if found is not None:
                return found
    return None


def read_map(text: str, directory: str) -> tuple[Rename, ...]:
    """The lines of MAP; without a `=` it is a file below `directory`."""
    if not text:
        return ()
    if "=" in text:
        return tuple(_rename(part.strip(), "--rename") for part in text.split(",") if part.strip())
    lines = _lines(Path(directory) / text, text)
    return tuple(
        _rename(line.strip(), f"{text}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    )


def _lines(path: Path, shown: str) -> list[str]:
    try:
        with path.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise Failed(f"{shown} is larger than {MAX_FILE_BYTES >> 20} MiB")
        return raw.decode().splitlines()
    except OSError as error:
        raise Failed(
            f"can't read {shown}: {error.strerror}; nothing was changed",
            hint="--rename takes OLD=NEW,OLD2=NEW2, or a file with one of them a line",
        ) from error
    except UnicodeDecodeError:
        raise Failed(f"{shown} is not UTF-8; nothing was changed") from None


def _rename(text: str, place: str) -> Rename:
    old, equal, new = (part.strip() for part in text.partition("="))
    if not (old and equal) or old.count("*") > 1 or new.count("*") > old.count("*"):
        raise UsageError(
            f"{place}: {text[:64]!a} is no OLD=NEW",
            hint="OLD may hold one '*', and NEW too if OLD has it: 'prod_*=*'",
        )
    return Rename(old, new)


def suggested(name: str) -> str:
    """A legal name like this one: "db url" becomes DB_URL."""
    legal = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_").upper()
    return f"_{legal}" if not legal or legal[0].isdigit() else legal
