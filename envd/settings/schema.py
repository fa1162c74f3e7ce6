"""The settings model, read back as a tree of keys.

`table_of` turns a msgspec Struct into a `Table` whose children are leaves (one key), tables
(`[node]`), named tables (`[regions.NAME]`) and arrays of tables (`[[bindings]]`). The loader,
the error messages and the rendering all walk this tree, so a field that is added to the
model is known everywhere at once.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from envd.settings.marks import INERT, NOT_A_KEY, SECRET, Derived, Expects, Within
from envd.settings.units import Address, Duration

MISSING: Final = msgspec.NODEFAULT
"""The default of a key that has none: it must be given, or is derived while loading."""

_SCALARS: Final[Mapping[object, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Address: 'an address like "127.0.0.1:7420" or "[::1]:7420"',
    Duration: 'a duration like "200ms", "1s" or "5m"',
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """One key: `hint` is the type that msgspec checks, `kind` the same without annotations."""

    hint: object
    kind: object
    marks: tuple[object, ...] = ()
    item: Leaf | None = None
    optional: bool = False
    default: object = MISSING
    inert: bool = False

    @property
    def secret(self) -> bool:
        return SECRET in self.marks

    @property
    def required(self) -> bool:
        """Tell whether whoever writes the table must give the key."""
        return self.default is MISSING and self.derived is None

    @property
    def derived(self) -> Derived | None:
        return next((mark for mark in self.marks if isinstance(mark, Derived)), None)

    @property
    def expects(self) -> Expects | None:
        return next((mark for mark in self.marks if isinstance(mark, Expects)), None)

    @property
    def within(self) -> Within | None:
        return next((mark for mark in self.marks if isinstance(mark, Within)), None)

    @property
    def lengths(self) -> tuple[int, int | None]:
        """Return how many characters, or items of a list, there are at least and at most."""
        metas = [mark for mark in self.marks if isinstance(mark, msgspec.Meta)]
        least = max((meta.min_length or 0 for meta in metas), default=0)
        return least, next((meta.max_length for meta in metas if meta.max_length), None)

    @property
    def words(self) -> str:
        """Say what the key takes, as the end of the sentence "it must be ..."."""
        if self.item is not None:
            least, most = self.lengths
            count = f" of {least} to {most} items" if most is not None else ""
            return f"a list{count}, each {self.item.words}"
        if self.expects is not None:
            return self.expects.words
        if typing.get_origin(self.kind) is Literal:
            return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(self.kind))
        words = _SCALARS.get(self.kind, "a path")
        if self.within is not None:
            words += f", from {self.within.low} to {self.within.high}"
        return words + _range_in_words(self.marks)


@dataclass(frozen=True, slots=True)
class Table:
    struct: type[msgspec.Struct]
    children: Mapping[str, Node]
    inert: bool = False


@dataclass(frozen=True, slots=True)
class NamedTables:
    """`[regions.NAME]`: tables of one kind under names that the operator chooses."""

    table: Table
    name: Leaf


@dataclass(frozen=True, slots=True)
class TableArray:
    """`[[bindings]]`: any number of tables of one kind."""

    table: Table


Node: TypeAlias = Leaf | Table | NamedTables | TableArray


def table_of(struct: type[msgspec.Struct], *, inert: bool = False) -> Table:
    """Read a Struct and all Structs below it; an inert table's children are inert too."""
    hints = typing.get_type_hints(struct, include_extras=True)
    children: dict[str, Node] = {}
    for field in msgspec.structs.fields(struct):
        leaf = leaf_of(hints[field.name])
        if NOT_A_KEY in leaf.marks:
            continue
        default = field.default_factory() if callable(field.default_factory) else field.default
        leaf = replace(leaf, default=default, inert=inert or INERT in leaf.marks)
        children[field.name] = _node_of(leaf)
    return Table(struct, children, inert)


def leaf_of(hint: object) -> Leaf:
    """Take annotations and `| None` off a type, keeping what they said."""
    kind, marks, optional = hint, (), False
    while True:
        if typing.get_origin(kind) is Annotated:
            kind, *more = typing.get_args(kind)
            marks = (*marks, *more)
        elif typing.get_origin(kind) in (typing.Union, types.UnionType):
            (kind,) = (arm for arm in typing.get_args(kind) if arm is not types.NoneType)
            optional = True
        else:
            break
    item = leaf_of(typing.get_args(kind)[0]) if typing.get_origin(kind) is tuple else None
    return Leaf(hint, kind, marks, item, optional)


def _node_of(leaf: Leaf) -> Node:
    if isinstance(leaf.kind, type) and issubclass(leaf.kind, msgspec.Struct):
        return table_of(leaf.kind, inert=leaf.inert)
    if typing.get_origin(leaf.kind) is Mapping:
        name, row = typing.get_args(leaf.kind)
        return NamedTables(table_of(row, inert=leaf.inert), leaf_of(name))
    row = leaf.item.kind if leaf.item is not None else None
    if isinstance(row, type) and issubclass(row, msgspec.Struct):
        return TableArray(table_of(row, inert=leaf.inert))
    return leaf


def dotted_names(table: Table, prefix: str = "") -> Iterator[str]:
    """Yield every key and section: `node`, `node.listen`, ..., `regions.NAME.zones`."""
    for name, node in table.children.items():
        yield prefix + name
        match node:
            case Leaf():
                pass
            case Table():
                yield from dotted_names(node, f"{prefix}{name}.")
            case NamedTables():
                yield from dotted_names(node.table, f"{prefix}{name}.NAME.")
            case TableArray():
                yield from dotted_names(node.table, f"{prefix}{name}.")
            case _:
                typing.assert_never(node)


def leaf_at(table: Table, dotted: str) -> Leaf:
    """Return the leaf of a key outside named tables and arrays, such as `node.listen`."""
    *sections, name = dotted.split(".")
    for section in sections:
        below = table.children[section]
        assert isinstance(below, Table)
        table = below
    leaf = table.children[name]
    assert isinstance(leaf, Leaf)
    return leaf


def _range_in_words(marks: tuple[object, ...]) -> str:
    """`Meta(ge=1, le=7)` becomes ` from 1 to 7`."""
    words = ""
    for meta in marks:
        if not isinstance(meta, msgspec.Meta):
            continue
        if meta.ge is not None and meta.le is not None:
            words += f" from {meta.ge} to {meta.le}"
        elif meta.ge is not None:
            words += f" of at least {meta.ge}"
        if meta.multiple_of is not None:
            words += f", a multiple of {meta.multiple_of}"
        if meta.min_length is not None and meta.max_length is not None:
            words += f" of {meta.min_length} to {meta.max_length} characters"
        elif meta.max_length is not None:
            words += f" of at most {meta.max_length} characters"
    return words
