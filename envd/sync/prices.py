"""What the well-known services cost, by public list price, so that they can be compared.

A backend brings the price sheet of its own store. These are for the question what the same would
cost elsewhere. They are list prices in US dollars of the providers' usual regions, without
discounts, taxes or free tiers that end; each names the page that it is from, the day on which that
was looked up, and how much it is to be trusted:

    high      read on the provider's own page, or in a copy of it
    medium    read in the provider's words elsewhere
    low       not found there: from memory, or by analogy, and on the dear side

Prices change, and contracts have their own: `PriceBook.overridden` takes those that hold for you.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from envd.backends.contract import PriceSheet
from envd.core.errors import InvalidRequest

SELF_HOSTED: Final = "self-hosted"
"""The provider of what runs on machines of one's own, whose price nobody else knows."""

_LOOKED_UP: Final = "2026-11-30"
_KIB: Final = 1024
_OWN_MACHINES: Final = "no fee: what the machines cost that it runs on is not counted"


class Confidence(IntEnum):
    """How much an estimate is to be trusted; of several the least counts."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3

    @property
    def word(self) -> str:
        """As `Saving.confidence` has it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Service:
    """A service to compare with: its prices, and what it can keep.

    Where `keeps_secrets` is False it is not offered for secrets. 0 means no limit. `beside` says
    what may be charged that is not in the sheet.
    """

    sheet: PriceSheet
    confidence: Confidence
    keeps_secrets: bool = True
    max_value_bytes: int = 0
    max_items: int = 0
    beside: str = ""


_SERVICES: Final[Mapping[str, Service]] = MappingProxyType(
    {
        # Standard parameters at standard throughput; advanced ones are $0.05 each a month.
        "aws-ssm": Service(
            PriceSheet(
                provider="aws",
                service="Systems Manager Parameter Store",
                as_of=_LOOKED_UP,
                source="AWS Systems Manager User Guide, Managing parameter tiers",
            ),
            Confidence.HIGH,
            max_value_bytes=4 * _KIB,
            max_items=10_000,
            beside="standard parameters only; what KMS charges to decrypt comes on top",
        ),
        "aws-secrets-manager": Service(
            PriceSheet(
                provider="aws",
                service="Secrets Manager",
                as_of="2026-09-20",
                item_month=0.40,
                reads_10k=0.05,
                writes_10k=0.05,
                source="AWS Secrets Manager Pricing",
            ),
            Confidence.HIGH,
            max_value_bytes=64 * _KIB,
        ),
        "azure-key-vault": Service(
            PriceSheet(
                provider="azure",
                service="Key Vault",
                as_of=_LOOKED_UP,
                reads_10k=0.03,
                writes_10k=0.03,
                source="Microsoft Q&A, How to correctly estimate Azure Key Vault cost",
            ),
            Confidence.MEDIUM,
            max_value_bytes=25 * _KIB,
        ),
        # The Standard tier: $1.20 a day and store, 200,000 requests a day included.
        "azure-app-configuration": Service(
            PriceSheet(
                provider="azure",
                service="App Configuration",
                as_of=_LOOKED_UP,
                place_month=36.0,
                reads_10k=0.06,
                writes_10k=0.06,
                free_calls=6_000_000,
                source="App Configuration pricing, Standard tier: not checked on that day",
            ),
            Confidence.LOW,
            keeps_secrets=False,
            max_value_bytes=10 * _KIB,
        ),
        # An item is one active version in one location; to list and to write is free.
        "gcp-secret-manager": Service(
            PriceSheet(
                provider="gcp",
                service="Secret Manager",
                as_of=_LOOKED_UP,
                item_month=0.06,
                reads_10k=0.03,
                free_items=6,
                free_calls=10_000,
                source="Secret Manager pricing",
            ),
            Confidence.HIGH,
            max_value_bytes=64 * _KIB,
        ),
        # It is an extension of Secret Manager, and taken to be no cheaper, so that no saving is
        # promised that nobody has seen.
        "gcp-parameter-manager": Service(
            PriceSheet(
                provider="gcp",
                service="Parameter Manager",
                as_of=_LOOKED_UP,
                item_month=0.06,
                reads_10k=0.03,
                source="Secret Manager pricing, by analogy: no price of its own was found",
            ),
            Confidence.LOW,
            keeps_secrets=False,
        ),
        "vault": Service(
            PriceSheet(SELF_HOSTED, "Vault", _LOOKED_UP, source=_OWN_MACHINES), Confidence.MEDIUM
        ),
        "etcd": Service(
            PriceSheet(SELF_HOSTED, "etcd", _LOOKED_UP, source=_OWN_MACHINES),
            Confidence.MEDIUM,
            keeps_secrets=False,
        ),
        "consul": Service(
            PriceSheet(SELF_HOSTED, "Consul", _LOOKED_UP, source=_OWN_MACHINES),
            Confidence.MEDIUM,
            keeps_secrets=False,
        ),
        "file": Service(
            PriceSheet(SELF_HOSTED, "file", _LOOKED_UP, source=_OWN_MACHINES), Confidence.HIGH
        ),
    }
)

