"""Key-values of App Configuration: where they are, and what is in one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from envd.backends.errors import InvalidName, StoreUnavailable

OWNER: Final = "managed-by"
OURS: Final = "envd"
MARK: Final = "envd"
REFERENCE_TYPE: Final = "application/vnd.microsoft.appconfig.keyvaultref+json"

_MAX_LABEL_BYTES: Final = 128
_STORE: Final = re.compile(r"(?=.{5,50}\Z)[0-9A-Za-z](?:-?[0-9A-Za-z])+")
_PREFIX: Final = re.compile(r"[0-9A-Za-z._:-]+(?:/[0-9A-Za-z._:-]+)*")
_LABEL: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:/-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """A store, what keys in it begin with ("" for nothing), and their label ("" for none)."""

    store: str
    prefix: str
    label: str

    @staticmethod
    def of(text: str) -> Place:
        """Read a place; InvalidName where it is none.

        >>> Place.of("acme-config/web@prod")
        Place(store='acme-config', prefix='web', label='prod')
        """
        path, at, label = text.partition("@")
        store, _, prefix = path.partition("/")
        prefix = prefix.rstrip("/")
        if (
            not _STORE.fullmatch(store)
            or (prefix and not _PREFIX.fullmatch(prefix))
            or any(each in (".", "..") for each in prefix.split("/"))
            or (at and not _LABEL.fullmatch(label))
            or len(label) > _MAX_LABEL_BYTES
        ):
            raise InvalidName(
                "the place names no App Configuration store, or has a prefix or a label that can't "
                "be",
                hint="write STORE, STORE/PREFIX or STORE/PREFIX@LABEL",
            )
        return Place(store, prefix, label)

    def key(self, native: str) -> str:
        return f"{self.prefix}/{native}" if self.prefix else native


@dataclass(frozen=True, slots=True)
class KeyValue:
    """What the store has under a key. `value` is None where it only refers to a value."""

    key: str
    etag: str
    value: str | None = field(repr=False)
    content_type: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    changed_ms: int | None = None

    @property
    def is_ours(self) -> bool:
        return self.tags.get(OWNER) == OURS

    def stamp(self, fingerprint: str) -> str:
        """The stamp of a value with this fingerprint, "" where it is that of another."""
        print_, _, stamp = self.tags.get(MARK, "").partition(" ")
        return stamp if print_ == fingerprint else ""


def read_key_value(found: object) -> KeyValue:
    """The key-value in an answer; raises StoreUnavailable where there is none."""
    entry = found if isinstance(found, dict) else {}
    key, etag, value = entry.get("key"), entry.get("etag"), entry.get("value")
    kind = str(entry.get("content_type") or "")
    if not isinstance(key, str) or not isinstance(etag, str) or not isinstance(value, str | None):
        raise StoreUnavailable("the answer makes no sense: it has no key-value")
    is_reference = kind.partition(";")[0].strip().lower() == REFERENCE_TYPE
    tags = entry.get("tags")
    return KeyValue(
        key,
        etag,
        None if is_reference else value or "",
        kind,
        {str(name): str(each) for name, each in tags.items()} if isinstance(tags, dict) else {},
        _milliseconds(entry.get("last_modified")),
    )


def _milliseconds(found: object) -> int | None:
    try:
        return int(datetime.fromisoformat(str(found)).timestamp() * 1000)
    except ValueError:
        return None
