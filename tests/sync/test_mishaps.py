"""What goes wrong on either side, or in between, and must neither be lost nor stop the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from envd.backends.contract import Capability, Item, Key, Options
from envd.backends.errors import BackendError, Forbidden
from envd.backends.memory import CAPABILITIES, Manners, MemoryBackend
from envd.backends.memory_store import MemoryStore
from envd.core.names import MAX_VALUE_BYTES
from envd.sync import applying, picture, plan
from envd.sync.applying import Leave
from envd.sync.binding import decoded_all, encoded, record_key
from envd.sync.layouts import Documents, Place
from envd.testing.faulty import Call, Fault, FaultyBackend, Kind
from tests.sync.sides_of_stores import StoreWorld
from tests.sync.world import StillClock, World, bound, done, fingerprint

READS = CAPABILITIES & ~Capability.LIST_VALUES
"""A store whose listing brings no values."""
PLAIN = Capability.POSTCHECK | Capability.LIST_VALUES
"""A store that keeps no stamps and compares nothing."""


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


# -- what no environment can hold ---------------------------------------------------------------


@pytest.mark.parametrize("value", ["NUL\0", "x" * (MAX_VALUE_BYTES + 1)])
async def test_a_mirror_leaves_a_value_that_cannot_go_on_record_and_does_the_rest(
    value: str,
) -> None:
    world = World()
    world.store.edit("B", value)
    world.store.edit("FOREIGN", "1")
    world.environments.set("web", A="1")

    view = await world.run(bound(direction="push", delete_policy="mirror"), Leave(deletes=9))

    assert [each.action for each in view.operations if each.variable == "B"] == ["skip"]
    assert set(world.store.values()) == {"A", "B"}
    assert world.environments.lost("web") == [("FOREIGN", "1")]


async def test_a_mirror_leaves_a_name_that_no_variable_can_have_and_does_the_rest() -> None:
    world = World()
    binding = bound(direction="push", delete_policy="mirror", layout="document")
    native = world.place(binding).name(Key("", "A"))
    world.store.edit(native, '{"no name":"1"}')
    world.environments.set("web", A="1")

    view = await world.run(binding)

    assert done(view) == [("create", "A", "applied"), ("skip", "no name", "")]
    assert world.store.values() == {native: '{"A":"1","no name":"1"}'}


@pytest.mark.parametrize("direction", ["push", "both"])
async def test_a_drifted_value_that_cannot_go_on_record_is_not_overwritten(direction: str) -> None:
    world = World()
    binding = bound(direction=direction, conflict_policy="envd")
    world.environments.set("web", A="1", B="1")
    await world.run(binding)
    world.store.edit("A", "NUL\0")
    world.environments.set("web", A="2", B="2")

    view = await world.run(binding)

    assert done(view) == [("skip", "A", ""), ("update", "B", "applied")]
    assert world.store.values() == {"A": "NUL\0", "B": "2"}


async def test_a_mirror_deletes_no_foreign_value_that_the_store_does_not_show() -> None:
    world = World(capabilities=Capability.CAS | Capability.WRITE_ONLY)
    world.store.edit("FOREIGN", "1")

    view = await world.run(bound(direction="push", delete_policy="mirror"))
    told = await world.run(bound(direction="push", delete_policy="mirror", conflict_policy="envd"))

    assert done(view) == [("skip", "FOREIGN", "")]
    assert done(told) == [("delete", "FOREIGN", "applied")]


# -- a leader that has not seen all that the one before it had ----------------------------------


async def test_an_older_value_here_does_not_replace_the_one_that_was_in_step() -> None:
    world = World()
    world.environments.set("web", A="1")
    await world.run(bound())
    before = world.environments.state("web")
    world.environments.set("web", A="2")
    await world.run(bound())
    after = world.environments.state("web")

    world.environments.become("web", before)
    behind = await world.run(bound())
    store = dict(world.store.values())
    world.environments.become("web", after)

    assert done(behind) == [("skip", "A", "")]
    assert store == {"A": "2"}
    assert not (await world.run(bound())).operations


async def test_what_has_not_come_here_yet_is_not_taken_for_deleted() -> None:
    world = World()
    world.environments.set("web", A="1")
    await world.run(bound())
    before = world.environments.state("web")
    world.environments.set("web", B="1")
    await world.run(bound())

    world.environments.become("web", before)
    behind = await world.run(bound())

    assert done(behind) == [("skip", "B", "")]
    assert world.store.values() == {"A": "1", "B": "1"}


async def test_what_is_gone_and_older_than_all_that_may_still_come_is_deleted() -> None:
    world = World()
    world.environments.set("web", A="1", B="1")
    await world.run(bound())
    world.environments.unset("web", "B")
    world.environments.collect("web")

    view = await world.run(bound())

    assert done(view) == [("delete", "B", "applied")]


# -- records that can't be read -----------------------------------------------------------------


async def test_an_anchor_that_cannot_be_read_is_none_and_the_others_count() -> None:
    world = World()
    world.environments.set("web", A="1", B="1", C="1")
    await world.run(bound())
    (record,) = (name for name in world.records.documents if not name.endswith("/about"))
    world.records.documents[record] |= {"A": "{", "C": "[]"}
    world.environments.set("web", A="here", B="2")
    world.store.edit("A", "there")

    view = await world.run(bound())

    assert done(view) == [
        ("conflict", "A", "waits"),
        ("update", "B", "applied"),
        ("adopt", "C", "applied"),
    ]
    assert world.store.values() == {"A": "there", "B": "2", "C": "1"}


def test_a_binding_that_cannot_be_read_is_left_out() -> None:
    kept = {record_key("good"): encoded(bound(name="good")), record_key("bad"): "{"}

    found = decoded_all(kept)

    assert [each.name for each in found] == ["good"]


# -- what others write in the very moment -------------------------------------------------------


async def test_what_came_in_between_and_cannot_go_on_record_is_told_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(capabilities=PLAIN)
    world.environments.set("web", A="1")
    await world.run(bound())
    world.environments.set("web", A="2")
    world.store.meanwhile("A", "in between")
    made, pictured, place = await world.plan(bound())

    world.environments.away = True
    views = await applying.apply(
        made, pictured, place, world.looking, Leave(), world.clock.wall_ms()
    )
    world.environments.away = False

    assert [(each.variable, each.result) for each in views] == [("A", "failed")]
    assert "in between" not in views[0].detail + caplog.text
    assert [record.message for record in caplog.records] == ["sync.not_on_record"]
    assert not (await world.run(bound())).operations


async def test_what_came_in_between_and_cannot_be_read_any_more_is_told() -> None:
    world = World(capabilities=PLAIN)
    world.environments.set("web", A="1")
    await world.run(bound())
    world.environments.set("web", A="2")
    world.store.meanwhile("A", None)

    view = await world.run(bound())

    assert done(view) == [("update", "A", "applied")]
    assert "in the very moment" in view.operations[0].detail


async def test_a_value_in_the_store_that_is_no_text_stops_no_other() -> None:
    world = World()
    world.store.edit("A", "\ud800")
    world.store.edit("B", "1")

    view = await world.run(bound())

    assert done(view) == [("skip", "A", ""), ("create", "B", "applied")]


# -- documents that are none ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["hunter2", "[" * 100_000, '{"A":"\\ud800"}', '{"\\ud800":"1"}', '{"A":1}']
)
async def test_a_document_that_no_environment_can_hold_is_refused_without_its_text(
    text: str,
) -> None:
    world = World()
    binding = bound(layout="document")
    world.store.edit(world.place(binding).name(Key("", "A")), text)

    world.environments.set("web", A="mine")

    view = await world.run(binding)

    (held,) = view.held
    assert (held.reason, done(view)) == ("UNREADABLE", [("skip", "A", "")])
    assert "no JSON object of text" in held.detail
    assert text not in f"{held} {view}"
    assert list(world.store.values().values()) == [text]


@pytest.mark.parametrize("capabilities", [CAPABILITIES, READS])
async def test_one_document_that_cannot_be_read_stops_no_other_and_loses_nothing(
    capabilities: Capability,
) -> None:
    world = World(capabilities=capabilities)
    binding = bound(layout="document", environment=None, prefix="team", conflict_policy="lww")
    world.environments.set("team/web", A="1")
    world.environments.set("team/job", A="1")
    await world.run(binding)
    web, job = (world.place(binding).name(Key(each, "")) for each in ("web", "job"))
    world.store.edit(web, "{")
    world.environments.set("team/job", A="2")
    world.environments.set("team/web", B="2")

    views = [await world.run(binding) for _ in range(2)]

    assert [[held.reason for held in view.held] for view in views] == [["UNREADABLE"]] * 2
    assert done(views[0]) == [("update", "A", "applied"), ("skip", "A", ""), ("skip", "B", "")]
    assert world.store.values() == {web: "{", job: '{"A":"2"}'}

    world.store.edit(web, '{"A":"theirs"}')
    assert (await world.run(binding)).held == ()
    assert world.environments.values("team/web") == {"A": "theirs", "B": "2"}
    assert world.store.values()[web] == '{"A":"theirs","B":"2"}'


async def test_a_document_that_one_may_not_read_is_told_and_stops_no_other() -> None:
    world = World(capabilities=READS)
    binding = bound(layout="document", environment=None, prefix="team")
    world.environments.set("team/job", A="1")
    await world.run(binding)
    world.store.edit(world.place(binding).name(Key("web", "")), '{"A":"1"}')
    world.environments.set("team/job", A="2")
    place = _Denying(world.place(binding), "web")

    pictured = await picture.take(world.looking, binding, "memory:place", place)
    made = plan.make(pictured, place, fingerprint)

    assert [(held.reason, "not allowed" in held.detail) for held in made.held] == [
        ("UNREADABLE", True)
    ]
    assert [each.key for each in made.operations] == [Key("job", "A")]


class _Denying(Documents):
    """Documents of which one may not be read."""

    def __init__(self, place: Place, environment: str) -> None:
        assert isinstance(place, Documents)
        super().__init__(place._backend, place._scope, fingerprint)
        self._denied = environment

    async def _answers(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        found = await super()._answers(keys)
        denied = Key(self._denied, "")
        return {**found, **({denied: Forbidden("it is not allowed")} if denied in keys else {})}


async def test_what_others_wrote_into_a_document_and_is_gone_goes_on_record() -> None:
    world = StoreWorld(StillClock())
    options = Options("place", "document", wall_ms=world.clock.wall_ms)
    backend = FaultyBackend(MemoryBackend(options, store=world.store, capabilities=PLAIN))
    world.backend = backend
    binding = bound(layout="document")
    world.environments.set("web", A="1", B="1")
    await world.run(binding)
    (native,) = world.store.names()
    world.environments.set("web", A="2")
    world.store.meanwhile(native, '{"A":"1","B":"1","THEIRS":"1"}')
    backend.add(Fault(Kind.THROTTLED, Call.APPLY, after=1, times=1))

    view = await world.run(binding)
    for _ in range(2):
        await world.run(binding)

    assert done(view) == [("update", "A", "failed")]
    assert world.store.values() == {native: '{"A":"2","B":"1"}'}
    assert world.environments.lost("web") == [("THEIRS", "1")]


async def test_a_document_that_nobody_knows_to_be_of_envd_is_emptied_and_not_deleted() -> None:
    world = World()
    world.manners = Manners(knows_owner=False)
    binding = bound(layout="document")
    native = world.place(binding).name(Key("", "A"))
    world.store.edit(native, "{}")
    world.environments.set("web", A="1")
    await world.run(binding)

    world.environments.unset("web", "A")
    await world.run(binding)

    assert world.store.values() == {native: "{}"}


# -- stamps in the store ------------------------------------------------------------------------


async def test_an_edit_that_leaves_the_stamp_of_envd_is_an_edit_all_the_same() -> None:
    world = World()
    world.environments.set("web", A="1")
    await world.run(bound())
    written = world.store.look("A")
    assert written is not None
    assert written.stamp
    world.store.write(replace(written, value="theirs"))
    world.environments.set("web", A="2")
    world.records.lose()

    view = await world.run(bound())

    assert done(view) == [("conflict", "A", "waits")]
    assert world.store.values() == {"A": "theirs"}


async def test_what_envd_wrote_earlier_is_known_by_its_stamp_where_the_anchors_are_lost() -> None:
    world = World()
    world.environments.set("web", A="1")
    await world.run(bound())
    world.environments.set("web", A="2")
    world.records.lose()

    view = await world.run(bound())

    assert done(view) == [("update", "A", "applied")]
    assert world.store.values() == {"A": "2"}


# -- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [CAPABILITIES, READS, PLAIN])
async def test_what_becomes_secret_here_becomes_so_in_the_store(capabilities: Capability) -> None:
    world = World(capabilities=capabilities)
    world.environments.set("web", A="1")
    await world.run(bound())

    world.environments.mark_secret("web", "A")
    view = await world.run(bound())
    again = await world.run(bound())

    stored = world.store.look("A")
    assert stored is not None
    assert stored.secret
    assert done(view) == [("update", "A", "applied")]
    assert not again.operations


async def test_what_becomes_secret_in_the_store_becomes_so_here() -> None:
    world = World()
    world.environments.set("web", A="1")
    await world.run(bound())

    world.store.edit("A", "1", secret=True)
    view = await world.run(bound())
    again = await world.run(bound())

    assert world.environments.secret("web", "A")
    assert done(view) == [("update", "A", "applied")]
    assert not again.operations


async def test_a_store_that_makes_nothing_secret_is_asked_once() -> None:
    world = World()
    world.manners = Manners(knows_secret=False)
    world.environments.set("web", A="1")
    await world.run(bound())
    world.environments.mark_secret("web", "A")
    await world.run(bound())
    writes = world.store.calls.writes

    view = await world.run(bound())

    assert not view.operations
    assert world.store.calls.writes == writes


# -- environments that come and go ---------------------------------------------------------------


async def test_of_an_environment_that_is_gone_on_both_sides_no_record_stays() -> None:
    world = World()
    binding = bound(environment=None, prefix="shop")
    world.environments.set("shop/stays", A="1", B="1", C="1", D="1", E="1")
    world.environments.set("shop/goes", A="1")
    await world.run(binding)
    world.environments.unset("shop/goes", "A")

    await world.run(binding)
    await world.run(binding)
    kept = [name for name, document in world.records.documents.items() if document]
    world.environments.set("shop/goes", A="2")
    await world.run(binding)

    assert len(kept) == 2
    assert sorted(world.store.values().values()) == ["1", "1", "1", "1", "1", "2"]
