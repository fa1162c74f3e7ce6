from __future__ import annotations

import pytest

from envd.core.commit import Kind
from envd.core.errors import Conflict, InvalidRequest, NotFound
from envd.core.requests import DeleteRequest, Put, ReadRequest, Unset, WriteRequest
from tests.node.conftest import Node


async def extend(node: Node, environment: str, bases: str) -> None:
    put = Put("extends", bases, kind=Kind.METADATA)
    await node.coordinator.write(WriteRequest(environment, (put,)), "ann")


async def layered(node: Node) -> None:
    await node.put("base", A="base", B="base", C="base")
    await node.put("team", B="team", C="team")
    await node.put("prod", C="prod", D="prod")
    await extend(node, "prod", "base, team")


async def test_a_resolved_read_has_the_values_of_all_layers_and_where_they_come_from(
    node: Node,
) -> None:
    await layered(node)

    view = node.coordinator.read(ReadRequest("prod", resolve=True))
    alone = node.coordinator.read(ReadRequest("prod"))

    assert {n: (v.value, v.source) for n, v in view.variables.items()} == {
        "A": ("base", "base"),
        "B": ("team", "team"),
        "C": ("prod", "prod"),
        "D": ("prod", "prod"),
    }
    assert list(view.bases) == ["base", "team"]
    assert view.bases["base"] == node.coordinator.read(ReadRequest("base")).revision
    assert (view.environment, view.revision) == ("prod", alone.revision)
    assert set(alone.variables) == {"C", "D"}
    assert {v.source for v in alone.variables.values()} == {""}


async def test_unsetting_uncovers_the_variable_of_a_base(node: Node) -> None:
    await layered(node)

    await node.coordinator.write(WriteRequest("prod", unsets=(Unset("C"),)), "ann")

    view = node.coordinator.read(ReadRequest("prod", ("C",), resolve=True))
    assert (view.variables["C"].value, view.variables["C"].source) == ("team", "team")


async def test_secrets_of_bases_are_masked_too(node: Node) -> None:
    await node.coordinator.write(WriteRequest("base", (Put("K", "s", secret=True),)), "ann")
    await node.put("prod", A="1")
    await extend(node, "prod", "base")

    masked = node.coordinator.read(ReadRequest("prod", resolve=True)).variables["K"]
    shown = node.coordinator.read(ReadRequest("prod", resolve=True, reveal=True)).variables["K"]

    assert (masked.value, masked.masked) == (None, True)
    assert shown.value == "s"


async def test_named_variables_may_come_from_any_layer_or_none(node: Node) -> None:
    await layered(node)

    view = node.coordinator.read(ReadRequest("prod", ("A", "D"), resolve=True))
    with pytest.raises(NotFound):
        node.coordinator.read(ReadRequest("prod", ("NONE",), resolve=True))

    assert set(view.variables) == {"A", "D"}


@pytest.mark.parametrize(
    ("bases", "error"),
    [("prod", Conflict), ("team", Conflict), ("absent", NotFound), ("Bad Name", InvalidRequest)],
)
async def test_what_could_not_be_resolved_is_refused_when_it_is_set(
    node: Node, bases: str, error: type[Exception]
) -> None:
    await node.put("prod", A="1")
    await node.put("team", A="1")
    await extend(node, "team", "prod")

    with pytest.raises(error):
        await extend(node, "prod", bases)

    assert "extends" not in node.coordinator.read(ReadRequest("prod")).metadata


async def test_a_base_that_was_deleted_is_told_instead_of_left_out(node: Node) -> None:
    await layered(node)
    await node.coordinator.delete(DeleteRequest("team"), "ann")

    with pytest.raises(NotFound, match="team"):
        node.coordinator.read(ReadRequest("prod", resolve=True))

    assert node.coordinator.read(ReadRequest("prod")).environment == "prod"


async def test_a_revision_stands_without_its_bases(node: Node) -> None:
    await layered(node)

    with pytest.raises(InvalidRequest, match="without what it extends"):
        node.coordinator.read(ReadRequest("prod", at="@~1", resolve=True))
