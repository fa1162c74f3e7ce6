"""The members of clusters that envctl has talked to, for when none of the named nodes answers.

They are kept in `$XDG_STATE_HOME/envctl/members.json`, by the addresses that were named:

    {"10.0.0.1:7420": {"members": ["10.0.0.2:7420", "10.0.0.3:7420"], "wall_ms": 1700000000000}}

It is read only where nobody answers, and written at most every ten minutes, after the command.
What goes wrong with it is nobody's trouble: it is as if nothing were remembered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from envd.cli import contexts
from envd.core.errors import EnvdError

if TYPE_CHECKING:
    from envd.client.connection import Connection
from envd.client.discovery import usable_members

REFRESH_MS = 600_000
MAX_CLUSTERS = 64
MAX_MEMBERS = 64
_MAX_FILE_BYTES = 1 << 20


def file_of(environ: Mapping[str, str]) -> str:
    """Where the members are kept, "" where there is no place for them."""
    directory = contexts.home(environ, "XDG_STATE_HOME", ".local/state")
    return f"{directory}/envctl/members.json" if directory else ""


def members(file: str, named: Sequence[str]) -> tuple[str, ...]:
    """The further members of the cluster whose nodes were `named`."""
    return _members_in(_load(file).get(_key(named)))


def note(file: str, named: Sequence[str], connection: Connection, wall_ms: int) -> None:
    """Ask for the members and keep them, unless that was done not long ago."""
    known = _load(file)
    entry = known.get(_key(named))
    if entry is not None and 0 <= wall_ms - _time_in(entry) < REFRESH_MS:
        return
    try:
        told = connection.members().members
    except EnvdError:
        return  # What is known stays.
    usable = usable_members(told, named)
    here = dict.fromkeys(each.address for each in usable if each.state != "left")
    found = [address for address in here if address not in named][:MAX_MEMBERS]
    known[_key(named)] = {"members": found, "wall_ms": wall_ms}
    newest = sorted(known.items(), key=lambda item: _time_in(item[1]), reverse=True)
    _save(file, dict(newest[:MAX_CLUSTERS]))


def _key(named: Sequence[str]) -> str:
    return ",".join(sorted(named))


def _load(file: str) -> dict[str, Any]:
    try:
        with open(file, encoding="utf-8") as opened:
            document = json.loads(opened.read(_MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _members_in(entry: object) -> tuple[str, ...]:
    found = entry.get("members") if isinstance(entry, dict) else None
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()


def _time_in(entry: object) -> int:
    time = entry.get("wall_ms") if isinstance(entry, dict) else None
    return time if isinstance(time, int) else 0


def _save(file: str, document: Mapping[str, object]) -> None:
    from contextlib import suppress
    from pathlib import Path

    from envd.files import write_private

    with suppress(OSError):
        Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(Path(file), json.dumps(document, indent=2).encode() + b"\n")
