"""Two sides, one binding: what one of them edits reaches the other, and nothing is thrown away."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings

from envd.backends.contract import Capability, Options
from envd.backends.errors import Forbidden, StoreUnavailable
from envd.backends.file import FileBackend
from envd.backends.memory import CAPABILITIES
from envd.core.syncing import BindingView
from envd.sync.applying import Leave
from envd.sync.layouts import Place, place_of
from tests.sync.two_sides import TwoSides
from tests.sync.world import StillClock, World, bound, done, fingerprint

PLAIN = Capability.POSTCHECK | Capability.LIST_VALUES
"""A store that keeps no stamps and compares nothing: SSM, Key Vault."""
READS = Capability.CAS
"""A store whose listing brings no values."""


async def test_an_edit_here_and_one_there_both_reach_the_other_side() -> None:
    world = World()
    world.environments.set("web", A="1", B="1")
    await world.run(bound())

    world.environments.set("web", A="2")
    world.store.edit("B", "2")
    view = await world.run(bound())

    assert world.environments.values("web") == {"A": "2", "B": "2"}
    assert world.store.values() == {"A": "2", "B": "2"}
    assert done(view) == [("update", "A", "applied"), ("update", "B", "applied")]
    assert not world.environments.on_record


async def test_what_is_in_step_is_neither_written_nor_listed_as_an_operation() -> None:
    world = World()
    world.environments.set("web", A="1")
    await world.run(bound())
    before = (world.store.calls.writes, world.environments.commits, world.records.updates)

    for _ in range(5):
        view = await world.run(bound())

        assert not view.operations
    assert before == (world.store.calls.writes, world.environments.commits, world.records.updates)


async def test_what_only_the_store_has_comes_here_and_looks_secret_where_it_is() -> None:
    world = World()
    world.store.edit("API_TOKEN", "x9")
    world.store.edit("PORT", "80")

    await world.run(bound())

    assert world.environments.values("web") == {"API_TOKEN": "x9", "PORT": "80"}
    assert world.environments.secret("web", "API_TOKEN")
    assert not world.environments.secret("web", "PORT")


async def test_equal_values_are_adopted_and_not_owned() -> None:
    world = World()
    world.environments.set("web", A="1")
    world.store.edit("A", "1")

    first = await world.run(bound())
    world.environments.unset("web", "A")
    second = await world.run(bound())

    assert done(first) == [("adopt", "A", "applied")]
    assert done(second) == [("skip", "A", "")]
    assert world.store.values() == {"A": "1"}
    assert world.environments.values("web") == {}


async def test_unequal_values_without_an_anchor_are_a_conflict_and_nothing_is_overwritten() -> None:
    world = World()
    world.environments.set("web", A="here")
    world.store.edit("A", "there")

    view = await world.run(bound())

    assert done(view) == [("conflict", "A", "waits")]
    assert (world.environments.values("web"), world.store.values()) == (
        {"A": "here"},
        {"A": "there"},
    )
    assert world.environments.lost("web") == [("A", "there")]


@pytest.mark.parametrize("take_lost", [False, True])
async def test_a_settled_conflict_goes_to_the_store(take_lost: bool) -> None:
    world = World()
    world.environments.set("web", A="here")
    world.store.edit("A", "there")
    await world.run(bound())
    await world.run(bound())
    (conflict,) = world.environments.on_record

    world.environments.settle(conflict, take_lost=take_lost)
    await world.run(bound())

    wanted = {"A": "there" if take_lost else "here"}
    assert (world.environments.values("web"), world.store.values()) == (wanted, wanted)
    assert not (await world.run(bound())).operations


async def test_a_conflict_that_was_settled_before_the_anchors_were_lost_stays_settled() -> None:
    world = World()
    world.environments.set("web", A="here")
    world.store.edit("A", "there")
    await world.run(bound())
    (conflict,) = world.environments.on_record

    world.environments.settle(conflict)
    world.records.lose()
    for _ in range(3):
        await world.run(bound())

    assert world.store.values() == {"A": "here"}
    assert list(world.environments.on_record) == [conflict]


async def test_a_store_that_changes_again_while_a_conflict_waits_is_on_record_again() -> None:
    world = World()
    world.environments.set("web", A="here")
    world.store.edit("A", "there")
    await world.run(bound())

    world.store.edit("A", "elsewhere")
    await world.run(bound())

    assert world.environments.lost("web") == [("A", "there"), ("A", "elsewhere")]
    assert world.store.values() == {"A": "elsewhere"}


@pytest.mark.parametrize(
    ("policy", "at_ms", "kept", "lost"),
    [
        ("lww", None, "there", "here"),
        ("lww", -60_000, "here", "there"),
        ("lww", 60_000, "there", "here"),
        ("envd", 60_000, "here", "there"),
        ("store", -60_000, "there", "here"),
    ],
)
async def test_of_two_edits_of_one_variable_one_is_kept_and_the_other_on_record(
    policy: str, at_ms: int | None, kept: str, lost: str
) -> None:
    world = World(capabilities=PLAIN)
    binding = bound(conflict_policy=policy)
    world.environments.set("web", A="1")
    await world.run(binding)

    world.environments.set("web", A="here")
    when_ms = None if at_ms is None else world.clock.now_ms + at_ms
    world.store.edit("A", "there", at_ms=when_ms)
    view = await world.run(binding)

    assert world.environments.values("web") == {"A": kept}
    assert world.store.values() == {"A": kept}
    assert world.environments.lost("web") == [("A", lost)]
    assert done(view) == [("conflict", "A", "applied")]
    assert not (await world.run(binding)).operations


async def test_a_policy_that_leaves_it_to_people_changes_neither_side() -> None:
    world = World()
    binding = bound(conflict_policy="manual")
    world.environments.set("web", A="1")
    await world.run(binding)
    world.environments.set("web", A="here")
    world.store.edit("A", "there")

    view = await world.run(binding)

    assert done(view) == [("conflict", "A", "waits")]
    assert world.environments.values("web") == {"A": "here"}
    assert world.store.values() == {"A": "there"}


# -- deletions ---------------------------------------------------------------------------


async def test_a_deletion_goes_to_the_other_side_whoever_made_it() -> None:
    world = World()
    world.environments.set("web", A="1", B="1")
    world.store.edit("C", "1")
    await world.run(bound())

    world.environments.unset("web", "A")
    await world.run(bound())
    world.store.remove("C")
    await world.run(bound())

    assert world.environments.values("web") == {"B": "1"}
    assert world.store.values() == {"B": "1"}


async def test_an_edit_beats_a_deletion_that_had_not_seen_it() -> None:
    world = World()
    world.environments.set("web", A="1", B="1")
    await world.run(bound())

    world.environments.unset("web", "A")
    world.store.edit("A", "2")
    world.environments.set("web", B="2")
    world.store.remove("B")
    await world.run(bound())

    assert world.environments.values("web") == {"A": "2", "B": "2"}
    assert world.store.values() == {"A": "2", "B": "2"}


async def test_a_policy_that_deletes_nothing_leaves_both_sides_as_they_are() -> None:
    world = World()
    binding = bound(delete_policy="never")
    world.environments.set("web", A="1", B="1")
    await world.run(binding)

    world.environments.unset("web", "A")
    world.store.remove("B")
    view = await world.run(binding)

    assert {each.action for each in view.operations} == {"skip"}
    assert world.environments.values("web") == {"B": "1"}
    assert world.store.values() == {"A": "1"}


async def test_a_foreign_name_is_never_deleted_and_one_of_another_binding_neither() -> None:
    world = World()
    first, second = bound(direction="push"), bound(name="c", environment="api", direction="push")
    world.store.edit("FOREIGN", "1")
    world.environments.set("web", A="1")
    world.environments.set("api", B="1")

    for _ in range(3):
        for binding in (first, second):
            await world.run(binding)
    world.environments.unset("web", "A")
    for binding in (second, first, second):
        await world.run(binding)

    assert world.store.values() == {"B": "1", "FOREIGN": "1"}


async def test_a_mirror_deletes_what_is_only_in_the_store_and_puts_it_on_record() -> None:
    world = World()
    world.store.edit("FOREIGN", "1")

    await world.run(bound(direction="push", delete_policy="mirror"))

    assert world.store.values() == {}
    assert world.environments.lost("web") == [("FOREIGN", "1")]


async def test_a_listing_that_is_denied_empty_or_cut_deletes_nothing() -> None:
    world = World()
    names = {f"K{number}": "1" for number in range(30)}
    world.environments.set("web", **names)
    await world.run(bound())

    world.store.fail("page", Forbidden("not yours"))
    with pytest.raises(Forbidden):
        await world.run(bound())
    world.store.fail("page", StoreUnavailable("half way"))
    with pytest.raises(StoreUnavailable):
        await world.run(bound())

    assert world.environments.values("web") == dict(sorted(names.items()))


async def test_what_a_listing_leaves_out_is_read_by_name_before_it_counts_as_gone() -> None:
    world = World()
    world.environments.set("web", A="1", B="1")
    await world.run(bound())
    world.store.remove("A")
    world.store.fail("get", StoreUnavailable("not now"))

    with pytest.raises(StoreUnavailable):
        await world.run(bound())

    assert world.environments.values("web") == {"A": "1", "B": "1"}


async def test_the_brake_stops_a_mass_deletion_until_somebody_allows_it() -> None:
    world = World()
    world.environments.set("web", **{f"K{number}": "1" for number in range(30)})
    await world.run(bound())
    for number in range(10):
        world.store.remove(f"K{number}")
    world.environments.set("web", K29="2")

    braked = await world.run(bound())
    too_few = await world.run(bound(), Leave(deletes=9))
    left = len(world.environments.values("web"))
    allowed = await world.run(bound(), Leave(deletes=10))

    assert braked.held[0].reason == "BRAKE"
    assert "--allow-deletes 10" in braked.held[0].hint
    assert world.store.values()["K29"] == "2"
    assert too_few.held
    assert left == 30
    assert len(world.environments.values("web")) == 20
    assert all(each.result == "applied" for each in allowed.operations)


# -- directions ---------------------------------------------------------------------------


async def test_a_push_mends_what_others_did_in_the_store_and_keeps_it_on_record() -> None:
    world = World()
    binding = bound(direction="push")
    world.environments.set("web", A="1", B="1")
    await world.run(binding)

    world.store.edit("A", "drifted")
    world.store.remove("B")
    await world.run(binding)

    assert world.store.values() == {"A": "1", "B": "1"}
    assert world.environments.lost("web") == [("A", "drifted")]


async def test_a_pull_writes_nothing_to_the_store() -> None:
    world = World()
    binding = bound(direction="pull")
    world.store.edit("A", "1")
    await world.run(binding)
    world.environments.set("web", A="mine", B="mine")

    view = await world.run(binding)

    assert {each.action for each in view.operations} == {"skip"}
    assert world.store.calls.writes == 0


async def test_a_pull_whose_store_is_right_takes_back_what_was_changed_here() -> None:
    world = World(capabilities=READS)
    binding = bound(direction="pull", conflict_policy="store")
    world.store.edit("A", "1")
    await world.run(binding)
    world.environments.set("web", A="mine")

    await world.run(binding)

    assert world.environments.values("web") == {"A": "1"}
    assert world.environments.lost("web") == [("A", "mine")]


# -- crashes and lost answers -------------------------------------------------------------


async def test_a_write_whose_answer_was_lost_is_known_again() -> None:
    world = World(capabilities=PLAIN)
    world.environments.set("web", A="1")
    world.store.fail("put", StoreUnavailable("no answer"), done=True)

    first = await world.run(bound())
    world.environments.set("web", A="2")
    second = await world.run(bound())
    await world.run(bound())

    assert done(first) == [("create", "A", "failed")]
    assert not world.environments.on_record
    assert world.store.values() == {"A": "2"}
    assert all(each.action != "conflict" for each in second.operations)


async def test_an_update_whose_answer_was_lost_is_no_edit_of_others() -> None:
    world = World(capabilities=PLAIN)
    world.environments.set("web", A="1")
    await world.run(bound())
    world.environments.set("web", A="2")
    world.store.fail("put", StoreUnavailable("no answer"), done=True)
    await world.run(bound())

    world.environments.set("web", A="3")
    await world.run(bound())
    await world.run(bound())

    assert not world.environments.on_record
    assert world.environments.values("web") == {"A": "3"}
    assert world.store.values() == {"A": "3"}


async def test_a_variable_deleted_after_a_lost_answer_is_deleted_in_the_store_too() -> None:
    world = World(capabilities=PLAIN)
    world.environments.set("web", A="1", B="1")
    world.store.fail("put", StoreUnavailable("no answer"), done=True)
    await world.run(bound())

    world.environments.unset("web", "A")
    await world.run(bound())
    await world.run(bound())

    assert world.environments.values("web") == {"B": "1"}
    assert world.store.values() == {"B": "1"}


async def test_a_write_that_came_in_between_unseen_goes_on_record() -> None:
    world = World(capabilities=PLAIN)
    world.environments.set("web", A="1")
    await world.run(bound())
    world.environments.set("web", A="2")
    world.store.meanwhile("A", "in between")

    await world.run(bound())

    assert world.store.values() == {"A": "2"}
    assert world.environments.lost("web") == [("A", "in between")]


async def test_a_change_here_while_a_plan_is_done_is_not_overwritten() -> None:
    world = World()
    world.environments.set("web", B="1")
    world.store.edit("A", "1")
    made, pictured, place = await world.plan(bound())
    world.environments.set("web", A="mine")

    from envd.sync import applying

    views = await applying.apply(
        made, pictured, place, world.looking, Leave(), world.clock.wall_ms()
    )

    assert [(each.variable, each.result) for each in views] == [
        ("A", "conflict"),
        ("B", "applied"),
    ]
    assert world.environments.values("web")["A"] == "mine"


# -- documents ----------------------------------------------------------------------------


async def test_a_document_is_merged_variable_by_variable() -> None:
    world = World(capabilities=CAPABILITIES & ~Capability.LIST_VALUES)
    binding = bound(layout="document")
    world.environments.set("web", A="1", B="1")
    await world.run(binding)
    (native,) = world.store.names()

    world.environments.set("web", A="2")
    world.store.edit(native, '{"A":"1","B":"2","THEIRS":"1"}')
    await world.run(binding)

    wanted = {"A": "2", "B": "2", "THEIRS": "1"}
    assert world.environments.values("web") == wanted
    assert world.store.values()[native] == '{"A":"2","B":"2","THEIRS":"1"}'


async def test_a_document_that_did_not_change_is_not_read_again() -> None:
    world = World(capabilities=CAPABILITIES & ~Capability.LIST_VALUES)
    binding = bound(layout="document")
    world.environments.set("web", A="1")
    await world.run(binding)
    await world.run(binding)
    before = world.store.calls.gets

    await world.run(binding)

    assert world.store.calls.gets == before


async def test_what_others_wrote_in_between_into_a_document_stays() -> None:
    world = World(capabilities=PLAIN)
    binding = bound(layout="document")
    world.environments.set("web", A="1", B="1")
    await world.run(binding)
    (native,) = world.store.names()
    world.environments.set("web", A="2")
    world.store.meanwhile(native, '{"A":"1","B":"1","THEIRS":"1"}')

    await world.run(binding)
    await world.run(binding)

    assert world.environments.values("web") == {"A": "2", "B": "1", "THEIRS": "1"}
    assert world.store.values()[native] == '{"A":"2","B":"1","THEIRS":"1"}'


async def test_who_writes_twice_into_a_document_in_the_very_moment_is_told_of() -> None:
    world = World(capabilities=PLAIN)
    binding = bound(layout="document")
    world.environments.set("web", A="1", B="1")
    await world.run(binding)
    (native,) = world.store.names()
    world.environments.set("web", A="2")
    world.store.meanwhile(native, '{"A":"1","B":"1","THEIRS":"1"}')
    world.store.meanwhile(native, '{"A":"2","B":"1","THEIRS":"2"}')

    view = await world.run(binding)

    assert world.store.values()[native] == '{"A":"2","B":"1","THEIRS":"1"}'
    (operation,) = view.operations
    assert "can't be read any more" in operation.detail


async def test_what_is_gone_from_a_document_and_kept_here_is_told_each_time() -> None:
    world = World(capabilities=CAPABILITIES & ~Capability.LIST_VALUES)
    binding = bound(layout="document")
    native = world.place(binding).name(_key())
    world.store.edit(native, '{"A":"1","B":"1"}')
    world.environments.set("web", A="1", B="1")
    await world.run(binding)

    world.store.edit(native, '{"B":"1"}')
    views = [await world.run(binding) for _ in range(3)]

    assert [done(view) for view in views] == [[("skip", "A", "")]] * 3
    assert world.environments.values("web") == {"A": "1", "B": "1"}


def _key() -> Any:
    from envd.backends.contract import Key

    return Key("", "A")


# -- prefixes -----------------------------------------------------------------------------


async def test_a_prefix_ties_all_environments_below_it() -> None:
    world = World()
    binding = bound(environment=None, prefix="shop")
    world.environments.set("shop", A="1")
    world.environments.set("shop/prod/eu", B="1")
    world.environments.set("shopping", C="1")
    await world.run(binding)
    native = next(name for name in world.store.names() if name.endswith("B"))

    world.store.edit(native.replace("prod/eu", "test"), "2")
    await world.run(binding)

    assert len(world.store.names()) == 3
    assert world.environments.values("shop/test") == {"B": "2"}


async def test_what_no_environment_can_be_called_is_told_and_left_alone() -> None:
    world = World()
    binding = bound(environment=None, prefix="shop")
    world.environments.set("shop/prod", A="1")
    await world.run(binding)
    (native,) = world.store.names()
    odd = native.replace("prod", "sys_$!")
    if world.place(binding).name(_key()):
        world.store.edit(odd, "1")

    view = await world.run(binding)

    assert not [each for each in view.operations if each.action != "skip"]
    assert world.store.values()[odd] == "1"


# -- random edits ---------------------------------------------------------------------------


class WithoutStamps(TwoSides):
    capabilities = PLAIN


class WithoutValues(TwoSides):
    capabilities = READS


class InDocuments(TwoSides):
    """All variables lie in one item, which others edit as a whole."""

    capabilities = CAPABILITIES & ~Capability.LIST_VALUES
    layout = "document"

    @property
    def native(self) -> str:
        return self.world.place(self.binding).name(_key())

    def there(self) -> dict[str, str]:
        text = self.world.store.values().get(self.native, "{}")
        found: dict[str, str] = json.loads(text)
        return found

    def edit(self, name: str, value: str) -> None:
        self.world.store.edit(self.native, json.dumps({**self.there(), name: value}))

    def remove(self, name: str) -> None:
        left = {key: value for key, value in self.there().items() if key != name}
        self.world.store.edit(self.native, json.dumps(left))


class InDocumentsWithoutStamps(InDocuments):
    capabilities = PLAIN


class FileWorld(World):
    """A world whose store is a file."""

    def __init__(self, file: Path, clock: StillClock) -> None:
        super().__init__(clock=clock)
        self.file = file

    def place(self, binding: BindingView) -> Place:
        options = Options(str(self.file), wall_ms=self.clock.wall_ms, fingerprint=fingerprint)
        return place_of(binding, FileBackend(options), fingerprint)


class InAFile(TwoSides):
    """The store is a file that people edit; nothing of it fails but as a file does."""

    def make_world(self, clock: StillClock) -> World:
        self.directory = TemporaryDirectory()
        self.file = Path(self.directory.name) / "web.env"
        self.file.write_text("# by hand\n")
        return FileWorld(self.file, clock)

    def teardown(self) -> None:
        super().teardown()
        assert self.file.read_text().startswith("# by hand\n")
        self.directory.cleanup()

    def there(self) -> dict[str, str]:
        lines = self.file.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def edit(self, name: str, value: str) -> None:
        self.remove(name)
        self.file.write_text(f"{self.file.read_text()}{name}={value}\n")

    def remove(self, name: str) -> None:
        lines = self.file.read_text().splitlines(keepends=True)
        self.file.write_text("".join(line for line in lines if not line.startswith(f"{name}=")))

    def writes(self) -> int:
        return self.file.stat().st_mtime_ns


ROUNDS = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestWithStamps = TwoSides.TestCase
TestWithStamps.settings = ROUNDS
TestWithoutStamps = WithoutStamps.TestCase
TestWithoutStamps.settings = ROUNDS
TestWithoutValues = WithoutValues.TestCase
TestWithoutValues.settings = ROUNDS
TestInDocuments = InDocuments.TestCase
TestInDocuments.settings = ROUNDS
TestInDocumentsWithoutStamps = InDocumentsWithoutStamps.TestCase
TestInDocumentsWithoutStamps.settings = ROUNDS
TestInAFile = InAFile.TestCase
TestInAFile.settings = settings(ROUNDS, max_examples=20)
