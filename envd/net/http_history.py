"""`/v1/history/{name}` and `/v1/rollback/{name}`: the past of an environment, and back to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from aiohttp import hdrs, web
from msgspec import Meta

from envd.core.answers import HistoryPage, WriteAnswer
from envd.core.errors import InvalidRequest
from envd.core.requests import HistoryRequest
from envd.net.http_documents import RollbackBody, rollback_of
from envd.net.http_json import respond
from envd.net.http_preconditions import precondition, refuse_header
from envd.net.http_routes import (
    IF_MATCH,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    AnyOperation,
    Call,
    NoQuery,
    Operation,
)
from envd.node.api import EnvironmentApi
from envd.node.reader import MAX_HISTORY_PAGE


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    variable: Annotated[str, Meta(description="only commits that touched this name")] = ""
    before: Annotated[str, Meta(description="`next` of the page before")] = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_HISTORY_PAGE, description="at most so many")] = 100


def operations(api: EnvironmentApi) -> tuple[AnyOperation, ...]:
    """The operations of these resources."""
    resource = _History(api)
    return (
        Operation(
            "getHistory",
            hdrs.METH_GET,
            "/v1/history/{name}",
            "The commits of an environment, newest first, page by page; a deleted one's too.",
            resource.get,
            HistoryQuery,
            answer=HistoryPage,
            problems=READ_PROBLEMS,
        ),
        Operation(
            "rollbackEnvironment",
            hdrs.METH_POST,
            "/v1/rollback/{name}",
            "Write an earlier state again, as a new commit; also of a deleted environment.",
            resource.rollback,
            NoQuery,
            answer=WriteAnswer,
            body=RollbackBody,
            headers=(IF_MATCH,),
            problems=WRITE_PROBLEMS,
            etag=True,
        ),
    )


class _History:
    def __init__(self, api: EnvironmentApi) -> None:
        self._api = api

    async def get(self, call: Call[HistoryQuery]) -> web.Response:
        """A page of commits."""
        query = call.query
        request = HistoryRequest(call.name, query.variable, query.before, query.limit)
        return respond(await self._api.history(call.identity, request))

    async def rollback(self, call: Call[NoQuery]) -> web.Response:
        """One commit that restores what an earlier one recorded."""
        request = rollback_of(call.name, call.document)
        refuse_header(call.request, hdrs.IF_NONE_MATCH, "use If-Match for a revision")
        condition = await precondition(self._api, call.identity, call.name, call.request)
        if condition.must_exist and not condition.if_revision:
            raise InvalidRequest(
                "If-Match takes a revision here: what was deleted can be rolled back too",
                reason="INVALID_ETAG",
            )
        answer = await self._api.rollback(
            call.identity, replace(request, if_revision=condition.if_revision)
        )
        return respond(answer, etag=answer.revision)
