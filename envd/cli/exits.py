"""The exit codes, which scripts are written against, and the errors of the command line itself.

0    done
1    failed
2    wrong usage
3    not found
4    conflict or stale revision
5    unavailable, timeout or no quorum; nothing was done
6    denied
7    partly done
8    outcome unknown
9    differences found (with --exit-code)
10   waiting for approval
125, 126, 127   envctl run: envd's failure, not executable, not found
130  interrupted
"""

from __future__ import annotations

from envd.core.errors import (
    Conflict,
    Denied,
    EnvdError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

DONE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
UNAVAILABLE = 5
DENIED = 6
PARTLY = 7
UNKNOWN = 8
DIFFERENCES = 9
RUN_FAILED = 125
NOT_EXECUTABLE = 126
COMMAND_NOT_FOUND = 127
INTERRUPTED = 130


class UsageError(InvalidRequest):
    """The command line is wrong; nothing was asked of any node."""

    default_reason = "USAGE"


class Failed(EnvdError):
    """Something outside of envd is in the way: a file, a terminal, a program."""


class PartlyDone(EnvdError):
    """Some of it is done; the message lists what is and what is not."""

    default_reason = "PARTLY_DONE"


_Codes = tuple[tuple[type[EnvdError], int], ...]
_CODES: _Codes = (
    (InvalidRequest, USAGE),
    (Unsupported, USAGE),
    (NotFound, NOT_FOUND),
    (Conflict, CONFLICT),
    (Unavailable, UNAVAILABLE),
    (Unauthenticated, DENIED),
    (Denied, DENIED),
    (OutcomeUnknown, UNKNOWN),
    (PartlyDone, PARTLY),
)
# What a file holds is no matter of the command line.
_ABOUT_CONTENT = frozenset({"INVALID_FILE", "INEXPRESSIBLE"})


def exit_code(error: EnvdError) -> int:
    """The exit code that tells of this error."""
    if error.reason in _ABOUT_CONTENT:
        return FAILED
    code = _first(_CODES, error)
    return _of_store(error) if code is None else code


def _of_store(error: EnvdError) -> int:
    """That of what a store answered; loaded once something failed, for envctl starts without."""
    from envd.backends import errors as stores

    codes: _Codes = (
        (stores.StoreUnsupported, USAGE),
        (stores.InvalidName, USAGE),
        (stores.ItemNotFound, NOT_FOUND),
        (stores.StaleVersion, CONFLICT),
        (stores.SoftDeleted, CONFLICT),
        (stores.NotOwned, CONFLICT),
        (stores.NameCollision, CONFLICT),
        (stores.Throttled, UNAVAILABLE),
        (stores.AuthExpired, UNAVAILABLE),
        (stores.StoreUnavailable, UNAVAILABLE),
        (stores.Forbidden, DENIED),
    )
    code = _first(codes, error)
    return FAILED if code is None else code


def _first(codes: _Codes, error: EnvdError) -> int | None:
    return next((code for kind, code in codes if isinstance(error, kind)), None)
