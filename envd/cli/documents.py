"""TOML and YAML as one kind of tree that knows its lines.

YAML is read as events, a few levels deep, so nothing nests without end and an alias is no
more than a refusal. Of a scalar only text and true or false have a value; numbers, dates and
null are told by their kind, since what they become as text depends on who reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from envd.formats.source import Source

if TYPE_CHECKING:
    from yaml.events import Event, ScalarEvent

_MAX_DEPTH = 4
_KINDS = {"bool": "a boolean", "int": "a number", "float": "a number", "null": "null"}
_QUOTES = "values stand in quotes"
_HEADER = re.compile(r"[ \t]*\[{1,2}[ \t]*([A-Za-z0-9_-]+)[ \t]*\]")
_KEY = re.compile(r"[ \t]*[\"']?([A-Za-z0-9_.-]+?)[\"']?[ \t]*=")


class Item(NamedTuple):
    """One value and its line; `value` is None for a scalar that is no text, whose `kind` says
    what it is. `moment` is the text of a date, `number` that of a number."""

    value: str | bool | list[Item] | dict[str, Item] | None
    line: int
    kind: str
    moment: str = ""
    number: str = ""

    def __repr__(self) -> str:
        """Leave the value out."""
        return f"Item({self.kind}, line {self.line})"


def read_document(text: str, source: Source, *, toml: bool) -> Item:
    """Return the tree of a document; an empty one is an empty table.

    Raises InvalidRequest that names the line, and never holds a piece of the text.
    """
    return _read_toml(text, source) if toml else _read_yaml(text, source)


# -- TOML ------------------------------------------------------------------------------


def _read_toml(text: str, source: Source) -> Item:
    import tomllib

    line = 0
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Not chained, and not quoted: the message may hold a piece of the text.
        found = re.search(r"at line (\d+)", str(error))
        line = int(found.group(1)) if found else text.rstrip("\n").count("\n") + 1
    except RecursionError:
        line = 1
    if line:
        raise source.error(line, "the file is not TOML", hint=f'{_QUOTES}: NAME = "value"')
    return _item(document, 1, _Lines(text), ())


class _Lines:
    """Where keys stand in a TOML text, as well as can be told without the parser."""

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str, str], int] = {}
        table = ""
        for number, line in enumerate(text.split("\n"), 1):
            if found := _HEADER.match(line):
                table = found.group(1)
                self._lines.setdefault(("", table), number)
            elif found := _KEY.match(line):
                self._lines.setdefault((table, found.group(1)), number)

    def of(self, path: tuple[str, ...], otherwise: int) -> int:
        """The line of a key, or `otherwise` where that is not known."""
        table = path[0] if len(path) > 1 else ""
        return self._lines.get((table, path[-1]), otherwise)


def _item(value: Any, line: int, lines: _Lines, path: tuple[str, ...]) -> Item:
    match value:
        case dict() if len(path) < _MAX_DEPTH:
            below = {
                key: _item(each, lines.of((*path, key), line), lines, (*path, key))
                for key, each in value.items()
            }
            return Item(below, line, "a table")
        case list() if len(path) < _MAX_DEPTH:
            deeper = (*path, "")
            return Item([_item(each, line, lines, deeper) for each in value], line, "a list")
        case bool():
            return Item(value, line, "a boolean")
        case str():
            return Item(value, line, "text")
        case int() | float():
            return Item(None, line, "a number", number=str(value))
        case dict() | list():
            return Item(None, line, "nested too deep")
        case _:
            return Item(None, line, "a date", value.isoformat())


# -- YAML ------------------------------------------------------------------------------


def _read_yaml(text: str, source: Source) -> Item:
    import yaml

    reader = _YamlReader(text, source)
    reader.next()  # the stream begins
    if isinstance(reader.next(), yaml.StreamEndEvent):
        return Item({}, 1, "a table")
    root = reader.built(reader.next(), 0)
    reader.next()  # the document ends
    after = reader.next()
    if not isinstance(after, yaml.StreamEndEvent):
        raise source.error(_line(after), "found a second document, expected one")
    return Item({}, 1, "a table") if root.kind == "null" else root


class _YamlReader:
    """Reads the events of one document."""

    def __init__(self, text: str, source: Source) -> None:
        from yaml.resolver import Resolver

        self._source = source
        self._resolver = Resolver()
        self._events = self._parse(text)

    def next(self) -> Event:
        return next(self._events)

    def _parse(self, text: str) -> Iterator[Event]:
        import yaml

        line = 0
        try:
            loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
            yield from yaml.parse(text, Loader=loader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        except yaml.YAMLError:
            line = 1
        if line:
            hint = f'{_QUOTES}: NAME: "value"'
            raise self._source.error(line, "the file is not YAML", hint=hint)

    def built(self, event: Event, depth: int) -> Item:
        """The item that begins with `event`; raises where it nests deeper than documents do."""
        import yaml

        line = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, line)
        if isinstance(event, yaml.AliasEvent) or depth >= _MAX_DEPTH:
            what = "an alias" if isinstance(event, yaml.AliasEvent) else "nested too deep"
            raise self._source.error(line, f"this is {what}, expected text")
        if isinstance(event, yaml.SequenceStartEvent):
            parts = []
            while not isinstance(event := self.next(), yaml.SequenceEndEvent):
                parts.append(self.built(event, depth + 1))
            return Item(parts, line, "a list")
        return Item(self._members(depth), line, "a table")

    def _members(self, depth: int) -> dict[str, Item]:
        """The members of a mapping; a value counts as standing where its key does."""
        import yaml

        below: dict[str, Item] = {}
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            key = self.built(event, depth + 1)
            if not isinstance(key.value, str):
                what = f"found {key.kind} where a key is expected"
                raise self._source.error(key.line, what, hint="put quotes around it")
            first = below.get(key.value)
            if first is not None:
                raise self._source.error(
                    key.line,
                    f"this key stands here a second time; the first is in line {first.line}",
                )
            below[key.value] = self.built(self.next(), depth + 1)._replace(line=key.line)
        return below

    def _scalar(self, event: ScalarEvent, line: int) -> Item:
        import yaml

        tag = event.tag
        if tag is None:
            tag = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        name = tag.removeprefix("tag:yaml.org,2002:")
        match name:
            case "str":
                return Item(event.value, line, "text")
            case "bool" if event.value in {"true", "false"}:
                return Item(event.value == "true", line, "a boolean")
            case "timestamp":
                return Item(None, line, "a date", event.value)
            case "int" | "float":
                return Item(None, line, _KINDS[name], number=event.value)
            case _:
                return Item(None, line, _KINDS.get(name, "no plain text"))


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1
