"""Whether a place in a store is called at all: a circuit breaker (`core.breaker`) for each.

A store that is away costs nothing but a probe now and then, and neither its time-outs nor the
bindings that use it hold up anything else. Only what tells that the store can't be used now counts
as a failure: no answer, too many calls, credentials that ran out. A refusal is an answer.
"""

from __future__ import annotations

from typing import Final

from envd.backends.errors import AuthExpired, BackendError, StoreUnavailable, Throttled
from envd.core.breaker import Breaker, Circuit

FAILURES_IN_A_ROW: Final = 3
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
"""As long as a failed run waits at most (`coalescing`): a store that is back is seen by then."""

_COUNTED: Final = (StoreUnavailable, Throttled, AuthExpired)


def is_failure(error: BackendError | None) -> bool:
    """Whether an answer tells that the store can't be used now."""
    return isinstance(error, _COUNTED)


class StoreCircuit:
    """That of one place; begins closed. Times are seconds of any steady clock."""

    __slots__ = ("_breaker",)

    def __init__(
        self,
        threshold: int = FAILURES_IN_A_ROW,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._breaker = Breaker(
            threshold, first_pause_s=first_pause_s, longest_pause_s=longest_pause_s
        )

    def state(self, now_s: float) -> Circuit:
        """The state at this time; its value is what `TargetStatus.circuit` shows."""
        return self._breaker.state(now_s)

    def wait_s(self, now_s: float) -> float:
        """How long no call goes through from now on, 0 where one may go now."""
        return self._breaker.wait_s(now_s)

    def begin(self, now_s: float) -> bool:
        """Ask for leave for one call, which then reports `answered`."""
        return self._breaker.begin(now_s)

    def answered(self, now_s: float, error: BackendError | None = None) -> None:
        """What became of a call: None for a success, else what the store said."""
        if is_failure(error):
            self._breaker.failed(now_s)
        else:
            self._breaker.succeeded()
