"""The messages of the streaming calls: watches, imports and exports <-> the core's types.

Bulk transfers carry variables by column (names, values, indexes of the secret ones), which is
read and written several times faster than a message per variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sys import intern
from typing import Final

from envd.core.answers import (
    Changed,
    ExportedEnvironment,
    Heartbeat,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    WatchEvent,
    WriteAnswer,
)
from envd.core.commit import Kind
from envd.core.errors import EnvdError, InvalidRequest
from envd.core.metadata import CREATED
from envd.core.requests import Put, PutColumns, WatchRequest, WriteRequest
from envd.wire import api
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_errors import error_of_item, item_error
from envd.wire.write_items import varint

_MORE: Final = b"\x3a"
MAX_BATCH_CHARACTERS: Final = 1 << 20
"""An export's message ends after so many: at most 4 MiB in UTF-8, and early enough to stream."""


def watch_from(message: pb.WatchRequest) -> WatchRequest:
    return WatchRequest(
        message.prefix,
        message.token,
        message.values,
        message.reveal,
        message.resolve,
        message.exact,
    )


def watch_message(request: WatchRequest, *, batched: bool = False) -> pb.WatchRequest:
    """`batched`: whoever sends it reads the answers with `events_from`."""
    return pb.WatchRequest(
        prefix=request.prefix,
        token=request.token,
        values=request.values,
        reveal=request.reveal,
        resolve=request.resolve,
        exact=request.exact,
        batched=batched,
    )


def event_message(event: WatchEvent, *, values: bool) -> pb.WatchResponse:
    """One event; `values` says whether the watch asked for states with its changes."""
    match event:
        case Heartbeat(token, partial, why):
            beat = pb.WatchResponse.Heartbeat(partial=partial, partial_reason=why)
            return pb.WatchResponse(heartbeat=beat, token=token)
        case Reset(reason):
            return pb.WatchResponse(reset=pb.WatchResponse.Reset(reason=reason))
        case SnapshotItem(state):
            return pb.WatchResponse(snapshot=api.environment_message(state))
        case SnapshotEnd(token, partial, why):
            end = pb.WatchResponse.SnapshotEnd(partial=partial, partial_reason=why)
            return pb.WatchResponse(snapshot_end=end, token=token)
        case Changed(commit, token, state, through):
            changed = pb.WatchResponse.Changed(
                commit=api.commit_message(commit),
                state=None if state is None else api.environment_message(state),
                gone=values and state is None,
                through=through,
            )
            return pb.WatchResponse(changed=changed, token=token)


def batch_bytes(events: Sequence[bytes]) -> bytes:
    """One WatchResponse of the first event, with the others as its `more`; each is encoded.

    A message of protobuf is its fields one after another, so none of them is copied twice.
    """
    first, *others = events
    parts = [first]
    for event in others:
        parts += (_MORE, varint(len(event)), event)
    return b"".join(parts)


def events_from(message: pb.WatchResponse) -> Sequence[WatchEvent]:
    """All events of a message, in order."""
    if not message.more:
        return [event_from(message)]
    return [event_from(message), *map(event_from, message.more)]


def event_from(message: pb.WatchResponse) -> WatchEvent:
    """The inverse of `event_message`; an event of a newer version counts as a heartbeat."""
    match message.WhichOneof("event"):
        case "reset":
            return Reset(message.reset.reason)
        case "snapshot":
            return SnapshotItem(api.environment_from(message.snapshot))
        case "snapshot_end":
            end = message.snapshot_end
            return SnapshotEnd(message.token, end.partial, end.partial_reason)
        case "changed":
            changed = message.changed
            state = api.environment_from(changed.state) if changed.HasField("state") else None
            commit = api.commit_from(changed.commit)
            return Changed(commit, message.token, state, changed.through)
        case _:
            beat = message.heartbeat
            return Heartbeat(message.token, beat.partial, beat.partial_reason)


def export_item(exported: ExportedEnvironment) -> pb.ExportResponse.Item:
    """One exported environment."""
    columns = pb.VariableColumns(
        names=exported.names, values=exported.values, secret=exported.secret
    )
    return pb.ExportResponse.Item(
        environment=exported.environment,
        revision=exported.revision,
        metadata=exported.metadata,
        variables=columns,
        masked=exported.masked,
        unresolved=exported.unresolved,
    )


def exported_from_item(item: pb.ExportResponse.Item) -> ExportedEnvironment:
    """The inverse of `export_item`."""
    return ExportedEnvironment(
        item.environment,
        item.revision,
        dict(sorted(item.metadata.items())),
        list(item.variables.names),
        list(item.variables.values),
        list(item.variables.secret),
        item.masked,
        item.unresolved,
    )


def characters(exported: ExportedEnvironment) -> int:
    """The size of an environment for `MAX_BATCH_CHARACTERS`."""
    return len("".join(exported.names)) + len("".join(exported.values))


def import_item_from(item: pb.ImportRequest.Item, message: str) -> WriteRequest:
    """The write that an item of an import means.

    A variable that is not listed as secret stays as it is. Raises InvalidRequest for columns
    that do not fit together.
    """
    return WriteRequest(
        environment=item.environment,
        puts=_puts_from(item.variables, item.metadata),
        replace=item.prune,
        bulk=True,
        if_revision=item.if_revision,
        must_not_exist=item.must_not_exist,
        message=message,
        operation=item.operation,
    )


def import_result(environment: str, result: WriteAnswer | EnvdError) -> pb.ImportResponse.Result:
    if isinstance(result, EnvdError):
        return pb.ImportResponse.Result(environment=environment, error=item_error(result))
    return pb.ImportResponse.Result(environment=environment, done=api.written_message(result))


def import_result_from(result: pb.ImportResponse.Result) -> WriteAnswer | EnvdError:
    if result.HasField("done"):
        return api.written_from(result.done)
    return error_of_item(result.error)


def stream_result(item_id: int, result: WriteAnswer | EnvdError) -> pb.WriteStreamResponse.Item:
    """The answer to one item of a WriteStream."""
    if isinstance(result, EnvdError):
        return pb.WriteStreamResponse.Item(id=item_id, error=item_error(result))
    return pb.WriteStreamResponse.Item(id=item_id, done=api.written_message(result))


def _puts_from(columns: pb.VariableColumns, metadata: Mapping[str, str]) -> Sequence[Put]:
    """The variables, and the settings but for the time of creation, which is its own."""
    # Most environments share their names, so those are kept once.
    names, values = list(map(intern, columns.names)), list(columns.values)
    secret = dict.fromkeys(columns.secret, True)
    if len(names) != len(values):
        raise InvalidRequest(
            f"{len(names)} names and {len(values)} values: they must be as many",
            reason="INVALID_COLUMNS",
        )
    if secret and max(secret) >= len(names):
        raise InvalidRequest(
            f"variable {max(secret)} is marked secret, and there are {len(names)}, from 0 on",
            reason="INVALID_COLUMNS",
        )
    puts = PutColumns(names, values, secret)
    if not metadata:
        return puts
    settings = sorted(metadata.items())
    return (
        *puts,
        *(Put(name, value, kind=Kind.METADATA) for name, value in settings if name != CREATED),
    )
