"""When a binding runs next: some time after a change, or an interval after the last run.

Changes often come in flocks: an import, a deployment, a person who edits. So a run waits until
nothing has changed for a quiet time, but not for ever: at most `longest_s` after the first change
(the debounce with a longest wait that user interfaces have). 50 changes in 10 s are one batch.

What changes while a run is under way goes with the next one. After a failure the next run waits
longer and longer, up to five minutes, whatever changes meanwhile, and then takes everything along:
while a store is away, changes gather and go out as one when it is back. Intervals and waits are
spread by chance, so that bindings which began, or failed, together don't run together for ever.

Pure: the time comes in as seconds of any steady clock, chance as a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

QUIET_S: Final = 1.0
LONGEST_S: Final = 10.0
SPREAD: Final = 0.1
"""An interval is up to this share shorter or longer."""
FIRST_RETRY_S: Final = 2.0
LONGEST_RETRY_S: Final = 300.0


class Schedule:
    """That of one binding, from its leader's begin on; the first run is due soon after.

    `draw` gives a number from 0.0 up to 1.0. Who runs it calls `began` and `ended` around each
    run, and `changed` for each notice, from either side.
    """

    __slots__ = (
        "_changed_s",
        "_draw",
        "_due_s",
        "_failures",
        "_first_change_s",
        "_interval_s",
        "_longest_s",
        "_quiet_s",
        "_running",
    )

    def __init__(
        self,
        interval_s: float,
        now_s: float,
        *,
        draw: Callable[[], float],
        quiet_s: float = QUIET_S,
        longest_s: float = LONGEST_S,
    ) -> None:
        self._interval_s = interval_s
        self._quiet_s = quiet_s
        self._longest_s = longest_s
        self._draw = draw
        self._due_s = now_s + draw() * min(longest_s, SPREAD * interval_s)
        self._first_change_s: float | None = None
        self._changed_s = now_s
        self._failures = 0
        self._running = False

    @property
    def failures(self) -> int:
        """How many runs in a row failed."""
        return self._failures

    @property
    def waiting_since_s(self) -> float | None:
        """When the oldest change came that no run has taken along, None where there is none."""
        return self._first_change_s

    def changed(self, now_s: float) -> None:
        """Something changed, here or in the store."""
        self._changed_s = now_s
        if self._first_change_s is None:
            self._first_change_s = now_s

    def began(self, now_s: float) -> None:
        """A run begins: it sees all that changed until now.

        A run may begin before it is due, where somebody asked for it.
        """
        self._running = True
        self._first_change_s = None
        self._changed_s = now_s

    def ended(self, now_s: float, ok: bool) -> None:
        """A run ended; it failed if something of it is to be tried again."""
        self._running = False
        if ok:
            self._failures = 0
            share = 1 + SPREAD * (2 * self._draw() - 1)
            self._due_s = now_s + self._interval_s * share
        else:
            self._failures += 1
            self._due_s = now_s + self._retry_s()

    def next_run(self, now_s: float) -> float:
        """When the next run is due, now at the earliest; infinity while one is under way."""
        if self._running:
            return math.inf
        if self._first_change_s is None or self._failures:
            return max(now_s, self._due_s)
        quiet_s = min(self._changed_s + self._quiet_s, self._first_change_s + self._longest_s)
        return max(now_s, min(self._due_s, quiet_s))

    def _retry_s(self) -> float:
        """From half to all of a wait that doubles: "equal jitter" (Brooker 2015).

        Unlike full jitter it is never near nothing, for a whole run costs more than one call.
        """
        ceiling_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 32))
        return ceiling_s * (1 + self._draw()) / 2
