"""Calls to one service of Azure through a client of its SDK: what the backends for Azure share.

The SDK brings tokens, and how each service wants them; what is asked and answered is plain JSON
over HTTP, and a status is an answer and no error. It is told to try nothing again and to follow no
redirect, since the token would go along. What the SDK raises may quote an answer or carry the
request, so nothing of it is kept, and it is neither cause nor context of what is raised here.

Connections are those of `http_calls`, for the SDK would read the file of a private authority anew
for each call, and then connect anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from envd import __version__
from envd.backends.azure_settings import AzureSettings, Credential, find_credential
from envd.backends.errors import (
    BackendError,
    Forbidden,
    MissingLibrary,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
)
from envd.backends.http_calls import ANSWER_S, CONNECT_S, Answer, error_of, new_session
from envd.threads import finish_in_thread

Credentials = Callable[[Any], Credential]
"""Makes the credential for a transport of the SDK."""
MakeClient = Callable[[Any, Mapping[str, Any]], Any]
"""Makes a client of the SDK of a credential and the arguments that all clients get."""

_QUIET: Final = (("azure", logging.WARNING), ("azure.identity", logging.ERROR))
_NOT_NOW: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.TOO_MANY_REQUESTS)
"""What is answered to who wants a token and shall come again: the service of a machine says 404 and
410 while it is being updated."""
_CODE: Final = re.compile(r"AADSTS[0-9]{4,8}")
"""What Microsoft Entra ID calls its errors; the rest of what it says is not passed on."""


@dataclass(slots=True)
class _Open:
    """What is open: in the order in which it is closed."""

    client: Any
    credential: Any
    session: Any

    async def close(self) -> None:
        """One that can't be closed, or a cancellation, keeps no other open."""
        async with AsyncExitStack() as stack:
            for each in (self.session, self.credential, self.client):
                stack.push_async_callback(_let_go, each)


