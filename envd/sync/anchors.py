"""Anchors: what a variable was on both sides when they were last known to be equal.

An anchor makes a round trip exact on stores that keep no stamps: a version it names has its stamp.
It is kept in a record of all nodes, one a bound environment and target, one key a variable. Before
a store is written, an *intent* is added: the stamp of what is written and a keyed hash of its
value. Where the answer is lost in a crash, the new version in the store is known by that hash as
our own write; any other is somebody else's.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Struct

from envd.core.errors import Corrupt
from envd.core.stamp import Stamp
from envd.core.syncing import BindingView

ABSENT: Final = ""
"""The version, or the stamp, of what was not there."""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Intent:
    """A write to the store that is about to be made: its stamp, and the hash of its value."""

    stamp: str
    print: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """What both sides were.

    `version` is the store's and `stamp` (hex) the one here, ABSENT for what was not there. `print`
    is the keyed hash of the value, "" where the two differed and were left so. `made` tells which
    side this binding created: "store", "envd" or "". `conflict` is the id of the record of a
    difference that waits for somebody to settle it.
    """

    version: str
    stamp: str
    print: str = ""
    made: str = ""
    conflict: str = ""
    intent: Intent | None = None

    @property
    def written(self) -> Stamp | None:
        """The write here that it tells of; None where nothing was here, or it does not tell."""
        try:
            return Stamp.from_hex(self.stamp)
        except (ValueError, struct.error):
            return None

    def intending(self, intent: Intent) -> Anchor:
        """This anchor, with a write that is about to be made."""
        return replace(self, intent=intent)


NOTHING: Final = Anchor(ABSENT, ABSENT)
"""The anchor of a variable that nothing is known of; with an intent it may be kept."""


def record_name(binding: BindingView, target: str, environment: str) -> str:
    """The record that has the anchors of a bound environment at one target.

    All that says where in the store a variable lies is in its name: what a changed binding finds
    elsewhere, or in another account, was never equal to what is here, and none of it was deleted.
    Another one below it, `about_name`, tells whose they are.
    """
    place = [binding.environment, binding.prefix, binding.layout, binding.name_template]
    named = json.dumps([target, environment, binding.credentials, *place]).encode()
    hashed = blake2b(named, digest_size=12, person=b"envd anchors").hexdigest()
    return f"anchors/{binding.name}/{hashed}"


def about_name(record: str) -> str:
    """The record that tells which environment and target the anchors of `record` are of."""
    return f"{record}/about"


def records_of(binding: str) -> str:
    """The prefix of all records of a binding's anchors."""
    return f"anchors/{binding}"


def encoded(anchor: Anchor) -> str:
    """An anchor as it is kept."""
    plain: dict[str, Any] = {"v": _VERSION, "n": anchor.version, "s": anchor.stamp}
    optional = {"p": anchor.print, "m": anchor.made, "c": anchor.conflict}
    plain.update({name: value for name, value in optional.items() if value})
    if anchor.intent is not None:
        plain["i"] = [anchor.intent.stamp, anchor.intent.print]
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False)


class _Kept(Struct, frozen=True):
    """An anchor as it is kept: msgspec reads it ten times faster than `json`."""

    n: str
    s: str
    p: str = ""
    m: str = ""
    c: str = ""
    i: tuple[str, str] | None = None


_KEPT: Final = msgspec.json.Decoder(_Kept)


def decoded(text: str) -> Anchor:
    """The inverse of `encoded`; what a newer release adds is passed over. Raises Corrupt."""
    try:
        kept = _KEPT.decode(text)
    except msgspec.DecodeError:
        raise Corrupt("an anchor does not decode") from None
    intent = None if kept.i is None else Intent(*kept.i)
    return Anchor(kept.n, kept.s, kept.p, kept.m, kept.c, intent)


def decoded_all(record: Mapping[str, str]) -> dict[str, Anchor]:
    """The anchors of a record, by variable.

    One that can't be read is none: two values that differ are then a conflict for people.
    """
    found: dict[str, Anchor] = {}
    for name, text in record.items():
        with suppress(Corrupt):
            found[name] = decoded(text)
    return found
