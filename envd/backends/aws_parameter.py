"""A parameter of the Parameter Store as it is found: what it says of itself, limits and prices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, unquote

from envd.backends.aws_names import Rules
from envd.backends.aws_session import milliseconds, text_setting
from envd.backends.contract import Limits, Op, PriceSheet
from envd.backends.errors import StoreUnavailable, StoreUnsupported

STANDARD: Final = Limits(
    max_value_bytes=4096,
    min_value_bytes=1,
    max_name_bytes=1011,
    max_items=10_000,
    page_items=50,
    batch=1,
    get_batch=10,
    # By default an account has 40 reads and 3 writes a second, all its applications together.
    reads_per_s=10.0,
    writes_per_s=1.0,
    burst=5,
    writes_per_item_per_s=1.0,
    concurrency=4,
)
ADVANCED: Final = replace(STANDARD, max_value_bytes=8192, max_items=100_000)
STANDARD_PRICES: Final = PriceSheet(
    "aws",
    "Systems Manager Parameter Store",
    "2026-11-30",
    source="AWS Systems Manager User Guide, Managing parameter tiers",
)
ADVANCED_PRICES: Final = replace(
    STANDARD_PRICES,
    service="Systems Manager Parameter Store, advanced parameters",
    item_month=0.05,
    reads_10k=0.05,
    writes_10k=0.05,
    source="AWS Systems Manager Pricing, Parameter Store",
)

RULES: Final = Rules(
    r"/[A-Za-z0-9_./-]+",
    "letters, digits, and . _ - /",
    max_characters=STANDARD.max_name_bytes,
    max_levels=15,
    reserved="/(aws|ssm)",
)
TAG: Final = {"Key": "managed-by", "Value": "envd"}
SECURE: Final = "SecureString"
_MARK = re.compile(r"managed by envd; stamp (?P<stamp>\S*) of version (?P<number>[0-9]{1,18})")
REFERENCE = re.compile(r"\{\{.*\}\}", re.DOTALL)
"""The store takes `{{ ... }}` for a reference to another parameter, and refuses it in a value."""


def marked(stamp: str, number: int) -> str:
    """The description of a parameter that envd writes."""
    return f"managed by envd; stamp {quote(stamp, safe='')} of version {number}"


def mark_of(description: str, number: int) -> tuple[str, bool]:
    """The stamp of version `number`, "" for none, and whether envd has written the parameter."""
    found = _MARK.fullmatch(description)
    if found is None:
        return "", False
    return (unquote(found["stamp"]) if int(found["number"]) == number else ""), True


@dataclass(frozen=True, slots=True)
class SsmSettings:
    """What the section `aws` says of this store."""

    advanced: bool = False
    kms_key_id: str = ""
    prefix: str = "/envd"

    @staticmethod
    def of(settings: Mapping[str, object]) -> SsmSettings:
        """Raise StoreUnsupported for what can't be."""
        tier = text_setting(settings, "ssm_tier", "standard")
        if tier not in ("standard", "advanced"):
            raise StoreUnsupported("the setting ssm_tier of the provider aws is no tier")
        return SsmSettings(
            tier == "advanced",
            text_setting(settings, "kms_key_id"),
            text_setting(settings, "ssm_parameter_prefix", "/envd"),
        )


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as it was found."""

    number: int
    version: str
    kind: str
    changed_ms: int | None
    value: str = field(default="", repr=False)

    @property
    def is_secret(self) -> bool:
        return self.kind == SECURE

    def is_so(self, op: Op) -> bool:
        """Whether it is already what an operation would make of it."""
        return self.value == op.value and self.is_secret == op.secret


def name_of(entry: Mapping[str, Any]) -> str:
    return str(entry.get("Name", ""))


def parameter(entry: Mapping[str, Any], *, valued: bool = False) -> Parameter:
    """A parameter of an answer; StoreUnavailable where it lacks what every one has."""
    number, kind, value = entry.get("Version"), entry.get("Type"), entry.get("Value")
    changed_ms = milliseconds(entry.get("LastModifiedDate"))
    if not isinstance(number, int) or not isinstance(kind, str) or changed_ms is None:
        raise StoreUnavailable(f"{name_of(entry)}: an answer without a version")
    if valued and not isinstance(value, str):
        raise StoreUnavailable(f"{name_of(entry)}: an answer without a value")
    return Parameter(
        number, f"{number}-{changed_ms}", kind, changed_ms, str(value) if valued else ""
    )
