"""What an operation of the HTTP server is: one method of one path, declared once.

An `Operation` names its query parameters (the fields of a dataclass), its body (another), its
headers, its answer and its problems. From this one declaration comes the route, what reads
and checks a request before the handler sees it, and the OpenAPI document (`http_openapi`). So
a parameter that the document does not tell of can't be read, and one that it tells of is.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from aiohttp import hdrs, web

from envd.core.answers import Identity
from envd.core.errors import InvalidRequest
from envd.net.http_guard import IDENTITY
from envd.net.http_json import read_object, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

QueryT = TypeVar("QueryT", bound="DataclassInstance")
HandlerResult = Awaitable[web.StreamResponse]
_BOOLEANS: Final = {"true": True, "1": True, "": True, "false": False, "0": False}
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class NoQuery:
    """No query parameter is known."""


@dataclass(frozen=True, slots=True)
class Call(Generic[QueryT]):
    """A request whose query and body are as the operation declares them.

    `document` is the body, its fields known but their values still unchecked; it is empty
    where the operation takes none.
    """

    request: web.Request
    query: QueryT
    document: Mapping[str, object] = field(repr=False)

    @property
    def identity(self) -> Identity:
        """Who calls."""
        return self.request[IDENTITY]

    @property
    def name(self) -> str:
        """The environment that the path names."""
        return self.request.match_info["name"]


@dataclass(frozen=True, slots=True)
class Header:
    """A request header that an operation heeds."""

    name: str
    about: str


@dataclass(frozen=True, slots=True)
class Operation(Generic[QueryT]):
    """One method of one path; see the module.

    `path` may end with `{name}`, an environment's name with its slashes. `answer` is the
    dataclass of a 200, or None for a document without a fixed shape; `events` are those of
    a stream, by name; `media_types` are those of an answer that is text and no JSON.
    `problems` are the statuses besides those that any request may get.
    """

    id: str
    method: str
    path: str
    about: str
    handler: Callable[[Call[QueryT]], HandlerResult]
    query: type[QueryT]
    answer: type | None = None
    body: type[DataclassInstance] | None = None
    headers: tuple[Header, ...] = ()
    events: Mapping[str, type] = field(default_factory=dict)
    media_types: tuple[str, ...] = ()
    problems: tuple[HTTPStatus, ...] = ()
    etag: bool = False
    not_modified: bool = False
    open: bool = False

    @property
    def streams(self) -> bool:
        """Tell whether the answer has no end of its own."""
        return bool(self.events)


AnyOperation = Operation[Any]


def route(operation: AnyOperation, *, body_timeout_s: float) -> web.RouteDef:
    """What the router needs to know of an operation."""
    parameters = parameters_of(operation.query)

    async def answer(request: web.Request) -> web.StreamResponse:
        # A probe may add what it likes: ?verbose, a time against caches.
        query = operation.query(**({} if operation.open else read_query(request, parameters)))
        document: Mapping[str, object] = {}
        if operation.body is not None:
            document = await read_object(request, body_timeout_s)
            refuse_unknown(document, operation.body)
        elif operation.method == hdrs.METH_DELETE and request.body_exists:
            raise InvalidRequest(
                "this request takes no body",
                hint="message and operation are query parameters here",
                reason="MALFORMED",
            )
        return await operation.handler(Call(request, query, document))

    path = operation.path.replace("{name}", r"{name:[\s\S]+}")  # what is no name is told so
    if operation.method == hdrs.METH_GET:
        return web.get(path, answer, allow_head=not operation.streams)
    return web.route(operation.method, path, answer)


# -- reading a request -------------------------------------------------------------


def parameters_of(kind: type[DataclassInstance]) -> Mapping[str, object]:
    """The query parameters that the fields of `kind` are: their types by name."""
    return get_type_hints(kind, include_extras=True)


def read_query(request: web.Request, known: Mapping[str, object]) -> dict[str, str | bool | int]:
    """The query parameters; raises InvalidRequest for one that is unknown, twice or wrong."""
    values: dict[str, str | bool | int] = {}
    for name, text in request.query.items():
        if name not in known or name in values:
            raise InvalidRequest(
                f"the query parameter {shown(name)} is not one that is known, once",
                hint=f"there are: {', '.join(sorted(known)) or 'none'}",
                reason="UNKNOWN_PARAMETER",
            )
        values[name] = _parsed(name, text, known[name])
    return values


def refuse_unknown(
    document: Mapping[str, object], kind: type[DataclassInstance], where: str = ""
) -> None:
    """Raise InvalidRequest where `document` has fields that `kind` has not."""
    known = {one.name for one in fields(kind)}
    unknown = document.keys() - known
    if unknown:
        raise InvalidRequest(
            f"there is no field {shown(min(unknown))}{where}",
            hint=f"there are {', '.join(sorted(known))}",
            reason="UNKNOWN_FIELD",
        )


def misfit(what: str, expected: str) -> InvalidRequest:
    """The error for a field or parameter of the wrong type."""
    return InvalidRequest(f"{what} is not {expected}", reason="INVALID_FIELD")


def _parsed(name: str, text: str, hint: object) -> str | bool | int:
    what = f"the query parameter {name}"
    plain, *rest = get_args(hint) or (hint,)
    if plain is str:
        return text
    if get_origin(plain) is Literal:
        if text not in get_args(plain):
            raise misfit(what, "one of " + ", ".join(get_args(plain)))
        return text
    if plain is bool:
        value = _BOOLEANS.get(text.lower())
        if value is None:
            raise misfit(what, "true or false")
        return value
    lowest, highest = _bounds(rest)
    if not (_NUMBER.fullmatch(text) and lowest <= int(text) <= highest):
        raise misfit(what, f"a number from {lowest} to {highest}")
    return int(text)


def _bounds(annotations: list[object]) -> tuple[int, int]:
    """The bounds of a number; each parameter that is one has them."""
    (meta,) = (one for one in annotations if isinstance(one, msgspec.Meta))
    assert isinstance(meta.ge, int)
    assert isinstance(meta.le, int)
    return meta.ge, meta.le


# -- words that many operations share ----------------------------------------------

Prefix = Annotated[
    str, msgspec.Meta(description="only environments below this name, by whole segments")
]
Reveal = Annotated[
    bool, msgspec.Meta(description="show the values of secrets, which takes the right to")
]
Message = Annotated[str, msgspec.Meta(description="why; it stands in the history")]
OperationId = Annotated[
    str,
    msgspec.Meta(description="makes a retry safe for 24 hours: the same id is done at most once"),
]

IF_MATCH: Final = Header(hdrs.IF_MATCH, "done only on this revision, quoted: an entity tag")
IF_NEW: Final = Header(hdrs.IF_NONE_MATCH, "`*`: done only where the environment does not exist")
READ_PROBLEMS: Final = (HTTPStatus.NOT_FOUND,)
WRITE_PROBLEMS: Final = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.PRECONDITION_FAILED,
    HTTPStatus.INSUFFICIENT_STORAGE,
)
