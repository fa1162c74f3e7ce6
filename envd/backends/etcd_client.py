"""Calls of etcd's JSON gateway: to one of several addresses, as one user, their errors translated.

etcd has no client for Python that is kept up, so it is spoken to through the gateway that each
member has beside gRPC: every call is a POST of a JSON object, with bytes in base64.

A call is made to one member and no other: where no answer comes nobody knows what was done. The
next call then goes to the next address, as it does where a member answers that it can't, since one
that is cut off from the others answers so for as long as it is. Only what writes nothing may ask
them all in turn.

A token comes of a login with name and password. etcd ends it by itself, after five minutes without
a call or sooner; the call that meets this is an AuthExpired, and the next one logs in anew. Some
releases just hang up on a token that has ended, so it is let go of then as well.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    QuotaExceeded,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
    ValueTooLarge,
)
from envd.backends.etcd_settings import EtcdSettings
from envd.backends.http_calls import Answer, HttpCalls, error_of, parsed

MAX_ANSWER_BYTES: Final = 128 << 20
"""Of a page: fifty of the largest values, in base64."""

_STORE: Final = "etcd"
_ENDED: Final = ("invalid auth token", "auth store is old")
_NO_USER: Final = ("user name is empty", "authentication failed", "user name not found")
_AUTH_IS_OFF: Final = "authentication is not enabled"
_TOO_LARGE: Final = ("request is too large", "received message larger than max")
_FULL: Final = "database space exceeded"
_TOO_MANY: Final = "too many requests"


class _NobodyAsked(StoreUnsupported):
    """A login where etcd asks nobody who they are."""


class EtcdClient:
    """A cluster of etcd at some addresses."""

    def __init__(self, settings: EtcdSettings, environ: Mapping[str, str]) -> None:
        self._login = settings.login
        self._environ = environ
        self._calls = [HttpCalls(each, tls=settings.tls) for each in settings.endpoints]
        self._at = 0
        self._token = ""
        self._user = ""
        self._turn = asyncio.Lock()

    @property
    def identity(self) -> str:
        """The user, "" where etcd asks nobody."""
        return self._user

    async def open(self) -> None:
        """Log in, where there is a user; raises Forbidden where etcd does not take it."""
        if not self._calls:
            raise StoreUnsupported(
                "nobody has said where etcd is", hint="set cloud.providers.etcd.endpoints"
            )
        for each in self._calls:
            await each.open()
        self._token = ""
        if self._login is not None:
            await self._current()

    async def close(self) -> None:
        for each in self._calls:
            await each.close()

    async def ask(
        self, path: str, body: Mapping[str, object], *, anywhere: bool = False
    ) -> dict[str, Any]:
        """Make one call; all answers but good ones are raised.

        With `anywhere` the other addresses are asked as well where one does not answer: for calls
        that write nothing.
        """
        return await self._asked(path, body, await self._current(), anywhere=anywhere)

    async def _asked(
        self, path: str, body: Mapping[str, object], token: str, *, anywhere: bool
    ) -> dict[str, Any]:
        failed: BackendError | None = None
        for _ in range(len(self._calls) if anywhere else 1):
            try:
                return await self._call(path, body, token)
            except StoreUnavailable as error:
                failed = error
        raise failed if failed is not None else StoreUnavailable("the backend is not open")

    async def _call(self, path: str, body: Mapping[str, object], token: str) -> dict[str, Any]:
        at = self._at
        try:
            answer = await self._member(at).call(
                "POST",
                path,
                body=json.dumps(body).encode(),
                headers=_headers(token),
                most_bytes=MAX_ANSWER_BYTES,
            )
            return self._good(answer).table()
        except StoreUnavailable:
            self._leave(at)
            raise

    def _member(self, at: int) -> HttpCalls:
        if not self._calls:
            raise StoreUnavailable("the backend is not open")
        return self._calls[at]

    def _leave(self, at: int) -> None:
        """Have the next call go to the next address, as somebody who logged in anew."""
        if self._at == at:
            self._at = (at + 1) % max(1, len(self._calls))
        self._token = ""

    def _good(self, answer: Answer) -> Answer:
        if answer.is_good:
            return answer
        error = error_of_etcd(answer)
        if isinstance(error, AuthExpired):
            self._token = ""
        raise error

    @asynccontextmanager
    async def stream(
        self, path: str, body: Mapping[str, object]
    ) -> AsyncIterator[AsyncGenerator[dict[str, Any], None]]:
        """Make a call whose answers go on, a JSON object each; `result` of each of them."""
        # A token that has ended is not told of by etcd there, so that a new one is got.
        self._token = ""
        token = await self._current()
        at = self._at
        try:
            async with self._member(at).stream(
                "POST", path, body=json.dumps(body).encode(), headers=_headers(token)
            ) as (answer, lines):
                if not answer.is_good:
                    raise error_of_etcd(answer)
                yield _results(lines)
        except StoreUnavailable:
            self._leave(at)
            raise

    # Who we are.

    async def _current(self) -> str:
        """The token, got now if there is none; of many calls one logs in."""
        if self._login is None:
            return ""
        async with self._turn:
            if not self._token:
                self._token = await self._logged_in(*self._login.read(self._environ))
            return self._token

    async def _logged_in(self, user: str, password: str) -> str:
        body = {"name": user, "password": password}
        try:
            found = await self._asked("/v3/auth/authenticate", body, "", anywhere=True)
        except _NobodyAsked:
            found = {"token": _NONE_NEEDED}
        token = found.get("token")
        if not isinstance(token, str) or not token:
            raise StoreUnavailable("etcd answered a login without a token")
        self._user = user
        return token


_NONE_NEEDED: Final = "none"
"""Stands for a token where etcd has authentication switched off."""


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": token} if token and token != _NONE_NEEDED else {}


async def _results(lines: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    async for line in lines:
        found = parsed(line)
        result = found.get("result") if isinstance(found, dict) else None
        if not isinstance(result, dict):
            raise StoreUnavailable("etcd ended a watch with an error")
        yield result


def error_of_etcd(answer: Answer) -> BackendError:
    """What an answer that is not good means. etcd's own words are not passed on."""
    error = error_of_words(_words(answer), retry_after_s=answer.retry_after_s)
    return error if error is not None else error_of(answer, _STORE)


