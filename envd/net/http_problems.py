"""Errors over HTTP: problem details (RFC 9457), for every error and never with a value.

{"type": "urn:envd:problem:stale-revision", "title": "Precondition Failed", "status": 412,
 "detail": "...", "reason": "STALE_REVISION", "hint": "...", "kind": "Conflict"}
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.typedefs import Handler, Middleware

from envd.core.errors import (
    Conflict,
    Denied,
    EnvdError,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from envd.net.faults import Faults
from envd.net.http_guard import resource_of
from envd.wire.plain import to_plain

MEDIA_TYPE: Final = "application/problem+json"
SERVER_NAME: Final = "envd"
_SAFE: Final = frozenset({"GET", "HEAD"})

_BY_REASON: Final[Mapping[tuple[type, str], HTTPStatus]] = {
    (Conflict, "STALE_REVISION"): HTTPStatus.PRECONDITION_FAILED,
    (Unavailable, "DISK_FULL"): HTTPStatus.INSUFFICIENT_STORAGE,
    (LimitExceeded, "BODY_TOO_LARGE"): HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    (InvalidRequest, "TOO_SLOW"): HTTPStatus.REQUEST_TIMEOUT,
    (InvalidRequest, "FOREIGN_HOST"): HTTPStatus.MISDIRECTED_REQUEST,
}
_BY_CLASS: Final[Mapping[type, HTTPStatus]] = {
    InvalidRequest: HTTPStatus.BAD_REQUEST,
    LimitExceeded: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Denied: HTTPStatus.FORBIDDEN,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    OutcomeUnknown: HTTPStatus.INTERNAL_SERVER_ERROR,
    Unsupported: HTTPStatus.NOT_IMPLEMENTED,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem details (RFC 9457) with what tells more: a constant, a mend, the kind of error."""

    type: str
    title: str
    status: int
    detail: str
    reason: str
    kind: str
    hint: str = ""


def http_status(error: EnvdError) -> HTTPStatus:
    """The status of an error, by its class or the nearest one above it."""
    for kind in type(error).__mro__:
        status = _BY_REASON.get((kind, error.reason)) or _BY_CLASS.get(kind)
        if status is not None:
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem(error: EnvdError) -> web.Response:
    """The whole error as a response."""
    response = _respond(details(error))
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = 'Bearer realm="envd"'
    if isinstance(error, Unavailable) and error.retry_after_ms > 0:
        response.headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
    return response


def problem_of(status: int, *, reason: str, detail: str, hint: str = "") -> web.Response:
    """Problem details as a response, for what is no EnvdError."""
    return _respond(_problem(status, reason, detail, hint, EnvdError.__name__))


def details(error: EnvdError) -> Problem:
    """The whole error as problem details."""
    kind = type(error).__name__
    return _problem(http_status(error), error.reason, error.message, error.hint, kind)


def problem_document(made: Problem) -> dict[str, object]:
    """Problem details as they are sent: without a hint where there is none."""
    return {name: value for name, value in to_plain(made).items() if value != ""}


def _problem(status: int, reason: str, detail: str, hint: str, kind: str) -> Problem:
    return Problem(
        type=f"urn:envd:problem:{reason.lower().replace('_', '-')}",
        title=HTTPStatus(status).phrase,
        status=int(status),
        detail=detail,
        reason=reason,
        kind=kind,
        hint=hint,
    )


def _respond(made: Problem) -> web.Response:
    body = json.dumps(problem_document(made)).encode()
    response = web.Response(status=made.status, body=body, content_type=MEDIA_TYPE)
    response.headers["Server"] = SERVER_NAME
    response.headers["Cache-Control"] = "no-store"
    return response


def problems(faults: Faults) -> Middleware:
    """The outermost middleware: whatever is raised becomes a problem."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return problem_of_framework(error)
        except EnvdError as error:
            return problem(error)
        except (asyncio.CancelledError, ConnectionError):
            raise  # the client went away
        except Exception as error:  # noqa: BLE001 - the request's outermost guard
            call = f"{request.method} {resource_of(request)}"
            return problem(faults.report(call, error, writes=request.method not in _SAFE))

    return answer


def problem_of_framework(error: web.HTTPException) -> web.Response:
    """What aiohttp raises by itself: no such path, a method that the path has not."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return problem(body_too_large())
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = problem_of(
            error.status,
            reason="METHOD_NOT_ALLOWED",
            detail="this resource does not know the method",
            hint=f"it knows {allowed}",
        )
        response.headers["Allow"] = allowed
        return response
    if error.status == HTTPStatus.NOT_FOUND:
        return problem_of(
            error.status,
            reason="NO_SUCH_RESOURCE",
            detail="there is no such resource",
            hint="environments are at /v1/environments/NAME; all there is: /v1/openapi.json",
        )
    reason = HTTPStatus(error.status).name
    return problem_of(error.status, reason=reason, detail=HTTPStatus(error.status).phrase)


def problem_below(status: int, error: BaseException | None) -> web.Response:
    """What is refused below the application: no HTTP, or a body in an unknown encoding."""
    if isinstance(error, ContentEncodingError):
        return problem_of(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            reason="UNKNOWN_ENCODING",
            detail="the body is in an encoding that this server does not read",
            hint="send it as it is, or with Content-Encoding gzip or deflate",
        )
    if status == HTTPStatus.BAD_REQUEST:
        return problem_of(status, reason="MALFORMED", detail="the request is no HTTP")
    return problem_of(status, reason="INTERNAL", detail="internal error")


def body_too_large() -> LimitExceeded:
    return LimitExceeded(
        "the body is larger than 8 MiB", hint="write in several steps", reason="BODY_TOO_LARGE"
    )
