"""Names of what changes, told once until they are taken."""

from __future__ import annotations

import asyncio

from envd.node.following import Following
from tests.node.conftest import Node


async def test_a_name_that_changes_again_before_it_is_taken_is_told_once(node: Node) -> None:
    names = Following(node.store).names("web")
    first = asyncio.ensure_future(anext(names))
    await asyncio.sleep(0)
    await node.put("web/a", X="1")
    told = [await first]
    for value in "23":
        await node.put("web/b", X=value)
        await node.put("website", X=value)

    told.append(await anext(names))
    later = asyncio.ensure_future(anext(names))
    await asyncio.sleep(0)
    await node.put("web", X="1")
    told.append(await later)
    await names.aclose()

    assert told == ["web/a", "web/b", "web"]


async def test_who_takes_nothing_costs_a_bounded_number_of_names(node: Node) -> None:
    names = Following(node.store, max_waiting=3).names("")
    first = asyncio.ensure_future(anext(names))
    await asyncio.sleep(0)
    await node.put("a", X="1")
    assert await first == "a"
    for number in range(4):
        await node.put(f"n{number}", X="1")

    told = [await anext(names), await anext(names)]
    await names.aclose()

    assert told == ["", "n3"]


async def test_once_it_is_closed_nothing_follows(node: Node) -> None:
    following = Following(node.store)
    names = following.names("")
    waiting = asyncio.ensure_future(anext(names))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait((waiting,))
    await node.put("a", X="1")

    assert waiting.cancelled()
    assert following.followers == 0
