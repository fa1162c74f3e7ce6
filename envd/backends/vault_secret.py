"""What is in a secret of Vault: the value or the variables, and beside them what envd notes.

A variable is `{"value": TEXT, "_envd": MARK}`, a document `{NAME: TEXT, ..., "_envd": MARK}`. All
else in a secret is others', and stays. The mark is in the data, not in Vault's own metadata, since
only what is in the data is written in one step with the value.

The mark names the version of the secret that envd wrote it with, which compare-and-set makes known
beforehand. Where it is another one somebody changed the secret since and left the mark in it, or
rolled it back: the stamp is not that of this value.

A deleted secret is one without a value: deleted or destroyed by Vault's own calls, or a
*gravestone* of envd, a version with nothing but a mark that says so (see `vault_writing`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from envd.backends.contract import Op
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    NotOwned,
    StoreUnavailable,
    ValueTooLarge,
)
from envd.backends.naming import shown
from envd.backends.vault_client import Answer, error_of
from envd.core.names import VARIABLE_PATTERN

MARK: Final = "_envd"
VALUE: Final = "value"
GRAVESTONE: Final = "deleted"

MAX_ENTRY_BYTES: Final = (1 << 20) - (16 << 10)
"""Vault's integrated storage takes entries of 1 MiB (`max_entry_size`); a little is its own."""

_NAME: Final = re.compile(VARIABLE_PATTERN)
_ESCAPED: Final = re.compile("[<>&\u2028\u2029]")
_ESCAPE_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret as it is now. `number` is its version in Vault, 0 where there never was one.

    `data` is None where it is deleted. `made` is when this version was made, as Vault writes it.
    """

    number: int = 0
    made: str = ""
    data: Mapping[str, object] | None = field(default=None, repr=False)

    @property
    def version(self) -> str:
        """With the time, for a secret that is removed with its metadata begins again at 1.

        To delete makes no new number, so who expects the value must not find its version.
        Example: "7@2026-11-30T10:42:49.202648361Z", and "7@2026-11-30T10:42:49.202648361Z/deleted".
        """
        if not self.number:
            return ""
        return f"{self.number}@{self.made}{'/deleted' if self.data is None else ''}"

    @property
    def is_deleted(self) -> bool:
        return self.number > 0 and self.data is None

    @property
    def mark(self) -> Mapping[str, object] | None:
        """What envd noted, None where it did not create the secret."""
        found = (self.data or {}).get(MARK)
        return found if isinstance(found, dict) else None

    @property
    def stamp(self) -> str:
        """The stamp of this very version, "" without one."""
        mark = self.mark or {}
        stamp = mark.get("stamp")
        return stamp if isinstance(stamp, str) and mark.get("version") == self.number else ""

    @property
    def made_ms(self) -> int | None:
        """When this version was made (unix ms)."""
        try:
            return int(datetime.fromisoformat(self.made).timestamp() * 1000)
        except ValueError:
            return None


def read_secret(answer: Answer) -> Secret:
    """The secret in an answer; raises StoreUnavailable, or StoreUnsupported, where it has none."""
    about = answer.data.get("metadata")
    if answer.is_absent and not answer.data:
        return Secret()
    if not answer.is_good and not isinstance(about, dict):
        raise error_of(answer)
    number, made = _version(about)
    data = answer.data.get("data")
    if data is not None and not isinstance(data, dict):
        raise senseless()
    mark = (data or {}).get(MARK)
    is_gravestone = isinstance(mark, dict) and mark.get(GRAVESTONE) is True
    return Secret(number, made, None if is_gravestone else data)


def read_written(answer: Answer, data: Mapping[str, object]) -> Secret:
    """The secret that a write made of `data`."""
    return Secret(*_version(answer.data), data)


def _version(about: object) -> tuple[int, str]:
    found = about if isinstance(about, dict) else {}
    number, made = found.get("version"), found.get("created_time")
    if not isinstance(number, int) or not isinstance(made, str) or number < 1:
        raise senseless()
    return number, made


def senseless() -> StoreUnavailable:
    return StoreUnavailable("Vault's answer makes no sense: it has no secret with a version")


class Shape(Protocol):
    """How the value of an item lies in a secret."""

    def value(self, secret: Secret) -> str | None:
        """The value; None where the secret has none that could be one."""
        ...

    def secrecy(self, secret: Secret) -> bool | None:
        """Whether the value is secret, None where that is not kept."""
        ...

    def is_so(self, op: Op, secret: Secret) -> bool:
        """Whether a put would change nothing."""
        ...

    def problem(self, op: Op) -> BackendError | None:
        """Why a value can't be, as far as it can be told without a call."""
        ...

    def intrusion(self, op: Op, secret: Secret) -> BackendError | None:
        """Why a put would replace what others have there, which it may in no case."""
        ...

    def written(self, op: Op, secret: Secret) -> dict[str, object]:
        """The data of the next version."""
        ...

    def left(self, secret: Secret) -> dict[str, object]:
        """What others have in a secret that is to be deleted, and that therefore stays."""
        ...


