"""The proxy passes all on, but for what its rules say, and notes no more than it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from envd.testing.proxy import (
    Before,
    DropReply,
    Hold,
    Limit,
    Match,
    Proxy,
    Quota,
    Replay,
    Reply,
    Reset,
    Respond,
    Rewrite,
    RewriteRequest,
    Rule,
)
from tests.testing.upstream import Upstream, upstream

_TOO_MANY = Respond(429, {"Retry-After": "7"}, b"too many")
_TOO_LARGE = Respond(413, body=b"too large")
_PUT = Match(method="PUT")


class World:
    """A store, a proxy before it, and a client of the proxy."""

    def __init__(self, store: Upstream, proxy: Proxy, client: aiohttp.ClientSession) -> None:
        self.store = store
        self.proxy = proxy
        self.client = client

    async def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes]:
        async with self.client.request(
            method, f"{self.proxy.url}{path}", data=body or None, headers=headers
        ) as reply:
            return reply.status, await reply.read()

    async def is_reset(self, method: str, path: str, body: bytes = b"") -> bool:
        """Whether the connection breaks; with GET and PUT this client asks once more by itself."""
        try:
            await self.ask(method, path, body)
        except aiohttp.ClientError:
            return True
        return False


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with (
        upstream() as store,
        Proxy(store.url, operation_header="X-Operation") as proxy,
        aiohttp.ClientSession() as client,
    ):
        yield World(store, proxy, client)


async def test_requests_are_passed_on_as_they_are(world: World) -> None:
    await world.ask("PUT", "/a%2Fb/c?x=1%202&y", b"text")

    assert world.store.asked == ["PUT /a%2Fb/c?x=1%202&y"]
    assert list(world.store.texts.values()) == [b"text"]


async def test_replies_are_passed_on_as_they_are(world: World) -> None:
    world.store.texts["/a"] = bytes(range(256)) * 1000

    found = await world.ask("GET", "/a")
    missing = await world.ask("GET", "/b")

    assert found == (200, bytes(range(256)) * 1000)
    assert missing == (404, b"")


async def test_the_upstream_sees_the_host_that_the_caller_signed(world: World) -> None:
    world.store.texts["/a"] = b"text"

    async with world.client.get(f"{world.proxy.url}/a") as reply:
        assert reply.headers["X-Host"] == world.proxy.url.removeprefix("http://")


async def test_a_reply_that_goes_on_is_passed_on_piece_by_piece(world: World) -> None:
    async with world.client.get(f"{world.proxy.url}/stream?end") as reply:
        first = await reply.content.readline()
        second = await reply.content.readline()

    assert (first, second) == (b"one\n", b"two\n")


async def test_a_rule_meets_so_many_requests_after_so_many_others(world: World) -> None:
    world.store.texts["/a"] = b"text"
    world.proxy.add(Rule(Match(path="/a"), _TOO_MANY, after=1, times=2))

    statuses = [(await world.ask("GET", "/a"))[0] for _ in range(5)]

    assert statuses == [200, 429, 429, 200, 200]


async def test_a_rule_without_a_number_meets_all(world: World) -> None:
    rule = Rule(Match(), _TOO_MANY)
    world.proxy.add(rule)
    await world.ask("GET", "/a")
    await world.ask("GET", "/a")
    assert world.proxy.met(rule) == 2

    world.proxy.remove(rule)

    assert (await world.ask("GET", "/a"))[0] == 404


@pytest.mark.parametrize(
    "match",
    [
        Match(method="GET"),
        Match(path="/[ab]"),
        Match(query="x=1"),
        Match(operation="Get"),
        Match(headers={"X-Other": "on.*"}),
        Match(body=lambda body: b"mine" in body),
        Match(method="GET", path="/a", operation="Get", headers={"x-other": "one"}),
    ],
)
async def test_a_match_tells_requests_apart(world: World, match: Match) -> None:
    world.store.texts |= {"/a": b"text", "/other": b"text"}
    world.proxy.add(Rule(match, _TOO_MANY))

    met = await world.ask("GET", "/a?x=1", b"mine", **{"X-Operation": "Get", "X-Other": "one"})
    passed = await world.ask(
        "POST", "/other?x=2", b"theirs", **{"X-Operation": "Put", "X-Other": "two"}
    )

    assert met == (429, b"too many")
    assert passed == (200, b"theirs")


async def test_a_response_leaves_the_upstream_alone(world: World) -> None:
    world.proxy.add(Rule(_PUT, _TOO_MANY))

    async with world.client.put(f"{world.proxy.url}/a", data=b"text") as reply:
        assert reply.headers["Retry-After"] == "7"

    assert world.store.asked == []


async def test_a_reset_leaves_the_upstream_alone(world: World) -> None:
    world.proxy.add(Rule(_PUT, Reset()))

    assert await world.is_reset("PUT", "/a", b"text")
    assert world.store.asked == []


async def test_a_dropped_reply_is_lost_after_the_upstream_did_it(world: World) -> None:
    world.proxy.add(Rule(Match(method="POST"), DropReply(), times=1))

    assert await world.is_reset("POST", "/a", b"text")
    assert world.store.texts == {"/a": b"text"}
    assert await world.ask("POST", "/a", b"again") == (200, b"again")


async def test_a_replay_has_the_upstream_do_it_twice(world: World) -> None:
    world.proxy.add(Rule(_PUT, Replay()))

    assert await world.ask("PUT", "/a", b"text") == (200, b"text")
    assert world.store.asked == ["PUT /a", "PUT /a"]
    assert world.proxy.requests[0].forwarded == 2


async def test_a_reply_is_rewritten(world: World) -> None:
    world.store.texts["/a"] = b'{"whole": true}'

    def cut(reply: Reply) -> Reply:
        return replace(reply, body=reply.body[:5])

    world.proxy.add(Rule(Match(), Rewrite(cut)))

    assert await world.ask("GET", "/a") == (200, b'{"who')


async def test_a_request_is_rewritten(world: World) -> None:
    world.proxy.add(Rule(_PUT, RewriteRequest(bytes.upper)))

    await world.ask("PUT", "/a", b"text")

    assert world.store.texts == {"/a": b"TEXT"}


async def test_others_come_first(world: World) -> None:
    async def write() -> None:
        world.store.texts["/a"] = b"theirs"

    world.proxy.add(Rule(Match(), Before(write), times=1))

    assert await world.ask("GET", "/a") == (200, b"theirs")


async def test_a_limit_is_exact(world: World) -> None:
    world.proxy.add(Rule(_PUT, Limit(4096, _TOO_LARGE)))

    at = await world.ask("PUT", "/a", b"x" * 4096)
    over = await world.ask("PUT", "/b", b"x" * 4097)

    assert at[0] == 200
    assert over == (413, b"too large")
    assert list(world.store.texts) == ["/a"]


async def test_a_limit_may_be_that_of_a_part_of_the_body(world: World) -> None:
    def size(body: bytes) -> int:
        return len(body.partition(b"=")[2])

    world.proxy.add(Rule(_PUT, Limit(3, _TOO_LARGE, size)))

    assert (await world.ask("PUT", "/a", b"name=abc"))[0] == 200
    assert (await world.ask("PUT", "/a", b"n=abcd"))[0] == 413


async def test_a_quota_is_spent_by_calls_and_refilled_by_the_test(world: World) -> None:
    world.store.texts["/a"] = b"text"
    world.proxy.add(Rule(Match(path="/a"), Quota(2, _TOO_MANY)))

    first = [(await world.ask("GET", "/a"))[0] for _ in range(3)]
    await world.ask("GET", "/other")
    world.proxy.refill(1)
    second = [(await world.ask("GET", "/a"))[0] for _ in range(2)]
    world.proxy.refill(100)
    third = [(await world.ask("GET", "/a"))[0] for _ in range(3)]

    assert first == [200, 200, 429]
    assert second == [200, 429]
    assert third == [200, 200, 429], "a bucket holds no more than its size"


@pytest.mark.parametrize(("done", "asked"), [(False, []), (True, ["PUT /a"])])
async def test_a_request_is_held_until_it_is_released(
    world: World, done: bool, asked: list[str]
) -> None:
    world.proxy.add(Rule(_PUT, Hold(done), times=1))

    asking = asyncio.create_task(world.ask("PUT", "/a", b"text"))
    await world.proxy.hung()
    while_held = list(world.store.asked)
    world.proxy.release()

    assert while_held == asked
    assert await asking == (200, b"text")


async def test_who_gives_up_on_a_held_request_hinders_nobody(world: World) -> None:
    world.proxy.add(Rule(_PUT, Hold(), times=1))
    asking = asyncio.create_task(world.ask("PUT", "/a", b"text"))
    await world.proxy.hung()

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert await world.ask("PUT", "/b", b"text") == (200, b"text")
    assert "/a" not in world.store.texts


async def test_of_two_rules_the_first_acts_and_both_count(world: World) -> None:
    first, second = Rule(Match(), _TOO_MANY, times=1), Rule(Match(), _TOO_LARGE, after=1)
    world.proxy.add(first, second)

    statuses = [(await world.ask("GET", "/a"))[0] for _ in range(2)]

    assert statuses == [429, 413]
    assert (world.proxy.met(first), world.proxy.met(second)) == (1, 1)


async def test_what_is_noted_has_no_body_and_no_query(world: World) -> None:
    world.proxy.add(Rule(Match(path="/c"), Reset()))
    await world.ask("PUT", "/a?token=hunter2", b"hunter2", **{"X-Operation": "Put"})
    await world.ask("GET", "/b")
    await world.is_reset("POST", "/c")

    noted = world.proxy.requests

    assert [(each.method, each.path, each.operation) for each in noted] == [
        ("PUT", "/a", "Put"),
        ("GET", "/b", ""),
        ("POST", "/c", ""),
    ]
    assert [(each.size, each.status, each.forwarded) for each in noted] == [
        (7, 200, 1),
        (0, 404, 1),
        (0, 0, 0),
    ]
    assert "hunter2" not in repr(noted)
    assert world.proxy.count(method="GET") == 1
    assert world.proxy.count(path="/[ab]") == 2
    assert world.proxy.count(operation="Put") == 1


async def test_an_upstream_that_is_gone_is_a_bad_gateway() -> None:
    async with upstream() as store:
        url = store.url

    async with (
        Proxy(url) as proxy,
        aiohttp.ClientSession() as client,
        client.get(proxy.url) as reply,
    ):
        assert reply.status == 502


async def test_a_rule_that_is_not_there_can_not_be_asked_about(world: World) -> None:
    rule = Rule(Match(), Reset())

    with pytest.raises(ValueError, match="no such rule"):
        world.proxy.met(rule)
    with pytest.raises(ValueError, match="no such rule"):
        world.proxy.remove(rule)
    with pytest.raises(ValueError, match="counts from 0"):
        Rule(Match(), Reset(), times=-1)


async def test_the_rules_are_told_in_their_order_without_those_that_were_removed(
    world: World,
) -> None:
    first, second, third = (Rule(Match(path=f"/{number}"), Reset()) for number in range(3))
    world.proxy.add(first, second, third)

    world.proxy.remove(second)

    assert world.proxy.rules == (first, third)
