"""What a store can answer instead of doing what it was asked.

    EnvdError
    └── BackendError            never a value in it; `from` the SDK's own error
        ├── ItemNotFound        there is no such item (not: nobody knows)
        ├── StaleVersion        the item is not at the version that was expected
        ├── SoftDeleted         a deleted item still holds the name
        ├── Throttled           too many calls; `retry_after_s` where the store says
        ├── AuthExpired         the credentials were good, and are to be renewed
        ├── Forbidden           the credentials do not allow it; it may also not be there
        ├── NotOwned            the item is somebody else's, and the policy spares it
        ├── InvalidName         the store has no such names
        ├── NameCollision       two variables would have one name in the store
        ├── InvalidValue        the store does not take such values (empty ones, say)
        ├── ValueTooLarge       ... or so large ones
        ├── QuotaExceeded       the store is full, or its contract says so
        ├── StoreUnavailable    no answer, or one that makes no sense: nobody knows what was done
        ├── StoreUnsupported    this store can't do that at all
        └── MissingLibrary      the SDK is not installed; the hint is how to install it

A refusal (`is_refusal`) is an answer to this one call, and the same call will be refused again;
all else is worth another try later.
"""

from __future__ import annotations

from typing import ClassVar, Final

from envd.core.errors import EnvdError


class BackendError(EnvdError):
    """The root of the tree; see the module."""

    is_refusal: ClassVar[bool] = True


class ItemNotFound(BackendError):
    default_reason = "ITEM_NOT_FOUND"


class StaleVersion(BackendError):
    default_reason = "STALE_VERSION"


class SoftDeleted(BackendError):
    default_reason = "SOFT_DELETED"


class Throttled(BackendError):
    """`retry_after_s` is 0 where the store does not say."""

    default_reason = "THROTTLED"
    is_refusal = False

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class AuthExpired(BackendError):
    default_reason = "AUTH_EXPIRED"
    is_refusal = False


class Forbidden(BackendError):
    default_reason = "FORBIDDEN"


class NotOwned(BackendError):
    default_reason = "NOT_OWNED"


class InvalidName(BackendError):
    default_reason = "INVALID_NAME"


class NameCollision(BackendError):
    default_reason = "NAME_COLLISION"


class InvalidValue(BackendError):
    default_reason = "INVALID_VALUE"


class ValueTooLarge(BackendError):
    default_reason = "VALUE_TOO_LARGE"


class QuotaExceeded(BackendError):
    default_reason = "QUOTA_EXCEEDED"


class StoreUnavailable(BackendError):
    default_reason = "STORE_UNAVAILABLE"
    is_refusal = False
    changed = "unknown"


class StoreUnsupported(BackendError):
    default_reason = "STORE_UNSUPPORTED"


class MissingLibrary(BackendError):
    default_reason = "MISSING_LIBRARY"


BY_REASON: Final = {
    kind.default_reason: kind
    for kind in (
        ItemNotFound,
        StaleVersion,
        SoftDeleted,
        Throttled,
        AuthExpired,
        Forbidden,
        NotOwned,
        InvalidName,
        NameCollision,
        InvalidValue,
        ValueTooLarge,
        QuotaExceeded,
        StoreUnavailable,
        StoreUnsupported,
        MissingLibrary,
    )
}
