"""The `azure-functions` backend: the application settings of a function app, or of a slot of one.

A place is an app in a resource group: `acme-web/acme-orders`, `acme-web/acme-orders/slots/staging`,
and `acme-orders` in the group of the settings. It holds one document, `azure_app_settings` tells
what of the app's settings that is.

WHOLE_DOCUMENT    the settings of an app are one map, which a write replaces
RESTARTS_TARGET   ... and the app starts anew with it
LIST_VALUES       the one call that reads has the values
STAMP_ATOMIC      in a setting of envd's, which is written with the others
no CAS            Azure Resource Manager compares nothing here, and keeps no versions. The map is
no POSTCHECK      read right before it is written; an edit by others in the moment between is lost

Calls are those of Azure Resource Manager. That an app is not there, or can't be seen, is told as
Forbidden and never as an empty map.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from envd.backends.azure_app_settings import AppSettings, document_problem
from envd.backends.azure_session import AzureCalls, Credentials
from envd.backends.azure_settings import (
    CREDENTIALS_HINT,
    RESOURCE_MANAGER,
    AzureSettings,
    text_setting,
)
from envd.backends.contract import (
    Capability,
    Cost,
    Health,
    Hint,
    Item,
    Key,
    Limits,
    Load,
    Op,
    Options,
    Outcome,
    Page,
    PriceSheet,
    Registration,
    Reject,
    Result,
    Scope,
    Verb,
)
from envd.backends.documents import document
from envd.backends.errors import (
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StoreUnsupported,
    Throttled,
)
from envd.backends.http_calls import Answer
from envd.backends.naming import check_key
from envd.backends.outcomes import check_batch, priced, probed, stale, unsuccessful, value_problem
from envd.backends.turns import Turns

CAPABILITIES: Final = (
    Capability.WHOLE_DOCUMENT
    | Capability.RESTARTS_TARGET
    | Capability.LIST_VALUES
    | Capability.STAMP_ATOMIC
)
LIMITS: Final = Limits(
    max_value_bytes=32_000,
    max_items=1,
    reads_per_s=1.0,
    writes_per_s=0.1,
    burst=5,
    concurrency=2,
)
"""A process takes some 32 KiB of environment on Windows. A subscription takes 1,200 writes an hour,
and to read settings counts as one, since it is a POST."""
PRICES: Final = PriceSheet(
    "azure",
    "Functions",
    "2026-11-30",
    source="no fee: calls of Azure Resource Manager cost nothing",
)
API_VERSION: Final = "2023-12-01"
NATIVE: Final = "appsettings"
DOCUMENT: Final = Key("", "")
BUSY_S: Final = 10.0
"""How long another operation on an app goes on, more or less."""

_GROUP: Final = re.compile(r"[\w.()-]{0,89}[\w()-]")
_APP: Final = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,58}[0-9A-Za-z])?")
_SUBSCRIPTION: Final = re.compile(r"[0-9a-fA-F-]{36}")


@dataclass(frozen=True, slots=True)
class App:
    """A function app; `slot` is "" for the app itself."""

    group: str
    name: str
    slot: str = ""

    @staticmethod
    def of(place: str, usual_group: str) -> App:
        """Read a place; InvalidName where it names no app.

        >>> App.of("acme-orders/slots/staging", "acme-web")
        App(group='acme-web', name='acme-orders', slot='staging')
        """
        front, between, slot = place.partition("/slots/")
        group, _, name = front.rpartition("/")
        group = group or usual_group
        is_whole = bool(slot) == bool(between) and (not slot or _APP.fullmatch(slot))
        if not (is_whole and _APP.fullmatch(name) and _GROUP.fullmatch(group)):
            raise InvalidName(
                "the place names no function app",
                hint="write GROUP/APP or GROUP/APP/slots/SLOT, or without GROUP/ with "
                "cloud.providers.azure.resource_group",
            )
        return App(group, name, slot)

    def path(self, subscription: str) -> str:
        """Where its settings are in Azure Resource Manager."""
        slot = f"/slots/{self.slot}" if self.slot else ""
        return (
            f"/subscriptions/{subscription}/resourceGroups/{quote(self.group)}"
            f"/providers/Microsoft.Web/sites/{self.name}{slot}/config/appsettings"
        )

    def __str__(self) -> str:
        return f"{self.name}/slots/{self.slot}" if self.slot else self.name


class FunctionsBackend:
    """The settings of one app."""

    def __init__(
        self,
        options: Options,
        *,
        environ: Mapping[str, str] = os.environ,
        credentials: Credentials | None = None,
    ) -> None:
        """`credentials` are those of the settings, if nothing else is given. Raises InvalidName or
        StoreUnsupported for options that can't be."""
        _check(options)
        settings = options.settings
        subscription = text_setting(settings, "subscription_id")
        if not _SUBSCRIPTION.fullmatch(subscription):
            raise StoreUnsupported(
                "a function app is in a subscription",
                hint="set cloud.providers.azure.subscription_id",
            )
        manager = text_setting(settings, "resource_manager", RESOURCE_MANAGER).rstrip("/")
        self._app = App.of(options.place, text_setting(settings, "resource_group"))
        self._path = self._app.path(subscription)
        self._fingerprint = options.fingerprint

        def make(credential: Any, arguments: Mapping[str, Any]) -> Any:
            return _ResourceManager(
                options.endpoint.rstrip("/") or manager,
                f"{manager}/.default",
                credential,
                arguments,
            )

        self._calls = AzureCalls(
            f"the function app {self._app}",
            AzureSettings.of(options),
            make,
            concurrency=LIMITS.concurrency,
            environ=environ,
            credentials=credentials,
        )
        self._turns = Turns()

    @property
    def capabilities(self) -> Capability:
        return CAPABILITIES

    @property
    def limits(self) -> Limits:
        return LIMITS

    @property
    def prices(self) -> PriceSheet:
        return PRICES

    async def open(self) -> None:
        await self._calls.open()

    async def close(self) -> None:
        await self._calls.close()

    async def probe(self) -> Health:
        """Read the settings."""
        return await probed(self._read, lambda: self._calls.identity)

    # Names.

    def encode(self, key: Key) -> str:
        check_key(key, document=True, below=False)
        return NATIVE

    def decode(self, native: str) -> Key | None:
        return DOCUMENT if native == NATIVE else None

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
        except InvalidName as error:
            return error
        if op.verb is Verb.DELETE:
            return None
        return value_problem(op, LIMITS) or document_problem(op)

    # Reading.

    async def _read(self) -> AppSettings:
        return self._settings(await self._ask("POST", "/list"))

    async def _ask(
        self, method: str, below: str = "", body: Mapping[str, Any] | None = None
    ) -> Answer:
        path, query = f"{self._path}{below}", {"api-version": API_VERSION}
        return await self._calls.call(method, path, query=query, body=body)

    def _settings(self, answer: Answer) -> AppSettings:
        if answer.is_good:
            return AppSettings.of(answer.table())
        if answer.status == HTTPStatus.NOT_FOUND:
            raise Forbidden(
                f"there is no function app {self._app} in {self._app.group}, or we may not see it",
                hint="see whether the subscription, the group and the role are right",
            )
        if answer.status == HTTPStatus.CONFLICT:
            raise Throttled(f"another operation on {self._app} is under way", retry_after_s=BUSY_S)
        if answer.status == HTTPStatus.BAD_REQUEST:
            raise InvalidValue(f"the function app {self._app} does not take the settings")
        raise self._calls.error_of(answer)

    def _item(self, found: AppSettings) -> Item:
        return Item(
            DOCUMENT,
            NATIVE,
            found.version(self._fingerprint),
            value=found.text,
            managed=found.is_ours,
            stamp=found.stamp(self._fingerprint),
        )

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        found = await self._read()
        is_in = scope.holds(DOCUMENT) and found.is_there
        yield Page([self._item(found)] if is_in else [], complete=not cursor)

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        answers: dict[Key, Item | BackendError] = {}
        for key in keys:
            try:
                self.encode(key)
            except InvalidName as error:
                answers[key] = error
                continue
            found = await self._read()
            absent = ItemNotFound(f"there are no variables in {self._app}")
            answers[key] = self._item(found) if found.is_there else absent
        return answers

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """A repeat finds the settings as they are to be, and is a NOOP."""
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        return [await self._do(op, idempotency) for op in ops]

    async def _do(self, op: Op, idempotency: str) -> Outcome:
        problem = self._problem(op)
        if problem is not None:
            return unsuccessful(op, problem)
        try:
            async with self._turns.of(NATIVE):
                seen = await self._read()
                return self._without_writing(op, seen) or await self._write(op, seen, idempotency)
        except BackendError as error:
            return unsuccessful(op, error)

    def _without_writing(self, op: Op, seen: AppSettings) -> Outcome | None:
        """What is known of an operation once the settings are read."""
        version = seen.version(self._fingerprint)
        if op.verb is Verb.DELETE and not seen.is_there:
            return Outcome(op, Result.NOOP)
        wanted = (document(op.value) or {}) if op.verb is Verb.PUT else {}
        if op.verb is Verb.PUT and seen.is_there and wanted == seen.variables:
            return Outcome(op, Result.NOOP, version)
        if op.expect != version:
            return stale(op, version)
        taken = seen.taken(wanted)
        if taken:
            error = NotOwned(
                f"{taken} of {self._app} refers to a secret, or is Azure's, and stays as it is",
                hint="take the reference out of the app, or the variable out of envd",
            )
            return unsuccessful(op, error, version=version)
        if seen.is_there and not seen.is_ours and not op.any_owner:
            error = NotOwned(f"the variables of {self._app} were not set by envd")
            return unsuccessful(op, error, version=version)
        return None

    async def _write(self, op: Op, seen: AppSettings, idempotency: str) -> Outcome:
        if op.verb is Verb.PUT:
            write = hashlib.sha256(f"{op.expect}\0{idempotency}".encode()).hexdigest()[:16]
            after = seen.with_document(op, document(op.value) or {}, self._fingerprint, write)
        elif seen.is_ours:
            after = seen.without_ours()
        else:  # With leave: all of it goes but what is Azure's.
            after = {n: each for n, each in seen.whole.items() if n not in seen.variables}
        answer = await self._ask("PUT", body={"properties": after})
        self._settings(answer)
        version = AppSettings(after).version(self._fingerprint)
        return Outcome(op, Result.APPLIED, version)

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("an app is asked for changes, again and again")

    def cost(self, load: Load) -> Cost:
        """A change is a read and a write."""
        reads = load.scans + load.read + load.changed
        return priced(PRICES, items=load.items, reads=reads, writes=load.changed)


