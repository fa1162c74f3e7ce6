"""A secret of Secret Manager as it is found: marks and versions, limits, prices and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from envd.backends.contract import Limits, PriceSheet
from envd.backends.errors import StoreUnavailable, StoreUnsupported
from envd.backends.gcp_checksum import crc32c
from envd.backends.gcp_credentials import text_setting
from envd.backends.gcp_session import labelled, last_part, microseconds
from envd.backends.gcp_store import Marks, Version, decoded

LIMITS: Final = Limits(
    max_value_bytes=64 << 10,
    min_value_bytes=1,
    max_name_bytes=255,
    # A page of 20 secrets takes up to 21 calls, 7 reads by name take 21, a put 3 and 2 that write.
    # A project has 600 reads and 600 writes a minute, all its applications together.
    page_items=20,
    batch=1,
    get_batch=7,
    reads_per_s=0.3,
    writes_per_s=1.0,
    burst=5,
    # Two writes of a secret a second; a put is two.
    writes_per_item_per_s=1.0,
    concurrency=4,
)
LIST_ITEMS: Final = 1000
"""Secrets in a call that lists. The API takes up to 25,000; those of others are listed too."""

PRICES: Final = PriceSheet(
    "gcp",
    "Secret Manager",
    "2026-11-30",
    item_month=0.06,
    reads_10k=0.03,
    free_items=6,
    free_calls=10_000,
    source="Secret Manager pricing",
)
"""An item is one active version in one location, and a read one access to a value."""

STAMP: Final = "envd-stamp"
"""The annotation with the stamp, and the number of the version that it belongs to: `7:STAMP`."""

_STAMP = re.compile(r"([0-9]{1,18}):(.*)", re.DOTALL)
_LOCATION = re.compile(r"[a-z][a-z0-9-]{1,62}")
_ENABLED: Final = "ENABLED"


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """What the section `gcp` says of this store.

    `location` is where regional secrets are, "" for global ones; `replicas` where the values of
    global ones are kept, none for where Google likes. Of a secret `keep_versions` are kept when
    envd writes one more, 0 for all.
    """

    prefix: str = "envd-"
    location: str = ""
    replicas: tuple[str, ...] = ()
    keep_versions: int = 0

    @staticmethod
    def of(settings: Mapping[str, object]) -> SecretSettings:
        """Raise StoreUnsupported for what can't be."""
        location = text_setting(settings, "secret_manager_location")
        replicas = settings.get("secret_manager_replicas") or ()
        keep = settings.get("secret_manager_keep_versions") or 0
        if not isinstance(replicas, list | tuple) or not isinstance(keep, int) or keep < 0:
            raise StoreUnsupported("the settings of the provider gcp for secrets can't be used")
        places = tuple(map(str, replicas))
        if not all(_LOCATION.fullmatch(each) for each in (*places, *filter(None, (location,)))):
            raise StoreUnsupported("a location is written like europe-west1")
        if location and places:
            raise StoreUnsupported("a regional secret is kept in its region, and has no replicas")
        return SecretSettings(
            text_setting(settings, "secret_manager_prefix", "envd-"), location, places, keep
        )

    @property
    def host(self) -> str:
        if self.location:
            return f"secretmanager.{self.location}.rep.googleapis.com"
        return "secretmanager.googleapis.com"

    def parent(self, project: str) -> str:
        """What secrets are listed and created in."""
        if self.location:
            return f"projects/{project}/locations/{self.location}"
        return f"projects/{project}"

    @property
    def replication(self) -> Mapping[str, object] | None:
        """The policy of a new secret, None for a regional one."""
        if self.location:
            return None
        if self.replicas:
            return {"user_managed": {"replicas": [{"location": each} for each in self.replicas]}}
        return {"automatic": {}}


def version_of(answer: Any, about: str) -> Version:
    """A version of an answer; StoreUnavailable where it lacks what every one has."""
    number = last_part(getattr(answer, "name", ""))
    made_us = microseconds(getattr(answer, "create_time", None))
    state = getattr(getattr(answer, "state", None), "name", "")
    if not re.fullmatch(r"[0-9]{1,18}", number) or made_us is None or not state:
        raise StoreUnavailable(f"{about}: an answer without a version")
    return Version(number, made_us, "" if state == _ENABLED else str(state).lower())


def marks_of(answer: Any, about: str) -> Marks:
    """The marks of a secret of an answer; StoreUnavailable where there is none."""
    etag = getattr(answer, "etag", "")
    if not etag or not getattr(answer, "name", ""):
        raise StoreUnavailable(f"{about}: an answer without sense")
    return Marks(labelled(answer.labels), labelled(answer.annotations), str(etag))


def stamp_of(marks: Marks, number: int) -> str:
    """The stamp of version `number`, "" for none."""
    found = _STAMP.fullmatch(marks.annotations.get(STAMP, ""))
    return found[2] if found is not None and int(found[1]) == number else ""


def stamped(marks: Marks, number: int, stamp: str) -> Mapping[str, str]:
    """The annotations with another stamp."""
    return {**marks.annotations, STAMP: f"{number}:{stamp}"}


def payload_of(value: str) -> Mapping[str, object]:
    """A value as it is sent."""
    data = value.encode()
    return {"data": data, "data_crc32c": crc32c(data)}


def value_of(answer: Any, about: str) -> str:
    """The value of an answer. Raises StoreUnavailable where it did not come whole, and
    InvalidValue for bytes that are no text."""
    payload: Any = getattr(answer, "payload", None)
    data = getattr(payload, "data", None)
    if not isinstance(data, bytes) or not getattr(answer, "name", ""):
        raise StoreUnavailable(f"{about}: an answer without a value")
    if "data_crc32c" in payload and payload.data_crc32c != crc32c(data):
        raise StoreUnavailable(f"{about}: the value did not come as it was sent")
    return decoded(data, about)