PRICES: Final[Mapping[str, PriceSheet]] = MappingProxyType(
    {name: service.sheet for name, service in _SERVICES.items()}
)
"""The list prices by name of backend."""

_Price: TypeAlias = str | int | float
_TEXTS: Final = ("provider", "service", "as_of", "region", "source")
_COUNTS: Final = ("free_items", "free_calls")
_FIELDS: Final = tuple(each.name for each in fields(PriceSheet))


@dataclass(frozen=True, slots=True)
class PriceBook:
    """The services to compare with, and the prices of one's own, which go before all others."""

    services: Mapping[str, Service] = field(default_factory=lambda: _SERVICES)
    own: Mapping[str, Mapping[str, _Price]] = field(default_factory=dict)

    def overridden(self, table: Mapping[str, object]) -> PriceBook:
        """The book with other prices; InvalidRequest names what is wrong.

        `table` has for names of backends the fields of `PriceSheet` that are other than the list
        says, and `as_of`, the day since which they are: in TOML

            [aws-secrets-manager]
            as_of = "2026-01-31"
            item_month = 0.32
        """
        own = {name: _own_prices(name, prices) for name, prices in table.items()}
        return replace(self, own={**self.own, **own})

    def sheet(self, backend: str, listed: PriceSheet) -> PriceSheet:
        """The prices that hold for a backend which brings these itself."""
        return replace(listed, **self.own.get(backend, {}))  # type: ignore[arg-type]

    def confidence(self, backend: str) -> Confidence:
        """That in its prices. One's own are known; of a store that is not listed, its maker's."""
        if backend in self.own:
            return Confidence.HIGH
        service = self.services.get(backend)
        return Confidence.MEDIUM if service is None else service.confidence


def read_overrides(text: str, form: Literal["toml", "json"]) -> dict[str, object]:
    """The table of `PriceBook.overridden` from a document; InvalidRequest where it is none."""
    try:
        table: object = tomllib.loads(text) if form == "toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        where = re.search(r"line [0-9]+", str(error))
        at = f" at {where[0]}" if where else ""
        # Not the parser's own words: it may have been given another file, with values in it.
        raise InvalidRequest(f"the prices are no {form.upper()} document{at}") from None
    if not isinstance(table, dict):
        raise InvalidRequest("the prices are no table of backends", hint=_hint())
    return table


def _own_prices(backend: str, prices: object) -> dict[str, _Price]:
    if not isinstance(prices, Mapping):
        raise InvalidRequest(f"the prices of {backend} are no table", hint=_hint())
    for name in prices:
        if name not in _FIELDS:
            raise InvalidRequest(f"the prices of {backend} have no field {name}", hint=_hint())
    if "as_of" not in prices:
        raise InvalidRequest(
            f"the prices of {backend} have no date", hint='add as_of = "YYYY-MM-DD"'
        )
    return {name: _own_price(backend, name, price) for name, price in prices.items()}


def _own_price(backend: str, name: str, price: object) -> _Price:
    where = f"{name} of the prices of {backend}"
    if name == "as_of":
        return _day(where, price)
    if name in _TEXTS:
        if isinstance(price, str):
            return price
        raise InvalidRequest(f"{where} is no text")
    # A bool is an int to Python, and no price.
    if isinstance(price, bool) or not isinstance(price, int | float):
        raise InvalidRequest(f"{where} is no number")
    if not math.isfinite(price) or price < 0:
        raise InvalidRequest(f"{where} is less than nothing, or no finite number")
    if name in _COUNTS and not isinstance(price, int):
        raise InvalidRequest(f"{where} is no whole number")
    return price


def _day(where: str, price: object) -> str:
    # TOML has dates of its own.
    if isinstance(price, date):
        return price.isoformat()[:10]
    try:
        return date.fromisoformat(str(price)).isoformat()
    except ValueError:
        raise InvalidRequest(f"{where} is no day: write YYYY-MM-DD") from None


def _hint() -> str:
    return f"a table for each backend, with as_of and some of {', '.join(sorted(_FIELDS))}"
