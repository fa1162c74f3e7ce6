"""JSON changed in place: each member keeps what stands before it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from envd.formats.json_object import JsonPlaces, json_places
from envd.formats.source import Source


def rewrite_json(text: str, changes: Mapping[str, str | None], source: Source) -> str:
    """Change the variables of a text that `read_json` reads; new ones come last."""
    places = json_places(text, source)
    first, further, tail = _spaces(text, places)
    pieces: list[str] = []
    last_end = places.open + 1
    for member in places.members:
        before, last_end = text[last_end : member.at], member.end
        if member.name in changes and changes[member.name] is None:
            continue
        pieces.append(before if pieces else first)
        value = changes.get(member.name)
        if value is None:
            pieces.append(text[member.at : member.end])
        else:
            pieces += [text[member.at : member.value_at], _string(value)]
            pieces.append(text[member.value_end : member.end])
    known = {member.name for member in places.members}
    for name, value in changes.items():
        if value is not None and name not in known:
            pieces += [further if pieces else first, f"{_string(name)}: {_string(value)}"]
    inside = "".join([*pieces, tail]) if pieces else ""
    return text[: places.open + 1] + inside + text[places.close :]


def _spaces(text: str, places: JsonPlaces) -> tuple[str, str, str]:
    """What stands before the first member, before a further one, and after the last."""
    if not places.members:
        return "\n  ", ",\n  ", "\n"
    first = text[places.open + 1 : places.members[0].at]
    tail = text[places.members[-1].end : places.close]
    if len(places.members) == 1:
        return first, "," + (first or " "), tail
    return first, text[places.members[-2].end : places.members[-1].at], tail


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
