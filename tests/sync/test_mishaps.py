"""What goes wrong on either side, or in between, and must neither be lost nor stop the rest."""

from __future__ import annotations

import pytest

from envd.backends.contract import Capability, Key
from envd.backends.memory import CAPABILITIES
from envd.backends.memory_store import MemoryStore
from envd.sync import applying
from envd.sync.applying import Leave
from tests.sync.world import World, bound, done

READS = CAPABILITIES & ~Capability.LIST_VALUES
"""A store whose listing brings no values."""


# -- documents whose values are only read where their version is a new one ---------------------


async def test_what_a_document_had_is_taken_later_where_it_was_changed_here_meanwhile() -> None:
    world = World(capabilities=READS)
    binding = bound(layout="document", direction="pull")
    native = world.place(binding).name(Key("", "A"))
    world.store.edit(native, '{"A":"1"}')
    await world.run(binding)
    world.store.edit(native, '{"A":"2","NEW":"1"}')
    made, pictured, place = await world.plan(binding)

    world.environments.set("web", OTHER="1")
    await applying.apply(made, pictured, place, world.looking, Leave(), world.clock.wall_ms())
    await world.run(binding)

    assert world.environments.values("web") == {"A": "2", "NEW": "1", "OTHER": "1"}


async def test_what_is_left_as_it_is_in_a_document_is_told_by_every_plan() -> None:
    world = World(capabilities=READS)
    binding = bound(layout="document", direction="push")
    world.environments.set("web", A="1", B="1")
    for _ in range(2):
        await world.run(binding)
    (native,) = world.store.names()
    world.store.edit(native, '{"A":"theirs","B":"1"}')
    world.environments.unset("web", "A")

    views = [await world.run(binding) for _ in range(4)]

    assert [done(view) for view in views] == [[("skip", "A", "")]] * 4


# -- bindings that change ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"layout": "document"},
        {"name_template": "APP_{variable}"},
        {"credentials": "profile:other"},
        {"environment": None, "prefix": "team"},
    ],
)
async def test_what_lies_elsewhere_in_the_store_by_now_is_not_taken_for_deleted(
    changed: dict[str, object],
) -> None:
    world = World()
    world.environments.set("team/web", A="1")
    await world.run(bound(environment="team/web"))

    if "credentials" in changed:
        world.store = MemoryStore("the other account's")
    await world.run(bound(**{"environment": "team/web", **changed}))

    assert world.environments.values("team/web") == {"A": "1"}


async def test_of_another_account_an_equal_version_is_no_equal_value() -> None:
    world = World()
    world.environments.set("web", A="1")
    await world.run(bound())

    world.store = MemoryStore("the other account's")
    world.store.edit("A", "theirs")
    await world.run(bound(credentials="profile:other"))

    assert world.environments.lost("web") == [("A", "theirs")]