class AzureCalls:
    """One service at one address. Calls wait for their turn, at most `concurrency` are under way.

    `store` is what people call it, and `hint` what to do where it allows nothing.
    """

    def __init__(
        self,
        store: str,
        settings: AzureSettings,
        make: MakeClient,
        *,
        concurrency: int,
        hint: str = "see docs/backends-azure.md for the role that envd needs",
        environ: Mapping[str, str] = os.environ,
        credentials: Credentials | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._make = make
        self._hint = hint
        self._credentials = credentials or (
            lambda transport: find_credential(settings, environ, transport)
        )
        self._turns = asyncio.Semaphore(concurrency)
        self._open: _Open | None = None
        self.identity = ""

    async def open(self) -> None:
        """Load the SDK and find the credentials; no call is made. Raises BackendError."""
        await self.close()
        session = new_session(self._settings.tls)
        try:
            # In a thread: to import the SDK takes a second, and this loop has more to do.
            made = await finish_in_thread(self._made, session)
        except BaseException:
            await session.close()
            raise
        if isinstance(made, BackendError):
            await session.close()
            raise made
        self._open = made

    def _made(self, session: Any) -> _Open | BackendError:
        try:
            from azure.core.pipeline.policies import AsyncRedirectPolicy, AsyncRetryPolicy
            from azure.core.pipeline.transport import AioHttpTransport

            transport = AioHttpTransport(
                session=session,
                session_owner=False,
                connection_timeout=CONNECT_S,
                read_timeout=ANSWER_S,
            )
            found = self._credentials(transport)
            arguments = {
                "transport": transport,
                "retry_policy": AsyncRetryPolicy.no_retries(),
                "redirect_policy": AsyncRedirectPolicy.no_redirects(),
                "user_agent": f"envd/{__version__}",
            }
            client = self._make(found.sdk, arguments)
        except BackendError as error:
            return type(error)(error.message, hint=error.hint)
        except ImportError:
            return MissingLibrary(
                f"{self._store} needs the SDK for Azure, which is not installed",
                hint="pip install 'envd-cluster[azure]'",
            )
        except Exception as error:  # noqa: BLE001 (mostly ValueError, for bad arguments)
            return StoreUnsupported(
                f"the SDK for Azure does not take the settings ({type(error).__name__})",
                hint="see whether tenant_id, authority and the api versions are right",
            )
        _keep_quiet()
        self.identity = found.identity
        return _Open(client, found.sdk, session)

    async def close(self) -> None:
        """Let go of connections."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make one call and read its answer; raises StoreUnavailable where there is none.

        `path` is escaped already. Raises Forbidden where Azure gives us no token.
        """
        url = f"{path}?{urlencode(query)}" if query else path
        async with self._turns:
            if self._open is None:
                raise StoreUnavailable("the backend is not open")
            answer = await self._attempt(self._open.client, method, url, body, headers or {})
        # Raised here, where no error of the SDK is around to become its context.
        if isinstance(answer, BackendError):
            raise answer
        return answer

    async def _attempt(
        self,
        client: Any,
        method: str,
        url: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> Answer | BackendError:
        from azure.core.rest import HttpRequest

        given = {"Accept": "application/json", **headers}
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        content = None if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(CONNECT_S + ANSWER_S):
                response = await client.send_request(
                    HttpRequest(method, url, headers=given, content=content)
                )
                told = {name.lower(): value for name, value in response.headers.items()}
                return Answer(int(response.status_code), told, bytes(response.content))
        except Exception as error:  # noqa: BLE001 (the SDK raises what its libraries do)
            return self._problem(error)

    def _problem(self, error: Exception) -> BackendError:
        """What an error of the SDK means, without anything of its text."""
        from azure.core.exceptions import (
            ClientAuthenticationError,
            ServiceRequestError,
            ServiceResponseError,
        )

        kind = type(error).__name__
        if isinstance(error, ClientAuthenticationError):
            status = getattr(error.response, "status_code", None) or 0
            if status in _NOT_NOW or status >= 500:
                return StoreUnavailable(f"Azure gives no tokens now (status {status})")
            silent = (ServiceRequestError, ServiceResponseError, TimeoutError)
            if isinstance(error.__cause__, silent):
                return StoreUnavailable(f"nobody answers who gives tokens for {self.identity}")
            code = _CODE.search(str(error))
            return Forbidden(
                f"Azure gives no token for {self.identity} ({code[0] if code else kind})",
                hint="see whether it exists, is allowed to log in, and its secret is still valid",
            )
        if isinstance(error, ValueError) and "challenge" in str(error):
            return Forbidden(
                f"{self._store} asks for a token for another domain, so it gets none",
                hint="see whether the name and the suffix of its address are right",
            )
        return StoreUnavailable(f"{self._store} gave no answer: {kind}")

    def error_of(self, answer: Answer) -> BackendError:
        """What an answer that is not good means. The store's own words are not passed on."""
        error = error_of(answer, self._store)
        if isinstance(error, Forbidden):
            return Forbidden(error.message, hint=self._hint)
        if isinstance(error, Throttled) and not error.retry_after_s:
            return Throttled(error.message, retry_after_s=_wait_s(answer))
        return error


async def _let_go(what: Any) -> None:
    with suppress(Exception):  # What the SDK says of it may quote anything.
        await what.close()


def _wait_s(answer: Answer) -> float:
    """What Azure's own headers say of waiting, in seconds; 0 where there are none."""
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        text = answer.headers.get(name, "")
        if text.isascii() and text.isdecimal():
            return int(text) / 1000
    return 0.0


def _keep_quiet() -> None:
    """Have the SDK log warnings only: it would log each call, and at DEBUG more than that.

    It would whenever somebody sets the root logger to DEBUG, which is no decision to log secrets.
    And what it warns of when it gets no token quotes the answer.
    """
    for name, level in _QUIET:
        logger = logging.getLogger(name)
        if logger.level < level:
            logger.setLevel(level)


def told_error(answer: Answer) -> tuple[str, str]:
    """The code of an error and that of what is behind it, "" where there is none. Both are names.

    Example: ("Conflict", "ObjectIsBeingDeleted").
    """
    try:
        error = answer.table().get("error")
    except BackendError:
        return "", ""
    if not isinstance(error, dict):
        return "", ""
    inner = error.get("innererror", error.get("innerError"))
    deeper = inner.get("code") if isinstance(inner, dict) else None
    return str(error.get("code", "")), str(deeper or "")
