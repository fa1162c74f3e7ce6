"""Calls of Vault's HTTP API through hvac: few at a time, each in a thread, their errors translated.

hvac blocks, and its sessions are not made for many threads at once, so there is one session for
each call under way, and no more than `concurrency` of them. hvac is told to raise nothing: its
errors carry the text of the answer, and that of `requests` the request, which may have values in
them. What is raised here names a status or a kind of failure, and is led to by nothing else.

A redirect is not followed: the token would go along, to wherever it leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from envd.backends.errors import (
    BackendError,
    Forbidden,
    MissingLibrary,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
    Throttled,
    ValueTooLarge,
)
from envd.backends.vault_settings import VaultSettings
from envd.threads import finish_in_thread

CONNECT_S: Final = 5.0
ANSWER_S: Final = 9.0
"""Together less than the 15 s that a probe may take."""

_STALE: Final = "check-and-set parameter"
_UPGRADING: Final = "Upgrading from non-versioned"
_TOO_LARGE: Final = "too large"
_OTHER_NODE: Final = (472, 473)
"""A secondary for disaster recovery, and a standby."""

Request: TypeAlias = Callable[[Any], Any]
"""What to ask of an `hvac.Client`; it returns a `requests.Response`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of Vault. `data` is what it has under that name, {} for nothing; `has_errors` tells
    whether it says what is wrong, in words that are kept in `errors` for recognition alone."""

    status: int
    data: Mapping[str, object] = field(default_factory=dict, repr=False)
    auth: Mapping[str, object] = field(default_factory=dict, repr=False)
    errors: str = field(default="", repr=False)
    retry_after_s: float = 0.0
    is_json: bool = True

    @property
    def is_good(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def is_absent(self) -> bool:
        """There is nothing under the name. Of a mount that is not there Vault says so in words."""
        return self.status == HTTPStatus.NOT_FOUND and self.is_json and not self.errors


class VaultClient:
    """A Vault at one address. `ask` may be called as often as one likes; calls wait for a turn."""

    def __init__(self, settings: VaultSettings, address: str, *, concurrency: int) -> None:
        self._settings = settings
        self._address = address
        self._turns = asyncio.Semaphore(concurrency)
        self._idle: list[Any] = []
        self._is_closed = False

    async def ask(self, request: Request, token: str) -> Answer:
        """Make one call; raises StoreUnavailable where there is no answer. A status is none."""
        async with self._turns:
            client = self._idle.pop() if self._idle else await finish_in_thread(self._new)
            try:
                return await finish_in_thread(self._answer, client, request, token)
            finally:
                if self._is_closed:
                    client.adapter.close()
                else:
                    self._idle.append(client)

    def close(self) -> None:
        """Close what is idle now, and what is under way when it is done."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().adapter.close()

    def _new(self) -> Any:
        try:
            import hvac
        except ImportError:
            raise MissingLibrary(
                "vault needs the library hvac, which is not installed",
                hint="pip install 'envd-cluster[vault]'",
            ) from None
        ca_file = self._settings.ca_file
        return hvac.Client(
            url=self._address,
            token="",  # Not that of hvac's own choice: ours comes with each call.
            verify=None if ca_file is None else str(ca_file),
            timeout=(CONNECT_S, ANSWER_S),
            allow_redirects=False,
            adapter=hvac.adapters.RawAdapter,
            namespace=self._settings.namespace or None,
            ignore_exceptions=True,
            strict_http=True,  # LIST is no method that every proxy lets through.
        )

    def _answer(self, client: Any, request: Request, token: str) -> Answer:
        """In a thread: ask, and read the answer to its end."""
        client.token = token
        try:
            response = request(client)
        except (OSError, ValueError) as error:  # All that requests raises is one of them.
            failure = type(error).__name__
        else:
            return _read(response)
        # Out of the handler, so that what failed, with its request, is no context of this.
        raise StoreUnavailable(
            f"Vault at {self._address} gave no answer: {failure}",
            hint="see whether the address, and the ca_file for https, are right",
        )


def _read(response: Any) -> Answer:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = None
    whole = body if isinstance(body, dict) else {}
    errors = whole.get("errors")
    return Answer(
        status=int(response.status_code),
        data=_table(whole.get("data")),
        auth=_table(whole.get("auth")),
        errors="\n".join(map(str, errors)) if isinstance(errors, list) else "",
        retry_after_s=_seconds(response.headers.get("Retry-After", "")),
        is_json=isinstance(body, dict) and bool(response.content),
    )


def _table(found: object) -> Mapping[str, object]:
    return found if isinstance(found, dict) else {}


def _seconds(text: str) -> float:
    """What `Retry-After` says; 0 for nothing, or for a date, which Vault never sends."""
    return float(text) if text.isascii() and text.isdecimal() else 0.0


def error_of(answer: Answer) -> BackendError:
    """What an answer that is not good means. Vault's own words are not passed on."""
    status = answer.status
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return StoreUnavailable(
            "Vault sends us to another address, and a token is not sent after a redirect",
            hint="set the address of the active node, or one that forwards requests to it",
        )
    if status == HTTPStatus.NOT_FOUND:
        return StoreUnsupported(
            "Vault has nothing mounted there",
            hint="set cloud.providers.vault.mount, and the namespace, to a key-value store",
        )
    if status == HTTPStatus.BAD_REQUEST:
        return _of_bad_request(answer)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Forbidden(
            "Vault does not allow it, or there is no such thing",
            hint="see docs/backends-vault.md for the policy that envd needs",
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Throttled(
            "Vault has had too many calls, by a quota of it", retry_after_s=answer.retry_after_s
        )
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (
        status == HTTPStatus.INTERNAL_SERVER_ERROR and _TOO_LARGE in answer.errors
    ):
        return ValueTooLarge("the secret is larger than this Vault, or what it is kept in, takes")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return StoreUnsupported(
            "what is mounted there is no key-value store of version 2",
            hint="see: vault secrets list -detailed",
        )
    return _of_illness(status)


def _of_bad_request(answer: Answer) -> BackendError:
    if _STALE in answer.errors:
        return StaleVersion("the secret was changed by somebody else")
    if _UPGRADING in answer.errors:
        return StoreUnavailable("Vault is making a key-value store of version 2 of this one")
    return StoreUnsupported("Vault does not understand a request (status 400)")


def _of_illness(status: int) -> BackendError:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return StoreUnavailable(
            "Vault is sealed, or in maintenance (status 503)", hint="see: vault status"
        )
    if status in _OTHER_NODE:
        return StoreUnavailable(
            f"this node of Vault answers for no secrets (status {status})",
            hint="set the address of the active cluster",
        )
    return StoreUnavailable(f"Vault answered with status {status}")
