"""Calls over HTTP for stores that have no SDK, or none that is kept up: what is asked and answered.

The one module of the backends that knows aiohttp, and it loads it when it is opened. A status is an
answer here, not an error; `error_of` says what it means where a store gives it no meaning of its
own. What a store writes of an error may quote a value, and so may what aiohttp raises, which also
carries the request; nothing of either is kept, and nothing led to what is raised here.

A redirect is not followed: the credentials would go along, to wherever it leads. Each call is made
once, whatever its method.
"""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    ItemNotFound,
    QuotaExceeded,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
    ValueTooLarge,
)

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

CONNECT_S: Final = 5.0
ANSWER_S: Final = 9.0
"""Together less than the 15 s that a probe may take."""
MAX_ANSWER_BYTES: Final = 32 << 20
"""What is longer is no answer to anything that is asked here."""
MAX_LINE_BYTES: Final = 8 << 20
SILENCE_S: Final = 900.0
"""How long a stream may tell nothing before it is taken for dead: a connection that a network
forgot never ends by itself."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for https: whom to believe instead of the system's, and who we are (all PEM)."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def is_good(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def retry_after_s(self) -> float:
        """What `Retry-After` says in seconds; 0 for nothing, or for a date."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.isdecimal() else 0.0

    def table(self) -> dict[str, Any]:
        """The body as a JSON object; StoreUnavailable where it is none."""
        found = parsed(self.body)
        if not isinstance(found, dict):
            raise StoreUnavailable("the store answered something else than a JSON object")
        return found

    def rows(self) -> list[Any]:
        """The body as a JSON array; StoreUnavailable where it is none."""
        found = parsed(self.body)
        if not isinstance(found, list):
            raise StoreUnavailable("the store answered something else than a JSON array")
        return found


