"""A token of Vault, and calls that are made with it.

A token is got when the session begins: read from where it is, or by a login. It is renewed by the
first call after two thirds of its life, as Vault's own agent does it; where it can't be renewed it
is used to its end. Then every call is an AuthExpired, whose remedy is to begin anew.

A status 403 says little: the policy forbids it, or the token has ended, or was revoked. So Vault is
asked for the token itself, which the policy `default` allows to every token.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final

from envd.backends.errors import AuthExpired, BackendError, Forbidden, StoreUnavailable
from envd.backends.vault_client import Answer, Request, VaultClient, error_of
from envd.backends.vault_settings import (
    AppRoleLogin,
    KubernetesLogin,
    TokenLogin,
    VaultSettings,
    from_file,
    from_variable,
)
from envd.threads import finish_in_thread

RENEW_AT: Final = 2 / 3
"""Of a token's life."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token; times are those of the session's clock, `inf` for never."""

    text: str = field(repr=False)
    identity: str
    renew_at_s: float = math.inf
    ends_at_s: float = math.inf


class VaultSession:
    """One login, from `begin` until it has ended."""

    def __init__(
        self,
        client: VaultClient,
        settings: VaultSettings,
        environ: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        """`clock` is a steady one, in seconds."""
        self._client = client
        self._settings = settings
        self._environ = environ
        self._clock = clock
        self._token = Token("", "nobody")
        self._turn = asyncio.Lock()

    @property
    def identity(self) -> str:
        """Who Vault takes us for."""
        return self._token.identity

    async def begin(self) -> None:
        """Get a token; raises Forbidden where there is none, or Vault does not take it."""
        match self._settings.login:
            case TokenLogin(variable=variable, file=file):
                text = (
                    from_variable(self._environ, variable)
                    if file is None
                    else await finish_in_thread(from_file, file)
                )
                self._token = await self._looked_up(text)
            case AppRoleLogin() as login:
                self._token = await self._of_app_role(login)
            case KubernetesLogin() as login:
                self._token = await self._of_service_account(login)

    async def ask(self, request: Request) -> Answer:
        """Make a call; the answer is good, or of status 404. All others are raised."""
        token = await self._current()
        answer = await self._client.ask(request, token.text)
        if answer.status == HTTPStatus.FORBIDDEN:
            raise await self._denied(token, answer)
        if answer.is_good or answer.status == HTTPStatus.NOT_FOUND:
            return answer
        raise error_of(answer)

    async def _denied(self, token: Token, answer: Answer) -> BackendError:
        about = await self._client.ask(_look_up, token.text)
        if about.status == HTTPStatus.FORBIDDEN:
            return AuthExpired("Vault's token has ended, or was revoked")
        return error_of(answer) if about.is_good else error_of(about)

    async def _current(self) -> Token:
        """The token, renewed if it is time; of many calls one renews it."""
        async with self._turn:
            now_s = self._clock()
            if now_s >= self._token.ends_at_s:
                raise AuthExpired("Vault's token has ended")
            if now_s >= self._token.renew_at_s:
                self._token = await self._renewed(self._token)
            return self._token

    async def _renewed(self, token: Token) -> Token:
        began_s = self._clock()
        answer = await self._client.ask(lambda vault: vault.auth.token.renew_self(), token.text)
        refused = answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN)
        if refused or (answer.is_good and not answer.auth.get("lease_duration")):
            return replace(token, renew_at_s=math.inf)
        if not answer.is_good:
            raise error_of(answer)
        return _made(answer, token.identity, began_s)

    # Logins.

    async def _looked_up(self, text: str) -> Token:
        began_s = self._clock()
        answer = await self._client.ask(_look_up, text)
        if answer.status == HTTPStatus.FORBIDDEN:
            raise Forbidden(
                "Vault does not take the token",
                hint="get a new one; its policies must have `default`, or allow "
                "auth/token/lookup-self",
            )
        if not answer.is_good:
            raise error_of(answer)
        ends = answer.data.get("expire_time") is not None
        return _lasting(
            text,
            str(answer.data.get("display_name") or "token"),
            began_s,
            lasts_s=_number(answer.data.get("ttl")) if ends else math.inf,
            renewable=answer.data.get("renewable") is True,
        )

    async def _of_app_role(self, login: AppRoleLogin) -> Token:
        role_id = from_variable(self._environ, login.role_id_variable)
        secret_id = self._environ.get(login.secret_id_variable, "").strip()
        mount = self._settings.auth_mount

        def log_in(vault: Any) -> Any:
            return vault.auth.approle.login(
                role_id, secret_id or None, use_token=False, mount_point=mount
            )

        return await self._logged_in(log_in, f"approle {login.role_id_variable}")

    async def _of_service_account(self, login: KubernetesLogin) -> Token:
        jwt = await finish_in_thread(from_file, login.file)
        mount = self._settings.auth_mount

        def log_in(vault: Any) -> Any:
            return vault.auth.kubernetes.login(login.role, jwt, use_token=False, mount_point=mount)

        return await self._logged_in(log_in, f"kubernetes {login.role}")

    async def _logged_in(self, log_in: Request, identity: str) -> Token:
        began_s = self._clock()
        answer = await self._client.ask(log_in, "")
        if answer.status in _NOT_LET_IN:
            raise Forbidden(
                f"Vault does not let us in as {identity}",
                hint="see whether the role, its secret and auth_mount are right",
            )
        if not answer.is_good:
            raise error_of(answer)
        return _made(answer, identity, began_s)


_NOT_LET_IN: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
)


def _look_up(vault: Any) -> Any:
    return vault.auth.token.lookup_self()


def _made(answer: Answer, identity: str, began_s: float) -> Token:
    """The token that a login, or a renewal, answers; raises StoreUnavailable if it has none."""
    found = answer.auth.get("client_token")
    if not isinstance(found, str) or not found:
        raise StoreUnavailable("Vault answered a login, or a renewal, without a token")
    lasts_s = _number(answer.auth.get("lease_duration"))
    return _lasting(
        found,
        identity,
        began_s,
        lasts_s=lasts_s or math.inf,  # A lease of no length has no end.
        renewable=answer.auth.get("renewable") is True,
    )


def _lasting(text: str, identity: str, began_s: float, *, lasts_s: float, renewable: bool) -> Token:
    """A token whose life is counted from before it was asked for, so that it never seems longer.

    Example: one of an hour, got at 0, is renewed at 2,400 and has ended at 3,600.
    """
    renew_at_s = began_s + lasts_s * RENEW_AT if renewable else math.inf
    return Token(text, identity, renew_at_s, began_s + lasts_s)


def _number(found: object) -> float:
    return float(found) if isinstance(found, int | float) else 0.0
