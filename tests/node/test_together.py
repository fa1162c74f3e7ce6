"""Parts of one work that end together, and what becomes of whom they make up."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from envd.core.errors import Unavailable
from envd.node.intake import IdentityLost
from envd.node.together import run_together


async def until(part: asyncio.Future[None]) -> None:
    await part


async def begun(*parts: asyncio.Future[None]) -> asyncio.Task[None]:
    task = asyncio.create_task(run_together(*map(until, parts)))
    for _ in range(3):  # The group has begun, and so have its tasks.
        await asyncio.sleep(0)
    return task


async def test_the_error_of_a_part_is_that_of_the_whole_a_lost_identity_first() -> None:
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    task = await begun(first, second)

    first.set_exception(Unavailable("the peer is gone"))
    second.set_exception(IdentityLost("an older self"))

    with pytest.raises(IdentityLost):
        await task


async def test_a_group_of_which_a_part_fails_as_it_is_cancelled_ends_as_cancelled() -> None:
    part = asyncio.get_running_loop().create_future()
    task = await begun(part)

    part.set_exception(Unavailable("the peer is gone"))
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_group_whose_parts_are_done_is_done() -> None:
    part = asyncio.get_running_loop().create_future()
    task = await begun(part)

    part.set_result(None)

    await task
    assert not task.cancelled()


async def test_an_error_leaves_nobody_cancelled() -> None:
    part = asyncio.get_running_loop().create_future()

    async def goes_on() -> int:
        with suppress(Unavailable):
            await run_together(until(part))
        this = asyncio.current_task()
        assert this is not None
        return this.cancelling()

    task = asyncio.create_task(goes_on())
    await asyncio.sleep(0)
    part.set_exception(Unavailable("the peer is gone"))

    assert await task == 0
