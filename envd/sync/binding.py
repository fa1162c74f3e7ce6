"""Bindings: which are legal, how they are kept, and how their keys and environments relate.

They are kept as the record `bindings`, one key a binding, which all nodes hold. The relative
environment of a key is "" for the environment that is bound, or for the bound prefix itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from hashlib import blake2b
from typing import Any, Final

from envd.backends.contract import Key, Scope
from envd.core.errors import Corrupt, EnvdError, InvalidRequest
from envd.core.names import check_environment, check_prefix, has_prefix
from envd.core.syncing import BindingView

RECORD: Final = "bindings"
DIRECTIONS: Final = ("push", "pull", "both")
CONFLICTS: Final = ("lww", "envd", "store", "manual")
DELETES: Final = ("owned", "never", "mirror")
LAYOUTS: Final = ("per-variable", "document")
ROUTES: Final = ("failover", "latency", "cost", "priority", "region")
MAX_TARGETS: Final = 8
MIN_INTERVAL_S: Final = 5
MAX_INTERVAL_S: Final = 86_400
MAX_PRIORITY: Final = 1_000
_VERSION: Final = 1
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_TARGET: Final = re.compile(r"[a-z0-9][a-z0-9-]*:\S.*")
_TUPLES: Final = ("targets", "windows")


def checked(binding: BindingView) -> BindingView:
    """Return a binding if it is legal in itself; raises InvalidRequest, which names the field."""
    if not _NAME.fullmatch(binding.name):
        raise _wrong("name", "a name of a-z, 0-9, '.', '_' and '-', of at most 63 characters")
    if (binding.environment is None) == (binding.prefix is None):
        raise _wrong("environment", "either an environment or a prefix, and not both")
    if binding.environment is not None:
        check_environment(binding.environment)
    else:
        check_prefix(binding.prefix or "")
    if not 1 <= len(binding.targets) <= MAX_TARGETS or len(set(binding.targets)) < len(
        binding.targets
    ):
        raise _wrong("targets", f"1 to {MAX_TARGETS} different targets")
    if not all(map(_TARGET.fullmatch, binding.targets)):
        raise _wrong("targets", "a store and a place in it, such as aws-ssm:/payments/prod")
    for name, choices in (
        ("route", ROUTES),
        ("direction", DIRECTIONS),
        ("conflict_policy", CONFLICTS),
        ("delete_policy", DELETES),
        ("layout", LAYOUTS),
    ):
        if getattr(binding, name) not in choices:
            raise _wrong(name, f"one of {', '.join(choices)}")
    if not MIN_INTERVAL_S <= binding.interval_seconds <= MAX_INTERVAL_S:
        raise _wrong("interval", f"from {MIN_INTERVAL_S} s to {MAX_INTERVAL_S} s")
    if not 0 <= binding.priority <= MAX_PRIORITY:
        raise _wrong("priority", f"from 0 to {MAX_PRIORITY}")
    if not 0 <= binding.budget_dollars < float("inf"):
        raise _wrong("budget", "an amount of US dollars a month, or 0 for none")
    return binding


def _wrong(field: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"the binding's {field} must be {expected}", reason="INVALID_BINDING")


def encoded(binding: BindingView) -> str:
    """A binding as it is kept; `revision` is not: it follows from the rest."""
    plain = {each.name: getattr(binding, each.name) for each in fields(binding)}
    del plain["name"], plain["revision"]
    return json.dumps({"v": _VERSION, **plain}, separators=(",", ":"), sort_keys=True)


def decoded(name: str, text: str) -> BindingView:
    """The inverse of `encoded`; fields of a newer release are passed over. Raises Corrupt."""
    try:
        plain: dict[str, Any] = json.loads(text)
        known = {each.name for each in fields(BindingView)} - {"name", "revision"}
        taken = {key: value for key, value in plain.items() if key in known}
        for key in _TUPLES:
            taken[key] = tuple(taken.get(key, ()))
        made = BindingView(name=name, revision=_revision(text), **taken)
        return checked(made)
    except (ValueError, TypeError, AttributeError, EnvdError):
        raise Corrupt(f"the binding {name} does not decode") from None


def decoded_all(record: Mapping[str, str]) -> list[BindingView]:
    """All bindings of the record, by priority and name, but those that can't be read."""
    made: list[BindingView] = []
    for key, text in record.items():
        with suppress(Corrupt):
            made.append(decoded(_named(key), text))
    return sorted(made, key=lambda each: (each.priority, each.name))


def unreadable(record: Mapping[str, str]) -> list[str]:
    """The names of those that can't be read: made anew, they can."""
    named = {_named(key) for key in record}
    return sorted(named - {each.name for each in decoded_all(record)})


def with_revision(binding: BindingView) -> BindingView:
    """A binding with the revision that it has once it is kept."""
    return replace(binding, revision=_revision(encoded(binding)))


def record_key(name: str) -> str:
    """The key of a binding in the record: names may begin with a digit, which keys may not."""
    return f"B_{name}"


def _named(key: str) -> str:
    return key.removeprefix("B_")


def _revision(text: str) -> str:
    return blake2b(text.encode(), digest_size=8, person=b"envd binding").hexdigest()


# -- what is bound -----------------------------------------------------------------------


def root(binding: BindingView) -> str:
    """The environment or the prefix that is bound; "" for everything."""
    if binding.environment is not None:
        return binding.environment
    return check_prefix(binding.prefix or "")


def scope(binding: BindingView) -> Scope:
    """What of its place a binding looks at."""
    return Scope("", below=binding.environment is None)


def binds(binding: BindingView, environment: str) -> bool:
    """Whether an environment is one of those that are bound."""
    if binding.environment is not None:
        return environment == binding.environment
    return has_prefix(environment, root(binding))


def relative(binding: BindingView, environment: str) -> str:
    """The environment of keys for a bound environment."""
    bound = root(binding)
    return environment[len(bound) :].lstrip("/") if bound else environment


def absolute(binding: BindingView, key: Key) -> str:
    """The bound environment that a key belongs to; raises InvalidRequest where it is none."""
    bound = root(binding)
    return check_environment("/".join(filter(None, (bound, key.environment))))


def check_place(wanted: BindingView, others: Sequence[BindingView]) -> None:
    """Raise InvalidRequest where another binding writes to the same place: the two would fight."""
    if not writes_store(wanted):
        return
    mine = set(wanted.targets)
    for other in others:
        is_there = other.name != wanted.name and bool(mine & set(other.targets))
        if is_there and writes_store(other) and wanted.layout == other.layout:
            raise InvalidRequest(
                f"the binding {other.name} writes to the same place",
                hint="choose another place, or have one of them only pull",
                reason="PLACE_TAKEN",
            )


def writes_store(binding: BindingView) -> bool:
    """Whether the store is written."""
    return binding.direction in ("push", "both")


def writes_envd(binding: BindingView) -> bool:
    """Whether environments are written."""
    return binding.direction in ("pull", "both")
