"""The small protocol of the Unix socket: a 4-byte big-endian length, then a JSON document.

    request   {"call": "get", "arguments": {...}, "token": "..."}
    answer    {"answer": {...}}  or  {"error": {...}}

One answer for each request, in order. The documents are those of `wire.plain`. A call of
`STREAMS` is the last one on its connection, and is answered with many frames until either side
ends the connection, or an error:

    request   {"call": "watch", "arguments": {"prefix": "web", "token": "..."}, "token": "..."}
    answers   {"item": {"event": "changed", ...}}  {"item": ...}  ...  perhaps {"error": {...}}

A client ends a watch by closing its side; what it sends meanwhile ends it too. The items of
`backup` are told in `wire.plain_backup`. A request may name the trace that it is part of, in
`traceparent` (`wire.trace_context`).
"""

from __future__ import annotations

import json
import struct
from typing import Any

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 64 << 20
"""More than any environment needs: 4 MiB of values, each byte at most 6 in JSON."""

CALLS = (
    "get",
    "list",
    "write",
    "delete",
    "rollback",
    "history",
    "conflicts",
    "resolve",
    "status",
    "members",
    "join",
    "leave",
    "remove",
    "topology",
    "recover",
    "watch",
    "backup",
    "backups",
    *("sync_bind", "sync_unbind", "sync_bindings", "sync_pause", "sync_status", "sync_plan"),
    *("sync_apply", "sync_cost", "sync_backends", "sync_check", "sync_fetch"),
)
STREAMS = frozenset({"watch", "backup"})
WRITES = frozenset({"write", "delete", "rollback", "resolve"})


def encode_frame(document: dict[str, Any]) -> bytes:
    """One frame."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body
