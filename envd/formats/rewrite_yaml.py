"""YAML changed in place, by the places that the parser's events tell.

What can't be done by replacing the text of one value (an anchor that others refer to, a comment
within a mapping in braces) comes out as something that reads differently, which `rewrite` refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from envd.formats.rewrite import Edit, appended, edited
from envd.formats.write import yaml_name, yaml_string
from envd.formats.yaml_mapping import loader

if TYPE_CHECKING:
    from yaml.events import Event


class _Member(NamedTuple):
    name: str
    key_at: int
    value_at: int
    value_end: int


class _Mapping(NamedTuple):
    """The mapping of a document; `end` is where the document ends."""

    start: int
    close: int
    end: int
    is_flow: bool
    members: list[_Member]


def rewrite_yaml(text: str, changes: Mapping[str, str | None], names: Sequence[str]) -> str:
    """Change the variables of a text that `read_yaml` reads; `names` are those that it has."""
    root = _mapping(text, names)
    if root.is_flow:
        return _flow(text, root, changes)
    edits = [
        _edit(text, member, changes[member.name])
        for member in root.members
        if member.name in changes
    ]
    head, tail = edited(text[: root.end], edits), text[root.end :]
    first = root.members[0].key_at if root.members else 0
    indent = " " * (first - text.rfind("\n", 0, first) - 1) if root.members else ""
    known = set(names)
    lines = [
        f"{indent}{yaml_name(name)}: {yaml_string(value)}"
        for name, value in changes.items()
        if value is not None and name not in known
    ]
    return appended(head, lines) + tail


def _mapping(text: str, names: Sequence[str]) -> _Mapping:
    import yaml

    events = list(yaml.parse(text, Loader=loader()))
    ends = [each for each in events if isinstance(each, yaml.DocumentEndEvent)]
    end = _start(ends[0]) if ends and ends[0].explicit else len(text)
    opens = next((each for each in events if isinstance(each, yaml.MappingStartEvent)), None)
    if opens is None:
        return _Mapping(0, 0, end, is_flow=False, members=[])
    at = events.index(opens)
    inner = events[at + 1 : at + 1 + 2 * len(names)]
    members = [
        _Member(name, _start(key), _start(value), _end(value))
        for name, key, value in zip(names, inner[::2], inner[1::2], strict=True)
    ]
    close = _end(events[at + 1 + len(inner)])
    return _Mapping(_start(opens), close, end, bool(opens.flow_style), members)


def _edit(text: str, member: _Member, value: str | None) -> Edit:
    start, end = member.value_at, member.value_end
    if value is not None:
        # A block scalar takes the line ends after it along.
        written = text[start:end]
        return Edit(start, end, yaml_string(value) + written[len(written.rstrip("\r\n")) :])
    line = text.rfind("\n", 0, member.key_at) + 1
    if text[end - 1 : end] == "\n":
        return Edit(line, end, "")
    line_end = text.find("\n", end)
    return Edit(line, line_end + 1 if line_end >= 0 else len(text), "")


def _flow(text: str, root: _Mapping, changes: Mapping[str, str | None]) -> str:
    """Change `{A: "1"}`; the braces of an empty one go, so that lines can follow."""
    kept = {each.name: text[each.value_at : each.value_end] for each in root.members}
    if "#" in edited(text, [Edit(each.value_at, each.value_end, "") for each in root.members]):
        return text
    for name, value in changes.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = yaml_string(value)
    if root.members:
        inside = "{" + ", ".join(f"{yaml_name(name)}: {kept[name]}" for name in kept) + "}"
    else:
        lines = "\n".join(f"{yaml_name(name)}: {kept[name]}" for name in kept)
        at_line_start = root.start == 0 or text[root.start - 1] == "\n"
        inside = (lines if at_line_start else "\n" + lines) if kept else "{}"
    return text[: root.start] + inside + text[root.close :]


def _start(event: Event) -> int:
    return event.start_mark.index if event.start_mark is not None else 0


def _end(event: Event) -> int:
    return event.end_mark.index if event.end_mark is not None else 0
