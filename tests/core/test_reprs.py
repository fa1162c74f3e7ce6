"""No `repr` of anything that carries a value ever shows it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from types import ModuleType

import pytest

from envd import ports
from envd.core import answers, commit, entries, environment, history, requests
from envd.core.answers import (
    Changed,
    ChangeView,
    CommitView,
    ConflictPage,
    ConflictSide,
    ConflictView,
    EnvironmentView,
    ExportedEnvironment,
    SnapshotItem,
    VariableView,
)
from envd.core.commit import Change, ChangeColumns, Commit, Kind, LogRecord
from envd.core.entries import Entry, EntryColumns
from envd.core.environment import Environment
from envd.core.history import ConflictRecord, Side
from envd.core.requests import Put, PutColumns, WriteRequest
from envd.core.stamp import ZERO, Stamp
from envd.ports import Applied, StoredState
from envd.storage.segment import Frame
from envd.wire.records import StoredEnvironment

CANARY = "canary-7f3a"
STAMP = Stamp(0, 1 << 16, 7)

_change = Change(Kind.VARIABLE, "TOKEN", CANARY, True, ZERO)
_setting = Change(Kind.METADATA, "owner", CANARY, False, ZERO)
_commit = Commit("e", STAMP, (_change, _setting))
_record = LogRecord(1, 7, 1, _commit)
_entry = Entry(STAMP, ZERO, CANARY, True)
_environment = Environment("e", {"TOKEN": _entry}, {"owner": _entry})
_state = StoredState(_environment, b"r" * 16)
_side = Side(STAMP, CANARY, True, "admin")
_view = VariableView(CANARY, True, False, STAMP.hex(), "eu", "n1")
_environment_view = EnvironmentView("e", "00", STAMP.hex(), {"owner": CANARY}, {"TOKEN": _view})
_commit_view = CommitView(
    "id", "e", "00", STAMP.hex(), "t", "n1", "eu", "admin", "", (ChangeView("TOKEN", "set"),)
)

_conflict_side = ConflictSide("set", CANARY, True, False, "0", "t", "admin", "n1", "eu")
_conflict_view = ConflictView("id", "e", "TOKEN", _conflict_side, _conflict_side)

CARRIERS = (
    _change,
    _commit,
    _record,
    _entry,
    _environment,
    _side,
    ConflictRecord("e", Kind.VARIABLE, "TOKEN", _side, _side),
    history._Write(ZERO, _side),
    _conflict_side,
    _conflict_view,
    ConflictPage((_conflict_view,)),
    _view,
    _environment_view,
    SnapshotItem(_environment_view),
    Changed(_commit_view, "token", _environment_view),
    Put("TOKEN", CANARY, True),
    WriteRequest("e", (Put("TOKEN", CANARY), Put("owner", CANARY, kind=Kind.METADATA))),
    PutColumns(["TOKEN"], [CANARY], {0: True}),
    ChangeColumns(["TOKEN"], [CANARY], b"\1", [ZERO]),
    EntryColumns(["TOKEN"], [CANARY], b"\1", [STAMP], [ZERO]),
    ExportedEnvironment("e", "00", {"owner": CANARY}, ["TOKEN"], [CANARY], [0], False),
    _state,
    Applied(1, _record, _state, 64),
    StoredEnvironment(_state),
    Frame(64, 128, 1, 0, [CANARY.encode()]),
)


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: type(carrier).__name__)
def test_no_repr_shows_a_value(carrier: object) -> None:
    shown = f"{carrier!r} {carrier!s} {carrier} {[carrier]} {({'key': carrier},)}"

    assert CANARY not in shown
    assert type(carrier).__name__ in shown


def _fields(module: ModuleType) -> dict[str, list[tuple[str, str]]]:
    """(name, annotation) of the fields of each dataclass and named tuple of a module."""
    found = {}
    for name, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == module.__name__ and (
            dataclasses.is_dataclass(kind) or issubclass(kind, tuple)
        ):
            annotations = inspect.get_annotations(kind)
            found[name] = [(field, str(annotation)) for field, annotation in annotations.items()]
    return found


def test_every_class_that_can_carry_a_value_is_among_those_tried() -> None:
    classes: dict[str, list[tuple[str, str]]] = {}
    for module in (answers, commit, entries, environment, history, requests, ports):
        classes |= _fields(module)

    carrying = {
        name
        for name, fields in classes.items()
        if any(field == "value" or "[str, str]" in annotation for field, annotation in fields)
    }
    grown = True
    while grown:
        words = re.compile(rf"\b({'|'.join(sorted(carrying))})\b")
        more = {
            name
            for name, fields in classes.items()
            if any(words.search(annotation) for _, annotation in fields)
        }
        grown = not more <= carrying
        carrying |= more

    assert {"Put", "VariableView", "Commit", "Applied"} <= carrying
    assert carrying <= {type(carrier).__name__ for carrier in CARRIERS}


def test_what_a_repr_does_tell_is_enough_to_find_the_write() -> None:
    assert repr(_change) == "Change(set variable TOKEN)"
    assert repr(_change._replace(value=None)) == "Change(unset variable TOKEN)"
    assert repr(_entry) == f"Entry({STAMP.hex()}, value)"
    assert repr(_side) == f"Side({STAMP.hex()} by admin)"
