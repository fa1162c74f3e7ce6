"""The client for programs that use asyncio; `envd.connect` makes it.

    async with envd.connect("127.0.0.1:7420", token=...) as client:
        env = await client.environment("payments/prod")
        env["DATABASE_URL"]

Calls may be made at the same time, and writes that are go over one stream together. Every call
has a deadline, `timeout_s`, and is tried again within it where that is safe. Errors are those
of `envd.core.errors`; those of the servers name no value.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from google.protobuf.message import Message

from envd.client import bulk, snapshot
from envd.client.backoff import Backoff
from envd.client.calls import CLUSTER, ENVIRONMENTS, Calls, not_sendable, serialized
from envd.client.feed import Wish
from envd.client.following import Following
from envd.client.live import LiveEnvironment
from envd.client.members import Members
from envd.client.picking import Picker, Server
from envd.client.servers import Servers, World
from envd.core.answers import (
    ConflictPage,
    EnvironmentView,
    HistoryPage,
    ListPage,
    Membership,
    Status,
    WriteAnswer,
)
from envd.core.commit import Kind
from envd.core.errors import EnvdError, InvalidRequest, NotFound, OutcomeUnknown
from envd.core.requests import (
    ConflictsRequest,
    Consistency,
    DeleteRequest,
    HistoryRequest,
    ListRequest,
    Put,
    ReadRequest,
    ResolveRequest,
    RollbackRequest,
    Unset,
    WriteRequest,
)
from envd.wire import api, api_cluster, api_conflicts
from envd.wire._pb import cluster_pb2 as cluster
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_errors import error_of_item

DEFAULT_TIMEOUT_S: Final = 30.0
_MAX_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """What a client is made of; `envd.connect` fills it.

    `snapshots` is the directory of the offline snapshots, None for none. `timeout_s` is the
    deadline of calls that are given no other. `may_have_token` is asked of an address once it
    is connected; where it may not, that counts as no connection. With `learn` the members that
    servers tell of are used too.
    """

    servers: Sequence[Server]
    picker: Picker
    backoff: Backoff
    world: World
    token: str
    timeout_s: float
    snapshots: Path | None
    may_have_token: Callable[[str], bool] = lambda _: True
    learn: bool = False

    def __repr__(self) -> str:
        """Leave the token out."""
        return f"Options({', '.join(server.address for server in self.servers)})"


class Client:
    """One program's way to envd. Use it as a context manager, or `close` it."""

    def __init__(self, options: Options) -> None:
        self._snapshots = options.snapshots
        self._world = options.world
        self._token = options.token
        self._servers = Servers(
            options.servers,
            options.picker,
            options.backoff,
            options.world,
            token=options.token,
            may_have_token=options.may_have_token,
        )
        self._given = tuple(server.address for server in options.servers)
        self._members = Members(self._servers, options.servers) if options.learn else None
        self._calls = Calls(self._servers, options.timeout_s)
        self._following = Following(
            self._servers, self._given, options.snapshots, lambda: self._token
        )
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        """The addresses, never the token."""
        return f"<envd.Client {', '.join(self._servers.addresses)}>"

    async def close(self) -> None:
        """End everything: live environments keep their last state, calls under way fail."""
        if self._closed:
            return
        self._closed = True
        await self._following.close()
        await self._calls.close()
        await self._servers.close()

    async def use_token(self, token: str) -> None:
        """Go on with a renewed token: for calls from now on, and for the offline snapshots."""
        self._servers.use_token(token)
        old, self._token = self._token, token
        if self._snapshots is not None and old != token:
            await asyncio.to_thread(snapshot.renew, self._snapshots, old=old, new=token)
            self._following.save_again()  # They may have saved while they were renewed.

    # -- live environments -------------------------------------------------------------

    async def environment(
        self,
        name: str,
        *,
        reveal: bool = True,
        resolve: bool = True,
        must_exist: bool = True,
        timeout_s: float | None = None,
    ) -> LiveEnvironment:
        """Follow an environment: a mapping that is always current.

        It has the variables of what it extends too unless `resolve` is False, and real values
        unless `reveal` is False; without the right to reveal, secret variables are masked.
        Where no node answers it begins with the offline snapshot, and is stale until one does.
        Raises NotFound where it does not exist (with `must_exist` False it is empty until it
        does), Unavailable where no node answers and there is no snapshot.
        """
        self._calls.check_open()
        _check_name(name)
        wish = Wish(name, reveal, resolve, must_exist)
        within_s = self._calls.timeout_s if timeout_s is None else timeout_s
        return await self._following.live(wish, within_s)

    # -- reads -------------------------------------------------------------------------

    async def get(
        self,
        environment: str,
        *names: str,
        reveal: bool = True,
        resolve: bool = False,
        at: str = "",
        consistency: Consistency = Consistency.EVENTUAL,
        token: str = "",
        max_lag_ms: int | None = None,
        timeout_s: float | None = None,
    ) -> EnvironmentView:
        """Read an environment, or these variables of it; `at` a revision, `@~N` or `@deleted`.

        Raises NotFound where it or one of the variables is absent, Denied without the right.
        """
        request = ReadRequest(
            environment, names, reveal, at, consistency, token, max_lag_ms, resolve
        )
        raw = await self._calls.single("Get", partial(api.read_message, request), timeout_s)
        return api.get_from(pb.GetResponse.FromString(raw))

    async def get_many(
        self,
        environments: Iterable[str],
        *,
        reveal: bool = True,
        resolve: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, EnvironmentView]:
        """Read many environments in few calls; those that do not exist are left out."""
        within_s = self._calls.timeout_s if timeout_s is None else timeout_s
        deadline_s = self._world.monotonic_s() + within_s
        left = list(dict.fromkeys(environments))
        found: dict[str, EnvironmentView] = {}
        while left:
            asked, left = left[:_MAX_BATCH], left[_MAX_BATCH:]
            build = partial(pb.BatchGetRequest, environments=asked, reveal=reveal, resolve=resolve)
            left_s = deadline_s - self._world.monotonic_s()
            raw = await self._calls.single("BatchGet", build, left_s)
            results = pb.BatchGetResponse.FromString(raw).results
            again = []
            for name, result in zip(asked, results, strict=True):
                if result.HasField("found"):
                    found[name] = api.get_from(result.found)
                    continue
                error = error_of_item(result.error)
                if error.reason == "ANSWER_FULL":
                    again.append(name)
                elif not isinstance(error, NotFound):
                    raise error
            left = again + left
        return found

    async def list(
        self,
        prefix: str = "",
        *,
        after: str = "",
        limit: int = 1000,
        timeout_s: float | None = None,
    ) -> ListPage:
        """A page of the environments below a prefix, in order of name; see ListPage."""
        request = ListRequest(prefix, after, limit)
        raw = await self._calls.single("List", partial(api.list_message, request), timeout_s)
        return api.page_from(pb.ListResponse.FromString(raw))

    async def history(
        self,
        environment: str,
        variable: str = "",
        *,
        before: str = "",
        limit: int = 100,
        timeout_s: float | None = None,
    ) -> HistoryPage:
        """A page of the commits of an environment, or those that touched a variable."""
        request = HistoryRequest(environment, variable, before, limit)
        raw = await self._calls.single("History", partial(api.history_message, request), timeout_s)
        return api.history_page_from(pb.HistoryResponse.FromString(raw))

    async def conflicts(
        self,
        environment: str = "",
        *,
        prefix: str = "",
        after: str = "",
        limit: int = 100,
        reveal: bool = False,
        timeout_s: float | None = None,
    ) -> ConflictPage:
        """A page of unsettled conflicts, of one environment or of all below `prefix`."""
        request = ConflictsRequest(environment, prefix, after, limit, reveal)
        build = partial(api_conflicts.conflicts_message, request)
        raw = await self._calls.single("Conflicts", build, timeout_s)
        return api_conflicts.conflict_page_from(pb.ConflictsResponse.FromString(raw))

    async def resolve(
        self,
        environment: str,
        variable: str,
        take: str,
        *,
        setting: bool = False,
        if_revision: str = "",
        message: str = "",
        operation: str = "",
        timeout_s: float | None = None,
    ) -> WriteAnswer:
        """Settle the conflicts of a variable, or with `setting` of a setting, by one commit.

        `take` is a conflict's id, to write again what it lost, or "kept", to leave it as it is.
        Raises NotFound where it has no conflict.
        """
        operation = operation or self._calls.new_operation()
        kind = Kind.METADATA if setting else Kind.VARIABLE
        request = ResolveRequest(environment, variable, take, kind, if_revision, message, operation)
        build = partial(api_conflicts.resolve_message, request)
        raw = await self._calls.single("Resolve", build, timeout_s, operation=operation)
        return api.written_from(pb.WriteResponse.FromString(raw))

    async def status(self, *, timeout_s: float | None = None) -> Status:
        """The state of a node."""
        raw = await self._calls.single("Status", cluster.StatusRequest, timeout_s, service=CLUSTER)
        return api.status_from(cluster.StatusResponse.FromString(raw))

    async def members(self, *, timeout_s: float | None = None) -> Membership:
        """Who belongs to the cluster, as one node sees it."""
        build = cluster.MembersRequest
        raw = await self._calls.single("Members", build, timeout_s, service=CLUSTER)
        return api_cluster.membership_from(cluster.MembersResponse.FromString(raw))

    # -- writes ------------------------------------------------------------------------

    async def set(
        self,
        environment: str,
        variables: Mapping[str, str],
        *,
        secret: bool | None = None,
        if_revision: str = "",
        message: str = "",
        operation: str = "",
        timeout_s: float | None = None,
    ) -> WriteAnswer:
        """Set variables in one atomic commit; the answer comes when it is durable.

        `secret` None leaves the mark of each as it is; `write` can mark each by itself. With
        `if_revision` it raises Conflict where the environment has moved on. `operation` makes
        a repeat safe for 24 hours; each write has one of its own where none is given.
        """
        if not variables:
            raise InvalidRequest("there is nothing to set")
        operation = operation or self._calls.new_operation()
        try:
            raw = pb.WriteRequest(
                environment=environment,
                puts=[
                    pb.Put(name=name, value=value, secret=secret)
                    for name, value in variables.items()
                ],
                if_revision=if_revision,
                message=message,
                operation=operation,
            ).SerializeToString()
        except (ValueError, TypeError):
            raise not_sendable() from None
        return await self._calls.write(raw, operation, timeout_s, anywhere=not if_revision)

    async def unset(
        self,
        environment: str,
        *names: str,
        if_revision: str = "",
        message: str = "",
        operation: str = "",
        timeout_s: float | None = None,
    ) -> WriteAnswer:
        """Remove variables in one atomic commit; raises NotFound where one is absent.

        It does so too where the answer for a single variable was lost and another node knows no
        such variable: it was removed by the first attempt or by somebody else, or that node does
        not know of it yet.
        """
        request = WriteRequest(
            environment,
            unsets=tuple(map(Unset, names)),
            if_revision=if_revision,
            message=message,
            operation=operation,
        )
        try:
            return await self.write(request, timeout_s=timeout_s)
        except OutcomeUnknown as error:
            absent = error.__cause__
            if len(names) != 1 or not isinstance(absent, NotFound):
                raise
            raise NotFound(
                f"{environment} has no variable {names[0]}; an earlier attempt, whose answer was "
                "lost, may have removed it",
                hint=error.hint,
                reason=absent.reason,
            ) from None

    async def settings(
        self,
        environment: str,
        settings: Mapping[str, str],
        *,
        message: str = "",
        timeout_s: float | None = None,
    ) -> WriteAnswer:
        """Set settings (metadata) of an environment: description, owner, extends, ..."""
        puts = tuple(Put(name, value, kind=Kind.METADATA) for name, value in settings.items())
        request = WriteRequest(environment, puts, message=message)
        return await self.write(request, timeout_s=timeout_s)

    async def write(self, request: WriteRequest, *, timeout_s: float | None = None) -> WriteAnswer:
        """Write one atomic commit as `WriteRequest` describes it."""
        operation = request.operation or self._calls.new_operation()

        def build() -> Message:
            message = api.write_message(request)
            message.operation = operation
            return message

        bound = request.if_revision or request.must_exist or request.must_not_exist
        return await self._calls.write(serialized(build), operation, timeout_s, anywhere=not bound)

    async def delete(
        self,
        environment: str,
        *,
        if_revision: str = "",
        message: str = "",
        operation: str = "",
        timeout_s: float | None = None,
    ) -> WriteAnswer:
        """Delete an environment; its history stays, `rollback(to="@deleted")` undoes it."""
        operation = operation or self._calls.new_operation()
        request = DeleteRequest(environment, if_revision, message, operation)
        build = partial(api.delete_message, request)
        raw = await self._calls.single(
            "Delete", build, timeout_s, operation=operation, anywhere=not if_revision
        )
        return api.written_from(pb.WriteResponse.FromString(raw))

    async def rollback(
        self,
        environment: str,
        to: str,
        *names: str,
        if_revision: str = "",
        message: str = "",
        operation: str = "",
        timeout_s: float | None = None,
    ) -> WriteAnswer:
        """Write an earlier state again: of a revision, `@~N` or `@deleted`."""
        operation = operation or self._calls.new_operation()
        request = RollbackRequest(environment, to, names, if_revision, message, operation)
        build = partial(api.rollback_message, request)
        raw = await self._calls.single(
            "Rollback", build, timeout_s, operation=operation, anywhere=not if_revision
        )
        return api.written_from(pb.WriteResponse.FromString(raw))

    # -- many environments -------------------------------------------------------------

    def export(
        self, prefix: str = "", *, reveal: bool = True, resolve: bool = False
    ) -> AsyncIterator[bulk.Exported]:
        """Stream every environment below a prefix, in order of name.

        Raises Unavailable (PARTIAL) at the end where some could not be had.
        """
        self._calls.check_open()
        path = f"/{ENVIRONMENTS}/Export"
        return bulk.export(self._servers, path, prefix, reveal=reveal, resolve=resolve)

    def import_(
        self, environments: bulk.Environments, *, message: str = ""
    ) -> AsyncIterator[tuple[str, WriteAnswer | EnvdError]]:
        """Write whole environments over one stream, one commit each, and give each answer.

        Give a mapping of names to variables, or an iterable (also an asynchronous one) of
        pairs or of `Imported`. Nothing is sent unless the answers are taken.
        """
        self._calls.check_open()
        return bulk.import_(
            self._servers,
            f"/{ENVIRONMENTS}/Import",
            environments,
            message=message,
            new_operation=self._calls.new_operation,
        )


def _check_name(name: str) -> None:
    """Raise InvalidRequest for what no node can be asked to follow."""
    if not name:
        raise InvalidRequest("an environment has a name")
    serialized(partial(pb.WatchRequest, prefix=name))