class _ResourceManager:
    """Azure Resource Manager, as a client of the SDK would be that had just this."""

    def __init__(self, url: str, scope: str, credential: Any, arguments: Mapping[str, Any]) -> None:
        from azure.core import AsyncPipelineClient
        from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy, UserAgentPolicy

        policies = [
            UserAgentPolicy(arguments["user_agent"]),
            arguments["redirect_policy"],
            arguments["retry_policy"],
            AsyncBearerTokenCredentialPolicy(credential, scope),
        ]
        self._client: Any = AsyncPipelineClient(
            url, policies=policies, transport=arguments["transport"]
        )

    async def send_request(self, request: Any) -> Any:
        request.url = self._client.format_url(request.url)
        return await self._client.send_request(request)

    async def close(self) -> None:
        await self._client.close()


def _check(options: Options) -> None:
    """Raise StoreUnsupported where an app can't hold what is asked for."""
    if options.layout != "document":
        raise StoreUnsupported("the settings of an app are one map", hint="use --layout document")
    if options.below or options.name_template:
        raise StoreUnsupported(
            "an app has one environment, and its settings have no other name",
            hint="bind one environment to each app, without a name template",
        )


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "azure-functions",
        "the application settings of an Azure function app, which a write restarts",
        FunctionsBackend,
        "GROUP/APP[/slots/SLOT]",
        extra="azure",
        library="azure.identity",
        settings_section="azure",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
