"""`/v1/openapi.json`: OpenAPI 3.1, made from the operations that the server registers.

Shapes are the dataclasses that the handlers take and answer, parameters the fields of those
that they read queries into: nothing is written down twice, so the document can't drift.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from envd import __version__
from envd.core.names import ENVIRONMENT_PATTERN, MAX_ENVIRONMENT_NAME_BYTES
from envd.net import http_json, http_problems, http_watch
from envd.net.http_json import respond
from envd.net.http_problems import Problem
from envd.net.http_routes import AnyOperation, Call, NoQuery, Operation, parameters_of

PATH: Final = "/v1/openapi.json"
_REF: Final = "#/components/schemas/{name}"
_NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "the environment's name; it is the rest of the path, slashes and all",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ENVIRONMENT_NAME_BYTES,
        "pattern": f"^{ENVIRONMENT_PATTERN}$",
    },
}
_ALWAYS: Final = (
    HTTPStatus.EXPECTATION_FAILED,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_GUARDED: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.MISDIRECTED_REQUEST,
)
_WITH_BODY: Final = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
Schema = dict[str, Any]


def operation(others: Sequence[AnyOperation]) -> AnyOperation:
    """The operation that answers with the document of `others` and of itself."""

    async def answer(_: Call[NoQuery]) -> web.Response:
        return respond(document)

    this: Operation[NoQuery] = Operation(
        "getOpenApi", hdrs.METH_GET, PATH, "This document.", answer, NoQuery
    )
    document = openapi((*others, this))
    return this


def openapi(operations: Sequence[AnyOperation]) -> Schema:
    """The OpenAPI document of these operations."""
    paths: dict[str, Schema] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "envd",
            "version": __version__,
            "description": "Environment variables. An ETag is a revision. Errors are problem "
            "details (RFC 9457), told apart by their `reason`. Where there is a GET, there is "
            "a HEAD, but of a stream.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": _components(operations),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _components(operations: Iterable[AnyOperation]) -> Schema:
    kinds: dict[type, None] = {Problem: None}
    for one in operations:
        named = (one.answer, one.body, *one.events.values())
        kinds.update((kind, None) for kind in named if kind is not None)
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    for one in operations:
        if one.body is not None:
            _close(components, _ref(one.body))
    return components


def _close(components: Schema, node: object) -> None:
    """Say of every object below a body that it has no other fields: they are refused."""
    if isinstance(node, list):
        for item in node:
            _close(components, item)
    elif isinstance(node, dict):
        if "$ref" in node:
            schema = components[node["$ref"].rpartition("/")[2]]
            schema["additionalProperties"] = False
            _close(components, schema["properties"])
        for item in node.values():
            _close(components, item)


def _operation(one: AnyOperation) -> Schema:
    made: Schema = {
        "operationId": one.id,
        "summary": one.about,
        "parameters": [*_parameters(one)],
        "responses": _responses(one),
    }
    if one.body is not None:
        content = {http_json.MEDIA_TYPE: {"schema": _ref(one.body)}}
        made["requestBody"] = {"required": True, "content": content}
    if one.open:
        made["security"] = []
    return made


def _parameters(one: AnyOperation) -> Iterable[Schema]:
    if "{name}" in one.path:
        yield dict(_NAME)
    hints = parameters_of(one.query)
    for parameter in fields(one.query):
        assert parameter.default is not MISSING
        schema = msgspec.json.schema(hints[parameter.name])
        described = schema.pop("description", "")
        yield {
            "name": parameter.name,
            "in": "query",
            "description": described,
            "schema": {**schema, "default": parameter.default},
        }
    for header in one.headers:
        yield {
            "name": header.name,
            "in": "header",
            "description": header.about,
            "schema": {"type": "string"},
        }


def _responses(one: AnyOperation) -> Schema:
    responses: Schema = {"200": _success(one)}
    if one.not_modified:
        responses["304"] = {"description": HTTPStatus.NOT_MODIFIED.phrase}
    for status in sorted(problem_statuses(one)):
        responses[str(int(status))] = {
            "description": status.phrase,
            "content": {http_problems.MEDIA_TYPE: {"schema": _ref(Problem)}},
        }
    return responses


def problem_statuses(one: AnyOperation) -> frozenset[HTTPStatus]:
    """The statuses of the problems that an operation may answer with."""
    guarded = () if one.open else _GUARDED
    with_body = _WITH_BODY if one.body is not None else ()
    return frozenset((*_ALWAYS, *guarded, *with_body, *one.problems))


def _success(one: AnyOperation) -> Schema:
    made: Schema = {"description": HTTPStatus.OK.phrase, "content": _content(one)}
    if one.etag:
        made["headers"] = {
            "ETag": {"description": "the revision, quoted", "schema": {"type": "string"}}
        }
    return made


def _content(one: AnyOperation) -> Mapping[str, Schema]:
    if one.media_types:
        return {media_type: {"schema": {"type": "string"}} for media_type in one.media_types}
    if not one.streams:
        schema: Schema = {"type": "object"} if one.answer is None else _ref(one.answer)
        return {http_json.MEDIA_TYPE: {"schema": schema}}
    told = {name: _ref(kind) for name, kind in one.events.items()}
    stream = {
        "type": "string",
        "description": "server-sent events; x-envd-events gives the data of each by its name",
        "x-envd-events": told,
    }
    return {http_watch.MEDIA_TYPE: {"schema": stream}}


def _ref(kind: type) -> Schema:
    return {"$ref": _REF.format(name=kind.__name__)}
