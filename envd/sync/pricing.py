"""For how much: what bindings cost in a month, how that could be less, and what a budget allows.

Calls are counted as they are made, and what was counted over some time is taken to go on for a
month of 730 hours, as the providers count. Scans come regularly, so they go on from any time that
was measured. All else comes when people do something, and much of it when a store is first filled:
of that, what was counted in less than a day is taken for the day's. An estimate from less than an
hour is of low confidence, from less than a day of medium, and never of more than the prices
themselves (`prices`).

A saving is an estimate too: it says what would change, and with how much effort for those who read
the store. None is named that is less than a cent, or that the other place could not keep.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from envd.backends.contract import Cost, PriceSheet
from envd.core.syncing import BindingCost, CostView, Saving
from envd.sync.prices import SELF_HOSTED, Confidence, PriceBook, Service

MONTH_S: Final = 730 * 3_600
"""A twelfth of a year of 365 days, which AWS, Azure and Google count as a month."""

HOUR_S: Final = 3_600
DAY_S: Final = 24 * HOUR_S
INTERVALS_S: Final = (60, 300, 900, 3_600)
"""The intervals that are proposed: the next longer one."""

NEAR: Final = 0.8
"""Of a budget: from here on it warns. The clouds' own budgets come with this mark, or 90 %."""

RESUMES: Final = 0.9
"""Of a budget: what it stopped goes on below this, so that it does not stop and go in turns."""

_LEAST_SAVING: Final = 0.01


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls that were counted over `measured_s` seconds.

    `scan_reads` were made by the regular scans, `other_reads` by all else.
    """

    scan_reads: int = 0
    other_reads: int = 0
    writes: int = 0
    measured_s: float = 0.0

    @property
    def confidence(self) -> Confidence:
        """How much a month that is made of it is to be trusted."""
        if self.measured_s < HOUR_S:
            return Confidence.LOW
        return Confidence.MEDIUM if self.measured_s < DAY_S else Confidence.HIGH

    def scan_reads_month(self, interval_s: float) -> int:
        """Those of a month, with a scan in each interval.

        Example: 6 in a minute are 262,800 in a month.
        """
        return _month_of(self.scan_reads, max(self.measured_s, interval_s))

    def reads_month(self, interval_s: float) -> int:
        """All reads of a month."""
        others = _month_of(self.other_reads, max(self.measured_s, DAY_S))
        return self.scan_reads_month(interval_s) + others

    def writes_month(self) -> int:
        """The writes of a month. Example: 100 in the first minute are taken for 100 a day."""
        return _month_of(self.writes, max(self.measured_s, DAY_S))


def _month_of(calls: int, over_s: float) -> int:
    return round(calls * MONTH_S / over_s) if over_s > 0 else 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a binding has in one target, and what it does there.

    `sheet` is what the backend brings. `items` are those in the store: with the layout "document"
    as many as `environments`. `value_bytes` is the largest value, `document_bytes` the largest
    document of an environment, both 0 where nobody knows; `limit_bytes` what the store takes, 0
    for no limit. `secrets`: there are some among the variables.
    """

    binding: str
    target: str
    backend: str
    sheet: PriceSheet
    items: int
    environments: int
    traffic: Traffic
    layout: str = "per-variable"
    interval_s: int = 60
    region: str = ""
    secrets: bool = True
    value_bytes: int = 0
    document_bytes: int = 0
    limit_bytes: int = 0
    budget_dollars: float = 0.0


def keeping_dollars(sheet: PriceSheet, items: int) -> float:
    """What a month costs without any call. Example: 100 secrets at $0.40 are $40."""
    return sheet.place_month + max(0, items - sheet.free_items) * sheet.item_month


def calling_dollars(sheet: PriceSheet, reads: int, writes: int) -> float:
    """What so many calls cost in a month; the free ones are taken from the reads first.

    Example: 262,800 reads at $0.05 for 10,000 are $1.31.
    """
    free_reads = min(reads, sheet.free_calls)
    free_writes = min(writes, sheet.free_calls - free_reads)
    charged = (reads - free_reads) * sheet.reads_10k + (writes - free_writes) * sheet.writes_10k
    return charged / 10_000


def month(sheet: PriceSheet, items: int, reads: int, writes: int) -> Cost:
    """A month with so many items and calls."""
    dollars = keeping_dollars(sheet, items) + calling_dollars(sheet, reads, writes)
    return Cost(reads, writes, dollars)


def binding_cost(usage: Usage, book: PriceBook) -> BindingCost:
    """What a binding costs in a month, and how that could be less, most first."""
    usage = replace(usage, sheet=book.sheet(usage.backend, usage.sheet))
    sheet, cost = usage.sheet, _month(usage)
    return BindingCost(
        binding=usage.binding,
        target=usage.target,
        provider=sheet.provider,
        service=sheet.service,
        region=usage.region or sheet.region,
        items=usage.items,
        reads_month=cost.reads,
        writes_month=cost.writes,
        dollars_month=cost.dollars,
        prices_as_of=sheet.as_of,
        measured_s=usage.traffic.measured_s,
        budget_dollars=usage.budget_dollars,
        savings=_savings(usage, book),
    )


def total(costs: Sequence[BindingCost]) -> CostView:
    """What several bindings cost. A place's own fee counts for each binding that uses it."""
    return CostView(tuple(costs), sum(cost.dollars_month for cost in costs))


def _month(usage: Usage) -> Cost:
    reads = usage.traffic.reads_month(usage.interval_s)
    return month(usage.sheet, usage.items, reads, usage.traffic.writes_month())


