"""What a plan lists is what the store is asked to do: no call more, none less, to no other name.

The calls are those that came over the wire, to whatever is between the backend and its store.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import pytest

from envd.backends.contract import Key
from envd.core.syncing import OperationView
from envd.sync import applying, plan
from envd.testing.proxy import Match, Reset, Rule
from envd.testing.wire import WireHarness
from tests.sync.sides_of_stores import STORES, StoreHarness, StoreWorld
from tests.sync.two_sides import ALLOWED
from tests.sync.world import StillClock, bound

Calls = Counter[tuple[str, str]]
"""How often each operation of the store's API was called for each native name."""

EXPECTED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "aws-ssm": {
        "create": ["PutParameter"],
        "update": ["PutParameter"],
        "delete": ["DeleteParameter"],
    },
    "gcp-secret-manager": {
        # The stamp is written beside the value, by a call of its own.
        "create": ["CreateSecret", "AddSecretVersion", "UpdateSecret"],
        "update": ["AddSecretVersion", "UpdateSecret"],
        "delete": ["DeleteSecret"],
    },
}


def _noted_by_the_proxy(harness: StoreHarness) -> Callable[[], Calls]:
    """Requests have their names in their bodies, which the proxy shows to rules alone."""
    assert isinstance(harness, WireHarness)
    calls: Calls = Counter()

    def note(operation: str, body: bytes) -> bool:
        asked = json.loads(body)
        calls[operation, asked.get("Name") or asked.get("ResourceId", "")] += 1
        return False

    for operation in ("PutParameter", "DeleteParameter", "AddTagsToResource"):
        match = Match(operation=f"AmazonSSM.{operation}", body=partial(note, operation))
        harness.proxy.add(Rule(match, Reset()))
    before = harness.calls().writes

    def noted() -> Calls:
        assert calls.total() == harness.calls().writes - before, "there are writes of other kinds"
        return calls

    return noted


def _noted_by_the_server(harness: StoreHarness) -> Callable[[], Calls]:
    server = cast(Any, harness.proxy)
    before = len(server.calls)

    def native(operation: str, request: Any) -> str:
        match operation:
            case "CreateSecret":
                return str(request.secret_id)
            case "AddSecretVersion":
                path = request.parent
            case "UpdateSecret":
                path = request.secret.name
            case _:
                path = request.name
        return str(path.rpartition("/")[2])

    def noted() -> Calls:
        return Counter(
            (operation, native(operation, request))
            for operation, request in server.calls[before:]
            if not operation.startswith(("Get", "List", "Access"))
        )

    return noted


NOTED = {"aws-ssm": _noted_by_the_proxy, "gcp-secret-manager": _noted_by_the_server}


def _listed(store: str, operations: Sequence[OperationView]) -> Calls:
    """The calls that a plan's operations stand for."""
    return Counter(
        (call, each.native)
        for each in operations
        if each.side == "store"
        for call in EXPECTED[store][each.action]
    )


@pytest.mark.parametrize("store", EXPECTED)
async def test_the_writes_that_a_plan_lists_are_the_calls_that_the_store_gets(
    store: str, request: pytest.FixtureRequest
) -> None:
    harness = STORES[store](request)()
    world = StoreWorld(StillClock())
    await harness.begin()
    try:
        await world.open(harness)
        world.environments.set("web", SAME="1", CHANGED="1", GONE="1", THEIRS="1")
        await world.run(bound())
        world.environments.set("web", CHANGED="2", NEW="1")
        world.environments.unset("web", "GONE")
        assert world.backend is not None
        there = world.backend.encode
        await harness.others_put(there(Key("", "THEIRS")), "2")
        await harness.others_put(there(Key("", "FOUND")), "1")

        noted = NOTED[store](harness)
        made, pictured, place = await world.plan(bound())
        operations = plan.view([made]).operations
        asked_by_planning = noted().total()
        await applying.apply(made, pictured, place, world.looking, ALLOWED, world.clock.wall_ms())

        assert {(each.action, each.variable, each.side) for each in operations} == {
            ("update", "CHANGED", "store"),
            ("create", "NEW", "store"),
            ("delete", "GONE", "store"),
            ("update", "THEIRS", "envd"),
            ("create", "FOUND", "envd"),
        }
        assert asked_by_planning == 0
        assert noted() == _listed(store, operations)
    finally:
        await world.close()
        await harness.end()
