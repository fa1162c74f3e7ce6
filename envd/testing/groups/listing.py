"""Group 4, listing: a scan finds everything, or says that it did not.

Deletes are inferred from what a complete scan lacks, so one that says complete and is not costs
people their secrets. Pages may be short or empty, and more may come after them.
"""

from __future__ import annotations

from envd.backends.contract import Capability, Key, Page, Scope
from envd.backends.errors import BackendError
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Ability, Need
from envd.testing.trial import Trial, case, scanned

_MANY = 250
_NO_CURSOR = "a cursor that the store has forgotten"


class ListingCases:
    """Listing."""

    @case()
    async def test_an_empty_place_is_a_complete_scan_of_nothing(self, trial: Trial) -> None:
        await _lists(trial, 0)

    @case()
    async def test_one_item_is_listed(self, trial: Trial) -> None:
        await _lists(trial, 1)

    @case(Need.PAGES, Need.MANY)
    async def test_just_one_full_page_is_listed(self, trial: Trial) -> None:
        await _lists(trial, trial.backend.limits.page_items)

    @case(Need.PAGES, Need.MANY)
    async def test_one_more_than_a_page_is_listed(self, trial: Trial) -> None:
        await _lists(trial, trial.backend.limits.page_items + 1)

    @case(Need.MANY)
    async def test_two_hundred_and_fifty_items_are_listed(self, trial: Trial) -> None:
        await _lists(trial, _MANY)

    @case(Need.PAGES, Need.MANY)
    async def test_only_the_last_page_is_complete(self, trial: Trial) -> None:
        await _fill(trial, trial.backend.limits.page_items * 2 + 1)

        found = await trial.scan()

        assert len(found.pages) >= 3
        assert [page.complete for page in found.pages[:-1]] == [False] * (len(found.pages) - 1)
        assert found.complete
        assert all(len(page.items) <= trial.backend.limits.page_items for page in found.pages)

    @case(Kind.EMPTY_PAGE, Need.PAGES, Need.MANY)
    async def test_empty_pages_are_not_the_end(self, trial: Trial) -> None:
        count = await _fill(trial, trial.backend.limits.page_items + 1)
        await trial.inject(Fault(Kind.EMPTY_PAGE, Call.SCAN, times=2))

        found = await trial.scan()

        assert any(not page.items for page in found.pages[:-1]), "no page was empty"
        assert found.complete
        assert len(found.items) == count

    @case(Ability.CURSORS, Need.PAGES, Need.MANY)
    async def test_a_scan_goes_on_after_a_cursor(self, trial: Trial) -> None:
        count = await _fill(trial, trial.backend.limits.page_items * 2 + 1)
        first = await _first_page(trial)

        rest = await trial.scan(cursor=first.cursor)

        assert first.cursor, "a page that is not the last has no cursor"
        assert len(scanned([first, *rest.pages]).items) == count
        assert not rest.doubles

    @case(Ability.CURSORS, Need.PAGES, Need.MANY)
    async def test_a_cursor_that_has_expired_is_never_a_short_scan(self, trial: Trial) -> None:
        count = await _fill(trial, trial.backend.limits.page_items + 1)

        try:
            found = await trial.scan(cursor=_NO_CURSOR)
        except BackendError:
            return

        is_whole = len(found.items) == count
        assert is_whole or not found.complete, "a scan from nowhere calls itself complete"

    @case(Ability.BELOW, below=True)
    async def test_environments_with_similar_names_are_apart(self, trial: Trial) -> None:
        await trial.fill({key: key.environment for key in _siblings(trial)})

        alone = await trial.scan(Scope("app"))
        below = await trial.scan(Scope("app", below=True))

        assert {key.environment for key in alone.items} == {"app"}
        assert {key.environment for key in below.items} == {"app", "app/web", "app/web/eu"}
        assert alone.complete
        assert below.complete

    @case(Ability.BELOW, below=True)
    async def test_a_scan_of_everything_has_all_environments(self, trial: Trial) -> None:
        await trial.fill({key: key.environment for key in _siblings(trial)})

        found = await trial.scan(Scope("", below=True))

        assert found.items.keys() == set(_siblings(trial))

    @case(Ability.BELOW, below=True)
    async def test_a_scan_of_the_bound_environment_has_nothing_below_it(self, trial: Trial) -> None:
        await trial.fill({key: key.environment for key in _siblings(trial)})

        found = await trial.scan(Scope(""))

        assert {key.environment for key in found.items} <= {""}
        assert found.complete

    @case(Ability.BELOW, below=True)
    async def test_an_environment_that_is_not_there_is_a_complete_scan_of_nothing(
        self, trial: Trial
    ) -> None:
        await trial.fill({key: key.environment for key in _siblings(trial)})

        found = await trial.scan(Scope("ap"))

        assert found.items == {}
        assert found.complete

    @case(Need.PAGES, Need.MANY)
    async def test_what_is_untouched_is_found_though_others_change_during_the_scan(
        self, trial: Trial
    ) -> None:
        count = await _fill(trial, trial.backend.limits.page_items * 2)
        edited, deleted, *untouched = trial.keys(count)
        pages: list[Page] = []

        async for page in trial.backend.scan(trial.scope):
            pages.append(page)
            if len(pages) == 1:
                await trial.put(edited, "edited meanwhile")
                gone = await trial.item(deleted)
                assert gone is not None
                await trial.one(trial.delete_op(deleted, gone.version))
                await trial.put(trial.key(count), "created meanwhile")

        found = scanned(pages)
        assert set(untouched) <= found.items.keys()
        assert found.items.keys() <= set(trial.keys(count + 1))

    @case(Capability.LIST_VALUES, Need.MANY)
    async def test_a_scan_brings_the_values(self, trial: Trial) -> None:
        count = await _fill(trial, 3)

        found = await trial.scan()

        assert [trial.text(found.items[key]) for key in trial.keys(count)] == ["0", "1", "2"]

    @case(Need.MANY)
    async def test_a_scan_and_a_read_by_name_tell_the_same(self, trial: Trial) -> None:
        await _fill(trial, 3)

        listed = (await trial.scan()).items

        for key, item in listed.items():
            read = await trial.item(key)
            assert read is not None
            assert (item.native, item.version) == (read.native, read.version)
            assert item.native == trial.backend.encode(key)
            assert item.value is None or item.value == read.value

    @case(Need.MANY)
    async def test_a_read_by_name_answers_for_each_key(self, trial: Trial) -> None:
        await trial.put(trial.key(0), "there")
        size = trial.backend.limits.get_batch or 3
        keys = trial.keys(min(3, size))

        found = await trial.backend.get_many(keys)

        assert found.keys() == set(keys)
        absent = [isinstance(found[key], BackendError) for key in keys]
        assert absent == [False, True, True][: len(keys)]


def _siblings(trial: Trial) -> list[Key]:
    """Keys of environments whose names begin alike."""
    variable = "" if trial.is_document else "NAME_1"
    names = ("app", "app2", "app-web", "app/web", "app/web/eu", "apple/web", "web/app")
    return [Key(name, variable) for name in names]


async def _fill(trial: Trial, count: int) -> int:
    """Create so many items, or as many as the store takes; how many there are now."""
    most = trial.backend.limits.max_items
    count = min(count, most) if most else count
    await trial.fill({key: str(number) for number, key in enumerate(trial.keys(count))})
    return count


async def _lists(trial: Trial, count: int) -> None:
    count = await _fill(trial, count)

    found = await trial.scan()

    assert found.complete, "the last page does not say that it was"
    assert found.items.keys() == set(trial.keys(count))
    assert not found.doubles


async def _first_page(trial: Trial) -> Page:
    """The first page with items of a scan that is not gone on with."""
    pages = trial.backend.scan(trial.scope)
    page = await anext(pages)
    while not page.items:
        page = await anext(pages)
    close = getattr(pages, "aclose", None)
    if close is not None:
        await close()
    return page
