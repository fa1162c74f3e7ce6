"""The public API's messages <-> the core's requests and answers, for server and client.

`x_from(message)` reads a message, `x_message(...)` makes one. Stamps are bytes in messages and
hexadecimal in answers; an enum left unset means its default. What a message can't mean (an
enum number that is none, a stamp of a wrong length) is InvalidRequest; names, values and limits
are the node's to check, in one place for every way in. Streams are in `wire.api_streams`,
errors in `wire.api_errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from sys import intern
from typing import Final

from envd.core.answers import (
    ChangeView,
    CommitView,
    EnvironmentView,
    HistoryPage,
    ListedEnvironment,
    ListPage,
    SalvagedView,
    Status,
    VariableView,
    WriteAnswer,
)
from envd.core.commit import Kind
from envd.core.errors import InvalidRequest
from envd.core.requests import (
    Consistency,
    DeleteRequest,
    Durability,
    HistoryRequest,
    ListRequest,
    Put,
    PutColumns,
    ReadRequest,
    RollbackRequest,
    Seen,
    Unset,
    WriteRequest,
)
from envd.core.ring import PARTITIONS
from envd.core.stamp import STAMP_BYTES
from envd.wire._pb import cluster_pb2 as cluster
from envd.wire._pb import environment_pb2 as pb

MAX_HISTORY_BYTES: Final = 3 << 20
"""A page of history ends early there, and the next one goes on: most clients take 4 MiB."""

_CONSISTENCY_FROM: Final[Mapping[int, Consistency]] = {
    pb.CONSISTENCY_UNSPECIFIED: Consistency.EVENTUAL,
    pb.CONSISTENCY_EVENTUAL: Consistency.EVENTUAL,
    pb.CONSISTENCY_SESSION: Consistency.SESSION,
    pb.CONSISTENCY_STRONG: Consistency.STRONG,
}
_CONSISTENCY_NUMBER: Final[Mapping[Consistency, pb.Consistency]] = {
    Consistency.EVENTUAL: pb.CONSISTENCY_EVENTUAL,
    Consistency.SESSION: pb.CONSISTENCY_SESSION,
    Consistency.STRONG: pb.CONSISTENCY_STRONG,
}
_DURABILITY_FROM: Final[Mapping[int, Durability]] = {
    pb.DURABILITY_UNSPECIFIED: Durability.DEFAULT,
    pb.DURABILITY_LOCAL: Durability.LOCAL,
    pb.DURABILITY_DEFAULT: Durability.DEFAULT,
    pb.DURABILITY_STRICT: Durability.STRICT,
}
_DURABILITY_NUMBER: Final[Mapping[Durability, pb.Durability]] = {
    Durability.LOCAL: pb.DURABILITY_LOCAL,
    Durability.DEFAULT: pb.DURABILITY_DEFAULT,
    Durability.STRICT: pb.DURABILITY_STRICT,
}


# -- requests ----------------------------------------------------------------------


def read_from(message: pb.GetRequest) -> ReadRequest:
    """Raises InvalidRequest for a consistency that is none."""
    return ReadRequest(
        message.environment,
        tuple(message.variables),
        message.reveal,
        message.at,
        consistency_from(message.consistency),
        message.token,
        message.max_lag_ms if message.HasField("max_lag_ms") else None,
        message.resolve,
    )


def read_message(request: ReadRequest) -> pb.GetRequest:
    return pb.GetRequest(
        environment=request.environment,
        variables=request.variables,
        reveal=request.reveal,
        at=request.at,
        consistency=_CONSISTENCY_NUMBER[request.consistency],
        token=request.token,
        max_lag_ms=request.max_lag_ms,
        resolve=request.resolve,
    )


def list_from(message: pb.ListRequest) -> ListRequest:
    return ListRequest(message.prefix, message.after, message.limit)


def list_message(request: ListRequest) -> pb.ListRequest:
    return pb.ListRequest(prefix=request.prefix, after=request.after, limit=request.limit)


def write_from(message: pb.WriteRequest) -> WriteRequest:
    """Raises InvalidRequest for a durability that is none."""
    names = [intern(put.name) for put in message.puts]
    values = [put.value for put in message.puts]
    flags = {at: put.secret for at, put in enumerate(message.puts) if put.HasField("secret")}
    puts: Sequence[Put] = PutColumns(names, values, flags)
    if message.metadata_puts:
        settings = sorted(message.metadata_puts.items())
        puts = (*puts, *(Put(name, value, kind=Kind.METADATA) for name, value in settings))
    unsets = [Unset(name) for name in message.unsets]
    unsets += [Unset(name, Kind.METADATA) for name in message.metadata_unsets]
    return WriteRequest(
        environment=message.environment,
        puts=puts,
        unsets=tuple(unsets),
        replace=message.replace,
        bulk=message.bulk,
        if_revision=message.if_revision,
        must_exist=message.must_exist,
        must_not_exist=message.must_not_exist,
        message=message.message,
        operation=message.operation,
        durability=durability_from(message.durability),
        seen=tuple(Seen(name, stamp) for name, stamp in sorted(message.seen.items())),
    )


def write_message(request: WriteRequest) -> pb.WriteRequest:
    """The same write."""
    return pb.WriteRequest(
        environment=request.environment,
        puts=[
            pb.Put(name=put.name, value=put.value, secret=put.secret)
            for put in request.puts
            if put.kind is Kind.VARIABLE
        ],
        unsets=[unset.name for unset in request.unsets if unset.kind is Kind.VARIABLE],
        metadata_puts={put.name: put.value for put in request.puts if put.kind is Kind.METADATA},
        metadata_unsets=[unset.name for unset in request.unsets if unset.kind is Kind.METADATA],
        replace=request.replace,
        bulk=request.bulk,
        if_revision=request.if_revision,
        must_exist=request.must_exist,
        must_not_exist=request.must_not_exist,
        message=request.message,
        operation=request.operation,
        durability=durability_number(request.durability),
        seen={each.name: each.stamp for each in request.seen},
    )


def delete_from(message: pb.DeleteRequest) -> DeleteRequest:
    """Raises InvalidRequest for a durability that is none."""
    return DeleteRequest(
        message.environment,
        message.if_revision,
        message.message,
        message.operation,
        durability_from(message.durability),
    )


def delete_message(request: DeleteRequest) -> pb.DeleteRequest:
    return pb.DeleteRequest(
        environment=request.environment,
        if_revision=request.if_revision,
        message=request.message,
        operation=request.operation,
        durability=durability_number(request.durability),
    )


def rollback_from(message: pb.RollbackRequest) -> RollbackRequest:
    """Raises InvalidRequest for a durability that is none."""
    return RollbackRequest(
        message.environment,
        message.to,
        tuple(message.variables),
        message.if_revision,
        message.message,
        message.operation,
        durability_from(message.durability),
    )


def rollback_message(request: RollbackRequest) -> pb.RollbackRequest:
    return pb.RollbackRequest(
        environment=request.environment,
        to=request.to,
        variables=request.variables,
        if_revision=request.if_revision,
        message=request.message,
        operation=request.operation,
        durability=durability_number(request.durability),
    )


def history_from(message: pb.HistoryRequest) -> HistoryRequest:
    """Raises InvalidRequest for a `before` that is no stamp."""
    if len(message.before) not in {0, STAMP_BYTES}:
        raise InvalidRequest(
            f"the page token has {len(message.before)} bytes; a stamp has {STAMP_BYTES}",
            hint="continue with `next` of the page before",
            reason="INVALID_TOKEN",
        )
    return HistoryRequest(
        message.environment, message.variable, message.before.hex(), message.limit
    )


def history_message(request: HistoryRequest) -> pb.HistoryRequest:
    """Raises ValueError for a `before` that is not hexadecimal."""
    return pb.HistoryRequest(
        environment=request.environment,
        variable=request.variable,
        before=bytes.fromhex(request.before),
        limit=request.limit,
    )


# -- answers -----------------------------------------------------------------------


def environment_message(view: EnvironmentView) -> pb.Environment:
    return pb.Environment(
        environment=view.environment,
        revision=view.revision,
        stamp=bytes.fromhex(view.stamp),
        metadata=view.metadata,
        variables=[
            pb.Variable(
                name=name,
                value=variable.value,
                secret=variable.secret or None,
                masked=variable.masked or None,
                stamp=bytes.fromhex(variable.stamp),
                region=variable.region or None,
                node=variable.node or None,
                source=variable.source or None,
            )
            for name, variable in view.variables.items()
        ],
        bases=[
            pb.Environment.Base(environment=name, revision=revision)
            for name, revision in view.bases.items()
        ],
        unresolved=view.unresolved,
    )


def environment_from(
    message: pb.Environment,
    level: Consistency = Consistency.EVENTUAL,
    lag_bound_ms: int = 0,
) -> EnvironmentView:
    return EnvironmentView(
        message.environment,
        message.revision,
        message.stamp.hex(),
        dict(sorted(message.metadata.items())),
        {
            variable.name: VariableView(
                variable.value if variable.HasField("value") else None,
                variable.secret,
                variable.masked,
                variable.stamp.hex(),
                variable.region,
                variable.node,
                variable.source,
            )
            for variable in message.variables
        },
        level,
        lag_bound_ms,
        {base.environment: base.revision for base in message.bases},
        message.unresolved,
    )


def get_message(view: EnvironmentView) -> pb.GetResponse:
    return pb.GetResponse(
        environment=environment_message(view),
        level=_CONSISTENCY_NUMBER[view.level],
        lag_bound_ms=view.lag_bound_ms,
    )


def get_bytes(view: EnvironmentView) -> bytes:
    """`get_message` as bytes."""
    return get_message(view).SerializeToString()


def batch_bytes(results: Iterable[bytes]) -> bytes:
    """A BatchGetResponse of these results, each as bytes."""
    return b"".join([_field(1, result) for result in results])


def found_bytes(found: bytes) -> bytes:
    """A BatchGetResponse.Result with this GetResponse."""
    return _field(1, found)


def _field(number: int, raw: bytes) -> bytes:
    """A field that holds a message, as protobuf writes it: tag, length, bytes."""
    length, size = bytearray(), len(raw)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + length + raw


def get_from(message: pb.GetResponse) -> EnvironmentView:
    """A level that this version does not know is taken for the weakest."""
    level = _CONSISTENCY_FROM.get(message.level, Consistency.EVENTUAL)
    return environment_from(message.environment, level, message.lag_bound_ms)


def written_message(answer: WriteAnswer) -> pb.WriteResponse:
    return pb.WriteResponse(
        environment=answer.environment,
        revision=answer.revision,
        stamp=bytes.fromhex(answer.stamp),
        token=answer.token,
        acknowledged=answer.acknowledged,
        detached=answer.detached,
        precondition=answer.precondition,
    )


def written_from(message: pb.WriteResponse) -> WriteAnswer:
    return WriteAnswer(
        message.environment,
        message.revision,
        message.stamp.hex(),
        message.token,
        message.acknowledged,
        message.detached,
        message.precondition,
    )


def page_message(page: ListPage) -> pb.ListResponse:
    return pb.ListResponse(
        environments=[
            pb.ListResponse.Item(
                environment=listed.environment,
                revision=listed.revision,
                variables=listed.variables,
            )
            for listed in page.environments
        ],
        next=page.next,
        partial=page.partial,
        partial_reason=page.partial_reason,
    )


def page_from(message: pb.ListResponse) -> ListPage:
    return ListPage(
        tuple(
            ListedEnvironment(item.environment, item.revision, item.variables)
            for item in message.environments
        ),
        message.next,
        message.partial,
        message.partial_reason,
    )


def commit_message(view: CommitView) -> pb.Commit:
    return pb.Commit(
        id=view.id,
        environment=view.environment,
        revision=view.revision,
        stamp=bytes.fromhex(view.stamp),
        time=view.time,
        node=view.node,
        region=view.region,
        actor=view.actor,
        message=view.message,
        changes=_change_messages(view.changes),
        deleted=view.deleted,
        resolves=view.resolves,
        salvages=None if view.salvages is None else _salvaged_message(view.salvages),
    )


def _salvaged_message(view: SalvagedView) -> pb.Salvaged:
    return pb.Salvaged(
        stamp=bytes.fromhex(view.stamp),
        time=view.time,
        node=view.node,
        region=view.region,
        actor=view.actor,
        changes=_change_messages(view.changes),
    )


def _change_messages(changes: Iterable[ChangeView]) -> list[pb.Change]:
    return [
        pb.Change(
            variable=change.variable,
            kind=pb.Change.KIND_UNSET if change.kind == "unset" else pb.Change.KIND_SET,
            metadata=change.metadata,
        )
        for change in changes
    ]


def commit_from(message: pb.Commit) -> CommitView:
    return CommitView(
        id=message.id,
        environment=message.environment,
        revision=message.revision,
        stamp=message.stamp.hex(),
        time=message.time,
        node=message.node,
        region=message.region,
        actor=message.actor,
        message=message.message,
        changes=_changes_from(message.changes),
        deleted=message.deleted,
        resolves=tuple(message.resolves),
        salvages=_salvaged_from(message.salvages) if message.HasField("salvages") else None,
    )


def _salvaged_from(message: pb.Salvaged) -> SalvagedView:
    return SalvagedView(
        stamp=message.stamp.hex(),
        time=message.time,
        node=message.node,
        region=message.region,
        actor=message.actor,
        changes=_changes_from(message.changes),
    )


def _changes_from(changes: Iterable[pb.Change]) -> tuple[ChangeView, ...]:
    return tuple(
        ChangeView(
            change.variable,
            "unset" if change.kind == pb.Change.KIND_UNSET else "set",
            change.metadata,
        )
        for change in changes
    )


def history_page_message(
    page: HistoryPage, max_bytes: int = MAX_HISTORY_BYTES
) -> pb.HistoryResponse:
    """The page, or as much of it as fits `max_bytes` (at least one commit), to be continued."""
    commits: list[pb.Commit] = []
    size, following = 0, page.next
    for view in page.commits:
        commit = commit_message(view)
        size += commit.ByteSize()
        if commits and size > max_bytes:
            following = page.commits[len(commits) - 1].stamp
            break
        commits.append(commit)
    return pb.HistoryResponse(
        environment=page.environment,
        commits=commits,
        next=bytes.fromhex(following),
        trimmed=page.trimmed,
    )


def history_page_from(message: pb.HistoryResponse) -> HistoryPage:
    return HistoryPage(
        message.environment,
        tuple(map(commit_from, message.commits)),
        message.next.hex(),
        message.trimmed,
    )


def status_message(status: Status) -> cluster.StatusResponse:
    return cluster.StatusResponse(
        node=status.node,
        node_uid=status.node_uid,
        cluster=status.cluster,
        version=status.version,
        generation=status.generation,
        environments=status.environments,
        storage_bytes=status.storage_bytes,
        uptime_seconds=status.uptime_seconds,
        insecure=status.insecure,
        identity=status.identity,
        authenticated_by=status.authenticated_by,
        data_dir=status.data_dir,
        epoch=status.epoch,
        members=status.members,
        partitions=status.partitions,
        under_replicated=status.under_replicated,
        handoff=status.handoff,
        lag_ms=status.lag_ms,
        quarantined=status.quarantined,
        detached=status.detached,
    )


def status_from(message: cluster.StatusResponse) -> Status:
    return Status(
        node=message.node,
        node_uid=message.node_uid,
        cluster=message.cluster,
        version=message.version,
        generation=message.generation,
        environments=message.environments,
        storage_bytes=message.storage_bytes,
        uptime_seconds=message.uptime_seconds,
        insecure=message.insecure,
        data_dir=message.data_dir,
        identity=message.identity,
        authenticated_by=message.authenticated_by,
        epoch=message.epoch,
        members=message.members or 1,  # a node of before there were clusters says nothing
        partitions=message.partitions or PARTITIONS,
        under_replicated=message.under_replicated,
        handoff=message.handoff,
        lag_ms=message.lag_ms,
        quarantined=message.quarantined,
        detached=message.detached,
    )


# -- enums -------------------------------------------------------------------------


def consistency_from(number: int) -> Consistency:
    """Raises InvalidRequest for a number that is none."""
    found = _CONSISTENCY_FROM.get(number)
    if found is None:
        raise _unknown_number("consistency", number)
    return found


def durability_from(number: int) -> Durability:
    """Raises InvalidRequest for a number that is none."""
    found = _DURABILITY_FROM.get(number)
    if found is None:
        raise _unknown_number("durability", number)
    return found


def durability_number(durability: Durability) -> pb.Durability:
    """The number of a durability in messages."""
    return _DURABILITY_NUMBER[durability]


def _unknown_number(what: str, number: int) -> InvalidRequest:
    return InvalidRequest(
        f"{number} is no {what} that this version knows",
        hint="leave it unset for the default",
        reason="UNKNOWN_ENUM",
    )
