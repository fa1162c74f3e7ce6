"""The reads of one node: what a request means over what the store has, as views.

Reads never wait: they come from what is durable here. Who has a session token of what this node
lacks asks first whether it `reaches` that, and then what a peer answers (`session_reads`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from envd.core.answers import (
    ConflictPage,
    EnvironmentView,
    ExportedEnvironment,
    HistoryPage,
    ListPage,
)
from envd.core.commit import Commit, Kind
from envd.core.errors import InvalidRequest, NotFound
from envd.core.layers import EXTENDS, bases_of, layers
from envd.core.names import check_environment, check_prefix, check_variable
from envd.core.requests import (
    ConflictsRequest,
    HistoryRequest,
    ListRequest,
    PutColumns,
    ReadRequest,
    WriteRequest,
)
from envd.core.stamp import ZERO, Stamp
from envd.node import conflicts, revisions
from envd.node.rendering import Renderings
from envd.node.session_reads import SessionReads, point_of, stale
from envd.node.views import (
    NodeIdentity,
    commit_view,
    environment_view,
    exported_view,
    resolved_view,
)
from envd.ports import Store

MAX_LIST_PAGE = 10_000
MAX_HISTORY_PAGE = 1_000


class Reader:
    """The reads of one node over its store; `noticed` is told of environments that are read.

    Without `session_reads` nobody else can bring, or answer for, what this node lacks.
    """

    def __init__(self, store: Store, node: NodeIdentity, digest_key: bytes) -> None:
        self._store = store
        self.node = node
        self._digest_key = digest_key
        self._renderings = Renderings()
        self.noticed: Callable[[str], None] | None = None
        self.session_reads: SessionReads | None = None

    def read(self, request: ReadRequest) -> EnvironmentView:
        """One environment as it is, or as it was `at` a revision.

        Raises NotFound for an environment, variable or revision that is not there, Unavailable
        where this node lacks what the request's token stands for.
        """
        name = check_read(request)
        if request.token and not self._holds(request.token):
            raise stale()
        if request.resolve:
            return self._read_layers(request)
        visible = self._store.visible(name)
        if self.noticed is not None:
            self.noticed(name)
        if request.at:
            state = revisions.recorded_state(self._store, name, request.at, self._digest_key)
        elif visible is None or not visible.environment.exists:
            deleted = visible is not None and visible.environment.deleted_at > ZERO
            raise no_environment(name, deleted=deleted)
        else:
            state = visible
        return environment_view(
            state,
            self.node,
            reveal=request.reveal,
            now=visible.environment if request.at and visible else None,
            variables=request.variables,
            level=request.consistency,
        )

    async def reaches(self, token: str) -> bool:
        """Tell whether this node has what a session token stands for; waits a moment for it.

        Raises InvalidRequest where it is no token.
        """
        if self._holds(token):
            return True
        return self.session_reads is not None and await self.session_reads.reaches(point_of(token))

    async def read_elsewhere(self, request: ReadRequest) -> EnvironmentView:
        """What a peer answers that has what the request's token stands for.

        Raises as `read` does.
        """
        check_read(request)
        if self.session_reads is None:
            raise stale()
        return await self.session_reads.read(request)

    def rendered(self, request: ReadRequest, render: Callable[[EnvironmentView], bytes]) -> bytes:
        """What `render`, always the same one, makes of what `read` answers.

        Kept for whole environments as they are; raises as `read` does.
        """
        name, reveal = request.environment, request.reveal
        if request != ReadRequest(name, reveal=reveal):
            return render(self.read(request))
        state = self._store.visible(check_environment(name))
        known = None if state is None else self._renderings.find(name, reveal, state)
        if known is None:
            known = render(self.read(request))
            if state is not None:
                self._renderings.keep(name, reveal, state, known)
        return known

    def look_at_layers(self, name: str, look: Callable[[str], None]) -> None:
        """Call `look` for `name` and for all it extends, each before anything is told of it.

        Raises what `look` does, NotFound, Conflict for a circle, LimitExceeded for too many
        layers.
        """

        def bases(layer: str) -> tuple[str, ...]:
            look(layer)
            return self._bases_of(layer)

        layers(name, bases)

    def _bases_of(self, name: str) -> tuple[str, ...]:
        state = self._store.visible(name)
        if state is None or not state.environment.exists:
            raise no_environment(name)
        setting = state.environment.metadata.get(EXTENDS)
        return bases_of(setting.value or "") if setting else ()

    def _read_layers(self, request: ReadRequest) -> EnvironmentView:
        single = replace(request, resolve=False, variables=(), token="")
        names = layers(request.environment, self._bases_of)
        views = [self.read(replace(single, environment=name)) for name in names]
        return resolved_view(views, request.variables)

    def _check_layers(self, request: WriteRequest) -> None:
        """Refuse a setting `extends` that could not be resolved."""
        if type(request.puts) is PutColumns:
            return
        for put in request.puts:
            if put.kind and put.name == EXTENDS:
                own = bases_of(put.value)
                layers(
                    request.environment,
                    partial(self._bases_if, request.environment, own),
                )

    def _bases_if(self, changed: str, bases: tuple[str, ...], name: str) -> tuple[str, ...]:
        return bases if name == changed else self._bases_of(name)

    def columns(self, name: str, *, reveal: bool) -> ExportedEnvironment | None:
        """The visible state of an environment in columns, None where it does not exist."""
        state = self._store.visible(name)
        if state is None or not state.environment.exists:
            return None
        return exported_view(state, reveal=reveal)

    def state_view(self, name: str, *, reveal: bool) -> EnvironmentView | None:
        """The visible state of an environment, None where it does not exist."""
        state = self._store.visible(name)
        if state is None or not state.environment.exists:
            return None
        return environment_view(state, self.node, reveal=reveal)

    def list(self, request: ListRequest) -> ListPage:
        """A page of the environments that exist below a prefix."""
        prefix, limit = check_list(request)
        found = self._store.environments(prefix, request.after, limit + 1)
        more = len(found) > limit
        page = tuple(found[:limit])
        return ListPage(page, page[-1].environment if more else "")

    def history(self, request: HistoryRequest) -> HistoryPage:
        """A page of commits, newest first; raises NotFound where none was ever made."""
        name, limit, before = check_history(request)
        found: list[Commit] = []
        for commit in revisions.newest_first(self._store, name, before):
            if not request.variable or _touches(commit, request.variable):
                found.append(commit)
            if len(found) > limit:
                break
        trimmed = self._store.base(name).highest_stamp.hlc > 0
        if not found and not trimmed and not self._store.commits(name, None, 1):
            raise no_environment(name)
        page = found[:limit]
        following = page[-1].stamp.hex() if len(found) > limit else ""
        return HistoryPage(name, tuple(map(commit_view, page)), following, trimmed)

    def conflicts(
        self, request: ConflictsRequest, counts: Callable[[str], bool] = lambda _: True
    ) -> ConflictPage:
        """A page of unsettled conflicts, of the environments that `counts`.

        Raises NotFound for an environment that never was.
        """
        return conflicts.page(self._store, self.node, request, counts)

    def _holds(self, token: str) -> bool:
        """Whether all that the session token stands for is durable here, and so what reads show.

        Raises InvalidRequest where it is no token.
        """
        partition, origin, seq = point_of(token)
        return seq <= self._store.vectors().get((partition, origin), 0)


def check_list(request: ListRequest) -> tuple[str, int]:
    """The prefix and limit of a list; raises InvalidRequest where the request can't be meant."""
    prefix = check_prefix(request.prefix)
    check_prefix(request.after)
    return prefix, _bounded(request.limit, MAX_LIST_PAGE)


