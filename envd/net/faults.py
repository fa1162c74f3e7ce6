"""Exceptions that nobody meant to raise: logged, counted, and told to no one.

The text of such an exception may hold anything, a value too, so the log gets only the types
and the places that it passed, and the caller gets "internal error".
"""

from __future__ import annotations

from typing import Final, TypeVar

from envd.core.errors import EnvdError, OutcomeUnknown
from envd.logs import get_logger, places
from envd.wire.api_errors import INTERNAL_REASON

_log = get_logger(__name__)
_MAX_CAUSES: Final = 5
ErrorT = TypeVar("ErrorT", bound=BaseException)


class Faults:
    """The faults of one server; `count` is how many there were."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, call: str, error: BaseException, *, writes: bool = False) -> EnvdError:
        """Log and count a fault of `call`; return the error to answer with.

        Of a call that `writes` nobody can tell how far it came: OutcomeUnknown.
        """
        self.count += 1
        _log.error("request.failed", call=call, error=_types(error), at=places(error))
        if writes:
            return OutcomeUnknown(
                "internal error; the write may or may not be done",
                hint="repeat it with the same operation id: it is done at most once",
                reason=INTERNAL_REASON,
            )
        return EnvdError(
            "internal error",
            hint="the node's log tells where: look for request.failed",
            reason=INTERNAL_REASON,
        )


def bare(error: ErrorT) -> ErrorT:
    """The error without where it passed, for a guard that keeps it in a variable.

    An error leads to the frames that it passed, and they to the guard's: with the variable that
    is a circle, which keeps the whole request until the cycle collector comes by. That looks
    at numbers of objects: of requests of megabytes it would let gigabytes pile up.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _types(error: BaseException) -> str:
    """The types of an exception and its causes: `KeyError from OSError`."""
    names: list[str] = []
    step: BaseException | None = error
    while step is not None and len(names) < _MAX_CAUSES:
        names.append(type(step).__name__)
        step = step.__cause__ or step.__context__
    return " from ".join(names)
