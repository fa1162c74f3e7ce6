"""The store in memory behaves as stores of each kind do."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.backends.contract import Backend, Capability, Hint, Key, Limits, Load, Op, Options, Scope
from envd.backends.errors import (
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NameCollision,
    NotOwned,
    QuotaExceeded,
    SoftDeleted,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
    ValueTooLarge,
)
from envd.backends.memory import CAPABILITIES, LIMITS, Manners, MemoryBackend, registration
from envd.backends.memory_store import MemoryPlaces, MemoryStore
from tests.backends.driving import (
    EVERYTHING,
    delete,
    do,
    items,
    key,
    one,
    pages,
    put,
    results,
    values,
)

POLITE = Capability.LIST_VALUES


def backend(
    capabilities: Capability = CAPABILITIES,
    *,
    store: MemoryStore | None = None,
    limits: Limits = LIMITS,
    manners: Manners | None = None,
) -> MemoryBackend:
    return MemoryBackend(
        Options("here", below=True, wall_ms=lambda: 7),
        store=store,
        capabilities=capabilities,
        limits=limits,
        manners=manners,
    )


def test_it_is_a_backend() -> None:
    assert isinstance(backend(), Backend)


async def test_what_was_put_is_there_with_its_stamp() -> None:
    memory = backend()

    outcome = await one(memory, put("A", "1", environment="web/prod", stamp="s1"))

    found = (await items(memory))[key("A", "web/prod")]
    assert outcome.result.value == "applied"
    assert (found.native, found.version) == ("web/prod/A", outcome.version)
    assert (found.value, found.stamp, found.managed, found.secret) == ("1", "s1", True, True)
    assert found.changed_ms == 7


async def test_an_equal_value_is_not_written_again() -> None:
    memory = backend()
    first = await one(memory, put("A", "1", stamp="s1"))

    again = await one(memory, put("A", "1", expect=first.version, stamp="s2"), "another")

    assert (again.result.value, again.version) == ("noop", first.version)
    assert memory.store.calls.writes == 1


@pytest.mark.parametrize("capabilities", [CAPABILITIES, POLITE, POLITE | Capability.POSTCHECK])
async def test_a_stale_version_is_refused(capabilities: Capability) -> None:
    memory = backend(capabilities)
    first = await one(memory, put("A", "1"))
    memory.store.edit("A", "theirs")

    outcome = await one(memory, put("A", "2", expect=first.version), "another")

    assert outcome.result.value == "conflict"
    assert isinstance(outcome.error, StaleVersion)
    assert memory.store.values() == {"A": "theirs"}


async def test_a_name_that_is_taken_is_not_created() -> None:
    memory = backend()
    version = memory.store.edit("A", "theirs")

    outcome = await one(memory, put("A", "mine"))

    assert (outcome.result.value, outcome.version) == ("conflict", version)


async def test_of_writers_at_once_one_wins_by_compare_and_set() -> None:
    memory = backend()
    first = await one(memory, put("A", "0"))

    outcomes = await asyncio.gather(
        *(one(memory, put("A", f"{n}", expect=first.version), f"{n}") for n in range(1, 17))
    )

    assert sorted(results(outcomes)) == ["applied"] + ["conflict"] * 15


async def test_without_compare_and_set_a_write_in_between_is_overwritten_and_told() -> None:
    memory = backend(POLITE | Capability.POSTCHECK)
    first = await one(memory, put("A", "0"))
    memory.store.meanwhile("A", "theirs")

    outcome = await one(memory, put("A", "mine", expect=first.version), "another")

    assert outcome.result.value == "applied"
    assert outcome.overtaken
    assert outcome.between is not None
    assert outcome.between.value == "theirs"


async def test_a_store_that_looks_at_nothing_overwrites_unseen() -> None:
    memory = backend(POLITE, manners=Manners(looks_first=False, knows_owner=False))
    memory.store.edit("A", "theirs")

    outcome = await one(memory, put("A", "mine"))

    assert (outcome.result.value, outcome.overtaken) == ("applied", False)


@pytest.mark.parametrize(
    ("capabilities", "before", "after"),
    [
        (Capability.STAMP_ATOMIC, "s1", ""),
        (Capability.STAMP_SIDE, "s1", "s1"),
        (Capability(0), "", ""),
    ],
)
async def test_an_edit_by_others_has_the_stamp_that_such_a_store_keeps(
    capabilities: Capability, before: str, after: str
) -> None:
    memory = backend(Capability.CAS | Capability.LIST_VALUES | capabilities)
    await do(memory, put("A", "1", stamp="s1"))
    was = (await items(memory))[key("A")]

    memory.store.edit("A", "2")

    found = (await items(memory))[key("A")]
    assert (was.stamp, found.stamp) == (before, after)
    assert found.managed


async def test_what_others_made_is_not_deleted_and_not_overwritten() -> None:
    memory = backend()
    version = memory.store.edit("A", "theirs")

    outcomes = await do(memory, delete("A", expect=version), put("A", "mine", expect=version))

    assert results(outcomes) == ["rejected", "rejected"]
    assert all(isinstance(each.error, NotOwned) for each in outcomes)
    assert memory.store.calls.writes == 0


async def test_it_is_taken_over_where_the_operation_says_so() -> None:
    memory = backend()
    version = memory.store.edit("A", "theirs")

    outcome = await one(memory, put("A", "mine", expect=version, any_owner=True))

    assert outcome.result.value == "applied"
    assert (await items(memory))[key("A")].managed


async def test_what_is_not_there_is_deleted_already() -> None:
    outcome = await one(backend(), delete("A", expect="9"))

    assert outcome.result.value == "noop"


async def test_a_softly_deleted_item_holds_its_name_and_is_brought_back() -> None:
    memory = backend(CAPABILITIES | Capability.SOFT_DELETE)
    first = await one(memory, put("A", "1"))
    await do(memory, delete("A", expect=first.version))
    held = (await items(memory))[key("A")]
    read = await memory.get_many([key("A")])

    outcome = await one(memory, put("A", "2"), "another")

    assert (held.deleted, held.value) == (True, None)
    assert isinstance(read[key("A")], SoftDeleted)
    assert outcome.result.value == "applied"
    assert memory.store.calls.recoveries == 1
    assert await values(memory) == {key("A"): "2"}


async def test_a_batch_is_done_whole_or_not_at_all() -> None:
    memory = backend(CAPABILITIES | Capability.ATOMIC_BATCH)
    memory.store.edit("C", "theirs")
    ops = [put("A", "1"), put("B", "2"), put("C", "3")]

    refused = await do(memory, *ops)
    memory.store.remove("C")
    done = await do(memory, *ops)

    assert results(refused) == ["failed", "failed", "conflict"]
    assert results(done) == ["applied", "applied", "applied"]
    assert len({each.version for each in done}) == 3


async def test_a_batch_that_is_not_atomic_does_what_can_be_done() -> None:
    memory = backend()
    memory.store.edit("B", "theirs")

    outcomes = await do(memory, put("A", "1"), put("B", "2"), put("C", "3"))

    assert results(outcomes) == ["applied", "conflict", "applied"]


async def test_a_repeat_is_answered_as_the_first() -> None:
    memory = backend()
    memory.store.fail("put", StoreUnavailable("the answer was lost"), done=True)
    lost = await one(memory, put("A", "1", stamp="s"))
    memory.store.edit("A", "theirs")

    repeated = await one(memory, put("A", "1", stamp="s"))

    assert lost.result.value == "failed"
    assert (repeated.result.value, repeated.version) == ("applied", "1")
    assert memory.store.values() == {"A": "theirs"}


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (Forbidden("no"), "rejected"),
        (StoreUnavailable("away"), "failed"),
        (StaleVersion("late"), "conflict"),
    ],
)
async def test_a_write_ends_as_the_store_says(error: BackendError, result: str) -> None:
    memory = backend()
    memory.store.fail("put", error)

    outcomes = await do(memory, put("A", "1"), put("B", "2"))

    assert results(outcomes) == [result, "applied"]
    assert memory.store.values() == {"B": "2"}


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25])
@pytest.mark.parametrize("empty_pages", [False, True])
async def test_pages_bring_everything_and_the_last_says_so(count: int, empty_pages: bool) -> None:
    memory = backend(limits=Limits(page_items=10), manners=Manners(empty_pages=empty_pages))
    for n in range(count):
        memory.store.edit(f"A{n:02}", "x")

    found = await pages(memory)

    assert sum(len(page.items) for page in found) == count
    assert [page.complete for page in found] == [False] * (len(found) - 1) + [True]
    assert memory.store.calls.pages == len(found)


async def test_a_scan_that_is_continued_did_not_see_everything() -> None:
    memory = backend(limits=Limits(page_items=2))
    for name in "ABC":
        memory.store.edit(name, "x")
    first, _ = await pages(memory)

    rest = await pages(memory, cursor=first.cursor)

    assert [item.key.variable for page in rest for item in page.items] == ["C"]
    assert [page.complete for page in rest] == [False]


async def test_a_scan_that_breaks_raises_in_the_middle() -> None:
    memory = backend(limits=Limits(page_items=1))
    memory.store.edit("A", "x")
    memory.store.edit("B", "x")
    scan = memory.scan(EVERYTHING)
    first = await anext(scan)
    memory.store.fail("page", StoreUnavailable("reset"))

    with pytest.raises(StoreUnavailable):
        await anext(scan)

    assert not first.complete


async def test_a_scope_holds_whole_segments() -> None:
    memory = backend()
    for name in ("A", "web/A", "web/prod/A", "web2/A"):
        memory.store.edit(name, "x")

    alone = await values(memory, Scope("web"))
    below = await values(memory, Scope("web", below=True))

    assert set(alone) == {key("A", "web")}
    assert set(below) == {key("A", "web"), key("A", "web/prod")}


async def test_a_store_that_lists_no_values_gives_them_by_name() -> None:
    memory = backend(Capability.CAS)
    memory.store.edit("A", "x")

    listed = (await items(memory))[key("A")]
    read = await memory.get_many([key("A"), key("B")])

    assert listed.value is None
    assert not isinstance(read[key("A")], BackendError)
    assert isinstance(read[key("B")], ItemNotFound)


async def test_a_store_that_is_only_written_shows_no_value() -> None:
    memory = backend(CAPABILITIES | Capability.WRITE_ONLY)
    memory.store.edit("A", "x")

    read = (await memory.get_many([key("A")]))[key("A")]

    assert not isinstance(read, BackendError)
    assert read.value is None


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        (put("A", ""), InvalidValue),
        (put("A", "é" * 5), ValueTooLarge),
        (put("A", "\ud800"), InvalidValue),
        (put("A", "x", stamp="é"), InvalidValue),
        (put("A", "x", stamp="s" * 65), InvalidValue),
        (put("A" * 20, "x"), InvalidName),
        (put("lower", "x"), InvalidName),
        (put("1", "x"), InvalidName),
    ],
)
async def test_what_can_not_be_is_refused_before_any_call(op: Op, kind: type[BackendError]) -> None:
    limits = Limits(max_value_bytes=9, min_value_bytes=1, max_name_bytes=19, batch=5)
    memory = backend(limits=limits, manners=Manners(name_pattern="[A-Z]+"))

    outcome = await one(memory, op)

    assert outcome.result.value == "rejected"
    assert type(outcome.error) is kind
    assert memory.store.calls.writes == 0


async def test_names_that_differ_in_case_only_collide_where_case_does_not_count() -> None:
    memory = backend(manners=Manners(folds_case=True))

    together = memory.check([put("FOO", "1"), put("foo", "2")])
    await do(memory, put("FOO", "1"))
    later = await one(memory, put("foo", "2"))

    assert [type(each.error) for each in together] == [NameCollision]
    assert isinstance(later.error, NameCollision)
    assert memory.store.values() == {"FOO": "1"}


async def test_a_full_store_takes_no_new_item() -> None:
    memory = backend(limits=Limits(max_items=1, batch=2))

    outcomes = await do(memory, put("A", "1"), put("B", "2"))

    assert results(outcomes) == ["applied", "rejected"]
    assert isinstance(outcomes[1].error, QuotaExceeded)


async def test_a_batch_that_is_too_long_is_refused_whole() -> None:
    memory = backend(limits=Limits(batch=1, get_batch=1))

    outcomes = await do(memory, put("A", "1"), put("B", "2"))

    assert results(outcomes) == ["rejected", "rejected"]
    with pytest.raises(StoreUnsupported):
        await memory.get_many([key("A"), key("B")])


async def test_a_watch_tells_of_changes_and_is_resumed() -> None:
    memory = backend()
    memory.store.edit("A", "1")
    async with aclosing(memory.watch(EVERYTHING, "0")) as watch:  # type: ignore[type-var]
        first = await anext(watch)
        memory.store.edit("web/B", "1")
        second = await anext(watch)

    async with aclosing(memory.watch(EVERYTHING, first.cursor)) as watch:  # type: ignore[type-var]
        again = await anext(watch)

    assert (first.key, second.key) == (key("A"), key("B", "web"))
    assert again == second


async def test_a_watch_that_missed_too_much_says_that_anything_may_have_changed() -> None:
    memory = backend()

    async with aclosing(memory.watch(EVERYTHING, "99")) as watch:  # type: ignore[type-var]
        hint = await anext(watch)

    assert hint == Hint(None, cursor="0")


async def test_a_watch_without_deletions_passes_over_them() -> None:
    memory = backend(CAPABILITIES | Capability.WATCH_NO_DELETES)
    memory.store.edit("A", "1")
    memory.store.remove("A")
    memory.store.edit("B", "1")

    async with aclosing(memory.watch(EVERYTHING, "0")) as watch:  # type: ignore[type-var]
        keys = [(await anext(watch)).key, (await anext(watch)).key]

    assert keys == [key("A"), key("B")]


async def test_a_store_that_tells_of_nothing_can_not_be_watched() -> None:
    with pytest.raises(StoreUnsupported):
        await anext(backend(POLITE).watch(EVERYTHING, None))


@pytest.mark.parametrize(
    ("capabilities", "reads", "writes"),
    [
        (CAPABILITIES, 30, 5),
        (Capability.CAS | Capability.STAMP_SIDE, 30, 10),
    ],
)
def test_the_cost_is_that_of_the_calls(capabilities: Capability, reads: int, writes: int) -> None:
    memory = backend(capabilities, limits=Limits(page_items=10, get_batch=1))

    cost = memory.cost(Load(items=25, scans=10, changed=5))

    assert (cost.reads, cost.writes, cost.dollars) == (reads, writes, 0.0)


async def test_a_probe_says_what_is_wrong() -> None:
    memory = backend()
    memory.store.fail("probe", Forbidden("no right", hint="get one"))

    bad, good = await memory.probe(), await memory.probe()

    assert (bad.ok, bad.detail, bad.hint) == (False, "no right", "get one")
    assert good.ok


def test_a_store_of_whole_documents_takes_no_single_variables() -> None:
    with pytest.raises(StoreUnsupported):
        backend(CAPABILITIES | Capability.WHOLE_DOCUMENT)


async def test_a_document_is_one_item_an_environment() -> None:
    memory = MemoryBackend(
        Options("here", layout="document", below=True),
        capabilities=CAPABILITIES | Capability.WHOLE_DOCUMENT,
    )

    await do(memory, put("", '{"A": "1"}', environment="web/prod"))

    assert memory.store.values() == {"web/prod": '{"A": "1"}'}
    assert await values(memory) == {Key("web/prod", ""): '{"A": "1"}'}


async def test_history_has_the_versions_of_all_who_wrote() -> None:
    memory = backend()
    first = await one(memory, put("A", "1"))
    second = memory.store.edit("A", "2")

    history = memory.store.history("A")

    assert [(each.version, each.by_envd) for each in history] == [
        (first.version, True),
        (second, False),
    ]


def test_no_value_is_shown() -> None:
    memory = backend()
    memory.store.edit("A", "HIDDEN")

    assert "HIDDEN" not in repr(memory.store.look("A"))
    assert "HIDDEN" not in repr(put("A", "HIDDEN"))


def test_places_of_equal_names_are_one_store_within_a_registration() -> None:
    mine, other = registration(), registration()
    places = MemoryPlaces()

    first, second = mine.make(Options("a")), mine.make(Options("a"))
    apart = other.make(Options("a"))
    given_ = mine.make(Options("a", settings={"places": places}))

    assert isinstance(first, MemoryBackend)
    assert isinstance(second, MemoryBackend)
    assert isinstance(apart, MemoryBackend)
    assert isinstance(given_, MemoryBackend)
    assert first.store is second.store
    assert first.store is not apart.store
    assert given_.store is places.store("a")


@given(
    written=st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        max_size=8,
    )
)
async def test_a_scan_gives_back_what_was_put(written: dict[str, str]) -> None:
    memory = backend(limits=Limits(page_items=3, batch=0))

    await do(memory, *(put(name, value) for name, value in written.items()))

    assert await values(memory) == {key(name): value for name, value in written.items()}
