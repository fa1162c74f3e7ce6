"""What makes a write the same as an earlier one that came under its operation id.

What it does counts: to which environment, and what. Preconditions, the message and the
durability do not: a repeat may be made with what was learnt since.
"""

from __future__ import annotations

from collections.abc import Sequence

from envd.core import digest
from envd.core.requests import (
    DeleteRequest,
    Put,
    PutColumns,
    ResolveRequest,
    RollbackRequest,
    WriteRequest,
)

AnyWrite = WriteRequest | DeleteRequest | RollbackRequest | ResolveRequest


def request_digest(request: AnyWrite, digest_key: bytes) -> bytes:
    """16 bytes for what `request` does; b"" where it has no operation id."""
    return digest.request_digest(_fields(request), digest_key) if request.operation else b""


def _in_order(puts: Sequence[Put]) -> Sequence[Put]:
    """As they come by the public API, whichever way they came: variables, then sorted settings.

    Else a write that one node hands to another would be another one there.
    """
    if type(puts) is PutColumns:
        return puts
    settings = sorted((put for put in puts if put.kind), key=lambda put: put.name)
    return [*(put for put in puts if not put.kind), *settings]


def _fields(request: AnyWrite) -> list[str]:
    fields = [type(request).__name__, request.environment]
    match request:
        case WriteRequest():
            fields.append("replace" if request.replace else "")
            for put in _in_order(request.puts):
                kind = "1" if put.kind else "0"
                fields += ("put", kind, put.name, str(put.secret), put.value)
            for unset in sorted(request.unsets, key=lambda unset: unset.kind):
                fields += ("unset", "1" if unset.kind else "0", unset.name)
        case RollbackRequest():
            fields.append(request.to)
            fields += request.variables
        case ResolveRequest():
            fields += (str(int(request.kind)), request.variable, request.take)
        case DeleteRequest():
            pass
    return fields
