"""When a node makes backups by itself.

The first one is due `every` after the newest that is there, so restarts neither skip nor repeat
one, and where there is none, soon after the start. A share of the interval is drawn at random, so
that the nodes of a cluster don't do it all at once. What fails is told, logged and tried again,
more and more slowly.

Intervals are measured by the monotonic clock: a wall clock that steps neither stops the schedule
nor makes it run wild.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from envd.core.backups import BackupRequest
from envd.core.errors import EnvdError
from envd.node.backups import Backups, BackupShelf
from envd.ports import Clock, Rng

_log = logging.getLogger(__name__)
FIRST_DELAY_MS = 60_000
FIRST_RETRY_MS = 60_000
LONGEST_RETRY_MS = 3_600_000
MAX_SPREAD_MS = 600_000
_SPREAD_PARTS = 10
_SLICE_MS = 60_000


class Interval(Protocol):
    """A length of time that prints as people write it."""

    @property
    def ms(self) -> int: ...


class BackupSchedule:
    """Makes a backup for the recovery keys whenever one is due; `run` goes on for ever."""

    def __init__(
        self,
        backups: Backups,
        shelf: BackupShelf,
        recovery_keys: Sequence[str],
        every: Interval,
        clock: Clock,
        rng: Rng,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._backups = backups
        self._shelf = shelf
        self._request = BackupRequest(tuple(recovery_keys))
        self._every_ms = every.ms
        self.every = str(every)
        self._clock = clock
        self._rng = rng
        self._sleep = sleep
        self.next_ms = 0
        self.failure = ""
        """Why the last try failed, "" where it did not."""
        self._failures = 0

    async def run(self) -> None:
        """Wait, make one, remove what need not be kept, and so on."""
        wait_ms = await self._first_wait_ms()
        while True:
            await self._wait(wait_ms)
            wait_ms = await self._once()

    async def _first_wait_ms(self) -> int:
        first_ms = min(FIRST_DELAY_MS, self._every_ms)
        try:
            newest_ms = await self._shelf.newest_ms()
        except EnvdError as error:
            self.failure = error.message
            return first_ms
        except Exception as error:  # noqa: BLE001 - the schedule must outlive it
            self._fault(error)
            return first_ms
        if newest_ms is None:
            return first_ms
        left_ms = newest_ms + self._every_ms - self._clock.wall_ms()
        return min(max(left_ms, first_ms), self._every_ms)

    async def _once(self) -> int:
        """Make a backup; return how long to wait for the next try (ms)."""
        began_ms = self._clock.monotonic_ms()
        try:
            made = await self._backups.add_to_shelf(self._request)
            took_ms = self._clock.monotonic_ms() - began_ms
            where = {"file": made.file, "bytes": made.size_bytes, "took_ms": took_ms}
            _log.info("backup.made", extra={**where, "environments": made.environments})
        except EnvdError as error:
            return self._failed(error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - the task's outermost guard
            self._fault(error)
            return self._failed("internal error", "the log tells where: look for backup.fault")
        self._failures, self.failure = 0, ""
        await self._prune()
        return max(0, self._every_ms + self._spread_ms() - took_ms)

    async def _prune(self) -> None:
        try:
            removed = await self._shelf.prune(self._clock.wall_ms())
        except EnvdError as error:
            self.failure = error.message
            _log.error("backup.not_removed", extra={"detail": error.message, "mend": error.hint})
            return
        except Exception as error:  # noqa: BLE001 - as above
            self._fault(error)
            return
        if removed:
            _log.info("backup.removed", extra={"files": list(removed)})

    def _fault(self, error: Exception) -> None:
        self.failure = "internal error"
        _log.critical("backup.fault", extra={"error": type(error).__name__}, exc_info=True)

    def _failed(self, message: str, mend: str) -> int:
        self.failure = message
        retry_ms = min(FIRST_RETRY_MS << self._failures, LONGEST_RETRY_MS, self._every_ms)
        self._failures = min(self._failures + 1, 16)
        detail = {"detail": message, "mend": mend, "retry_s": retry_ms // 1000}
        _log.error("backup.failed", extra=detail)
        return retry_ms

    def _spread_ms(self) -> int:
        most = min(self._every_ms // _SPREAD_PARTS, MAX_SPREAD_MS)
        return int.from_bytes(self._rng.token_bytes(4)) * most >> 32

    async def _wait(self, wait_ms: int) -> None:
        """Sleep by the monotonic clock, in slices, since a loop's clock may stand in a suspend."""
        due_ms = self._clock.monotonic_ms() + wait_ms
        self.next_ms = self._clock.wall_ms() + wait_ms
        while (left_ms := due_ms - self._clock.monotonic_ms()) > 0:
            await self._sleep(min(left_ms, _SLICE_MS) / 1000)
