"""Writes: gathered into messages, answered each by itself, and sent again as often as is safe."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import grpc
import pytest

import envd
from envd.client.write_stream import WINDOW
from envd.core.answers import WriteAnswer
from envd.core.commit import Kind
from envd.core.errors import (
    Conflict,
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
)
from envd.core.requests import Put, Unset, WriteRequest
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_errors import item_error
from envd.wire.write_items import item_bytes
from tests.client.world import client_of, done, options, scripted, serving, unused_port
from tests.net.world import ADMIN, CANARY, PATIENCE_S, HeldStore, Node, Rpc, until

Item = pb.WriteStreamRequest.Item
Answer = pb.WriteStreamResponse.Item
DONE = pb.WriteResponse(environment="web/prod", stamp=b"\0" * 20).SerializeToString()


async def cut(item: Item, context: Any) -> Answer:
    """Break the connection as a killed server does."""
    await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    raise AssertionError


def refused(error: EnvdError) -> Any:
    async def refuse(item: Item, _: object) -> Answer:
        return Answer(id=item.id, error=item_error(error))

    return refuse


class Steps:
    """Serves items by one step after the other, the last one for ever."""

    def __init__(self, *steps: Any) -> None:
        self._steps = list(steps)

    async def __call__(self, item: Item, context: Any) -> Answer:
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        answer: Answer = await step(item, context)
        return answer


# -- what is written ---------------------------------------------------------------


async def test_each_kind_of_write_does_what_it_says(client: envd.Client) -> None:
    created = await client.set("web/prod", {"A": "1", "B": "ü"}, secret=True, message="why")
    await client.set("web/prod", {"C": "3"}, if_revision=created.revision)
    await client.unset("web/prod", "A")
    await client.settings("web/prod", {"owner": "me"})
    view = await client.get("web/prod")
    assert {name: one.value for name, one in view.variables.items()} == {"B": "ü", "C": "3"}
    assert (view.variables["B"].secret, view.variables["C"].secret) == (True, False)
    assert view.metadata == {"owner": "me"}

    history = await client.history("web/prod")
    assert len(history.commits) == 4
    assert history.commits[-1].message == "why"
    await client.rollback("web/prod", created.revision)
    assert set((await client.get("web/prod")).variables) == {"A", "B"}
    await client.delete("web/prod")
    with pytest.raises(NotFound):
        await client.get("web/prod")


async def test_a_whole_request_may_be_written(client: envd.Client) -> None:
    request = WriteRequest(
        "web/prod", (Put("A", "1", secret=True), Put("owner", "me", kind=Kind.METADATA))
    )
    await client.write(request)

    with pytest.raises(Conflict):
        await client.write(WriteRequest("web/prod", (Put("B", "1"),), must_not_exist=True))
    await client.write(WriteRequest("web/prod", unsets=(Unset("A"),)))
    assert (await client.list()).environments[0].variables == 0


async def test_an_operation_is_done_once(client: envd.Client) -> None:
    first = await client.set("web/prod", {"A": "1"}, operation="mine-12345678")
    again = await client.set("web/prod", {"A": "1"}, operation="mine-12345678")

    assert first == again
    assert len((await client.history("web/prod")).commits) == 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, InvalidRequest),
        ({"A": f"{CANARY}\udc80"}, InvalidRequest),
        ({"A": 5}, InvalidRequest),
        ({"A": CANARY * 1_000_000}, LimitExceeded),
        ({"": CANARY}, InvalidRequest),
    ],
)
async def test_what_cannot_be_sent_is_refused_without_its_value(
    client: envd.Client, values: Any, kind: type[EnvdError]
) -> None:
    with pytest.raises(kind) as caught:
        await client.set("web/prod", values)

    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


# -- gathered ----------------------------------------------------------------------


async def test_writes_made_at_once_go_together_and_are_answered_each() -> None:
    async with scripted() as server, envd.Client(options([server.address])) as client:
        answers = await asyncio.gather(
            *(client.set(f"web/e{number}", {"A": str(number)}) for number in range(200))
        )

    assert [answer.environment for answer in answers] == [f"web/e{n}" for n in range(200)]
    assert len(server.seen) <= 3
    assert [item.write.environment for item in server.items] == [f"web/e{n}" for n in range(200)]
    assert len({item.write.operation for item in server.items}) == 200


async def test_one_refused_write_does_not_harm_the_others(client: envd.Client) -> None:
    good, bad, other = await asyncio.gather(
        client.set("web/prod", {"A": "1"}),
        client.set("web/prod", {"not a name": "1"}),
        client.set("web/prod", {"B": "1"}),
        return_exceptions=True,
    )

    assert isinstance(good, WriteAnswer)
    assert isinstance(bad, InvalidRequest)
    assert not isinstance(other, BaseException)


async def test_more_than_the_window_waits_and_nothing_is_lost(client: envd.Client) -> None:
    await asyncio.gather(*(client.set("web/prod", {f"V{n}": "x"}) for n in range(3000)))

    assert len((await client.get("web/prod")).variables) == 3000


async def test_a_caller_that_goes_away_leaves_the_others_alone() -> None:
    held = asyncio.Event()

    async def hold(item: Item, context: Any) -> Answer:
        await held.wait()
        return await done(item)

    async with scripted(hold) as server, envd.Client(options([server.address])) as client:
        first = asyncio.create_task(client.set("web/a", {"A": "1"}))
        second = asyncio.create_task(client.set("web/b", {"A": "1"}))
        await until(lambda: bool(server.seen))
        first.cancel()
        held.set()

        assert (await second).environment == "web/b"
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize("item_id", [0, 1, 127, 128, 16_383, 16_384, 2**63])
@pytest.mark.parametrize("size", [0, 1, 100, 200, 20_000])
def test_items_are_put_together_as_protobuf_does(item_id: int, size: int) -> None:
    write = pb.WriteRequest(environment="x" * size)
    message = pb.WriteStreamRequest.FromString(
        item_bytes(item_id, write.SerializeToString()) + item_bytes(7, b"")
    )

    assert message == pb.WriteStreamRequest(
        items=[Item(id=item_id, write=write), Item(id=7, write=pb.WriteRequest())]
    )


# -- sent again --------------------------------------------------------------------


async def test_an_unanswered_write_goes_to_the_same_server_first_with_its_operation() -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scripted(Steps(cut, done)))
        second = await stack.enter_async_context(scripted())
        client = await stack.enter_async_context(
            envd.Client(options([first.address, second.address]))
        )
        await client.set("web/prod", {"A": "1"})

    assert len(first.items) == 2
    assert first.items[0].write == first.items[1].write
    assert first.items[0].write.operation
    assert second.items == []


async def test_then_it_goes_on_to_the_others_each_at_most_twice() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(scripted(cut)) for _ in range(3)]
        client = await stack.enter_async_context(
            envd.Client(options([server.address for server in servers]))
        )
        with pytest.raises(OutcomeUnknown) as caught:
            await client.set("web/prod", {"A": CANARY})

    assert [len(server.items) for server in servers] == [2, 2, 2]
    operations = {item.write.operation for server in servers for item in server.items}
    assert len(operations) == 1
    assert operations.pop() in caught.value.hint
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "request_",
    [
        WriteRequest("web/prod", (Put("A", "1"),), if_revision="ab" * 16),
        WriteRequest("web/prod", (Put("A", "1"),), must_not_exist=True),
        WriteRequest("web/prod", (Put("A", "1"),), must_exist=True),
    ],
)
async def test_one_with_a_precondition_never_goes_to_another_server(
    request_: WriteRequest,
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scripted(cut))
        second = await stack.enter_async_context(scripted())
        client = await stack.enter_async_context(
            envd.Client(options([first.address, second.address]))
        )
        with pytest.raises(OutcomeUnknown):
            await client.write(request_)

    assert (len(first.items), len(second.items)) == (2, 0)


async def test_a_busy_node_is_asked_again_after_the_time_it_names() -> None:
    waits: list[float] = []

    async def note(wait_s: float) -> None:
        waits.append(wait_s)

    busy = refused(Unavailable("full", reason="OVERLOADED", retry_after_ms=4000))
    async with (
        scripted(Steps(busy, busy, done)) as server,
        envd.Client(options([server.address], sleep=note)) as client,
    ):
        await client.set("web/prod", {"A": "1"})

    assert len(server.items) == 3
    assert len({item.write.operation for item in server.items}) == 1
    assert [4.0 <= wait_s <= 5.0 for wait_s in waits] == [True, True]


async def test_attempts_have_an_end() -> None:
    busy = refused(Unavailable("full", reason="OVERLOADED"))
    async with (
        scripted(busy) as server,
        envd.Client(options([server.address], attempts=3)) as client,
    ):
        with pytest.raises(Unavailable, match="full"):
            await client.set("web/prod", {"A": "1"})

    assert len(server.items) == 3


async def test_a_node_that_is_not_there_is_said_so() -> None:
    address = f"127.0.0.1:{unused_port()}"
    async with envd.Client(options([address], attempts=3)) as client:
        with pytest.raises(Unavailable, match=f"no envd answers at {address}"):
            await client.set("web/prod", {"A": "1"})
        with pytest.raises(Unavailable):
            await client.get("web/prod")


async def test_a_write_waits_for_a_node_that_comes_back(node: Node) -> None:
    address = f"127.0.0.1:{unused_port()}"
    async with envd.Client(options([address], attempts=10**9)) as client:
        writing = asyncio.create_task(client.set("web/prod", {"A": "1"}))
        await asyncio.sleep(0)
        async with serving(node, address):
            assert (await writing).environment == "web/prod"


async def test_a_wrong_token_fails_all_that_wait(rpc: Rpc) -> None:
    async with client_of(rpc, token="wrong") as client:
        outcomes = await asyncio.gather(
            *(client.set("web/prod", {"A": "1"}) for _ in range(5)), return_exceptions=True
        )

    assert [type(outcome) for outcome in outcomes] == [Unauthenticated] * 5
    with pytest.raises(Unauthenticated):
        envd.Client(options(["h:1"], token="two\nlines"))


async def test_deadlines_hold_and_tell_what_may_have_happened() -> None:
    store = HeldStore()
    async with serving(Node(store)) as address, envd.Client(options([address])) as client:
        with pytest.raises(OutcomeUnknown, match="too long"):
            await client.set("web/prod", {"A": "1"}, timeout_s=0.1)
        with pytest.raises(OutcomeUnknown, match="too long"):
            await client.delete("web/prod", timeout_s=0.1)
        store.gate.set()
        assert (await client.set("web/prod", {"B": "1"})).environment == "web/prod"

    away = f"127.0.0.1:{unused_port()}"
    async with envd.Client(options([away], attempts=10**9)) as client:
        with pytest.raises(Unavailable):
            await client.set("web/prod", {"A": "1"}, timeout_s=0.05)


async def test_closing_fails_what_is_under_way() -> None:
    store = HeldStore()
    async with serving(Node(store)) as address:
        client = envd.Client(options([address]))
        writing = asyncio.create_task(client.set("web/prod", {"A": "1"}))
        await until(lambda: bool(store.appended))

        await client.close()

        with pytest.raises(OutcomeUnknown, match="closed"):
            await writing
        with pytest.raises(InvalidRequest, match="closed"):
            await client.set("web/prod", {"A": "1"})
        store.gate.set()


async def test_a_deadline_holds_while_all_places_are_taken() -> None:
    store = HeldStore()
    async with serving(Node(store)) as address, envd.Client(options([address])) as client:
        taken = [
            asyncio.create_task(client.set("web/prod", {"A": str(number)}))
            for number in range(WINDOW)
        ]
        await until(lambda: len(store.appended) > 0)

        with pytest.raises(Unavailable, match="nothing was sent"):
            await client.set("web/prod", {"B": "1"}, timeout_s=0.01)

        store.gate.set()
        await asyncio.gather(*taken)
        assert (await client.set("web/prod", {"B": "1"})).environment == "web/prod"


async def test_a_server_that_answers_nothing_is_left_for_another() -> None:
    async def never(item: Item, context: Any) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    async with AsyncExitStack() as stack:
        hung = await stack.enter_async_context(scripted(never))
        good = await stack.enter_async_context(scripted())
        client = await stack.enter_async_context(envd.Client(options([hung.address, good.address])))
        lost = 0
        while not good.items:
            try:
                await client.set("web/prod", {"A": str(lost)}, timeout_s=0.02)
            except (OutcomeUnknown, Unavailable):
                lost += 1
        async with asyncio.timeout(PATIENCE_S):
            await client.close()

    assert lost >= 3
    assert hung.items


@pytest.mark.parametrize("names", [("A",), ("A", "B")])
async def test_a_variable_that_is_gone_elsewhere_is_gone_whoever_removed_it(
    names: tuple[str, ...],
) -> None:
    gone = NotFound("web/prod has no variable A; nothing was changed", reason="VARIABLE_NOT_FOUND")
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scripted(cut))
        second = await stack.enter_async_context(scripted(refused(gone)))
        client = await stack.enter_async_context(
            envd.Client(options([first.address, second.address]))
        )
        with pytest.raises(EnvdError) as caught:
            await client.unset("web/prod", *names)
    # Of two the other one may have been there, and be removed.
    assert isinstance(caught.value, NotFound if len(names) == 1 else OutcomeUnknown)
    assert "nothing was changed" not in caught.value.message


async def test_a_refusal_elsewhere_does_not_say_that_nothing_was_done() -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scripted(cut))
        second = await stack.enter_async_context(
            scripted(refused(LimitExceeded("too many variables")))
        )
        client = await stack.enter_async_context(
            envd.Client(options([first.address, second.address]))
        )
        with pytest.raises(OutcomeUnknown):
            await client.set("web/prod", {"A": "1"})

    assert (len(first.items), len(second.items)) == (2, 1)


async def test_what_the_same_server_refuses_is_refused() -> None:
    full = refused(LimitExceeded("too many variables"))
    async with (
        scripted(Steps(cut, full)) as server,
        envd.Client(options([server.address])) as client,
    ):
        with pytest.raises(LimitExceeded):
            await client.set("web/prod", {"A": "1"})


async def test_writes_that_nobody_waits_for_are_not_kept() -> None:
    held = asyncio.Event()

    async def hold(_: float) -> None:
        await held.wait()

    address = f"127.0.0.1:{unused_port()}"
    async with envd.Client(options([address], sleep=hold)) as client:
        for _ in range(20):
            with pytest.raises(Unavailable):
                await client.set("web/prod", {"A": "1"}, timeout_s=0)
        held.set()

        assert len(client._calls._writes._queue) == 0


async def test_what_no_envd_answers_is_unclear_and_harms_no_other_write() -> None:
    async def rubbish(item: Item, context: Any) -> Answer:
        await context.write(b"\xff\xff\xff")
        await asyncio.Event().wait()
        raise AssertionError

    async with (
        scripted(Steps(rubbish, rubbish, done)) as server,
        envd.Client(options([server.address])) as client,
    ):
        with pytest.raises(OutcomeUnknown):
            await client.set("web/prod", {"A": "1"})
        assert (await client.set("web/prod", {"A": "2"})).environment == "web/prod"


async def test_reading_many_has_one_deadline_for_all(node: Node) -> None:
    now_s = 0.0

    def later() -> float:
        nonlocal now_s
        now_s += 1.0
        return now_s

    names = [f"web/e{number}" for number in range(1500)]
    async with serving(node) as address:
        given = options([address])
        world = replace(given.world, monotonic_s=later)
        async with envd.Client(replace(given, world=world)) as client:
            with pytest.raises(Unavailable):
                await client.get_many(names, timeout_s=5.0)
            assert await client.get_many(names, timeout_s=1000.0) == {}


# -- several servers ---------------------------------------------------------------


async def test_no_write_fails_where_one_of_three_servers_goes_away() -> None:
    async with AsyncExitStack() as stack:
        nodes = [Node() for _ in range(3)]
        lives = [AsyncExitStack() for _ in nodes]
        addresses = [
            await life.enter_async_context(serving(node))
            for life, node in zip(lives, nodes, strict=True)
        ]
        client = await stack.enter_async_context(envd.Client(options(addresses)))
        writing = [
            asyncio.create_task(_keep_writing(client, f"web/e{number}")) for number in range(20)
        ]
        await until(lambda: sum(node.store.last_lsn() for node in nodes) > 100)
        busy = max(range(3), key=lambda at: nodes[at].store.last_lsn())
        await lives[busy].aclose()
        answers = await asyncio.gather(*writing)
        for life in lives:
            await life.aclose()

    assert answers == [100] * 20
    left = [node.store.last_lsn() for at, node in enumerate(nodes) if at != busy]
    assert sum(left) > 0


async def _keep_writing(client: envd.Client, environment: str) -> int:
    answered = 0
    for number in range(100):
        await client.set(environment, {"N": str(number)})
        answered += 1
    return answered


# -- single calls ------------------------------------------------------------------


async def test_reads_go_round_and_past_a_server_that_is_away() -> None:
    found = pb.GetResponse(environment=pb.Environment(environment="web/prod"))
    raw = found.SerializeToString()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scripted(script=[raw] * 9))
        second = await stack.enter_async_context(scripted(script=[raw] * 9))
        away = f"127.0.0.1:{unused_port()}"
        client = await stack.enter_async_context(
            envd.Client(options([first.address, away, second.address]))
        )
        for _ in range(8):
            await client.get("web/prod")

    assert len(first.calls) + len(second.calls) == 8
    assert min(len(first.calls), len(second.calls)) >= 2


async def test_a_lost_deletion_is_sent_once_more_to_the_same_server_first() -> None:
    lost = grpc.StatusCode.UNAVAILABLE
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scripted(script=[lost, DONE]))
        second = await stack.enter_async_context(scripted(script=[DONE] * 9))
        client = await stack.enter_async_context(
            envd.Client(options([first.address, second.address]))
        )
        await client.delete("web/prod")

    assert first.calls[0] == first.calls[1]
    assert second.calls == []


async def test_a_lost_deletion_goes_to_another_server_where_the_first_is_gone() -> None:
    lost = grpc.StatusCode.UNAVAILABLE
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scripted(script=[lost] * 9))
        second = await stack.enter_async_context(scripted(script=[DONE] * 9))
        client = await stack.enter_async_context(
            envd.Client(options([first.address, second.address]))
        )
        await client.delete("web/prod")

    assert len(first.calls) == 2
    assert second.calls == first.calls[:1]  # With the same operation id.


async def test_a_lost_rollback_with_a_precondition_stays_with_its_server() -> None:
    lost = grpc.StatusCode.UNAVAILABLE
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scripted(script=[lost] * 9))
        second = await stack.enter_async_context(scripted(script=[DONE] * 9))
        client = await stack.enter_async_context(
            envd.Client(options([first.address, second.address]))
        )
        with pytest.raises(OutcomeUnknown):
            await client.rollback("web/prod", "@~1", if_revision="ab" * 16)

    assert len(first.calls) == 2
    assert second.calls == []


async def test_many_environments_are_read_in_few_calls(client: envd.Client, node: Node) -> None:
    names = [f"web/e{number:04}" for number in range(1500)]
    for name in names:
        await node.api.write(ADMIN, WriteRequest(name, (Put("A", name),)))
    big = "x" * (1 << 20)
    for number in range(6):
        await node.put(f"big/e{number}", A=big)

    found = await client.get_many([*names, "web/absent", *(f"big/e{n}" for n in range(6))])

    assert len(found) == 1506
    assert found["web/e0007"].variables["A"].value == "web/e0007"


async def test_whole_environments_go_out_and_come_in(client: envd.Client) -> None:
    given = {f"web/e{number}": {"A": str(number), "B": "x"} for number in range(600)}
    answers = [answer async for answer in client.import_(given, message="moved")]
    assert [name for name, _ in answers] == list(given)
    assert not any(isinstance(answer, EnvdError) for _, answer in answers)

    exported = [one async for one in client.export("web")]
    assert {one.environment: dict(one.variables) for one in exported} == given

    async def one_by_one() -> Any:
        yield envd.Imported("web/e0", {"S": CANARY}, frozenset({"S"}), prune=True)
        yield envd.Imported("web/e1", {"A": "1"}, must_not_exist=True)

    answers = [answer async for answer in client.import_(one_by_one())]
    assert isinstance(answers[1][1], Conflict)
    masked = [one async for one in client.export("web/e0", reveal=False)]
    assert (dict(masked[0].variables), masked[0].masked) == ({}, True)
    assert masked[0].secret == {"S"}
    assert CANARY not in repr(masked)


async def test_an_import_whose_source_fails_says_so(client: envd.Client) -> None:
    def source() -> Any:
        yield "web/a", {"A": "1"}
        raise RuntimeError("the file ended")

    with pytest.raises(RuntimeError, match="the file ended"):
        async for _ in client.import_(source()):
            pass
    with pytest.raises(InvalidRequest) as caught:
        async for _ in client.import_({"web/a": {"A": f"{CANARY}\udc80"}}):
            pass
    assert CANARY not in str(caught.value)


# -- a server that takes connections and says nothing ------------------------------


async def test_a_server_that_says_nothing_holds_up_nobody_past_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = envd.Client(options([f"127.0.0.1:{silent.getsockname()[1]}"]))
        with pytest.raises(Unavailable):
            await client.environment("web/prod", timeout_s=0.05)
        with pytest.raises(Unavailable):
            await client.get("web/prod", timeout_s=0.05)
        with pytest.raises(Unavailable):
            await client.set("web/prod", {"A": "1"}, timeout_s=0.05)
        waiting = asyncio.create_task(client.get("web/prod"))
        writing = asyncio.create_task(client.set("web/prod", {"A": "1"}))
        await asyncio.sleep(0)

        async with asyncio.timeout(PATIENCE_S):
            await client.close()
            outcomes = await asyncio.gather(waiting, writing, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [InvalidRequest, InvalidRequest]


async def test_a_lost_import_says_that_it_may_be_repeated() -> None:
    store = HeldStore()
    async with AsyncExitStack() as stack:
        life = await stack.enter_async_context(AsyncExitStack())
        address = await life.enter_async_context(serving(Node(store)))
        client = await stack.enter_async_context(envd.Client(options([address])))
        answers = client.import_({"web/a": {"A": "1"}})
        taking = asyncio.ensure_future(anext(answers))
        await until(lambda: bool(store.appended))
        await life.aclose()

        with pytest.raises(OutcomeUnknown) as caught:
            await taking

    assert "import again" in caught.value.hint
