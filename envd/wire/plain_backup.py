"""Backups on the Unix socket: `wire.plain` for their answers, and the bytes of one in base64.

item   {"data": "..."}   the next bytes   ...   {"end": true}   the backup is whole
"""

from __future__ import annotations

import binascii
from typing import Any

from envd.core.backups import BackupFacts, BackupListing

END = {"end": True}


def chunk_to_plain(data: bytes) -> dict[str, Any]:
    """The next bytes of a backup, as an item."""
    return {"data": binascii.b2a_base64(data, newline=False).decode()}


def chunk_from_plain(item: dict[str, Any]) -> bytes | None:
    """The inverse, None for the end; raises ValueError for what is no item."""
    if item == END:
        return None
    data = item.get("data")
    if not isinstance(data, str):
        raise ValueError("this is no part of a backup")
    return binascii.a2b_base64(data, strict_mode=True)


def listing(plain: dict[str, Any]) -> BackupListing:
    """The inverse of `plain.to_plain` for a BackupListing."""
    backups = tuple(
        BackupFacts(**_known(BackupFacts, {**each, "locks": tuple(each["locks"])}))
        for each in plain["backups"]
    )
    return BackupListing(**_known(BackupListing, {**plain, "backups": backups}))


def _known(kind: type[BackupFacts | BackupListing], document: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that a newer node adds."""
    fields = kind.__dataclass_fields__
    return {name: value for name, value in document.items() if name in fields}
