"""Calls at a rate that waits for nobody: what is late is counted where it was asked for."""

from __future__ import annotations

import asyncio

import pytest

from bench.light import CallFailed
from bench.probing import Probing, share_ms
from envd.wire._pb import environment_pb2 as pb

NAMES = ("A", "B")
OFTEN = 1e6


class Node:
    """Answers, once it is `open`; `asked` is what it was asked for."""

    def __init__(self, *, fails: bool = False) -> None:
        self.asked: list[tuple[str, str]] = []
        self.open = asyncio.Event()
        self.news = asyncio.Event()
        self._fails = fails

    async def call(self, path: str, message: bytes) -> bytes:
        method = path.rpartition("/")[2]
        kind = pb.GetRequest if method == "Get" else pb.WriteRequest
        self.asked.append((method, kind.FromString(message).environment))
        self.news.set()
        await self.open.wait()
        if self._fails:
            raise CallFailed("gone")
        return pb.WriteResponse(acknowledged=2).SerializeToString() if method == "Write" else b""


async def asked(nodes: list[Node], count: int) -> None:
    """Until the nodes together were asked so often; the last one is asked like the others."""
    while sum(len(node.asked) for node in nodes) < count:
        nodes[-1].news.clear()
        await nodes[-1].news.wait()


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def probing(nodes: list[Node]) -> Probing:
    return Probing(nodes, "huge", 30, NAMES, reads_s=OFTEN, writes_s=OFTEN)


async def test_calls_are_sent_though_none_is_answered() -> None:
    nodes = [Node(), Node(), Node()]
    task = asyncio.create_task(probing(nodes).run())

    await asked(nodes, 200)

    await ended(task)
    assert all(node.asked for node in nodes)


async def test_an_environment_is_written_by_one_node_alone() -> None:
    nodes = [Node(), Node(), Node()]
    task = asyncio.create_task(probing(nodes).run())

    await asked(nodes, 300)

    await ended(task)
    for at, node in enumerate(nodes):
        written = {name for method, name in node.asked if method == "Write"}
        assert written
        assert {int(name.removeprefix("huge/e")) % 3 for name in written} == {at}


async def test_a_call_counts_in_the_phase_in_which_it_was_due() -> None:
    node = Node()
    calls = probing([node])
    before = calls.phase()
    task = asyncio.create_task(calls.run())
    await asked([node], 50)

    after = calls.phase()
    sent = len(node.asked)
    node.open.set()
    await asked([node], sent + 50)
    await ended(task)
    await calls.settled()

    waited = len(before.reads_s) + len(before.writes_s)  # none was answered before the next phase
    assert waited >= sent
    assert waited + len(after.reads_s) + len(after.writes_s) == len(node.asked)
    assert after.reads_s
    assert after.writes_s


async def test_calls_without_an_answer_are_counted_and_said() -> None:
    node = Node(fails=True)
    node.open.set()
    calls = probing([node])
    task = asyncio.create_task(calls.run())

    await asked([node], 20)
    await ended(task)
    await calls.settled()

    assert calls.times.failed == len(node.asked) >= 20
    assert calls.times.why.endswith(": gone")
    assert not calls.times.reads_s


def test_a_share_of_the_calls() -> None:
    times = [n / 1000 for n in range(1, 101)]

    assert share_ms(times, 0.5) == pytest.approx(51)
    assert share_ms(times, 0.99) == pytest.approx(100)
    assert share_ms(times, 1.0) == pytest.approx(100)
    assert share_ms([], 0.5) == 0
