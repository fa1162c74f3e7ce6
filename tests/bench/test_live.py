"""Reads of a live environment count only while its changes are seen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

import envd
from bench.live import CHANGES_A_SECOND, READS, LiveReads
from bench.payload import NAMES, value


class Application:
    """A client as a fake; it counts the lookups, and `frozen` shows no change after the first."""

    def __init__(self, *, frozen: bool = False, breaks: bool = False) -> None:
        self._frozen = frozen
        self._breaks = breaks
        self.sets = 0
        self.written = asyncio.Event()
        self.shown = {name: value(name, 0) for name in NAMES}

    async def set(self, _: str, variables: Mapping[str, str]) -> None:
        if self._breaks:
            raise RuntimeError("no node")
        self.sets += 1
        if not self._frozen:
            self.shown.update(variables)
        self.written.set()


class Time:
    """A clock that is told what time it is."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def reads(application: Application, clock: Time) -> LiveReads:
    return LiveReads(cast("envd.Client", application), application.shown, clock)


async def test_a_read_is_so_many_lookups_and_sees_what_changed() -> None:
    application, clock = Application(), Time()
    live = reads(application, clock)

    await application.written.wait()
    done = await live.read(0)
    clock.now_s = 2 / CHANGES_A_SECOND  # of two changes that were due one was seen

    assert done == READS
    await live.close()


async def test_a_mapping_that_no_longer_changes_is_not_taken_for_a_fast_one() -> None:
    application, clock = Application(frozen=True), Time()
    live = reads(application, clock)

    await application.written.wait()
    await live.read(0)
    clock.now_s = 1.0

    with pytest.raises(RuntimeError, match="100 changes were due, 1 made, 1 seen"):
        await live.close()


async def test_a_writer_that_ended_is_told() -> None:
    live = reads(Application(breaks=True), Time())

    await live.read(0)

    with pytest.raises(RuntimeError, match="the writer of the changes ended"):
        await live.close()
