"""Group 13, cost: the calls that a backend predicts are the calls that it makes.

What is counted is a month in small: scans of everything, items changed one at a time as people
change them, items read by name as many at once as fit. Money follows from calls.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable

from envd.backends.contract import Cost, Load, Result
from envd.testing.harness import Ability, Calls, Need
from envd.testing.trial import Trial, calls_between, case

_NO_LATER_THAN = dt.date(2100, 1, 1)


class CostCases:
    """Cost."""

    @case(Ability.COUNTS)
    async def test_scans_of_an_empty_place_take_the_predicted_calls(self, trial: Trial) -> None:
        await _scans_take(trial, 0)

    @case(Ability.COUNTS)
    async def test_scans_of_one_item_take_the_predicted_calls(self, trial: Trial) -> None:
        await _scans_take(trial, 1)

    @case(Ability.COUNTS, Need.PAGES, Need.MANY)
    async def test_scans_of_a_full_page_take_the_predicted_calls(self, trial: Trial) -> None:
        await _scans_take(trial, trial.backend.limits.page_items)

    @case(Ability.COUNTS, Need.PAGES, Need.MANY)
    async def test_scans_of_more_than_a_page_take_the_predicted_calls(self, trial: Trial) -> None:
        await _scans_take(trial, trial.backend.limits.page_items * 2 + 1)

    @case(Ability.COUNTS)
    async def test_changes_take_the_predicted_calls(self, trial: Trial) -> None:
        item = await trial.put(trial.key(), "before")
        versions = [item.version]

        async def change() -> None:
            for number in range(3):
                op = trial.put_op(trial.key(), f"change {number}", expect=versions[-1])
                outcome = await trial.one(op)
                assert outcome.result is Result.APPLIED
                versions.append(outcome.version)

        counted = await _count(trial, change())

        assert _calls(trial.backend.cost(Load(items=1, bytes=100, changed=3))) == counted

    @case(Ability.COUNTS, Need.MANY)
    async def test_reads_by_name_take_the_predicted_calls(self, trial: Trial) -> None:
        size = trial.backend.limits.get_batch or 5
        keys = trial.keys(min(size, 5))
        await trial.fill(dict.fromkeys(keys, "read"))

        counted = await _count(trial, trial.backend.get_many(keys))

        assert _calls(trial.backend.cost(Load(items=len(keys), read=len(keys)))) == counted

    @case(Ability.COUNTS)
    async def test_an_idle_place_takes_no_call_that_writes(self, trial: Trial) -> None:
        await trial.put(trial.key(), "idle")

        counted = await _count(trial, trial.scan())

        assert counted.writes == 0
        assert trial.backend.cost(Load(items=1, scans=43_200)).writes == 0

    @case()
    async def test_nothing_asked_takes_no_calls(self, trial: Trial) -> None:
        cost = trial.backend.cost(Load(items=10, bytes=1000))

        assert _calls(cost) == Calls(0, 0)

    @case()
    async def test_more_is_never_cheaper(self, trial: Trial) -> None:
        loads = [
            Load(items=10, bytes=1000, scans=100, changed=10, read=10),
            Load(items=100, bytes=10_000, scans=100, changed=10, read=10),
            Load(items=100, bytes=10_000, scans=43_200, changed=10, read=10),
            Load(items=100, bytes=10_000, scans=43_200, changed=100_000, read=10),
            Load(items=100, bytes=10_000, scans=43_200, changed=100_000, read=100_000),
        ]

        costs = [trial.backend.cost(load) for load in loads]

        assert [each.dollars for each in costs] == sorted(each.dollars for each in costs)
        assert [each.reads for each in costs] == sorted(each.reads for each in costs)
        assert costs[0].dollars >= 0

    @case()
    async def test_the_prices_are_dated(self, trial: Trial) -> None:
        prices = trial.backend.prices

        assert dt.date.fromisoformat(prices.as_of) <= _NO_LATER_THAN
        assert prices.provider
        assert prices.service
        assert min(prices.item_month, prices.reads_10k, prices.writes_10k) >= 0


def _calls(cost: Cost) -> Calls:
    return Calls(cost.reads, cost.writes)


async def _count(trial: Trial, doing: Awaitable[object]) -> Calls:
    """The calls that something takes."""
    before = trial.harness.calls()
    await doing
    return calls_between(before, trial.harness.calls())


async def _scans_take(trial: Trial, count: int) -> None:
    most = trial.backend.limits.max_items
    count = min(count, most) if most else count
    await trial.fill(dict.fromkeys(trial.keys(count), "kept"))

    async def scan_twice() -> None:
        await trial.scan()
        await trial.scan()

    counted = await _count(trial, scan_twice())

    assert _calls(trial.backend.cost(Load(items=count, bytes=count * 4, scans=2))) == counted
