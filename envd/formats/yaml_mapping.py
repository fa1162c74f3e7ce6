"""YAML files of variables: one mapping of names to strings.

A plain scalar that YAML takes for something other than a string (`NO`, `1.10`, `0755`, `null`,
`2024-01-01`) is refused with a hint to quote it, because what it would become depends on who
reads it. The parser's events are read one after the other instead of composing a tree: only
scalars are wanted, so nothing nests, and an alias is a reference to a text that exists once,
however often it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from envd.formats.source import Assignment, Source, is_variable_name, line_of

if TYPE_CHECKING:
    from yaml import CSafeLoader, SafeLoader
    from yaml.events import Event, ScalarEvent
    from yaml.resolver import Resolver

_STRING_TAG = "tag:yaml.org,2002:str"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_QUOTE_HINT = "put quotes around it"
_KINDS = {
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "null": "null",
    "timestamp": "a date",
    "merge": "a merge key",
}


class _Scalar(NamedTuple):
    text: str
    tag: str
    line: int


def read_yaml(text: str, source: Source) -> list[Assignment]:
    """Return the variables of a YAML file; an empty document has none."""
    stray = _UNPRINTABLE.search(text)
    if stray is not None:
        raise source.error(
            line_of(text, stray.start()),
            "found a control character, which YAML can't hold as it is",
            hint='write it as an escape in double quotes, such as "\\x1b"',
        )
    return _Reader(text, source).variables()


class _Reader:
    """Reads the events of one document; raises at the first that is none of ours."""

    def __init__(self, text: str, source: Source) -> None:
        from yaml.resolver import Resolver

        self._resolver = Resolver()
        self._text = text
        self._source = source
        self._anchors: dict[str, _Scalar] = {}
        self._events = self._parse()

    def _parse(self) -> Iterator[Event]:
        """Yield the parser's events; its errors are told by line only, they quote the text."""
        import yaml

        line = 1
        try:
            yield from yaml.parse(self._text, Loader=loader())
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        except yaml.YAMLError:
            line = 1
        else:
            return
        raise self._source.error(
            line,
            "the file is not YAML",
            hint="expected lines like NAME: \"value\"; put quotes around values with ': ' or ' #'",
        )

    def variables(self) -> list[Assignment]:
        import yaml

        next(self._events)  # the stream begins
        first = next(self._events)
        if isinstance(first, yaml.StreamEndEvent):
            return []
        root = next(self._events)
        if isinstance(root, yaml.ScalarEvent) and self._is_empty(root):
            found: list[Assignment] = []
        elif isinstance(root, yaml.MappingStartEvent):
            found = self._members()
        else:
            raise self._error(root, f"expected names and strings, found {_collection(root)}")
        next(self._events)  # the document ends
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._error(after, "found a second document, expected one")
        return found

    def _is_empty(self, event: ScalarEvent) -> bool:
        return event.value == "" and not event.style and event.tag is None

    def _members(self) -> list[Assignment]:
        import yaml

        found: dict[str, Assignment] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            name = self._name(event)
            value = self._value(next(self._events), name.text)
            first = found.get(name.text)
            if first is not None:
                raise self._source.error(
                    name.line,
                    f"{name.text} stands here a second time; the first is in line {first.line}",
                )
            found[name.text] = self._source.assignment(name.text, value.text, line=name.line)
        return list(found.values())

    def _name(self, event: Event) -> _Scalar:
        name = self._scalar(event, "a name")
        if name.tag != _STRING_TAG:
            shown = name.text if is_variable_name(name.text) else "a name"
            raise self._source.error(
                name.line,
                f"{shown} is {_kind(name.tag)} to YAML where a name is expected",
                hint=_QUOTE_HINT,
            )
        self._source.check_name(name.text, line=name.line)
        return name

    def _value(self, event: Event, name: str) -> _Scalar:
        value = self._scalar(event, f"the value of {name}")
        if value.tag != _STRING_TAG:
            raise self._source.error(
                _line(event),
                f"the value of {name} is {_kind(value.tag)} to YAML, expected a string",
                hint=_QUOTE_HINT,
            )
        return value

    def _scalar(self, event: Event, what: str) -> _Scalar:
        """Return the scalar that `event` is or refers to."""
        import yaml

        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(str(event.anchor))
            if known is None:
                raise self._error(event, f"{what} refers to an anchor that is not defined before")
            return known._replace(line=_line(event))
        if not isinstance(event, yaml.ScalarEvent):
            raise self._error(
                event,
                f"{what} is {_collection(event)}, expected a string",
                hint='write lines like NAME: "value"; envd\'s own output is read as JSON only',
            )
        scalar = _Scalar(event.value, _tag(event, self._resolver), _line(event))
        if event.anchor is not None:
            self._anchors[event.anchor] = scalar
        return scalar

    def _error(self, event: Event, what: str, *, hint: str = "") -> Exception:
        return self._source.error(_line(event), what, hint=hint)


def loader() -> type[SafeLoader | CSafeLoader]:
    """Return libyaml's loader where PyYAML was built with it: it is twenty times as fast."""
    import yaml

    return yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def _tag(event: ScalarEvent, resolver: Resolver) -> str:
    """Return the tag as YAML 1.1 resolves it, for that is what `yaml.safe_load` does.

    The tag `!` stays as it is, and is no string: PyYAML and libyaml differ about it.
    """
    import yaml

    if event.tag is not None:
        return event.tag
    tag: str = resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
    return tag


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _kind(tag: str) -> str:
    return _KINDS.get(tag.removeprefix("tag:yaml.org,2002:"), "no plain string")


def _collection(event: Event) -> str:
    import yaml

    match event:
        case yaml.MappingStartEvent():
            return "a mapping"
        case yaml.SequenceStartEvent():
            return "a list"
        case yaml.ScalarEvent():
            return "a single value"
        case _:
            return "something else"
