"""What bindings cost, how that could be less, and what a budget does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envd.backends.contract import PriceSheet
from envd.sync.prices import PRICES, PriceBook
from envd.sync.pricing import (
    DAY_S,
    HOUR_S,
    BudgetCheck,
    Estimate,
    Spending,
    Traffic,
    Usage,
    binding_cost,
    calling_dollars,
    check_budget,
    keeping_dollars,
    total,
)

SECRETS_MANAGER = PRICES["aws-secrets-manager"]
A_DAY = Traffic(scan_reads=1_440 * 6, measured_s=DAY_S)


def usage(backend: str = "aws-secrets-manager", **more: object) -> Usage:
    """100 secrets of one environment, scanned each minute with 6 calls, for a day."""
    known: dict[str, object] = {
        "sheet": PRICES[backend],
        "items": 100,
        "environments": 1,
        "traffic": A_DAY,
        "value_bytes": 200,
        "document_bytes": 12_000,
        "limit_bytes": 65_536,
        **more,
    }
    return Usage("prod", f"{backend}:/prod", backend, **known)  # type: ignore[arg-type]


def savings(of: Usage, book: PriceBook | None = None) -> dict[str, tuple[float, str, str]]:
    """What is proposed: (dollars, confidence, effort) by its words."""
    cost = binding_cost(of, book or PriceBook())
    return {
        each.what: (round(each.saves_dollars_month, 2), each.confidence, each.effort)
        for each in cost.savings
    }


@pytest.mark.parametrize(
    ("sheet", "items", "expected"),
    [
        (SECRETS_MANAGER, 100, 40.0),
        (SECRETS_MANAGER, 1, 0.4),
        (PRICES["gcp-secret-manager"], 6, 0.0),
        (PRICES["gcp-secret-manager"], 106, 6.0),
        (PRICES["azure-app-configuration"], 500, 36.0),
        (PRICES["aws-ssm"], 10_000, 0.0),
    ],
)
def test_what_it_costs_to_keep_items(sheet: PriceSheet, items: int, expected: float) -> None:
    assert keeping_dollars(sheet, items) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("free", "reads", "writes", "expected"),
    [
        (0, 262_800, 0, 1.314),
        (0, 10_000, 10_000, 0.15),
        (10_000, 10_000, 10_000, 0.10),
        (15_000, 10_000, 10_000, 0.05),
        (99_000, 10_000, 10_000, 0.0),
    ],
)
def test_what_calls_cost(free: int, reads: int, writes: int, expected: float) -> None:
    sheet = PriceSheet("x", "y", "2026-01-31", reads_10k=0.05, writes_10k=0.1, free_calls=free)

    assert calling_dollars(sheet, reads, writes) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("traffic", "reads", "writes"),
    [
        (Traffic(), 0, 0),
        (Traffic(scan_reads=6, measured_s=60), 262_800, 0),
        # Within its first interval there is one scan, however short that was.
        (Traffic(scan_reads=6, measured_s=2), 262_800, 0),
        # What fills the store is not taken to go on each minute.
        (Traffic(other_reads=24, writes=240, measured_s=60), 730, 7_300),
        (Traffic(scan_reads=10, other_reads=10, writes=20, measured_s=10 * DAY_S), 60, 61),
    ],
)
def test_a_month_of_what_was_measured(traffic: Traffic, reads: int, writes: int) -> None:
    assert (traffic.reads_month(60), traffic.writes_month()) == (reads, writes)


def test_a_binding_costs_what_it_keeps_and_calls() -> None:
    cost = binding_cost(usage(region="eu-central-1", budget_dollars=50.0), PriceBook())

    assert (cost.provider, cost.service, cost.region) == ("aws", "Secrets Manager", "eu-central-1")
    assert (cost.items, cost.reads_month, cost.writes_month) == (100, 262_800, 0)
    assert cost.dollars_month == pytest.approx(41.314)
    assert (cost.prices_as_of, cost.measured_s) == ("2026-09-20", DAY_S)
    assert cost.budget_dollars == 50


def test_a_hundred_secrets_as_one_document_cost_forty_cents_instead_of_forty_dollars() -> None:
    cost = binding_cost(usage(), PriceBook())

    saving = next(each for each in cost.savings if "document" in each.what)
    assert saving.what == 'layout "document": 1 item instead of 100'
    assert saving.saves_dollars_month == pytest.approx(40.0 - 0.4)
    assert (saving.provider, saving.service) == ("aws", "Secrets Manager")
    assert (saving.confidence, saving.effort) == ("high", "medium")


def test_savings_are_told_most_first() -> None:
    cost = binding_cost(usage(), PriceBook())

    amounts = [each.saves_dollars_month for each in cost.savings]
    assert len(amounts) == 3
    assert amounts == sorted(amounts, reverse=True)


def test_a_longer_interval_saves_its_share_of_the_scans() -> None:
    found = savings(usage())

    assert found["an interval of 300 s instead of 60 s"] == (1.05, "high", "low")


def test_parameters_are_free_where_they_can_hold_the_values() -> None:
    name = (
        "Systems Manager Parameter Store instead of Secrets Manager "
        "(standard parameters only; what KMS charges to decrypt comes on top)"
    )

    assert savings(usage())[name] == (41.31, "medium", "high")
    assert name not in savings(usage(value_bytes=4_097))
    assert name not in savings(usage(value_bytes=0))
    assert name not in savings(usage(items=10_001))
    assert name not in savings(usage(layout="document", items=1))


@pytest.mark.parametrize(
    ("more", "offered"),
    [
        ({}, True),
        ({"document_bytes": 65_537}, False),
        ({"document_bytes": 65_537, "limit_bytes": 0}, True),
        ({"layout": "document", "items": 1}, False),
        ({"environments": 100}, False),
        ({"backend": "aws-ssm"}, False),
    ],
)
def test_documents_are_offered_where_they_fit_and_cost_less(
    more: dict[str, object], offered: bool
) -> None:
    backend = str(more.pop("backend", "aws-secrets-manager"))

    found = savings(usage(backend, **more))

    assert any("document" in what for what in found) is offered


def test_what_nobody_measured_is_of_low_confidence() -> None:
    young = Traffic(scan_reads=60, measured_s=HOUR_S - 1)

    found = savings(usage(traffic=young, document_bytes=0))

    assert {confidence for _, confidence, _ in found.values()} == {"low"}


def test_no_service_is_offered_that_keeps_no_secrets_for_secrets() -> None:
    dear = {"azure-key-vault": {"as_of": "2026-01-31", "item_month": 1.0}}
    book = PriceBook().overridden(dear)

    secret = savings(usage("azure-key-vault", secrets=True), book)
    plain = savings(usage("azure-key-vault", secrets=False), book)

    assert "App Configuration instead of Key Vault" not in secret
    assert plain["App Configuration instead of Key Vault"] == (64.79, "low", "high")


def test_no_machine_of_ones_own_is_offered_for_another() -> None:
    dear = {"vault": {"as_of": "2026-01-31", "item_month": 1.0}}

    found = savings(usage("vault", environments=100), PriceBook().overridden(dear))

    assert found == {}


@given(
    backend=st.sampled_from(sorted(PRICES)),
    items=st.integers(1, 2_000),
    environments=st.integers(1, 50),
    scans=st.integers(0, 10_000),
    writes=st.integers(0, 10_000),
    measured_s=st.floats(0, 40 * DAY_S),
)
def test_no_saving_is_more_than_what_is_spent(
    backend: str, items: int, environments: int, scans: int, writes: int, measured_s: float
) -> None:
    traffic = Traffic(scan_reads=scans, writes=writes, measured_s=measured_s)

    cost = binding_cost(
        usage(backend, items=items, environments=environments, traffic=traffic), PriceBook()
    )

    assert cost.dollars_month >= 0
    for saving in cost.savings:
        assert 0.01 <= saving.saves_dollars_month <= cost.dollars_month + 1e-9


def test_the_total_is_the_sum() -> None:
    costs = [binding_cost(usage(), PriceBook()), binding_cost(usage("aws-ssm"), PriceBook())]

    view = total(costs)

    assert view.bindings == tuple(costs)
    assert view.dollars_month == pytest.approx(41.314)


@pytest.mark.parametrize(
    ("dollars", "keeping", "may_stop", "measured_s", "stopped", "spending", "stops"),
    [
        (79, 0, True, DAY_S, False, Spending.WITHIN, False),
        (80, 0, True, DAY_S, False, Spending.NEAR, False),
        (100, 0, True, DAY_S, False, Spending.NEAR, False),
        (101, 0, False, DAY_S, False, Spending.OVER, False),
        (101, 0, True, DAY_S, False, Spending.OVER, True),
        # A few minutes tell too little to stop for, but what is kept needs no measuring.
        (101, 40, True, HOUR_S - 1, False, Spending.OVER, False),
        (101, 101, True, 0, False, Spending.OVER, True),
        (0, 101, True, 0, False, Spending.OVER, True),
        # What was stopped goes on only well below the budget.
        (95, 0, True, DAY_S, True, Spending.NEAR, True),
        (89, 0, True, DAY_S, True, Spending.NEAR, False),
        (95, 0, False, DAY_S, True, Spending.NEAR, False),
    ],
)
def test_a_budget_warns_and_can_stop(
    dollars: float,
    keeping: float,
    may_stop: bool,
    measured_s: float,
    stopped: bool,
    spending: Spending,
    stops: bool,
) -> None:
    check = check_budget(
        Estimate(dollars, keeping),
        100,
        may_stop=may_stop,
        measured_s=measured_s,
        stopped=stopped,
    )

    assert (check.spending, check.stops) == (spending, stops)
    assert bool(check.detail) is (spending is not Spending.WITHIN)


def test_no_budget_is_never_used_up() -> None:
    check = check_budget(Estimate(1e6, 1e6), 0, may_stop=True, measured_s=DAY_S)

    assert check == BudgetCheck(Spending.WITHIN)
