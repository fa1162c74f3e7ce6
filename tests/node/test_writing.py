"""A write under way, whoever waits for it, and whether or not anybody does."""

from __future__ import annotations

import asyncio
import gc

import pytest

from envd.core.answers import WriteAnswer
from envd.core.errors import Unavailable
from envd.node.writing import Writing

ANSWER = WriteAnswer("web", "00", "00", "token")


async def test_a_write_without_a_record_is_answered_at_once() -> None:
    writing = Writing(ANSWER)

    assert writing.done()
    assert writing.result() == await writing == ANSWER


async def test_all_who_wait_get_the_answer_though_one_gave_up() -> None:
    logged: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    writing = Writing(ANSWER, logged)
    first, second = (asyncio.ensure_future(_wait(writing)) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    await asyncio.wait((first,))
    logged.set_result(1)

    assert await second == ANSWER
    assert first.cancelled()


@pytest.mark.parametrize("waits", [True, False], ids=["gave up waiting", "never waited"])
async def test_an_error_that_nobody_waits_for_any_more_is_no_fault(waits: bool) -> None:
    loop, told = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    logged: asyncio.Future[int] = loop.create_future()
    writing = Writing(ANSWER, logged)
    if waits:
        caller = asyncio.ensure_future(_wait(writing))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait((caller,))
    else:
        writing.forget()

    logged.set_exception(Unavailable("the disk is full"))
    await asyncio.sleep(0)
    del logged, writing
    gc.collect()

    assert told == []


async def _wait(writing: Writing) -> WriteAnswer:
    return await writing
