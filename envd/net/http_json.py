"""JSON bodies, read strictly: valid UTF-8, no key twice, no NaN; written as the contract shows.

Errors tell where a document is wrong, never what it holds.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Final, NoReturn

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from envd.core.errors import InvalidRequest
from envd.wire.plain import to_plain

MEDIA_TYPE: Final = "application/json"
_MAX_SHOWN: Final = 64


async def read_object(request: web.Request, timeout_s: float) -> Mapping[str, object]:
    """The body as an object; raises InvalidRequest, or LimitExceeded (413) for one too large."""
    length = request.content_length or 0
    if length > request.client_max_size:
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, length)
    try:
        async with asyncio.timeout(timeout_s):
            raw = await request.read()
    except TimeoutError:
        raise InvalidRequest(
            f"the body did not arrive within {timeout_s:g} seconds", reason="TOO_SLOW"
        ) from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise _malformed("the body can't be read") from None
    return parse_object(raw)


def parse_object(raw: bytes) -> Mapping[str, object]:
    """Read one JSON object; raises InvalidRequest."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        # Not chained: a UnicodeDecodeError carries the whole body.
        raise _malformed(f"the body is not valid UTF-8 at byte {error.start}") from None
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise _malformed(f"the body is no JSON: see {place}") from None
    except RecursionError:
        raise _malformed("the body is nested too deeply") from None
    except ValueError:
        raise _malformed("the body holds a number that is too long") from None
    if not isinstance(document, dict):
        raise _malformed("the body is no JSON object")
    return document


def respond(answer: object, *, status: int = 200, etag: str = "") -> web.Response:
    """An answer as a JSON document, in the shapes of `wire.plain`."""
    body = json.dumps(to_plain(answer), ensure_ascii=False, separators=(",", ":")).encode()
    response = web.Response(status=status, body=body, content_type=MEDIA_TYPE)
    if etag:
        response.headers["ETag"] = f'"{etag}"'
    return response


def shown(name: str) -> str:
    """A name out of a document, short and escaped, for a message."""
    return ascii(name[:_MAX_SHOWN])


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(
            name for name, times in Counter(name for name, _ in pairs).items() if times > 1
        )
        raise _malformed(f"{shown(twice)} stands twice in one object")
    return made


def _no_constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is no JSON")


def _malformed(message: str) -> InvalidRequest:
    return InvalidRequest(message, reason="MALFORMED")
