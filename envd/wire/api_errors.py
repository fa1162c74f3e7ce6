"""Errors of the public API: `EnvdError` <-> `google.rpc.Status`, and the errors of single items.

A status carries the code, the message and an `ErrorInfo` of the domain "envd": its reason, and
in its metadata the hint and the class (`kind`), from which a client raises the same error again.
`Unavailable.retry_after_ms` and `Throttled.retry_after_s` go as `RetryInfo`. The codes:

    InvalidRequest, LimitExceeded           INVALID_ARGUMENT
    NotFound                                NOT_FOUND
    Conflict, ALREADY_EXISTS                ALREADY_EXISTS
    Conflict                                FAILED_PRECONDITION
    Unauthenticated                         UNAUTHENTICATED
    Denied                                  PERMISSION_DENIED
    Unavailable, OVERLOADED and DISK_FULL   RESOURCE_EXHAUSTED
    Unavailable, TIMEOUT                    DEADLINE_EXCEEDED
    Unavailable                             UNAVAILABLE
    OutcomeUnknown                          UNKNOWN (which no retry policy repeats by itself)
    Unsupported                             UNIMPLEMENTED
    Corrupt                                 DATA_LOSS
    InvalidName, -Value, ValueTooLarge      INVALID_ARGUMENT
    ItemNotFound                            NOT_FOUND
    StaleVersion, SoftDeleted, NotOwned,
    NameCollision                           FAILED_PRECONDITION
    Forbidden                               PERMISSION_DENIED
    Throttled, QuotaExceeded                RESOURCE_EXHAUSTED
    AuthExpired, StoreUnavailable           UNAVAILABLE
    StoreUnsupported, MissingLibrary        UNIMPLEMENTED
    any other                               INTERNAL

A status of someone else (a proxy, gRPC itself) has no such details; its code gives the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2 as codes  # type: ignore[import-untyped]
from google.rpc import error_details_pb2, status_pb2

from envd.backends import errors as stores
from envd.core import errors
from envd.core.errors import (
    Conflict,
    Corrupt,
    Denied,
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from envd.wire._pb import environment_pb2 as pb

DOMAIN: Final = "envd"
DETAILS_KEY: Final = "grpc-status-details-bin"
INTERNAL_REASON: Final = "INTERNAL"
OVERLOADED: Final = "OVERLOADED"
MAX_TEXT_BYTES: Final = 1000
"""Trailers of gRPC hold 8 KiB; a message goes into them twice, once escaped, once in base64."""

_BY_REASON: Final[Mapping[tuple[type, str], int]] = {
    (Conflict, "ALREADY_EXISTS"): codes.ALREADY_EXISTS,
    (Unavailable, OVERLOADED): codes.RESOURCE_EXHAUSTED,
    (Unavailable, "DISK_FULL"): codes.RESOURCE_EXHAUSTED,
    (Unavailable, "TIMEOUT"): codes.DEADLINE_EXCEEDED,
}
_BY_CLASS: Final[Mapping[type, int]] = {
    InvalidRequest: codes.INVALID_ARGUMENT,
    LimitExceeded: codes.INVALID_ARGUMENT,
    NotFound: codes.NOT_FOUND,
    Conflict: codes.FAILED_PRECONDITION,
    Unauthenticated: codes.UNAUTHENTICATED,
    Denied: codes.PERMISSION_DENIED,
    Unavailable: codes.UNAVAILABLE,
    OutcomeUnknown: codes.UNKNOWN,
    Unsupported: codes.UNIMPLEMENTED,
    Corrupt: codes.DATA_LOSS,
    stores.InvalidName: codes.INVALID_ARGUMENT,
    stores.InvalidValue: codes.INVALID_ARGUMENT,
    stores.ValueTooLarge: codes.INVALID_ARGUMENT,
    stores.ItemNotFound: codes.NOT_FOUND,
    stores.StaleVersion: codes.FAILED_PRECONDITION,
    stores.SoftDeleted: codes.FAILED_PRECONDITION,
    stores.NotOwned: codes.FAILED_PRECONDITION,
    stores.NameCollision: codes.FAILED_PRECONDITION,
    stores.Forbidden: codes.PERMISSION_DENIED,
    stores.Throttled: codes.RESOURCE_EXHAUSTED,
    stores.QuotaExceeded: codes.RESOURCE_EXHAUSTED,
    stores.AuthExpired: codes.UNAVAILABLE,
    stores.StoreUnavailable: codes.UNAVAILABLE,
    stores.StoreUnsupported: codes.UNIMPLEMENTED,
    stores.MissingLibrary: codes.UNIMPLEMENTED,
}
_BY_CODE: Final[Mapping[int, type[EnvdError]]] = {
    codes.INVALID_ARGUMENT: InvalidRequest,
    codes.OUT_OF_RANGE: InvalidRequest,
    codes.NOT_FOUND: NotFound,
    codes.ALREADY_EXISTS: Conflict,
    codes.FAILED_PRECONDITION: Conflict,
    codes.ABORTED: Conflict,
    codes.UNAUTHENTICATED: Unauthenticated,
    codes.PERMISSION_DENIED: Denied,
    codes.UNAVAILABLE: Unavailable,
    codes.RESOURCE_EXHAUSTED: Unavailable,
    codes.DEADLINE_EXCEEDED: Unavailable,
    codes.UNKNOWN: OutcomeUnknown,
    codes.UNIMPLEMENTED: Unsupported,
    codes.DATA_LOSS: Corrupt,
}


def code_of(error: EnvdError) -> int:
    """The google.rpc.Code of an error, by its class or the nearest one above it."""
    for kind in type(error).__mro__:
        code = _BY_REASON.get((kind, error.reason)) or _BY_CLASS.get(kind)
        if code is not None:
            return code
    return int(codes.INTERNAL)


def code_name(error: EnvdError) -> str:
    """The name of that code: NOT_FOUND."""
    name: str = codes.Code.Name(code_of(error))
    return name


def status_of(error: EnvdError) -> status_pb2.Status:
    """The whole error as a status, its texts cut to MAX_TEXT_BYTES."""
    status = status_pb2.Status(code=code_of(error), message=_cut(error.message))
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={"hint": _cut(error.hint), "kind": type(error).__name__},
        ),
        deterministic=True,
    )
    after_ms = retry_after_ms(error)
    if after_ms > 0:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(after_ms)
        status.details.add().Pack(retry)
    return status


def parse_status(raw: bytes) -> status_pb2.Status | None:
    """Read the bytes of a status; None where they are none."""
    try:
        return status_pb2.Status.FromString(raw)
    except DecodeError:
        return None


def error_of(status: status_pb2.Status) -> EnvdError:
    """The error that a status tells of, of the class that was raised where it says which."""
    info = _info(status) or error_details_pb2.ErrorInfo()
    return made(
        class_named(info.metadata.get("kind", "")) or class_of(status.code, info.reason),
        status.message,
        hint=info.metadata.get("hint", ""),
        reason=info.reason,
        retry_after_ms=_retry_after_ms(status),
    )


def is_ours(status: status_pb2.Status) -> bool:
    """Tell whether a status was made by `status_of`, not by gRPC or something in between."""
    return _info(status) is not None


def item_error(error: EnvdError) -> pb.Error:
    """The error of one item of a larger call."""
    return pb.Error(
        code=code_of(error),
        reason=error.reason,
        message=_cut(error.message),
        hint=_cut(error.hint),
        retry_after_ms=retry_after_ms(error),
    )


def error_of_item(item: pb.Error) -> EnvdError:
    """The inverse of `item_error`; the class comes from the code and the reason."""
    kind = class_of(item.code, item.reason)
    after_ms = item.retry_after_ms
    return made(kind, item.message, hint=item.hint, reason=item.reason, retry_after_ms=after_ms)


def class_of(code: int, reason: str) -> type[EnvdError]:
    """The class that a code, and a reason where it has one, stand for."""
    if code == codes.INVALID_ARGUMENT and reason == LimitExceeded.default_reason:
        return LimitExceeded
    return _BY_CODE.get(code, EnvdError)


def class_named(kind: str) -> type[EnvdError] | None:
    """The class of that name in the trees of errors, None for any other name."""
    for tree in (errors, stores):
        found = getattr(tree, kind, None)
        if isinstance(found, type) and issubclass(found, EnvdError):
            return found
    return None


def retry_after_ms(error: EnvdError) -> int:
    """How long a polite caller waits before it tries again, 0 where nobody says."""
    if isinstance(error, stores.Throttled):
        return round(error.retry_after_s * 1000)
    return error.retry_after_ms if isinstance(error, Unavailable) else 0


def made(
    kind: type[EnvdError], message: str, *, hint: str, reason: str, retry_after_ms: int = 0
) -> EnvdError:
    """An error of this class."""
    if issubclass(kind, Unavailable):
        return kind(message, hint=hint, reason=reason, retry_after_ms=retry_after_ms)
    if issubclass(kind, stores.Throttled):
        return kind(message, hint=hint, retry_after_s=retry_after_ms / 1000)
    return kind(message, hint=hint, reason=reason)


def _info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo | None:
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if _unpacked(detail, info) and info.domain == DOMAIN:
            return info
    return None


def _retry_after_ms(status: status_pb2.Status) -> int:
    for detail in status.details:
        retry = error_details_pb2.RetryInfo()
        if _unpacked(detail, retry):
            return max(0, int(retry.retry_delay.ToMilliseconds()))
    return 0


def _unpacked(detail: Any, into: Message) -> bool:
    """Read a packed message into `into` if it is of its type and whole."""
    try:
        return detail.Unpack(into)
    except DecodeError:
        return False


def _cut(text: str) -> str:
    raw = text.encode("utf-8", "replace")
    return raw[:MAX_TEXT_BYTES].decode("utf-8", "ignore")
