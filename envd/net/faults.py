"""Exceptions that nobody meant to raise: logged, counted, and told to no one.

The text of such an exception may hold anything, a value too, so the log gets only the types
and the places that it passed, and the caller gets "internal error".
"""

from __future__ import annotations

from typing import Final

from envd.core.errors import EnvdError
from envd.logs import get_logger
from envd.wire.api_errors import INTERNAL_REASON

_log = get_logger(__name__)
_MAX_PLACES: Final = 20
_MAX_CAUSES: Final = 5


class Faults:
    """The faults of one server; `count` is how many there were."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, call: str, error: BaseException) -> EnvdError:
        """Log and count a fault of `call`; return the error to answer with."""
        self.count += 1
        _log.error("request.failed", call=call, error=_types(error), at=_places(error))
        return EnvdError(
            "internal error",
            hint="the node's log tells where: look for request.failed",
            reason=INTERNAL_REASON,
        )


def _types(error: BaseException) -> str:
    """The types of an exception and its causes: `KeyError from OSError`."""
    names: list[str] = []
    step: BaseException | None = error
    while step is not None and len(names) < _MAX_CAUSES:
        names.append(type(step).__name__)
        step = step.__cause__ or step.__context__
    return " from ".join(names)


def _places(error: BaseException) -> list[str]:
    """Where it passed, `FILE:LINE FUNCTION`, the place it arose last."""
    places: list[str] = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places[-_MAX_PLACES:]
