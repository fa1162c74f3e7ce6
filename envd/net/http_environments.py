"""`/v1/environments/{name}`: one environment, read and changed.

The revision is the entity tag. A PATCH is one atomic commit; with `If-Match` it is made only
on that revision, with `If-None-Match: *` only where the environment does not exist yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import hdrs, web

from envd.core.answers import Identity
from envd.core.errors import Conflict, InvalidRequest, NotFound
from envd.core.requests import Put, ReadRequest, Unset, WriteRequest
from envd.net.http_guard import IDENTITY
from envd.net.http_json import read_object, respond, shown
from envd.node.api import EnvironmentApi

PATH: Final = "/v1/environments/{name:.+}"
_PATCH_FIELDS: Final = frozenset({"set", "unset", "message", "operation"})
_VALUE_FIELDS: Final = frozenset({"value", "secret"})
_ENTITY_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_BOOLEANS: Final = {"true": True, "1": True, "": True, "false": False, "0": False}


def routes(api: EnvironmentApi, *, body_timeout_s: float) -> list[web.AbstractRouteDef]:
    """The routes of this resource."""
    resource = _Environments(api, body_timeout_s)
    return [web.get(PATH, resource.get), web.patch(PATH, resource.patch)]


class _Environments:
    def __init__(self, api: EnvironmentApi, body_timeout_s: float) -> None:
        self._api = api
        self._body_timeout_s = body_timeout_s

    async def get(self, request: web.Request) -> web.Response:
        """The environment; 304 where the client has this revision already."""
        query = _query(request, frozenset({"reveal", "at"}))
        reading = ReadRequest(
            request.match_info["name"],
            reveal=_boolean("reveal", query.get("reveal", "false")),
            at=query.get("at", ""),
        )
        view = await self._api.get(request[IDENTITY], reading)
        known = EntityTags.of(request, hdrs.IF_NONE_MATCH)
        if known is not None and known.weakly_hold(view.revision):
            return web.Response(status=304, headers={"ETag": f'"{view.revision}"'})
        return respond(view, etag=view.revision)

    async def patch(self, request: web.Request) -> web.Response:
        """One commit of sets and unsets."""
        _query(request, frozenset())
        document = await read_object(request, self._body_timeout_s)
        write = write_of(request.match_info["name"], document)
        identity = request[IDENTITY]
        if hdrs.IF_MATCH in request.headers:
            write = await self._on_revision(identity, write, request)
        if hdrs.IF_NONE_MATCH in request.headers:
            write = _only_new(write, request)
        try:
            answer = await self._api.write(identity, write)
        except NotFound as error:
            if write.must_exist and error.reason == "ENVIRONMENT_NOT_FOUND":
                raise _stale(error.message) from error
            raise
        except Conflict as error:
            if write.must_not_exist and error.reason == "ALREADY_EXISTS":
                raise _stale(error.message) from error
            raise
        return respond(answer, etag=answer.revision)

    async def _on_revision(
        self, identity: Identity, write: WriteRequest, request: web.Request
    ) -> WriteRequest:
        """The write under its If-Match.

        Of several tags the one that is current now is taken; the node checks it once more, in
        the moment of the commit.
        """
        wanted = EntityTags.of(request, hdrs.IF_MATCH)
        assert wanted is not None
        if wanted.any:
            return replace(write, must_exist=True)
        revision = wanted.strong[0] if len(wanted.strong) == 1 else ""
        if len(wanted.strong) > 1:
            try:
                now = await self._api.get(identity, ReadRequest(write.environment))
            except NotFound as error:
                raise _stale(error.message) from error
            revision = now.revision if now.revision in wanted.strong else ""
        if not _is_revision(revision):
            raise _stale(f"{write.environment} is at none of these revisions")
        return replace(write, must_exist=True, if_revision=revision)


# -- the document of a PATCH -------------------------------------------------------


def write_of(environment: str, document: Mapping[str, object]) -> WriteRequest:
    """The write that a PATCH's document means; raises InvalidRequest."""
    _refuse_unknown(document, _PATCH_FIELDS, "")
    puts = document.get("set", {})
    unsets = document.get("unset", [])
    if not isinstance(puts, dict):
        raise _misfit("set", "an object of variables")
    if not isinstance(unsets, list):
        raise _misfit("unset", "an array of names")
    return WriteRequest(
        environment,
        puts=tuple(_put(name, value) for name, value in puts.items()),
        unsets=tuple(_unset(name) for name in unsets),
        message=_text(document, "message"),
        operation=_text(document, "operation"),
    )


