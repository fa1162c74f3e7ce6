"""Every error that envd raises on purpose.

    EnvdError
    ├── InvalidRequest          the caller's words are wrong; nothing was done
    │   └── LimitExceeded       ... or too large
    ├── NotFound                the environment, variable or revision is absent (not: failed)
    ├── Conflict                it exists already, or the revision moved on; nothing was done
    ├── Unauthenticated         no credential, or one that does not hold
    ├── Denied                  the identity lacks the right
    ├── Unavailable             not now: stopping, overloaded, disk full; nothing was done
    ├── OutcomeUnknown          it may or may not have happened: retry with the operation id
    ├── Unsupported             a thing this version does not do
    ├── SnapshotError           a program's offline snapshot is missing, too old or not usable
    └── StartupError            this node can't start (settings, locks)
        ├── SettingsError       a setting is wrong
        └── StorageError        the data directory can't be used as it is
            ├── Corrupt         bytes on disk are not what was written
            └── KeyFileError    the key file is missing, wrong or open to others

Each carries a `reason` (a constant that scripts may match, the `reason` of
google.rpc.ErrorInfo), a message that says what went wrong and never holds a value, and,
where there is a mend, a `hint` that says what to do.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class EnvdError(Exception):
    """The root of the tree; see the module's docstring.

    `changed` tells whether state may have changed: "nothing" or "unknown".
    """

    default_reason: ClassVar[str] = "FAILED"
    changed: ClassVar[Literal["nothing", "unknown"]] = "nothing"

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason or self.default_reason


class InvalidRequest(EnvdError):
    default_reason = "INVALID_REQUEST"


class LimitExceeded(InvalidRequest):
    default_reason = "LIMIT_EXCEEDED"


class NotFound(EnvdError):
    default_reason = "NOT_FOUND"


class Conflict(EnvdError):
    default_reason = "CONFLICT"


class Unauthenticated(EnvdError):
    default_reason = "UNAUTHENTICATED"


class Denied(EnvdError):
    default_reason = "DENIED"


class Unavailable(EnvdError):
    """`retry_after_ms` is how long a polite caller waits before it tries again."""

    default_reason = "UNAVAILABLE"

    def __init__(
        self, message: str, *, hint: str = "", reason: str = "", retry_after_ms: int = 0
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.retry_after_ms = retry_after_ms


class OutcomeUnknown(EnvdError):
    default_reason = "OUTCOME_UNKNOWN"
    changed = "unknown"


class Unsupported(EnvdError):
    default_reason = "UNSUPPORTED"


class SnapshotError(EnvdError):
    default_reason = "SNAPSHOT"


class StartupError(EnvdError):
    default_reason = "STARTUP"


class SettingsError(StartupError):
    default_reason = "SETTINGS"


class StorageError(StartupError):
    default_reason = "STORAGE"


class Corrupt(StorageError):
    default_reason = "CORRUPT"


class KeyFileError(StorageError):
    default_reason = "KEY_FILE"
