"""`/v1/conflicts` and `/v1/conflicts/{name}`: writes that lost to others, and settling them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from aiohttp import hdrs, web
from msgspec import Meta

from envd.core.answers import ConflictPage, WriteAnswer
from envd.core.errors import InvalidRequest
from envd.core.requests import ConflictsRequest
from envd.net.http_documents import ResolveBody, resolve_of
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
    Prefix,
    Reveal,
)
from envd.node.api import EnvironmentApi
from envd.node.conflicts import MAX_CONFLICT_PAGE

PATH = "/v1/conflicts/{name}"
After = Annotated[str, Meta(description="`next` of the page before")]
Limit = Annotated[int, Meta(ge=1, le=MAX_CONFLICT_PAGE, description="at most so many")]


@dataclass(frozen=True, slots=True)
class ConflictQuery:
    after: After = ""
    limit: Limit = 100
    reveal: Reveal = False


@dataclass(frozen=True, slots=True)
class ConflictsQuery:
    prefix: Prefix = ""
    after: After = ""
    limit: Limit = 100
    reveal: Reveal = False


def operations(api: EnvironmentApi) -> tuple[AnyOperation, ...]:
    """The operations of these resources."""
    resource = _Conflicts(api)
    return (
        Operation(
            "listConflicts",
            hdrs.METH_GET,
            "/v1/conflicts",
            "Conflicts that are not settled, in order of environment, page by page.",
            resource.list,
            ConflictsQuery,
            answer=ConflictPage,
        ),
        Operation(
            "getConflicts",
            hdrs.METH_GET,
            PATH,
            "The conflicts of one environment that are not settled, page by page.",
            resource.get,
            ConflictQuery,
            answer=ConflictPage,
            problems=READ_PROBLEMS,
        ),
        Operation(
            "resolveConflicts",
            hdrs.METH_POST,
            PATH,
            "Settle the conflicts of one variable: keep it as it is, or write a side again.",
            resource.resolve,
            NoQuery,
            answer=WriteAnswer,
            body=ResolveBody,
            headers=(IF_MATCH,),
            problems=WRITE_PROBLEMS,
            etag=True,
        ),
    )


class _Conflicts:
    def __init__(self, api: EnvironmentApi) -> None:
        self._api = api

    async def list(self, call: Call[ConflictsQuery]) -> web.Response:
        """A page of the conflicts below a prefix."""
        query = call.query
        request = ConflictsRequest("", query.prefix, query.after, query.limit, query.reveal)
        return respond(await self._api.conflicts(call.identity, request))

    async def get(self, call: Call[ConflictQuery]) -> web.Response:
        """A page of the conflicts of one environment."""
        query = call.query
        request = ConflictsRequest(call.name, "", query.after, query.limit, query.reveal)
        return respond(await self._api.conflicts(call.identity, request))

    async def resolve(self, call: Call[NoQuery]) -> web.Response:
        """One commit that settles the conflicts of one name."""
        request = resolve_of(call.name, call.document)
        refuse_header(call.request, hdrs.IF_NONE_MATCH, "use If-Match for a revision")
        condition = await precondition(self._api, call.identity, call.name, call.request)
        if condition.must_exist and not condition.if_revision:
            raise InvalidRequest(
                "If-Match takes a revision here: what was deleted has conflicts too",
                reason="INVALID_ETAG",
            )
        answer = await self._api.resolve(
            call.identity, replace(request, if_revision=condition.if_revision)
        )
        return respond(answer, etag=answer.revision)
