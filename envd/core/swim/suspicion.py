"""How long a suspect has until it is declared down; fewer, the more others suspect it too."""

from __future__ import annotations

from envd.core.swim.config import (
    SwimConfig,
    confirmations_wanted,
    suspicion_min_ms,
    suspicion_timeout_ms,
)


class Suspicion:
    """One suspicion of one incarnation; `by` accused first and does not count as confirming."""

    __slots__ = ("_accusers", "_least_ms", "_most_ms", "_start_ms", "_wanted")

    def __init__(
        self, config: SwimConfig, members: int, *, witnesses: int, by: int, now_ms: int
    ) -> None:
        """`members`: among how many news spreads; `witnesses`: how many could accuse, and it."""
        self._start_ms = now_ms
        self._least_ms = suspicion_min_ms(config, members)
        self._most_ms = self._least_ms * config.suspicion_max_mult
        self._wanted = confirmations_wanted(config, witnesses)
        self._accusers = [by]

    @property
    def deadline_ms(self) -> int:
        """When the suspect is down, unless it answers."""
        return self._start_ms + suspicion_timeout_ms(
            self._least_ms,
            self._most_ms,
            confirmed=len(self._accusers) - 1,
            confirmations=self._wanted,
        )

    def confirm(self, by: int) -> bool:
        """Count an accuser; tell whether it was a new one that still matters."""
        if len(self._accusers) > self._wanted or by in self._accusers:
            return False
        self._accusers.append(by)
        return True

    def delay(self, by_ms: int, now_ms: int) -> None:
        """This node slept: the suspect had no chance to answer meanwhile.

        What was heard since it woke is put off by no more than that.
        """
        self._start_ms = min(self._start_ms + by_ms, now_ms)