def check_history(request: HistoryRequest) -> tuple[str, int, Stamp | None]:
    """The environment, limit and stamp of a history; raises InvalidRequest as `check_list`."""
    name = check_environment(request.environment)
    if request.variable:
        check_variable(request.variable)
    return name, _bounded(request.limit, MAX_HISTORY_PAGE), _stamp(request.before)


def check_read(request: ReadRequest) -> str:
    """The environment to read; raises InvalidRequest where the request can't be meant."""
    name = check_environment(request.environment)
    for variable in request.variables:
        check_variable(variable)
    if request.at and request.resolve:
        raise InvalidRequest(
            "a revision is of one environment, without what it extends",
            hint="leave out either the revision or the layers",
        )
    return name


def no_environment(name: str, *, deleted: bool = False) -> NotFound:
    return NotFound(
        f"there is no environment {name}" + (" any more" if deleted else ""),
        hint=f"its past: envctl history {name}; to take it back: envctl undelete {name}"
        if deleted
        else "see what there is with: envctl list",
        reason="ENVIRONMENT_NOT_FOUND",
    )


def _touches(commit: Commit, variable: str) -> bool:
    return any(
        change.kind is Kind.VARIABLE and change.name == variable for change in commit.changes
    )


def _bounded(limit: int, most: int) -> int:
    if limit < 0:
        raise InvalidRequest("a limit can't be negative")
    return min(limit or most, most)


def _stamp(text: str) -> Stamp | None:
    if not text:
        return None
    try:
        return Stamp.from_hex(text)
    except (ValueError, struct.error):
        raise InvalidRequest("the page token is none", reason="INVALID_TOKEN") from None
