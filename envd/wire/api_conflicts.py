"""Conflicts in the public API's messages <-> the core's requests and answers; as `wire.api`."""

from __future__ import annotations

from typing import Final

from envd.core.answers import ConflictPage, ConflictSide, ConflictView
from envd.core.commit import Kind
from envd.core.requests import ConflictsRequest, ResolveRequest
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api import durability_from, durability_number

_UNSET: Final = "unset"


def conflicts_from(message: pb.ConflictsRequest) -> ConflictsRequest:
    return ConflictsRequest(
        message.environment, message.prefix, message.after, message.limit, message.reveal
    )


def conflicts_message(request: ConflictsRequest) -> pb.ConflictsRequest:
    return pb.ConflictsRequest(
        environment=request.environment,
        prefix=request.prefix,
        after=request.after,
        limit=request.limit,
        reveal=request.reveal,
    )


def resolve_from(message: pb.ResolveRequest) -> ResolveRequest:
    """Raises InvalidRequest for a durability that is none."""
    return ResolveRequest(
        message.environment,
        message.variable,
        message.take,
        Kind.METADATA if message.metadata else Kind.VARIABLE,
        message.if_revision,
        message.message,
        message.operation,
        durability_from(message.durability),
    )


def resolve_message(request: ResolveRequest) -> pb.ResolveRequest:
    return pb.ResolveRequest(
        environment=request.environment,
        variable=request.variable,
        take=request.take,
        metadata=request.kind is Kind.METADATA,
        if_revision=request.if_revision,
        message=request.message,
        operation=request.operation,
        durability=durability_number(request.durability),
    )


def conflict_page_message(page: ConflictPage) -> pb.ConflictsResponse:
    return pb.ConflictsResponse(
        conflicts=map(_conflict_message, page.conflicts),
        next=page.next,
        partial=page.partial,
        partial_reason=page.partial_reason,
    )


def conflict_page_from(message: pb.ConflictsResponse) -> ConflictPage:
    return ConflictPage(
        tuple(map(_conflict_from, message.conflicts)),
        message.next,
        message.partial,
        message.partial_reason,
    )


def _conflict_message(view: ConflictView) -> pb.Conflict:
    return pb.Conflict(
        id=view.id,
        environment=view.environment,
        variable=view.variable,
        kept=_side_message(view.kept),
        lost=_side_message(view.lost),
        metadata=view.metadata,
    )


def _conflict_from(message: pb.Conflict) -> ConflictView:
    return ConflictView(
        message.id,
        message.environment,
        message.variable,
        _side_from(message.kept),
        _side_from(message.lost),
        message.metadata,
    )


def _side_message(side: ConflictSide) -> pb.Conflict.Side:
    return pb.Conflict.Side(
        kind=pb.Change.KIND_UNSET if side.kind == _UNSET else pb.Change.KIND_SET,
        value=side.value,
        secret=side.secret,
        masked=side.masked,
        stamp=bytes.fromhex(side.stamp),
        time=side.time,
        actor=side.actor,
        node=side.node,
        region=side.region,
    )


def _side_from(message: pb.Conflict.Side) -> ConflictSide:
    return ConflictSide(
        _UNSET if message.kind == pb.Change.KIND_UNSET else "set",
        message.value if message.HasField("value") else None,
        message.secret,
        message.masked,
        message.stamp.hex(),
        message.time,
        message.actor,
        message.node,
        message.region,
    )
