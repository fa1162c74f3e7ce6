"""Opening backends: for bindings, and for who asks about a place just once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from envd.backends.contract import Backend, Item, Key, Scope
from envd.backends.errors import BackendError, StoreUnsupported
from envd.backends.registry import Registry, Target, open_options, parse_target
from envd.core.errors import EnvdError
from envd.core.names import check_environment, check_variable
from envd.core.syncing import (
    BackendView,
    BindingView,
    CheckView,
    FetchedVariable,
    FetchView,
)
from envd.sync.layouts import Documents, Place, Singly
from envd.sync.ports import Fingerprint

PROBE_S = 15.0
"""How long a place may take to answer a probe."""


class Stores:
    """The stores that a node can reach, with the settings of its providers."""

    def __init__(
        self,
        registry: Registry,
        providers: Mapping[str, Mapping[str, object]],
        wall_ms: Callable[[], int],
        fingerprint: Fingerprint,
    ) -> None:
        self._registry = registry
        self._providers = providers
        self._wall_ms = wall_ms
        self._fingerprint = fingerprint

    def views(self) -> tuple[BackendView, ...]:
        """The kinds of stores."""
        return self._registry.views()

    async def open(self, binding: BindingView, target: str) -> Backend:
        """The backend of a binding's target, open; raises BackendError, InvalidRequest."""
        return await self._opened(
            parse_target(target),
            layout=binding.layout,
            below=binding.environment is None,
            name_template=binding.name_template,
            credentials=binding.credentials,
        )

    async def check(self, target: str, credentials: str) -> CheckView:
        """Probe a place; what is wrong is told, not raised."""
        try:
            async with asyncio.timeout(PROBE_S):
                return await self._probed(target, credentials)
        except TimeoutError:
            return CheckView(target, ok=False, detail=f"no answer within {PROBE_S:.0f} s")
        except EnvdError as error:
            return CheckView(target, ok=False, detail=error.message, hint=error.hint)
        except Exception as error:  # noqa: BLE001 - a backend that others wrote may raise anything
            detail = f"the backend failed with {type(error).__name__}; this is a mistake in it"
            return CheckView(target, ok=False, detail=detail)

    async def _probed(self, target: str, credentials: str) -> CheckView:
        backend, _ = await self._either(parse_target(target), credentials)
        try:
            health = await backend.probe()
        finally:
            await _closed(backend)
        return CheckView(
            target,
            health.ok,
            round(health.round_trip_ms, 1),
            health.identity,
            health.detail,
            health.hint,
        )

    async def fetch(self, target: str, credentials: str, *, reveal: bool) -> FetchView:
        """All variables of the one environment at a place. Raises BackendError."""
        backend, documents = await self._either(parse_target(target), credentials)
        wanted = Scope()
        place: Place
        if documents:
            place = Documents(backend, wanted, self._fingerprint)
        else:
            place = Singly(backend, wanted)
        try:
            items = (await place.look({})).items
            unread = [key for key, item in items.items() if item.value is None]
            found = await place.read(unread) if reveal and unread else {}
        finally:
            await _closed(backend)
        variables: list[FetchedVariable] = []
        skipped: dict[str, str] = {}
        for key, item in sorted(items.items()):
            answer = found.get(key, item)
            if isinstance(answer, BackendError):
                skipped[item.native] = answer.message
            elif problem := _problem(key):
                skipped[item.native] = problem
            else:
                variables.append(_fetched(answer, reveal=reveal))
        return FetchView(target, tuple(variables), skipped)

    async def _either(self, target: Target, credentials: str) -> tuple[Backend, bool]:
        """A backend of a place for one look, and whether its items are documents."""
        try:
            return await self._opened(target, credentials=credentials), False
        except StoreUnsupported:
            documents = await self._opened(target, layout="document", credentials=credentials)
            return documents, True

    async def _opened(
        self,
        target: Target,
        *,
        layout: str = "per-variable",
        below: bool = False,
        name_template: str = "",
        credentials: str = "",
    ) -> Backend:
        options = open_options(
            self._registry.registration(target.backend),
            target,
            layout=layout,
            below=below,
            name_template=name_template,
            credentials=credentials,
            providers=self._providers,
            wall_ms=self._wall_ms,
            fingerprint=self._fingerprint,
        )
        backend = self._registry.make(target, options)
        try:
            await backend.open()
        except BaseException:
            await _closed(backend)
            raise
        return backend


async def _closed(backend: Backend) -> None:
    with suppress(BackendError):
        await backend.close()


def _problem(key: Key) -> str:
    """Why a key of a store can't be one here, "" where it can."""
    try:
        check_variable(key.variable)
        if key.environment:
            check_environment(key.environment)
    except EnvdError as error:
        return error.message
    return ""


def _fetched(item: Item, *, reveal: bool) -> FetchedVariable:
    found = FetchedVariable(
        item.key.environment, item.key.variable, item.native, item.value, item.secret
    )
    return found if reveal else replace(found, value=None)
