"""`/v1/environments` and `/v1/environments/{name}`: listed, read, replaced, changed, deleted.

The revision is the entity tag. A PUT or PATCH is one atomic commit; with `If-Match` it is made
only on that revision, with `If-None-Match: *` only where the environment does not exist yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Literal

from aiohttp import hdrs, web
from msgspec import Meta

from envd.core.answers import EnvironmentView, ListPage, WriteAnswer
from envd.core.errors import Conflict, NotFound
from envd.core.requests import Consistency, DeleteRequest, ListRequest, ReadRequest, WriteRequest
from envd.net.http_documents import PatchBody, PutBody, replacement_of, write_of
from envd.net.http_json import respond
from envd.net.http_preconditions import EntityTags, precondition, refuse_header
from envd.net.http_routes import (
    IF_MATCH,
    IF_NEW,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    AnyOperation,
    Call,
    Header,
    Message,
    NoQuery,
    Operation,
    OperationId,
    Prefix,
    Reveal,
)
from envd.node.api import EnvironmentApi
from envd.node.reader import MAX_LIST_PAGE

PATH = "/v1/environments/{name}"


@dataclass(frozen=True, slots=True)
class ReadQuery:
    reveal: Reveal = False
    at: Annotated[
        str, Meta(description="as it was at a revision, its first digits, `@~N` or `@deleted`")
    ] = ""
    resolve: Annotated[
        bool, Meta(description="with the variables of what it extends; has no ETag")
    ] = False
    token: Annotated[
        str,
        Meta(description="`token` of a write's answer, whichever node gave it: shows that write"),
    ] = ""
    consistency: Annotated[
        Literal["eventual", "session", "strong"],
        Meta(
            description="`strong`: all that was chosen before, of serial environments only; "
            "`session` is what `token` asks for"
        ),
    ] = "eventual"


@dataclass(frozen=True, slots=True)
class ListQuery:
    prefix: Prefix = ""
    after: Annotated[str, Meta(description="`next` of the page before")] = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_LIST_PAGE, description="at most so many")] = 1000


@dataclass(frozen=True, slots=True)
class DeleteQuery:
    message: Message = ""
    operation: OperationId = ""


def operations(api: EnvironmentApi) -> tuple[AnyOperation, ...]:
    """The operations of these resources."""
    resource = _Environments(api)
    known = Header(hdrs.IF_NONE_MATCH, "304 where the environment is at one of these revisions")
    return (
        Operation(
            "listEnvironments",
            hdrs.METH_GET,
            "/v1/environments",
            "The environments in order of name, page by page.",
            resource.list,
            ListQuery,
            answer=ListPage,
        ),
        Operation(
            "getEnvironment",
            hdrs.METH_GET,
            PATH,
            "One environment, secrets masked unless revealed.",
            resource.get,
            ReadQuery,
            answer=EnvironmentView,
            headers=(known,),
            problems=(*READ_PROBLEMS, HTTPStatus.CONFLICT, HTTPStatus.NOT_IMPLEMENTED),
            etag=True,
            not_modified=True,
        ),
        Operation(
            "replaceEnvironment",
            hdrs.METH_PUT,
            PATH,
            "Replace the variables of an environment, or create it, in one commit.",
            resource.put,
            NoQuery,
            answer=WriteAnswer,
            body=PutBody,
            headers=(IF_MATCH, IF_NEW),
            problems=WRITE_PROBLEMS,
            etag=True,
        ),
        Operation(
            "changeEnvironment",
            hdrs.METH_PATCH,
            PATH,
            "Set and unset variables and settings in one commit; creates the environment.",
            resource.patch,
            NoQuery,
            answer=WriteAnswer,
            body=PatchBody,
            headers=(IF_MATCH, IF_NEW),
            problems=WRITE_PROBLEMS,
            etag=True,
        ),
        Operation(
            "deleteEnvironment",
            hdrs.METH_DELETE,
            PATH,
            "Delete an environment; its history stays, and a rollback brings it back.",
            resource.delete,
            DeleteQuery,
            answer=WriteAnswer,
            headers=(IF_MATCH,),
            problems=WRITE_PROBLEMS,
        ),
    )


class _Environments:
    def __init__(self, api: EnvironmentApi) -> None:
        self._api = api

    async def list(self, call: Call[ListQuery]) -> web.Response:
        """A page of environments."""
        query = call.query
        request = ListRequest(query.prefix, query.after, query.limit)
        return respond(await self._api.list(call.identity, request))

    async def get(self, call: Call[ReadQuery]) -> web.Response:
        """The environment; 304 where the client has this revision already.

        A revision is of one environment, so it can't be the tag of a read through layers.
        """
        query = call.query
        reading = ReadRequest(
            call.name,
            reveal=query.reveal,
            at=query.at,
            consistency=Consistency(query.consistency),
            token=query.token,
            resolve=query.resolve,
        )
        view = await self._api.get(call.identity, reading)
        if query.resolve:
            return respond(view)
        known = EntityTags.of(call.request, hdrs.IF_NONE_MATCH)
        if known is not None and known.weakly_hold(view.revision):
            return web.Response(status=304, headers={"ETag": f'"{view.revision}"'})
        return respond(view, etag=view.revision)

    async def put(self, call: Call[NoQuery]) -> web.Response:
        """One commit after which the environment holds these variables and no others.

        One without any is refused where there is no environment that it could empty: it would
        answer for something that is not there.
        """
        write = replacement_of(call.name, call.document)
        return await self._write(call, replace(write, must_exist=not write.puts))

    async def patch(self, call: Call[NoQuery]) -> web.Response:
        """One commit of sets and unsets."""
        return await self._write(call, write_of(call.name, call.document))

    async def _write(self, call: Call[NoQuery], write: WriteRequest) -> web.Response:
        condition = await precondition(self._api, call.identity, call.name, call.request)
        conditional = replace(
            write,
            if_revision=condition.if_revision,
            must_exist=condition.must_exist or (write.must_exist and not condition.must_not_exist),
            must_not_exist=condition.must_not_exist,
        )
        try:
            answer = await self._api.write(call.identity, conditional)
        except (NotFound, Conflict) as error:
            condition.check(error)
            raise
        return respond(answer, etag=answer.revision)

    async def delete(self, call: Call[DeleteQuery]) -> web.Response:
        """Delete the environment."""
        refuse_header(call.request, hdrs.IF_NONE_MATCH, "only what exists can be deleted")
        condition = await precondition(self._api, call.identity, call.name, call.request)
        request = DeleteRequest(
            call.name,
            if_revision=condition.if_revision,
            message=call.query.message,
            operation=call.query.operation,
        )
        try:
            return respond(await self._api.delete(call.identity, request))
        except (NotFound, Conflict) as error:
            condition.check(error)
            raise
