"""Turns: one at a time for each name, and nothing kept for names that nobody writes."""

from __future__ import annotations

import asyncio

import pytest

from envd.backends.turns import Turns


async def test_two_of_one_name_go_one_after_the_other() -> None:
    turns, said = Turns(), list[str]()

    async def write(who: str) -> None:
        async with turns.of("NAME"):
            said.append(f"{who} begins")
            await asyncio.sleep(0)
            said.append(f"{who} ends")

    await asyncio.gather(write("one"), write("two"))

    assert said == ["one begins", "one ends", "two begins", "two ends"]


async def test_other_names_do_not_wait() -> None:
    turns, both = Turns(), asyncio.Barrier(2)

    async def write(name: str) -> None:
        async with turns.of(name):
            await both.wait()

    await asyncio.gather(write("ONE"), write("TWO"))

    assert both.n_waiting == 0


async def test_nothing_is_kept_of_turns_that_are_over() -> None:
    turns = Turns()

    async with turns.of("NAME"):
        during = len(turns)
    with pytest.raises(ZeroDivisionError):
        async with turns.of("NAME"):
            raise ZeroDivisionError

    assert (during, len(turns)) == (1, 0)


async def test_who_is_cancelled_while_waiting_takes_no_turn() -> None:
    turns = Turns()

    async def write() -> None:
        async with turns.of("NAME"):
            pass

    async with turns.of("NAME"):
        waiting = asyncio.create_task(write())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert len(turns) == 0