def _words(answer: Answer) -> str:
    """What etcd says is wrong, "" where it says nothing; for recognition alone."""
    try:
        found = parsed(answer.body)
    except StoreUnavailable:
        return ""
    words = found.get("message") or found.get("error") if isinstance(found, dict) else None
    return words if isinstance(words, str) else ""


def error_of_words(words: str, *, retry_after_s: float = 0.0) -> BackendError | None:
    """What etcd's own words mean, None for those that its status says enough of."""
    if any(each in words for each in _ENDED):
        return AuthExpired("etcd's token has ended")
    if any(each in words for each in _NO_USER):
        return Forbidden(
            "etcd does not take the name and the password, or wants some",
            hint="set user_env and password_env below [cloud.providers.etcd]",
        )
    if "permission denied" in words or "PermissionDenied" in words:
        return Forbidden(
            "etcd does not allow it", hint="see docs/backends-etcd.md for the role that envd needs"
        )
    if _AUTH_IS_OFF in words:
        return _NobodyAsked("etcd has authentication switched off")
    if any(each in words for each in _TOO_LARGE):
        return ValueTooLarge("the value is larger than this etcd takes (--max-request-bytes)")
    if _FULL in words:
        return QuotaExceeded(
            "etcd is full", hint="compact and defragment it, or raise --quota-backend-bytes"
        )
    if _TOO_MANY in words:
        return Throttled("etcd has too many calls waiting", retry_after_s=retry_after_s)
    if "compacted" in words:
        return StoreUnavailable("etcd has compacted the revision that was being read")
    return None


def encoded(data: bytes | str) -> str:
    """Bytes as the gateway has them."""
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def decoded(found: object) -> bytes:
    """Bytes of the gateway; empty ones are left out there."""
    try:
        return base64.b64decode(found, validate=True) if isinstance(found, str) else b""
    except ValueError:
        pass
    raise StoreUnavailable("etcd answered something that is no base64")


def number(found: object) -> int:
    """A number of the gateway, which writes those of 64 bits as text and leaves 0 out."""
    text = str(found)
    return int(text) if text.isascii() and text.isdecimal() else 0
