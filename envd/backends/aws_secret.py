"""A secret of Secrets Manager as it is found: its versions and owner, limits and prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from envd.backends.aws_names import Rules
from envd.backends.aws_session import milliseconds, text_setting
from envd.backends.contract import Limits, PriceSheet
from envd.backends.errors import Forbidden, ItemNotFound, SoftDeleted, StoreUnsupported

LIMITS: Final = Limits(
    max_value_bytes=65_536,
    min_value_bytes=1,
    max_name_bytes=512,
    max_items=500_000,
    page_items=100,
    batch=1,
    get_batch=20,
    # An account has 50 writes a second; a secret should not be written every few minutes for long.
    reads_per_s=20.0,
    writes_per_s=5.0,
    burst=10,
    writes_per_item_per_s=1 / 60,
    concurrency=4,
)
PRICES: Final = PriceSheet(
    "aws",
    "Secrets Manager",
    "2026-09-20",
    item_month=0.40,
    reads_10k=0.05,
    writes_10k=0.05,
    source="AWS Secrets Manager Pricing",
)
CURRENT: Final = "AWSCURRENT"
STAGE: Final = "ENVD"
"""Of the version that envd put last, whether it became the current one or not."""

RULES: Final = Rules(
    r"[A-Za-z0-9/_+=.@-]+", "letters, digits, and / _ + = . @ -", LIMITS.max_name_bytes
)
TAG: Final = {"Key": "managed-by", "Value": "envd"}
_RECOVERY_DAYS: Final = (7, 30)
UNREADABLE: Final = MappingProxyType(
    {
        "ResourceNotFoundException": ItemNotFound,
        "AccessDeniedException": Forbidden,
        "DecryptionFailure": Forbidden,
        "InvalidRequestException": SoftDeleted,
    }
)
"""Why a secret of several can't be read, by the code; anything else is worth another try."""


@dataclass(frozen=True, slots=True)
class SecretsSettings:
    """What the section `aws` says of this store."""

    recovery_days: int = 30
    kms_key_id: str = ""
    prefix: str = "envd/"

    @staticmethod
    def of(settings: Mapping[str, object]) -> SecretsSettings:
        """Raise StoreUnsupported for what can't be."""
        least, most = _RECOVERY_DAYS
        days = settings.get("secrets_manager_recovery_days", most)
        if not isinstance(days, int) or isinstance(days, bool) or not least <= days <= most:
            raise StoreUnsupported(
                f"the setting secrets_manager_recovery_days is {least} to {most} days"
            )
        return SecretsSettings(
            days,
            text_setting(settings, "kms_key_id"),
            text_setting(settings, "secrets_manager_prefix", "envd/"),
        )


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret as it is described: its present version ("" for none), and whose it is."""

    current: str
    is_ours: bool
    is_deleted: bool = False
    changed_ms: int | None = None

    @staticmethod
    def of(entry: Mapping[str, Any], stages: str) -> Secret:
        """That of an answer, whose versions are under the name `stages`."""
        versions = entry.get(stages) or {}
        current = next((each for each, names in versions.items() if CURRENT in names), "")
        return Secret(
            current,
            TAG in (entry.get("Tags") or []),
            entry.get("DeletedDate") is not None,
            milliseconds(entry.get("LastChangedDate")),
        )