def _savings(usage: Usage, book: PriceBook) -> tuple[Saving, ...]:
    found = [
        *_as_documents(usage, book),
        *_less_often(usage, book),
        *_elsewhere(usage, book),
    ]
    found = [each for each in found if each.saves_dollars_month >= _LEAST_SAVING]
    return tuple(sorted(found, key=lambda each: (-each.saves_dollars_month, each.what)))


def _as_documents(usage: Usage, book: PriceBook) -> Iterator[Saving]:
    """One item for each environment. Fewer reads, which come with it, are not counted."""
    documents = max(1, usage.environments)
    too_large = 0 < usage.limit_bytes < usage.document_bytes
    if usage.layout != "per-variable" or documents >= usage.items or too_large:
        return
    saves = keeping_dollars(usage.sheet, usage.items) - keeping_dollars(usage.sheet, documents)
    fits = Confidence.HIGH if usage.document_bytes else Confidence.LOW
    plural = "s" if documents > 1 else ""
    yield Saving(
        what=f'layout "document": {documents} item{plural} instead of {usage.items}',
        provider=usage.sheet.provider,
        region=usage.region or usage.sheet.region,
        service=usage.sheet.service,
        saves_dollars_month=saves,
        confidence=min(fits, book.confidence(usage.backend)).word,
        effort="medium",
    )


def _less_often(usage: Usage, book: PriceBook) -> Iterator[Saving]:
    """A longer interval: what changes in the store is seen so much later."""
    longer_s = next((each for each in INTERVALS_S if each > usage.interval_s), None)
    if longer_s is None:
        return
    traffic, cost = usage.traffic, _month(usage)
    share = 1 - usage.interval_s / longer_s
    spared = round(traffic.scan_reads_month(usage.interval_s) * share)
    saves = cost.dollars - month(usage.sheet, usage.items, cost.reads - spared, cost.writes).dollars
    yield Saving(
        what=f"an interval of {longer_s} s instead of {usage.interval_s} s",
        provider=usage.sheet.provider,
        region=usage.region or usage.sheet.region,
        service=usage.sheet.service,
        saves_dollars_month=saves,
        confidence=min(traffic.confidence, book.confidence(usage.backend)).word,
        effort="low",
    )


def _elsewhere(usage: Usage, book: PriceBook) -> Iterator[Saving]:
    """Another service of the same provider, with as many items and calls.

    Of medium confidence at most, for other services page and batch in their own ways.
    """
    cost = _month(usage)
    for backend, service in sorted(book.services.items()):
        sheet = book.sheet(backend, service.sheet)
        if backend == usage.backend or not _can_keep(service, sheet, usage):
            continue
        there = month(sheet, usage.items, cost.reads, cost.writes)
        known = (usage.traffic.confidence, book.confidence(usage.backend), book.confidence(backend))
        beside = f" ({service.beside})" if service.beside else ""
        yield Saving(
            what=f"{sheet.service} instead of {usage.sheet.service}{beside}",
            provider=sheet.provider,
            region=sheet.region or usage.region,
            service=sheet.service,
            saves_dollars_month=cost.dollars - there.dollars,
            confidence=min(Confidence.MEDIUM, *known).word,
            effort="high",
        )


def _can_keep(service: Service, sheet: PriceSheet, usage: Usage) -> bool:
    if sheet.provider != usage.sheet.provider or sheet.provider == SELF_HOSTED:
        return False
    largest = usage.value_bytes if usage.layout == "per-variable" else usage.document_bytes
    fits = not service.max_value_bytes or 0 < largest <= service.max_value_bytes
    room = not service.max_items or usage.items <= service.max_items
    return fits and room and (service.keeps_secrets or not usage.secrets)


@dataclass(frozen=True, slots=True)
class Estimate:
    """US dollars of a month, and those of them that are due without any call."""

    dollars_month: float = 0.0
    keeping: float = 0.0


def estimate(usage: Usage, book: PriceBook) -> Estimate:
    """What a binding will spend, at the prices of a book."""
    sheet = book.sheet(usage.backend, usage.sheet)
    dollars = binding_cost(usage, book).dollars_month
    return Estimate(dollars, keeping_dollars(sheet, usage.items))


class Spending(Enum):
    """How a binding stands to its budget."""

    WITHIN = "within"
    NEAR = "near"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class BudgetCheck:
    """How a binding stands to its budget, whether it is to stop, and that in words ("" if well)."""

    spending: Spending
    stops: bool = False
    detail: str = ""


def check_budget(
    spends: Estimate,
    budget_dollars: float,
    *,
    may_stop: bool,
    measured_s: float,
    stopped: bool = False,
) -> BudgetCheck:
    """Compare a month with its budget; 0 is no budget.

    It warns from four fifths on. It stops (`may_stop`) what is over it, but not for what less than
    an hour of calls seems to tell: only if `keeping`, which needs no measuring, is over it already.
    What it has `stopped` goes on again below nine tenths.
    """
    keeping = spends.keeping
    month_dollars = max(spends.dollars_month, keeping)
    if budget_dollars <= 0 or month_dollars < NEAR * budget_dollars:
        return BudgetCheck(Spending.WITHIN)
    over = month_dollars > budget_dollars
    certain = keeping > budget_dollars or measured_s >= HOUR_S
    stays = stopped and month_dollars >= RESUMES * budget_dollars
    stops = may_stop and ((over and certain) or stays)
    detail = (
        f"a month is estimated at ${month_dollars:.2f}, and the budget is ${budget_dollars:.2f}"
    )
    return BudgetCheck(Spending.OVER if over else Spending.NEAR, stops, detail)
