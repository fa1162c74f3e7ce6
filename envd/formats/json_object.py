"""JSON files of variables: an object of names and strings, or an environment of envd.

An environment is what `envctl get --output json` prints and what PUT takes:

    {"environment": "web/prod", "variables": {"A": {"value": "1", "secret": false}, "B": "2"}}

The members of an object are walked here and only their values are given to the standard
library's decoder, for two reasons: `json.loads` keeps the last of two equal names without a
word, and it does not tell where a member stands. Numbers are never converted.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from typing import Final, NamedTuple

from envd.formats.source import Assignment, Source, is_variable_name

_SPACE = re.compile(r"[ \t\n\r]*")
_SYNTAX: Final = (
    ("Expecting property name", "expected a name in double quotes"),
    ("Illegal trailing comma", "found a comma after the last member"),
    ("Expecting ','", "expected ',' between two members"),
    ("Expecting ':'", "expected ':' after a name"),
    ("Expecting value", "expected a value"),
    ("Unterminated string", "found a string that is never closed"),
    ("Invalid control character", "found a raw control character in a string; write \\n for it"),
    ("Invalid \\", "found an invalid backslash escape in a string"),
)


class _Number:
    """Stands for any number: its digits are not wanted, only that it is none of a string."""


@dataclass(frozen=True, slots=True)
class _Object:
    pairs: list[tuple[str, object]]


class _Member(NamedTuple):
    name: str
    value: object
    line: int
    at: int
    value_at: int
    end: int


class _Document:
    """The text with its lines counted, so that every index has a line at small cost."""

    def __init__(self, text: str, source: Source) -> None:
        self.text = text
        self.source = source
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._decoder = JSONDecoder(
            parse_int=_number,
            parse_float=_number,
            parse_constant=_number,
            object_pairs_hook=_Object,
        )

    def line(self, index: int) -> int:
        return bisect_left(self._line_ends, index) + 1

    def skip(self, index: int) -> int:
        match = _SPACE.match(self.text, index)
        return match.end() if match is not None else index

    def value(self, index: int) -> tuple[object, int]:
        """Decode the value at `index`; return it and where it ends."""
        what, at = "", index
        try:
            return self._decoder.raw_decode(self.text, index)
        except JSONDecodeError as error:
            what, at = _syntax(error.msg), error.pos
        except RecursionError:
            what = "found a value that is nested too deeply"
        raise self.error(at, what)

    def error(self, index: int, what: str, *, hint: str = "") -> Exception:
        return self.source.error(self.line(index), what, hint=hint)

    def members(self, index: int) -> Iterator[_Member | int]:
        """Yield the members of the object that opens at `index`, then where it ends."""
        index = self.skip(index + 1)
        if self.text[index : index + 1] == "}":
            yield index + 1
            return
        while True:
            name_at = self.skip(index)
            if self.text[name_at : name_at + 1] != '"':
                raise self.error(name_at, _syntax("Expecting property name"))
            name, index = self.value(name_at)
            index = self.skip(index)
            if self.text[index : index + 1] != ":":
                raise self.error(index, _syntax("Expecting ':'"))
            value_at = self.skip(index + 1)
            value, index = self.value(value_at)
            yield _Member(str(name), value, self.line(name_at), name_at, value_at, index)
            index = self.skip(index)
            match self.text[index : index + 1]:
                case ",":
                    index += 1
                case "}":
                    yield index + 1
                    return
                case _:
                    raise self.error(index, _syntax("Expecting ','"))


def read_json(text: str, source: Source) -> list[Assignment]:
    """Return the variables of a JSON file; raise InvalidRequest for anything unclear."""
    document = _Document(text, source)
    start = document.skip(0)
    if text[start : start + 1] != "{":
        raise document.error(
            start,
            "expected a JSON object of names and strings, found "
            + ("nothing" if start == len(text) else "something else"),
        )
    members, end = _distinct_members(document, start)
    if document.skip(end) != len(text):
        raise document.error(document.skip(end), "found text after the JSON object")
    variables = next((each for each in members if each.name == "variables"), None)
    if variables is None or not isinstance(variables.value, _Object):
        return [_flat(member, source) for member in members]
    _refuse_strangers(members, source)
    inner, _ = _distinct_members(document, variables.value_at)
    return [_variable(member, source) for member in inner]


class JsonMember(NamedTuple):
    """Where a variable stands: its name at `at`, the text of its value, and where it all ends."""

    name: str
    at: int
    value_at: int
    value_end: int
    end: int


class JsonPlaces(NamedTuple):
    """The members of the object that holds the variables; `close` is where its `}` stands."""

    open: int
    close: int
    members: list[JsonMember]


def json_places(text: str, source: Source) -> JsonPlaces:
    """Where the variables stand in a text that `read_json` reads."""
    document = _Document(text, source)
    start = document.skip(0)
    members, end = _distinct_members(document, start)
    variables = next((each for each in members if each.name == "variables"), None)
    if variables is not None and isinstance(variables.value, _Object):
        start = variables.value_at
        members, end = _distinct_members(document, start)
    return JsonPlaces(start, end - 1, [_place(document, each) for each in members])


def _place(document: _Document, member: _Member) -> JsonMember:
    """A variable is a string, or an object whose "value" is one."""
    value_at, value_end = member.value_at, member.end
    if isinstance(member.value, _Object):
        for each in _distinct_members(document, member.value_at)[0]:
            if each.name == "value":
                value_at, value_end = each.value_at, each.end
    return JsonMember(member.name, member.at, value_at, value_end, member.end)


def _distinct_members(document: _Document, index: int) -> tuple[list[_Member], int]:
    """Return the members of the object at `index`, and where it ends; refuse equal names."""
    members: dict[str, _Member] = {}
    end = index
    for each in document.members(index):
        if isinstance(each, int):
            end = each
            continue
        first = members.get(each.name)
        if first is not None:
            raise document.source.error(
                each.line,
                f"{_shown(each.name)} stands here a second time; the first is in line {first.line}",
            )
        members[each.name] = each
    return list(members.values()), end


def _refuse_strangers(members: list[_Member], source: Source) -> None:
    """Refuse variables that stand beside "variables", where they would be passed over.

    What envd prints has "environment" and may have fields of newer versions; a file without
    it was written by hand, and another member of it is a mistake.
    """
    names = {member.name for member in members}
    if "environment" in names:
        return
    for member in members:
        if member.name not in {"variables", "metadata", "message"}:
            raise source.error(
                member.line,
                f"{_shown(member.name)} stands beside 'variables' and would be ignored",
                hint="move it into 'variables'",
            )


def _flat(member: _Member, source: Source) -> Assignment:
    source.check_name(member.name, line=member.line)
    if isinstance(member.value, str):
        return source.assignment(member.name, member.value, line=member.line)
    raise _no_string(member, member.value, source)


def _variable(member: _Member, source: Source) -> Assignment:
    """Read a member of "variables": a string, or an object with value and secret."""
    source.check_name(member.name, line=member.line)
    if not isinstance(member.value, _Object):
        return _flat(member, source)
    fields = dict(member.value.pairs)
    if len(fields) != len(member.value.pairs):
        raise source.error(member.line, f"a field of {member.name} stands there twice")
    if fields.get("masked") is True or ("value" in fields and fields["value"] is None):
        raise source.error(
            member.line,
            f"the value of {member.name} is masked; masked values can't be imported",
            hint="export with --reveal",
        )
    value = fields.get("value")
    secret = fields.get("secret")
    if "value" not in fields:
        raise source.error(member.line, f"{member.name} has no field 'value'")
    if not isinstance(value, str):
        raise _no_string(member, value, source)
    if not isinstance(secret, bool | None):
        raise source.error(
            member.line, f"the field 'secret' of {member.name} is {_kind(secret)}, not a boolean"
        )
    return source.assignment(member.name, value, line=member.line, secret=secret)


def _no_string(member: _Member, value: object, source: Source) -> Exception:
    return source.error(
        member.line,
        f"the value of {member.name} is {_kind(value)}, expected a string",
        hint=_string_hint(value),
    )


def _string_hint(value: object) -> str:
    if value is None:
        return 'write "" for an empty value, or leave the name out'
    if isinstance(value, bool | _Number):
        return "put the value in double quotes"
    return "write JSON that belongs into the value as a string"


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case _Number():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _number(_digits: str) -> _Number:
    return _Number()


def _syntax(message: str) -> str:
    """Say in words of our own what the decoder found: some of its messages quote the text."""
    for prefix, ours in _SYNTAX:
        if message.startswith(prefix):
            return f"the file is not JSON: {ours}"
    return "the file is not JSON"


def _shown(name: str) -> str:
    return name if is_variable_name(name) else "a name"
