from __future__ import annotations

from weakref import ref

import pytest

from envd.core.answers import EnvironmentView
from envd.core.environment import Environment
from envd.core.errors import NotFound
from envd.core.requests import DeleteRequest, Put, ReadRequest, WriteRequest
from envd.node.rendering import Renderings
from envd.ports import StoredState
from tests.node.conftest import Node


def state() -> StoredState:
    return StoredState(Environment("a"), b"r" * 16)


def test_a_rendering_belongs_to_one_state_and_one_way_of_showing_it() -> None:
    renderings, first = Renderings(), state()

    renderings.keep("a", True, first, b"shown")

    assert renderings.find("a", True, first) == b"shown"
    assert renderings.find("a", False, first) is None
    assert renderings.find("a", True, state()) is None
    assert renderings.find("b", True, first) is None


def test_a_rendering_does_not_keep_its_state() -> None:
    renderings, first = Renderings(), state()
    renderings.keep("a", True, first, b"shown")
    gone = ref(first)

    del first

    assert gone() is None
    assert renderings.find("a", True, state()) is None


def test_the_least_recently_used_renderings_leave() -> None:
    renderings, one = Renderings(max_bytes=1000), state()

    for name in ("a", "b"):
        renderings.keep(name, False, one, b"x" * 100)
    renderings.find("a", False, one)
    renderings.keep("c", False, one, b"x" * 100)

    assert [name for name in "abc" if renderings.find(name, False, one)] == ["a", "c"]


def test_what_replaces_a_rendering_takes_its_room() -> None:
    renderings, one = Renderings(max_bytes=1000), state()

    renderings.keep("a", False, one, b"x" * 100)
    for _ in range(50):
        renderings.keep("b", False, one, b"x" * 100)

    assert renderings.find("a", False, one)


async def test_a_rendered_read_is_made_once_for_each_state(node: Node) -> None:
    made: list[dict[str, str | None]] = []

    def render(view: EnvironmentView) -> bytes:
        made.append({name: variable.value for name, variable in view.variables.items()})
        return str(len(made)).encode()

    async def put(value: str) -> None:
        puts = (Put("A", value), Put("S", value, secret=True))
        await node.coordinator.write(WriteRequest("web", puts), "ann")

    await put("1")
    request, revealed = ReadRequest("web"), ReadRequest("web", reveal=True)
    answers = [node.coordinator.rendered(asked, render) for asked in (request, request, revealed)]
    await put("2")
    answers.append(node.coordinator.rendered(request, render))

    assert answers == [b"1", b"1", b"2", b"3"]
    assert made == [{"A": "1", "S": None}, {"A": "1", "S": "1"}, {"A": "2", "S": None}]


async def test_what_is_gone_is_not_found_though_it_was_rendered(node: Node) -> None:
    await node.coordinator.write(WriteRequest("web", (Put("A", "1"),)), "ann")
    assert node.coordinator.rendered(ReadRequest("web"), lambda _: b"x") == b"x"

    await node.coordinator.delete(DeleteRequest("web"), "ann")

    with pytest.raises(NotFound):
        node.coordinator.rendered(ReadRequest("web"), lambda _: b"x")


async def test_a_part_or_a_past_is_rendered_each_time(node: Node) -> None:
    await node.coordinator.write(WriteRequest("web", (Put("A", "1"), Put("B", "2"))), "ann")
    node.coordinator.rendered(ReadRequest("web"), lambda _: b"whole")

    part = node.coordinator.rendered(ReadRequest("web", ("A",)), lambda view: repr(
        list(view.variables)).encode())  # fmt: skip

    assert part == b"['A']"
