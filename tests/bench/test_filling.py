"""A load is answered to the last environment, with no more on its way than a node may have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bench.filling import ON_THEIR_WAY, Filling
from bench.light import CallFailed, Stream
from bench.node import IMPORT_BATCH
from envd.wire._pb import environment_pb2 as pb

NAMES = ("A", "B")
MANY = 7 * IMPORT_BATCH + 3


class Node:
    """Answers imports, once so many environments wait; `most` were on their way at once.

    `refuse` gives the reason of an error for a name, or "".
    """

    def __init__(
        self,
        refuse: Callable[[str], str] = lambda _: "",
        *,
        copies: int = 2,
        answers_from: int = 1,
    ) -> None:
        self._refuse = refuse
        self._copies = copies
        self._answers_from = answers_from
        self._waiting: list[pb.ImportRequest.Item] = []
        self._on_message: Callable[[bytes], None] = lambda _: None
        self._on_end: Callable[[], None] = lambda: None
        self.most = 0
        self.held: dict[str, int] = {}
        self.finished = False
        self.begun = asyncio.Event()

    def begin(
        self, path: str, on_message: Callable[[bytes], None], on_end: Callable[[], None]
    ) -> Stream:
        assert path.endswith("/Import")
        self._on_message, self._on_end = on_message, on_end
        self.begun.set()
        return Stream(1, 0, on_message, on_end)

    def send(self, stream: Stream, message: bytes) -> None:
        items = pb.ImportRequest.FromString(message).environments
        self._waiting += items
        self.most = max(self.most, len(self._waiting))
        if len(self._waiting) >= self._answers_from:
            asyncio.get_running_loop().call_later(0, self._answer)

    def _answer(self) -> None:
        results = [self._result(item) for item in self._waiting]
        self._waiting.clear()
        self._on_message(pb.ImportResponse(results=results).SerializeToString())

    def _result(self, item: pb.ImportRequest.Item) -> pb.ImportResponse.Result:
        reason = self._refuse(item.environment)
        if reason:
            error = pb.Error(reason=reason, message="no")
            return pb.ImportResponse.Result(environment=item.environment, error=error)
        self.held[item.environment] = len(item.variables.names)
        done = pb.WriteResponse(acknowledged=self._copies)
        return pb.ImportResponse.Result(environment=item.environment, done=done)

    def finish(self, stream: Stream) -> None:
        self.finished = True

    def end(self) -> None:
        self._on_end()


async def test_every_environment_reaches_one_node_and_each_gets_some() -> None:
    nodes = [Node(), Node(), Node()]
    filling = Filling("huge", MANY, NAMES)

    await filling.run(nodes)

    held = [name for node in nodes for name in node.held]
    assert sorted(held) == sorted(f"huge/e{n}" for n in range(MANY))
    assert all(node.held and node.finished for node in nodes)
    assert filling.done == MANY
    assert {count for node in nodes for count in node.held.values()} == {len(NAMES)}


async def test_no_node_has_more_on_its_way_than_it_may() -> None:
    node = Node(answers_from=ON_THEIR_WAY)

    await Filling("huge", 4 * ON_THEIR_WAY, NAMES).run([node])

    assert node.most == ON_THEIR_WAY
    assert len(node.held) == 4 * ON_THEIR_WAY


async def test_what_a_busy_node_refuses_comes_again() -> None:
    refused: set[str] = set()

    def once(name: str) -> str:
        if name in refused or not name.endswith("7"):
            return ""
        refused.add(name)
        return "OVERLOADED"

    node = Node(once)
    filling = Filling("huge", MANY, NAMES, again_s=0)

    await filling.run([node])

    assert len(node.held) == filling.done == MANY
    assert filling.refused == len(refused) > 0


async def test_an_error_that_does_not_pass_ends_the_load() -> None:
    nodes = [Node(), Node(lambda _: "DISK_FULL")]

    with pytest.raises(ExceptionGroup) as failed:
        await Filling("huge", MANY, NAMES).run(nodes)

    assert failed.group_contains(CallFailed, match="DISK_FULL: no")


async def test_an_import_that_ends_by_itself_ends_the_load() -> None:
    node = Node(lambda _: "OVERLOADED")
    load = asyncio.create_task(Filling("huge", MANY, NAMES, again_s=0).run([node]))
    await node.begun.wait()

    node.end()

    with pytest.raises(ExceptionGroup) as failed:
        await load
    assert failed.group_contains(CallFailed, match="ended by itself")


async def test_answers_with_one_copy_are_said() -> None:
    filling = Filling("huge", 3, NAMES)

    await filling.run([Node(copies=1)])

    assert filling.copies.take() == "3 of 3 answers had one copy"
