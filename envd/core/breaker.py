"""A circuit breaker for what is called: no calls to one that just failed several times in a row.

    closed      calls go through; `threshold` failures in a row open it
    open        no call goes through until the pause is over
    half open   one call goes through and decides: closed again, or open for twice as long

(Nygard, "Release It!", 2007.) Calls that were under way when it opened and fail after that
change nothing: a hundred streams that break at once are one event. Who calls decides what is a
failure; a refusal is an answer. Pure: the time comes in as an argument, in seconds of any steady
clock.
"""

from __future__ import annotations

from enum import Enum


class Circuit(Enum):
    """The states; see the module."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Breaker:
    """That of one server or store; begins closed.

    `threshold` failures in a row open it, for `first_pause_s`; each further failure doubles the
    pause, up to `longest_pause_s`.
    """

    __slots__ = (
        "_failures",
        "_first_pause_s",
        "_longest_s",
        "_pause_s",
        "_probing",
        "_threshold",
        "_until",
    )

    def __init__(
        self,
        threshold: int,
        *,
        first_pause_s: float,
        longest_pause_s: float,
    ) -> None:
        self._threshold = threshold
        self._first_pause_s = first_pause_s
        self._longest_s = longest_pause_s
        self._failures = 0
        self._pause_s = 0.0
        self._until = 0.0
        self._probing = False

    def state(self, now_s: float) -> Circuit:
        """The state at this time; asking changes nothing."""
        if not self._pause_s:
            return Circuit.CLOSED
        return Circuit.OPEN if now_s < self._until else Circuit.HALF_OPEN

    def wait_s(self, now_s: float) -> float:
        """How long no call goes through from now on, 0 where one may go now."""
        return max(0.0, self._until - now_s) if self._pause_s else 0.0

    def begin(self, now_s: float) -> bool:
        """Ask for leave for one call, which then reports `succeeded` or `failed`.

        In the half open state the first to ask has it; the others wait another pause.
        """
        match self.state(now_s):
            case Circuit.CLOSED:
                return True
            case Circuit.OPEN:
                return False
            case Circuit.HALF_OPEN:
                self._until = now_s + self._pause_s
                self._probing = True
                return True

    def succeeded(self) -> None:
        """There was an answer, whatever it said."""
        self._failures = 0
        self._pause_s = 0.0
        self._probing = False

    def failed(self, now_s: float) -> None:
        """It could not be reached, or did not answer."""
        self._failures += 1
        if self._pause_s and not self._probing:
            return
        if self._pause_s:
            self._pause_s = min(self._longest_s, 2 * self._pause_s)
        elif self._failures >= self._threshold:
            self._pause_s = self._first_pause_s
        self._probing = False
        self._until = now_s + self._pause_s
