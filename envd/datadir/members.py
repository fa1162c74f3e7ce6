"""`members.json`: the other members of the cluster, as this node last knew them.

With them a node that starts finds its cluster also without seeds, and knows from the beginning
that it is not alone. They may all have moved since, so what can't be read is left out with a
warning, and the next list is written over it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from envd.core.members import Member, MemberState
from envd.files import write_private
from envd.settings.units import Address

FORMAT: Final = 1
MAX_MEMBERS: Final = 1024
_MAX_FILE_BYTES: Final = 1 << 20
_TEXTS: Final = ("name", "gossip", "peer", "http", "region", "zone", "role")


def read_members(path: Path) -> tuple[Member, ...]:
    """The members in the data directory `path`; none where there is no file."""
    file = path / "members.json"
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MAX_FILE_BYTES + 1)
        document = json.loads(raw)
        if document["format"] != FORMAT:
            raise ValueError(f"it has format {document['format']}, not {FORMAT}")
        return tuple(_member(row) for row in document["members"][:MAX_MEMBERS])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        from envd.logs import get_logger  # here: `envd --help` has no use for it

        get_logger(__name__).warning(
            "members.unreadable",
            file=str(file),
            error=type(error).__name__,
            detail="until others are found again, this node takes itself to be alone",
        )
        return ()


def write_members(path: Path, members: Iterable[Member]) -> None:
    """Write the first 1,024 of these members, mode 0600, atomically; raises OSError."""
    rows = [_row(member) for member in list(members)[:MAX_MEMBERS]]
    text = json.dumps({"format": FORMAT, "members": rows}, indent=1) + "\n"
    write_private(path / "members.json", text.encode())


def _row(member: Member) -> dict[str, Any]:
    texts = {name: getattr(member, name) for name in _TEXTS}
    return {"uid": f"{member.uid:016x}", "generation": member.generation, **texts}


def _member(row: dict[str, Any]) -> Member:
    texts = {name: row[name] for name in _TEXTS}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("a member's names and addresses are texts")
    for address in (texts["gossip"], texts["peer"]):
        Address.parse(address)
    return Member(int(row["uid"], 16), int(row["generation"]), 0, MemberState.ALIVE, **texts)