def _put(name: str, value: object) -> Put:
    if isinstance(value, str):
        return Put(name, value)
    if not isinstance(value, dict):
        raise _misfit(f"the value of {shown(name)}", 'a string or {"value": ..., "secret": ...}')
    if value.get("masked") is True or ("value" in value and value["value"] is None):
        raise InvalidRequest(
            f"the value of {shown(name)} is masked, and can't be sent back",
            hint="leave out what you do not change; read with ?reveal=true to see secrets",
            reason="MASKED_VALUE",
        )
    _refuse_unknown(value, _VALUE_FIELDS, f" of {shown(name)}")
    text, secret = value.get("value"), value.get("secret", False)
    if not isinstance(text, str):
        raise _misfit(f"the value of {shown(name)}", "a string")
    if not isinstance(secret, bool):
        raise _misfit(f"the field secret of {shown(name)}", "true or false")
    return Put(name, text, secret if "secret" in value else None)


def _unset(name: object) -> Unset:
    if not isinstance(name, str):
        raise _misfit("unset", "an array of names")
    return Unset(name)


def _text(document: Mapping[str, object], field: str) -> str:
    text = document.get(field, "")
    if not isinstance(text, str):
        raise _misfit(field, "a string")
    return text


def _refuse_unknown(document: Mapping[str, object], known: frozenset[str], where: str) -> None:
    unknown = document.keys() - known
    if unknown:
        raise InvalidRequest(
            f"there is no field {shown(min(unknown))}{where}",
            hint=f"there are {', '.join(sorted(known))}",
            reason="UNKNOWN_FIELD",
        )


def _misfit(what: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"{what} is not {expected}", reason="INVALID_FIELD")


# -- queries and preconditions -----------------------------------------------------


def _query(request: web.Request, known: frozenset[str]) -> Mapping[str, str]:
    query = request.query
    for name in query:
        if name not in known or len(query.getall(name)) > 1:
            raise InvalidRequest(
                f"the query parameter {shown(name)} is not one that is known, once",
                hint=f"there are: {', '.join(sorted(known)) or 'none'}",
                reason="UNKNOWN_PARAMETER",
            )
    return query


def _boolean(name: str, text: str) -> bool:
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise _misfit(f"the query parameter {name}", "true or false")
    return value


@dataclass(frozen=True, slots=True)
class EntityTags:
    """The value of If-Match or If-None-Match: `*`, or tags (RFC 9110, section 13.1)."""

    any: bool
    strong: tuple[str, ...]
    weak: tuple[str, ...]

    @classmethod
    def of(cls, request: web.Request, header: str) -> EntityTags | None:
        """The tags of a header, None where there is none; raises InvalidRequest."""
        values = request.headers.getall(header, [])
        if not values:
            return None
        joined = ", ".join(values).strip()
        if joined == "*":
            return cls(True, (), ())
        strong: list[str] = []
        weak: list[str] = []
        for part in filter(None, (part.strip() for part in joined.split(","))):
            tag = _ENTITY_TAG.fullmatch(part)
            if tag is None:
                raise InvalidRequest(
                    f"{header} is neither * nor quoted entity tags",
                    hint='send the ETag as it was answered, with its quotes: "REVISION"',
                    reason="INVALID_ETAG",
                )
            (weak if tag[1] else strong).append(tag[2])
        return cls(False, tuple(strong), tuple(weak))

    def weakly_hold(self, revision: str) -> bool:
        """Tell whether one of them is `revision`, weak ones too."""
        return self.any or revision in self.strong or revision in self.weak


def _only_new(write: WriteRequest, request: web.Request) -> WriteRequest:
    tags = EntityTags.of(request, hdrs.IF_NONE_MATCH)
    if tags is None or not tags.any:
        raise InvalidRequest(
            "If-None-Match takes only * here, for an environment that is new",
            hint="use If-Match for a revision",
            reason="INVALID_ETAG",
        )
    return replace(write, must_not_exist=True)


def _is_revision(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def _stale(message: str) -> Conflict:
    return Conflict(
        message,
        hint="read it again, then decide whether your change still fits",
        reason="STALE_REVISION",
    )
