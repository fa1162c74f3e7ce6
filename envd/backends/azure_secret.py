"""A secret of a Key Vault: what is in an answer, and what envd notes in its tags.

    managed-by   envd                                  it was created by envd, or taken over
    envd         3f9c0de1a2b4c5d6 9a0b... secret 01..  which write it was, the version that it
                                                       replaced, whether it is secret, the stamp
    envd-name    camelCase                             the variable, where the name does not tell

Tags are of one version, and are set in the call that sets the value. Who sets another value without
them takes them away; who copies them keeps the stamp of the version before.

A listing does not tell which version of a secret is the present one, only when it was made and
changed, in seconds. So `version` is those two and the name of envd's own write, which another write
within the same second does not share. Two edits by others within one second look alike in a
listing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from envd.backends.contract import Item, Key, Op
from envd.backends.errors import StoreUnavailable

OWNER: Final = "managed-by"
OURS: Final = "envd"
MARK: Final = "envd"
NAME: Final = "envd-name"
VARIABLE_TYPE: Final = "text/plain"
DOCUMENT_TYPE: Final = "application/json"
MAX_TAGS: Final = 15

_NONE: Final = "-"
_MAX_TAG_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Mark:
    """What envd noted of a write. `over` is the version that it replaced, "" for none."""

    write: str = ""
    over: str = ""
    secret: bool | None = None
    stamp: str = ""

    def __str__(self) -> str:
        kind = "secret" if self.secret else "plain"
        return f"{self.write} {self.over or _NONE} {kind} {self.stamp}"

    @staticmethod
    def of(text: str) -> Mark:
        """Read one; of what is none, and of "", it is empty."""
        parts = text.split(" ", 3)
        if len(parts) != 4 or parts[2] not in ("secret", "plain"):
            return Mark()
        write, over, kind, stamp = parts
        return Mark(write, "" if over == _NONE else over, kind == "secret", stamp)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret, or one version of it. `number` is the version's own name, "" in a listing.

    `value` is None where it is not told. Times are in seconds.
    """

    native: str
    number: str
    made_s: int
    changed_s: int
    tags: Mapping[str, str] = field(default_factory=dict)
    value: str | None = field(default=None, repr=False)
    content_type: str = ""
    is_of_certificate: bool = False

    @property
    def mark(self) -> Mark:
        return Mark.of(self.tags.get(MARK, ""))

    @property
    def is_ours(self) -> bool:
        return self.tags.get(OWNER) == OURS and not self.is_of_certificate

    @property
    def version(self) -> str:
        """Example: "1767323045.1767323045.3f9c0de1a2b4c5d6"."""
        return f"{self.made_s}.{self.changed_s}.{self.mark.write}"

    def is_so(self, op: Op) -> bool:
        """Whether a put would change nothing."""
        return self.value == op.value and self.mark.secret in (None, op.secret)

    def is_written_by(self, op: Op, idempotency: str) -> bool:
        """Whether this very attempt at a put has written it already."""
        return self.is_so(op) and self.mark.write == write_name(op, self.native, idempotency)

    def item(self, key: Key) -> Item:
        mark = self.mark
        return Item(
            key,
            self.native,
            self.version,
            value=self.value,
            secret=mark.secret,
            managed=self.is_ours,
            stamp=mark.stamp if self.is_ours else "",
            changed_ms=self.made_s * 1000,
        )


def read_secret(found: object) -> Secret:
    """The secret in an answer; raises StoreUnavailable where there is none."""
    entry = found if isinstance(found, dict) else {}
    about = entry.get("attributes")
    attributes = about if isinstance(about, dict) else {}
    address = str(entry.get("id", "")).partition("://")[2]
    _, _, rest = address.partition("/")
    kind, _, name = rest.partition("/")
    native, _, number = name.partition("/")
    made, changed = attributes.get("created"), attributes.get("updated")
    value = entry.get("value")
    if (
        kind != "secrets"
        or not native
        or not isinstance(made, int)
        or not isinstance(changed, int)
        or not isinstance(value, str | None)
    ):
        raise StoreUnavailable("the Key Vault's answer makes no sense: it has no secret")
    return Secret(
        native.lower(),
        number,
        made,
        changed,
        _tags(entry.get("tags")),
        value,
        str(entry.get("contentType") or ""),
        entry.get("managed") is True,
    )


def _tags(found: object) -> Mapping[str, str]:
    tags = found if isinstance(found, dict) else {}
    return {str(name): str(each) for name, each in tags.items()}


def write_name(op: Op, native: str, idempotency: str) -> str:
    """A name for one write: 16 hexadecimal digits, others for another attempt."""
    text = f"{native}\0{op.expect}\0{op.stamp}\0{idempotency}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def written(
    op: Op, native: str, over: Secret | None, idempotency: str, *, original: str
) -> dict[str, Any]:
    """The body of a put over a version; what others noted there stays.

    `original` is the variable, "" where the name tells it.
    """
    mark = Mark(
        write_name(op, native, idempotency), over.number if over else "", op.secret, op.stamp
    )
    tags = dict(over.tags) if over else {}
    tags |= {OWNER: OURS, MARK: str(mark)}
    if original:
        tags[NAME] = original[:_MAX_TAG_CHARACTERS]
    usual = VARIABLE_TYPE if op.key.variable else DOCUMENT_TYPE
    return {
        "value": op.value,
        "contentType": (over.content_type if over else "") or usual,
        "tags": tags,
    }


def newer(versions: list[Secret], seen: Secret | None, ours: Secret) -> list[Secret]:
    """The versions that came after the one that was seen, apart from ours; the latest is last.

    They are listed in no order, and their times have no fractions. What was made in the second of
    the seen one is older than it where the marks of envd's own writes say so, one after the other.
    """
    if seen is None:
        found = [each for each in versions if each.number != ours.number]
    else:
        over = {each.number: each.mark.over for each in versions}
        older = {seen.number, ours.number}
        number = seen.mark.over
        while number and number not in older:
            older.add(number)
            number = over.get(number, "")
        found = [
            each for each in versions if each.made_s >= seen.made_s and each.number not in older
        ]
    return sorted(found, key=lambda each: (each.made_s, each.changed_s, each.number))