class VariableShape:
    """One variable: its text is under `value`."""

    def value(self, secret: Secret) -> str | None:
        found = (secret.data or {}).get(VALUE)
        return found if isinstance(found, str) else None

    def secrecy(self, secret: Secret) -> bool | None:
        found = (secret.mark or {}).get("secret")
        return found if isinstance(found, bool) else None

    def is_so(self, op: Op, secret: Secret) -> bool:
        return self.value(secret) == op.value and self.secrecy(secret) in (None, op.secret)

    def problem(self, op: Op) -> BackendError | None:
        return _too_large(op, {VALUE: op.value})

    def intrusion(self, op: Op, secret: Secret) -> BackendError | None:
        if secret.data is None or self.value(secret) is not None:
            return None
        return NotOwned(
            f"{shown(op.key)} is a secret that holds no variable: it has no text under {VALUE!r}"
        )

    def written(self, op: Op, secret: Secret) -> dict[str, object]:
        mark = {**_mark(op, secret), "secret": op.secret}
        return {**(secret.data or {}), VALUE: op.value, MARK: mark}

    def left(self, secret: Secret) -> dict[str, object]:
        del secret  # What others noted beside a value means nothing without it.
        return {}


class DocumentShape:
    """All variables of an environment; whether they are secret is not kept."""

    def value(self, secret: Secret) -> str | None:
        if secret.data is None:
            return None
        return json.dumps(_texts(secret.data), ensure_ascii=False)

    def secrecy(self, secret: Secret) -> bool | None:
        del secret
        return None

    def is_so(self, op: Op, secret: Secret) -> bool:
        return secret.data is not None and _texts(secret.data) == _parsed(op)

    def problem(self, op: Op) -> BackendError | None:
        variables = _parsed(op)
        if variables is None:
            return InvalidValue(f"the value of {shown(op.key)} is no JSON object of text")
        if MARK in variables:
            return InvalidName(f"in a document {MARK} is envd's own, so no variable is called so")
        if not all(map(_NAME.fullmatch, variables)):
            return InvalidName(f"a name in the document of {shown(op.key)} is none of a variable")
        return _too_large(op, variables)

    def intrusion(self, op: Op, secret: Secret) -> BackendError | None:
        others = self.left(secret).keys() & (_parsed(op) or {}).keys()
        if not others:
            return None
        return NotOwned(
            f"{min(others)} in the document of {shown(op.key)} is no text, so it is others'"
        )

    def written(self, op: Op, secret: Secret) -> dict[str, object]:
        return {**self.left(secret), **(_parsed(op) or {}), MARK: _mark(op, secret)}

    def left(self, secret: Secret) -> dict[str, object]:
        ours = _texts(secret.data or {}).keys() | {MARK}
        return {name: each for name, each in (secret.data or {}).items() if name not in ours}


def _mark(op: Op, secret: Secret) -> dict[str, object]:
    return {"stamp": op.stamp, "version": secret.number + 1}


def gravestone(secret: Secret) -> dict[str, object]:
    """The data of a version that says that the one before it is deleted."""
    return {MARK: {GRAVESTONE: True, "version": secret.number + 1}}


def _texts(data: Mapping[str, object]) -> dict[str, str]:
    """The variables in a document."""
    return {
        name: each
        for name, each in data.items()
        if isinstance(each, str) and name != MARK and _NAME.fullmatch(name)
    }


def _parsed(op: Op) -> dict[str, str] | None:
    """The variables that a put is to write, None where its value is no document."""
    try:
        found = json.loads(op.value)
    except (ValueError, RecursionError):
        return None
    is_text = isinstance(found, dict) and all(isinstance(each, str) for each in found.values())
    return found if is_text else None


def _too_large(op: Op, data: Mapping[str, str]) -> BackendError | None:
    """Vault keeps data as JSON, with some characters escaped in six bytes."""
    try:
        text = json.dumps(data, ensure_ascii=False)
        size = len(text.encode()) + (_ESCAPE_BYTES - 1) * len(_ESCAPED.findall(text))
    except UnicodeEncodeError:
        return None  # That is told by who checks all values.
    if size <= MAX_ENTRY_BYTES:
        return None
    return ValueTooLarge(
        f"{shown(op.key)} has {size} bytes as Vault keeps it; it takes at most {MAX_ENTRY_BYTES}"
    )
