"""The list prices, and those of one's own that go before them."""

from __future__ import annotations

from datetime import date

import pytest

from envd.backends.contract import PriceSheet
from envd.core.errors import InvalidRequest
from envd.sync.prices import PRICES, SELF_HOSTED, Confidence, PriceBook, read_overrides


@pytest.mark.parametrize(
    ("backend", "item_month", "reads_10k", "writes_10k", "place_month"),
    [
        ("aws-ssm", 0, 0, 0, 0),
        ("aws-secrets-manager", 0.40, 0.05, 0.05, 0),
        ("azure-key-vault", 0, 0.03, 0.03, 0),
        ("azure-app-configuration", 0, 0.06, 0.06, 36),
        ("gcp-secret-manager", 0.06, 0.03, 0, 0),
        ("gcp-parameter-manager", 0.06, 0.03, 0, 0),
        ("vault", 0, 0, 0, 0),
        ("etcd", 0, 0, 0, 0),
        ("consul", 0, 0, 0, 0),
        ("file", 0, 0, 0, 0),
    ],
)
def test_the_list_prices(
    backend: str, item_month: float, reads_10k: float, writes_10k: float, place_month: float
) -> None:
    sheet = PRICES[backend]

    prices = (sheet.item_month, sheet.reads_10k, sheet.writes_10k, sheet.place_month)
    assert prices == (item_month, reads_10k, writes_10k, place_month)


@pytest.mark.parametrize("backend", PRICES)
def test_each_list_price_names_its_page_and_its_day(backend: str) -> None:
    sheet = PRICES[backend]

    assert sheet.source
    assert date.fromisoformat(sheet.as_of) >= date(2026, 1, 1)
    assert (sheet.provider == SELF_HOSTED) == (backend in ("vault", "etcd", "consul", "file"))


def test_prices_of_ones_own_go_before_those_that_a_backend_brings() -> None:
    text = """
        [aws-secrets-manager]
        as_of = 2026-01-31
        item_month = 0.32
        free_items = 5
    """
    listed = PriceSheet("aws", "Secrets Manager", "2020-01-01", item_month=0.4, reads_10k=0.05)

    book = PriceBook().overridden(read_overrides(text, "toml"))

    assert book.sheet("aws-secrets-manager", listed) == PriceSheet(
        "aws", "Secrets Manager", "2026-01-31", item_month=0.32, reads_10k=0.05, free_items=5
    )
    assert book.sheet("another", listed) == listed


def test_prices_are_read_from_json_too_and_later_ones_go_before_earlier_ones() -> None:
    earlier = read_overrides('{"vault": {"as_of": "2026-01-31", "item_month": 1}}', "json")
    later = read_overrides('{"vault": {"as_of": "2026-02-28", "item_month": 2}}', "json")

    book = PriceBook().overridden(earlier).overridden(later)

    assert book.sheet("vault", PRICES["vault"]).item_month == 2


def test_ones_own_prices_are_known_and_those_of_other_stores_half() -> None:
    book = PriceBook().overridden({"azure-app-configuration": {"as_of": "2026-01-31"}})

    assert book.confidence("azure-app-configuration") is Confidence.HIGH
    assert book.confidence("gcp-parameter-manager") is Confidence.LOW
    assert book.confidence("a store of somebody's") is Confidence.MEDIUM


@pytest.mark.parametrize(
    ("prices", "says"),
    [
        (5, "the prices of vault are no table"),
        ({"item_month": 1.0}, "the prices of vault have no date"),
        ({"as_of": "last year"}, "as_of of the prices of vault is no day"),
        ({"as_of": "2026-01-31", "price": 1}, "the prices of vault have no field price"),
        ({"as_of": "2026-01-31", "item_month": "1"}, "item_month of the prices of vault is no num"),
        ({"as_of": "2026-01-31", "item_month": True}, "is no number"),
        ({"as_of": "2026-01-31", "item_month": -0.1}, "is less than nothing"),
        ({"as_of": "2026-01-31", "item_month": float("nan")}, "no finite number"),
        ({"as_of": "2026-01-31", "free_items": 1.5}, "free_items of the prices of vault is no who"),
        ({"as_of": "2026-01-31", "region": 1}, "region of the prices of vault is no text"),
    ],
)
def test_prices_that_can_not_be_are_refused_by_name(prices: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        PriceBook().overridden({"vault": prices})


@pytest.mark.parametrize(
    ("text", "form", "says"),
    [
        ("PASSWORD=hunter2", "toml", "the prices are no TOML document at line 1"),
        ('{"a": hunter2}', "json", "the prices are no JSON document at line 1"),
        ("[1]", "json", "the prices are no table of backends"),
    ],
)
def test_a_document_of_another_kind_is_refused_without_a_word_of_it(
    text: str, form: str, says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_overrides(text, "toml" if form == "toml" else "json")

    assert caught.value.message.startswith(says)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