def parsed(body: bytes) -> object:
    """What a body has as JSON; StoreUnavailable where it is none, and nothing of it is told."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        pass
    raise StoreUnavailable("the store answered something that is no JSON")


def new_session(
    tls: Tls, *, headers: Mapping[str, str] | None = None, trust_env: bool = True
) -> aiohttp.ClientSession:
    """A session of aiohttp, also for an SDK that takes one; StoreUnsupported where a file of `tls`
    can't be used. It is the caller's to close. With `trust_env` it takes the proxies of the
    environment, and names and passwords of a `.netrc`."""
    import aiohttp

    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S),
        connector=aiohttp.TCPConnector(ssl=_context(tls), limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=trust_env,
        read_bufsize=1 << 16,
        middlewares=(_once,),
    )


def _context(tls: Tls) -> ssl.SSLContext:
    problem = ""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:  # ssl.SSLError is one.
        problem = error.strerror or type(error).__name__
    else:
        return context
    raise StoreUnsupported(
        f"the files for https can't be used: {problem}",
        hint="see whether they are there, and are PEM",
    )


class HttpCalls:
    """One address. Calls may run at the same time; how many, the caller decides."""

    def __init__(
        self, address: str, *, tls: Tls | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """`address` is `http://HOST:PORT` or `https://...`, `headers` go with every call."""
        self._address = address.rstrip("/")
        self._tls = tls or Tls()
        self._headers = dict(headers or {})
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make a session; raises StoreUnsupported where a file of `tls` can't be used."""
        await self.close()
        self._session = new_session(self._tls, headers=self._headers, trust_env=False)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        answer_s: float = ANSWER_S,
        most_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Make one call and read its answer whole; StoreUnavailable where there is none.

        `path` begins with a slash and is escaped already. `answer_s` is how long all of it may
        take, and `most_bytes` how much of an answer there may be.
        """
        failure = ""
        try:
            async with self._asked(method, path, query, body, headers, answer_s) as response:
                pieces: list[bytes] = []
                left = most_bytes + 1
                while left > 0 and (piece := await response.content.read(left)):
                    pieces.append(piece)
                    left -= len(piece)
                if left > 0:
                    return Answer(response.status, _headers(response), b"".join(pieces))
            failure = "it is longer than any answer"
        except (OSError, ValueError, self._errors()) as error:
            failure = type(error).__name__
        # Out of the handler, so that what failed, with its request, is no context of this.
        raise self._silence(failure)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        silence_s: float = SILENCE_S,
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """Make a call whose answer goes on for as long as the store likes, line by line.

        The answer comes at once, without a body. Its lines end, or raise StoreUnavailable, when the
        store or the network ends them, or when nothing has come for `silence_s`.
        """
        errors = self._errors()
        response: aiohttp.ClientResponse | None = None
        failure = ""
        try:
            response = await self._asked(
                method, path, query, body, headers, None, silence_s=silence_s
            )
        except (OSError, ValueError, errors) as error:
            failure = type(error).__name__
        if response is None:
            raise self._silence(failure)
        try:
            yield Answer(response.status, _headers(response)), self._lines(response, errors)
        finally:
            response.close()

    async def _lines(
        self, response: aiohttp.ClientResponse, errors: type[Exception]
    ) -> AsyncIterator[bytes]:
        rest = b""
        failure = ""
        try:
            async for piece in response.content.iter_any():
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    yield line
                if len(rest) > MAX_LINE_BYTES:
                    failure = "a line is longer than any answer"
                    break
            else:
                return
        except (OSError, errors) as error:
            failure = type(error).__name__
        raise self._silence(failure)

    def _asked(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes,
        headers: Mapping[str, str] | None,
        answer_s: float | None,
        silence_s: float | None = None,
    ) -> Any:
        import aiohttp
        from yarl import URL

        if self._session is None:
            raise StoreUnavailable("the backend is not open")
        url = URL(f"{self._address}{path}", encoded=True)
        proxy, shown = _proxy_of(url)
        return self._session.request(
            method,
            url.with_query(dict(query)) if query else url,
            proxy=proxy,
            proxy_headers=shown,
            data=io.BytesIO(body) if body else None,  # Large ones are sent piece by piece.
            # Without TLS the proxy reads the call itself.
            headers={**(headers or {}), **(shown if url.scheme == "http" else {})},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=answer_s, sock_connect=CONNECT_S, sock_read=silence_s
            ),
        )

    def _errors(self) -> type[Exception]:
        import aiohttp

        return aiohttp.ClientError

    def _silence(self, failure: str) -> StoreUnavailable:
        # Before an @ would be a name and a password.
        scheme, mark, rest = self._address.rpartition("://")
        return StoreUnavailable(
            f"{scheme}{mark}{rest.rpartition('@')[2]} gave no answer: {failure}",
            hint="see whether the address, and the ca_file for https, are right",
        )


def _proxy_of(url: URL) -> tuple[URL | None, dict[str, str]]:
    """The proxy that the environment names for an address, and what is shown to it.

    aiohttp would find it by itself, but then shows a store what a `.netrc` has for its host, and
    makes no call at all that has credentials of its own.
    """
    from aiohttp.helpers import get_env_proxy_for_url

    try:
        proxy, login = get_env_proxy_for_url(url)
    except LookupError:
        return None, {}
    return proxy, {"Proxy-Authorization": login.encode()} if login is not None else {}


async def _once(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request, and let aiohttp not send it again.

    It would, where a connection that was used before breaks and it takes the method for safe to
    repeat, PUT among them; but not after an error of this kind.
    """
    import aiohttp

    failure = ""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise  # Nothing was sent, and nothing is repeated.
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        failure = type(error).__name__
    raise aiohttp.ClientConnectionError(failure)


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def error_of(answer: Answer, store: str) -> BackendError:
    """What a status means that a store gives no meaning of its own. `store` is what people call it.

    409 and 412 are StaleVersion, as for a store that compares entity tags.
    """
    status = answer.status
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return StoreUnavailable(
            f"{store} sends us to another address, and credentials are not sent after a redirect",
            hint="set the address that it sends to",
        )
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return AuthExpired(f"{store} does not take the credentials (status 401)")
        case HTTPStatus.FORBIDDEN:
            return Forbidden(f"{store} does not allow it (status 403)")
        case HTTPStatus.NOT_FOUND:
            return ItemNotFound(f"{store} has no such thing (status 404)")
        case HTTPStatus.CONFLICT | HTTPStatus.PRECONDITION_FAILED:
            return StaleVersion(f"somebody else changed it in {store}")
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return ValueTooLarge(f"{store} takes no values that large")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Throttled(f"{store} had too many calls", retry_after_s=answer.retry_after_s)
        case HTTPStatus.PAYMENT_REQUIRED | HTTPStatus.INSUFFICIENT_STORAGE:
            return QuotaExceeded(f"{store} is full, or its contract says so (status {status})")
        case HTTPStatus.SERVICE_UNAVAILABLE if answer.retry_after_s:
            return Throttled(f"{store} is overloaded", retry_after_s=answer.retry_after_s)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return StoreUnavailable(f"{store} answered with status {status}")
    return StoreUnsupported(f"{store} does not understand a request (status {status})")
