"""Conflicts in messages and documents: there and back without loss."""

from __future__ import annotations

import pytest

from envd.core.answers import ConflictPage, ConflictSide, ConflictView
from envd.core.commit import Kind
from envd.core.errors import InvalidRequest
from envd.core.requests import ConflictsRequest, Durability, ResolveRequest
from envd.core.stamp import Stamp
from envd.wire import api_conflicts, plain
from envd.wire._pb import environment_pb2 as pb

STAMP = Stamp(1, 1_700_000_000_000 << 16, 0xA1).hex()
TIME = "2023-11-14T22:13:20.000Z"
SET = ConflictSide("set", "8080", False, False, STAMP, TIME, "ann", "n1", "eu")
EMPTY = ConflictSide("set", "", True, False, STAMP, TIME, "", "00000000000000a1", "")
MASKED = ConflictSide("set", None, True, True, STAMP, TIME, "ann", "n1", "eu")
UNSET = ConflictSide("unset", None, False, False, STAMP, TIME, "bob", "n2", "us")
PAGE = ConflictPage(
    (
        ConflictView("ab" * 16, "web/prod", "PORT", SET, UNSET),
        ConflictView("cd" * 16, "web/prod", "owner", MASKED, EMPTY, metadata=True),
    ),
    "web/prod#" + "cd" * 16,
)
RESOLVE = ResolveRequest(
    "web/prod", "owner", "kept", Kind.METADATA, "ab" * 16, "why", "op", Durability.STRICT
)


def test_a_page_comes_back_from_its_message_and_its_document() -> None:
    raw = api_conflicts.conflict_page_message(PAGE).SerializeToString()

    assert api_conflicts.conflict_page_from(pb.ConflictsResponse.FromString(raw)) == PAGE
    assert plain.conflict_page(plain.to_plain(PAGE)) == PAGE


@pytest.mark.parametrize("request_", [RESOLVE, ResolveRequest("web", "A", "ab" * 16)])
def test_what_settles_comes_back_from_its_message(request_: ResolveRequest) -> None:
    raw = api_conflicts.resolve_message(request_).SerializeToString()

    assert api_conflicts.resolve_from(pb.ResolveRequest.FromString(raw)) == request_


def test_what_lists_comes_back_from_its_message() -> None:
    request = ConflictsRequest("", "web", "web#" + "ab" * 16, 7, reveal=True)
    raw = api_conflicts.conflicts_message(request).SerializeToString()

    assert api_conflicts.conflicts_from(pb.ConflictsRequest.FromString(raw)) == request


def test_a_durability_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        api_conflicts.resolve_from(pb.ResolveRequest(durability=9))  # type: ignore[arg-type]
