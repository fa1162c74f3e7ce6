"""What a failed call of gRPC means: the error of a node, or what became of the call.

Both clients use it: the one of `envctl`, and the one for programs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

import grpc

from envd.core.errors import (
    EnvdError,
    LimitExceeded,
    OutcomeUnknown,
    Unavailable,
    Unsupported,
)
from envd.wire import api_errors

_MAX_FOREIGN_TEXT: Final = 200
_NEVER_SENT: Final = "failed to connect to all addresses"


def error_from_rpc(
    error: grpc.RpcError, *, operation: str | None = None, repeat: str = "--operation {}"
) -> EnvdError:
    """The EnvdError that a node answered with, or what a failure of gRPC itself means.

    `operation` is the id of a write, None for a read: where it is unclear what became of a
    write, that is OutcomeUnknown, whose hint tells how to `repeat` it under that id.
    """
    code = error.code()
    found = own_error(error)
    if found is not None and not (operation is not None and code is grpc.StatusCode.INTERNAL):
        return found
    if operation is not None and code in _UNCLEAR:
        return OutcomeUnknown(
            f"no answer to the write ({_IN_WORDS.get(code, 'the node failed')}); "
            "it may or may not be done",
            hint=f"repeat it with: {repeat.format(operation)}   It is done at most once",
        )
    if code in _IN_WORDS:
        reason = "TIMEOUT" if code is grpc.StatusCode.DEADLINE_EXCEEDED else "NO_ANSWER"
        return Unavailable(
            f"no answer from the node ({_IN_WORDS[code]})",
            hint="try again; envctl doctor tells how the node does",
            reason=reason,
        )
    return _foreign(code, error.details() or "")


def unclear_from_rpc(error: grpc.RpcError, mend: str) -> EnvdError:
    """The same for a change without an id: the hint where it may be done is `mend`."""
    found = error_from_rpc(error, operation="")
    if isinstance(found, OutcomeUnknown) and own_error(error) is None:
        return OutcomeUnknown(found.message, hint=mend)
    return found


_IN_WORDS: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "it took too long",
    grpc.StatusCode.UNAVAILABLE: "the connection broke",
    grpc.StatusCode.CANCELLED: "the call was cancelled",
}
_UNCLEAR: Final = frozenset(
    {*_IN_WORDS, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
)


def own_error(error: grpc.RpcError) -> EnvdError | None:
    """What a node of ours says in the details, None where they are not its."""
    trailers = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
    for key, value in trailers:
        status = api_errors.parse_status(value) if key == api_errors.DETAILS_KEY else None
        if status is not None and api_errors.is_ours(status):
            return api_errors.error_of(status)
    return None


def _foreign(code: grpc.StatusCode, details: str) -> EnvdError:
    """A status that gRPC or something in between made."""
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Unsupported("the node does not know this call", hint="is it an older envd?")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return LimitExceeded("the message is larger than 8 MiB", hint="ask for less at once")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Unavailable(
            "the node has more calls than it takes; nothing was done",
            hint="try again a little later",
            reason=api_errors.OVERLOADED,
            retry_after_ms=1000,
        )
    number: int = code.value[0]
    message = details[:_MAX_FOREIGN_TEXT] or code.value[1]
    kind = api_errors.class_of(number, "")
    if issubclass(kind, OutcomeUnknown):
        kind = EnvdError
    return api_errors.made(kind, message, hint="", reason="")


def is_lost(error: grpc.RpcError) -> bool:
    """Tell whether a call ended without an answer of a node because the connection failed."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and own_error(error) is None


def is_without_answer(error: grpc.RpcError) -> bool:
    """Tell whether gRPC itself ended a call, so that nobody knows how far the node came.

    That is a lost connection, and what gRPC calls an internal error of its own.
    """
    return error.code() in _UNCLEAR and own_error(error) is None


def was_never_sent(error: grpc.RpcError) -> bool:
    """Tell whether a lost call never reached a node, because there was no connection."""
    return _NEVER_SENT in (error.details() or "")
