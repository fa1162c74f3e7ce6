"""Group 11, watch: hints may be lost, doubled and out of order, and a scan still finds everything.

A watch begins when it pleases and may miss a hint, so a case makes its change some times over until
it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from envd.backends.contract import Capability, Hint, Result
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Need
from envd.testing.trial import Trial, case, running_tasks

_TRIES = 5


@dataclass(frozen=True, slots=True)
class _Watch:
    """A watch that is followed, and what it told."""

    told: asyncio.Queue[Hint]
    following: asyncio.Task[None]
    patience_s: float

    async def next(self) -> Hint | None:
        """The next hint, None if there is none for long; raises what the watch raised."""
        waiting = asyncio.create_task(self.told.get())
        done, _ = await asyncio.wait(
            (waiting, self.following),
            timeout=self.patience_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if waiting in done:
            return waiting.result()
        waiting.cancel()
        if self.following in done:
            self.following.result()
            raise AssertionError("the watch ended by itself")
        return None

    async def until_told(self, change: Callable[[int], Awaitable[object]]) -> Hint:
        """Make a change until a hint comes."""
        for number in range(_TRIES):
            await change(number)
            hint = await self.next()
            if hint is not None:
                return hint
        raise AssertionError(f"{_TRIES} changes were made, and none was hinted at")

    def forget(self) -> None:
        """Pass over what was told until now."""
        while not self.told.empty():
            self.told.get_nowait()


class WatchCases:
    """Watch."""

    @case(Capability.WATCH)
    async def test_a_change_is_hinted_at(self, trial: Trial) -> None:
        async with _watching(trial) as watch:
            hint = await watch.until_told(lambda n: trial.put(trial.key(), f"value {n}"))

        assert hint.key in (None, trial.key())

    @case(Need.DELETE_HINTS)
    async def test_a_deletion_is_hinted_at(self, trial: Trial) -> None:
        hint = None
        async with _watching(trial) as watch:
            for _ in range(_TRIES):
                await watch.until_told(lambda n: trial.put(trial.key(), f"put {n}"))
                watch.forget()
                await _delete(trial)
                hint = await watch.next()
                if hint is not None:
                    break

        assert hint is not None, f"{_TRIES} deletions were made, and none was hinted at"
        assert hint.key in (None, trial.key())

    @case(Capability.WATCH, Kind.HINT_LOST, Need.READABLE)
    async def test_a_scan_finds_what_a_lost_hint_did_not_tell(self, trial: Trial) -> None:
        await _is_found_by_a_scan(trial, Kind.HINT_LOST)

    @case(Capability.WATCH, Kind.HINT_DOUBLED, Need.READABLE)
    async def test_a_scan_is_right_after_a_doubled_hint(self, trial: Trial) -> None:
        await _is_found_by_a_scan(trial, Kind.HINT_DOUBLED)

    @case(Capability.WATCH, Kind.HINTS_SWAPPED, Need.READABLE)
    async def test_a_scan_is_right_after_hints_out_of_order(self, trial: Trial) -> None:
        await _is_found_by_a_scan(trial, Kind.HINTS_SWAPPED)

    @case(Capability.WATCH)
    async def test_a_watch_goes_on_after_a_cursor(self, trial: Trial) -> None:
        async with _watching(trial) as watch:
            first = await watch.until_told(lambda n: trial.put(trial.key(), f"value {n}"))
        await trial.put(trial.key(), "while nobody watched")

        async with _watching(trial, first.cursor or None) as watch:
            if not first.cursor:
                await trial.put(trial.key(), "now that somebody watches")
            again = await watch.next() or await watch.until_told(
                lambda n: trial.put(trial.key(), f"more {n}")
            )

        assert again.key in (None, trial.key())

    @case(Capability.WATCH)
    async def test_a_watch_that_is_cancelled_ends(self, trial: Trial) -> None:
        tasks = running_tasks()

        async with _watching(trial) as watch:
            await watch.until_told(lambda n: trial.put(trial.key(), f"value {n}"))

        assert watch.following.cancelled()
        assert running_tasks() == tasks, "it left something running"


@asynccontextmanager
async def _watching(trial: Trial, cursor: str | None = None) -> AsyncIterator[_Watch]:
    """A watch; afterwards it has been cancelled, and has ended."""
    told: asyncio.Queue[Hint] = asyncio.Queue(1024)

    async def follow() -> None:
        async for hint in trial.backend.watch(trial.scope, cursor):
            told.put_nowait(hint)

    following = asyncio.create_task(follow())
    try:
        yield _Watch(told, following, trial.harness.hint_patience_s)
    finally:
        following.cancel()
        await asyncio.wait([following])


async def _delete(trial: Trial) -> None:
    item = await trial.item(trial.key())
    assert item is not None
    outcome = await trial.one(trial.delete_op(trial.key(), item.version))
    assert outcome.result is Result.APPLIED


async def _is_found_by_a_scan(trial: Trial, kind: Kind) -> None:
    """Whatever the hints are, a scan has what was written last, and a watch tells of it at last."""
    await trial.inject(Fault(kind, Call.WATCH))
    written = ""

    async def change(number: int) -> None:
        nonlocal written
        written = f"value {number}"
        await trial.put(trial.key(), f"{written} at first")
        await trial.put(trial.key(), written)

    async with _watching(trial) as watch:
        hint = await watch.until_told(change)

    assert hint.key in (None, trial.key())
    assert trial.key() in (await trial.scan()).live
    assert await trial.read(trial.key()) == written
