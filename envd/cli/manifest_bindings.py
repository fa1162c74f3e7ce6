"""The `bindings` of a manifest: the keys of `[[bindings]]` in the settings of envd.

What a binding ties is the file's own environment, so there is neither `environment` nor `prefix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from envd.cli.documents import Item
from envd.core.errors import InvalidRequest
from envd.core.syncing import BindingView
from envd.formats.source import Source

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "route": ("failover", "latency", "cost", "priority", "region"),
    "direction": ("push", "pull", "both"),
    "conflict_policy": ("lww", "envd", "store", "manual"),
    "delete_policy": ("owned", "never", "mirror"),
    "layout": ("per-variable", "document"),
}
_TEXTS: Final = ("name", "name_template", "credentials")
_LISTS: Final = ("targets", "windows")
_SWITCHES: Final = ("suspended", "budget_stops")
_MOST: Final = {"interval_seconds": 86_400.0, "priority": 1_000.0, "budget_dollars": 1e9}
_LEAST: Final = {"interval_seconds": 5.0}
_KEYS: Final = (*_TEXTS, *_LISTS, *_WORDS, *_SWITCHES, *_MOST)


def read_bindings(item: Item, source: Source, environment: str) -> tuple[BindingView, ...]:
    """The bindings of the environment; raises InvalidRequest with the file and the line."""
    if item.kind == "null":
        return ()
    if not isinstance(item.value, list):
        raise source.error(item.line, f"bindings is {item.kind}, expected a list of tables")
    return tuple(_binding(each, source, environment) for each in item.value)


def _binding(item: Item, source: Source, environment: str) -> BindingView:
    if not isinstance(item.value, dict):
        raise source.error(item.line, f"a binding is {item.kind}, expected a table")
    said: dict[str, Any] = {}
    for key, each in item.value.items():
        if key not in _KEYS:
            raise _unknown(key, each, source)
        said[key] = _value(key, each, source)
    for key in ("name", "targets"):
        if not said.get(key):
            raise source.error(item.line, f"a binding has no {key}")
    return BindingView(environment=environment, prefix=None, **said)


def _unknown(key: str, item: Item, source: Source) -> InvalidRequest:
    from difflib import get_close_matches

    if key in ("environment", "prefix"):
        return source.error(
            item.line,
            f"{key}: the bindings of a file are those of its own environment",
            hint="envctl sync bind ties others, and all below a prefix",
        )
    near = get_close_matches(key, _KEYS, 1)
    hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(_KEYS)}"
    return source.error(item.line, f"a binding has no key {key[:64]!a}", hint=hint)


def _value(key: str, item: Item, source: Source) -> object:
    if key in _MOST:
        return _number(key, item, source)
    if key in _SWITCHES:
        if not isinstance(item.value, bool):
            raise source.error(item.line, f"{key} takes true or false")
        return item.value
    if key in _LISTS:
        if not isinstance(item.value, list):
            raise source.error(item.line, f'{key} takes a list: {key} = ["..."]')
        texts = tuple(_text(f"a part of {key}", each, source) for each in item.value)
        if key == "targets":
            return tuple(_target(text, item.line, source) for text in texts)
        return texts
    text = _text(key, item, source)
    words = _WORDS.get(key, ())
    if words and text not in words:
        raise source.error(item.line, f"{key} takes one of {', '.join(words)}")
    return text


def _target(text: str, line: int, source: Source) -> str:
    store, colon, place = text.partition(":")
    if not (store and colon and place.strip()):
        raise source.error(
            line,
            f"{text[:64]!a} is no target",
            hint="a store and a place in it: aws-ssm:/payments/prod",
        )
    return text


def _number(key: str, item: Item, source: Source) -> float | int:
    whole = key != "budget_dollars"
    try:
        number = int(item.number) if whole else float(item.number)
    except ValueError:
        number = -1
    least, most = _LEAST.get(key, 0.0), _MOST[key]
    if not least <= number <= most:
        what = "a whole number" if whole else "a number"
        raise source.error(item.line, f"{key} takes {what} from {least:,.0f} to {most:,.0f}")
    return number


def _text(what: str, item: Item, source: Source) -> str:
    if not isinstance(item.value, str):
        raise source.error(item.line, f"{what} is {item.kind}, expected text")
    return item.value
