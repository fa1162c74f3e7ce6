"""The `azure-app-configuration` backend: key-values of an Azure App Configuration store.

A place is a store, a prefix of keys and a label, the latter two if one likes: `acme`,
`acme/web/prod`, `acme/web@prod`. A variable is the key-value PREFIX/VARIABLE with that label.

CAS             by entity tags: a write names the one that it replaces, or that there is none
STAMP_ATOMIC    in a tag, which is set with the value. People edit a value and leave the tags, so
                the tag has a fingerprint of its value, and counts for no other
LIST_VALUES     a listing has them, 100 a page

The store keeps plain text that everybody who may read it can read. So a secret variable is refused
here, and belongs into `azure-key-vault`; and there is no layout "document", for a document may hold
secrets. What refers to a secret of a Key Vault, which others put here, has no value and is left as
it is.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

from envd.backends.azure_key_value import MARK, OURS, OWNER, KeyValue, Place, read_key_value
from envd.backends.azure_session import AzureCalls, Credentials
from envd.backends.azure_settings import (
    APP_CONFIGURATION_SUFFIX,
    CREDENTIALS_HINT,
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
from envd.backends.errors import (
    BackendError,
    Forbidden,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.http_calls import Answer
from envd.backends.naming import Naming, shown
from envd.backends.outcomes import (
    check_batch,
    priced,
    probed,
    scan_calls,
    stale,
    unsuccessful,
    value_problem,
)

CAPABILITIES: Final = Capability.CAS | Capability.STAMP_ATOMIC | Capability.LIST_VALUES
LIMITS: Final = Limits(
    max_value_bytes=9 << 10,
    max_name_bytes=512,
    page_items=100,
    batch=25,
    get_batch=25,
    reads_per_s=4.0,
    writes_per_s=2.0,
    burst=20,
    concurrency=4,
)
"""A key-value has 10 KiB with key, label, tags and all; one of them is left for these. A store of
the tier Standard takes 30,000 requests an hour from everybody together."""
PRICES: Final = PriceSheet(
    "azure",
    "App Configuration",
    "2026-11-30",
    place_month=36.0,
    reads_10k=0.06,
    writes_10k=0.06,
    free_calls=6_000_000,
    source="App Configuration pricing, Standard: 200,000 calls a day; not checked that day",
)
API_VERSION: Final = "2023-11-01"

_NO_LABEL: Final = "\0"
"""How a listing is asked for key-values without a label, and not for those with any."""


class AppConfigurationBackend:
    """The key-values with one prefix and label, of one store."""

    def __init__(
        self,
        options: Options,
        *,
        environ: Mapping[str, str] = os.environ,
        credentials: Credentials | None = None,
    ) -> None:
        """`credentials` are those of the settings, if nothing else is given. Raises InvalidName or
        StoreUnsupported for options that can't be."""
        if options.layout == "document":
            raise StoreUnsupported(
                "App Configuration keeps plain text, and a document may hold secrets",
                hint="bind it with the layout per-variable, or bind azure-key-vault",
            )
        self._place = place = Place.of(options.place)
        suffix = text_setting(
            options.settings, "app_configuration_suffix", APP_CONFIGURATION_SUFFIX
        )
        url = options.endpoint.rstrip("/") or f"https://{place.store}.{suffix}"

        def make(credential: Any, arguments: Mapping[str, Any]) -> Any:
            from azure.appconfiguration.aio import AzureAppConfigurationClient

            return AzureAppConfigurationClient(url, credential, **arguments)

        self._naming = Naming(options.name_template, below=options.below)
        self._is_usual = not options.name_template
        self._fingerprint = options.fingerprint
        self._calls = AzureCalls(
            f"the App Configuration store {place.store}",
            AzureSettings.of(options),
            make,
            concurrency=LIMITS.concurrency,
            environ=environ,
            credentials=credentials,
        )

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
        """List the beginning of the place."""
        return await probed(
            lambda: self._page(self._first(Scope("", below=True))), lambda: self._calls.identity
        )

    # Names.

    def encode(self, key: Key) -> str:
        native = self._place.key(self._naming.encode(key))
        if len(native.encode()) > LIMITS.max_name_bytes:
            raise InvalidName(
                f"the name of {shown(key)} is longer than {LIMITS.max_name_bytes} bytes"
            )
        return native

    def decode(self, native: str) -> Key | None:
        start = self._place.key("")
        if not native.startswith(start):
            return None
        key = self._naming.decode(native[len(start) :])
        try:
            return key if key is not None and self.encode(key) == native else None
        except InvalidName:
            return None

    def check(self, ops: Sequence[Op]) -> list[Reject]:
        found = ((op, self._problem(op)) for op in ops)
        return [Reject(op, problem) for op, problem in found if problem is not None]

    def _problem(self, op: Op) -> BackendError | None:
        try:
            self.encode(op.key)
        except InvalidName as error:
            return error
        if op.verb is Verb.PUT and op.secret:
            return InvalidValue(
                f"{shown(op.key)} is secret, and App Configuration keeps plain text",
                hint="bind secret variables to azure-key-vault",
            )
        return value_problem(op, LIMITS)

    # Reading.

    def _first(self, scope: Scope) -> str:
        """The path of the first page of a scope."""
        narrow = f"{scope.environment}/" if self._is_usual and scope.environment else ""
        query = {
            "api-version": API_VERSION,
            "key": f"{self._place.key(narrow)}*",
            "label": self._place.label or _NO_LABEL,
        }
        return f"/kv?{urlencode(query)}"

    async def _page(self, path: str) -> tuple[list[KeyValue], str]:
        """Some key-values, and the path of the next page, "" for the last."""
        answer = await self._calls.call("GET", path)
        if not answer.is_good:
            raise self._calls.error_of(answer)
        found = answer.table()
        entries, link = found.get("items"), found.get("@nextLink") or ""
        if not isinstance(entries, list) or not _is_link(link):
            raise StoreUnavailable("the answer makes no sense: it has no list of key-values")
        return [read_key_value(each) for each in entries], link

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        path = cursor or self._first(scope)
        if not _is_link(path):
            raise StoreUnsupported("a listing can't go on there: that is none of its cursors")
        while path:
            found, path = await self._page(path)
            keys = [(self.decode(each.key), each) for each in found]
            items = [
                self._item(key, each) for key, each in keys if key is not None and scope.holds(key)
            ]
            yield Page(items, complete=not path and not cursor, cursor=path)

    def _item(self, key: Key, found: KeyValue) -> Item:
        print_ = "" if found.value is None else self._fingerprint(found.value)
        return Item(
            key,
            found.key,
            found.etag,
            value=found.value,
            managed=found.is_ours,
            stamp=found.stamp(print_) if found.is_ours else "",
            changed_ms=found.changed_ms,
        )

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        found: dict[Key, Item | BackendError] = {}
        for key in keys:
            try:
                found[key] = await self._read(key)
            except BackendError as error:
                if not error.is_refusal:
                    raise
                found[key] = error
        return found

    async def _read(self, key: Key) -> Item:
        seen = await self._look(self.encode(key))
        if seen is None:
            raise ItemNotFound(f"there is no {shown(key)} here")
        if seen.value is None:
            raise InvalidValue(f"{shown(key)} refers to a secret of a Key Vault, and has no value")
        return self._item(key, seen)

    async def _ask(
        self,
        method: str,
        native: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        query = {"api-version": API_VERSION}
        if self._place.label:
            query["label"] = self._place.label
        path = f"/kv/{quote(native, safe='')}"
        return await self._calls.call(method, path, query=query, body=body, headers=headers)

    async def _look(self, native: str) -> KeyValue | None:
        """What is under a key, None where nothing is."""
        answer = await self._ask("GET", native)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        return self._key_value(answer, native)

    def _key_value(self, answer: Answer, native: str) -> KeyValue:
        if not answer.is_good:
            raise self._error_of(answer, native)
        found = read_key_value(answer.table())
        if found.key != native:
            raise StoreUnavailable(f"{native}: an answer about something else")
        return found

    def _error_of(self, answer: Answer, native: str) -> BackendError:
        if answer.status == HTTPStatus.CONFLICT:
            return Forbidden(
                f"{native} is locked in the App Configuration store",
                hint="unlock it: az appconfig kv unlock",
            )
        return self._calls.error_of(answer)

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """One after the other. A repeat finds the value as it is to be, and is a NOOP.

        After an operation that met a store that does not answer, the others are not tried.
        """
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        outcomes: list[Outcome] = []
        failed: BackendError | None = None
        for op in ops:
            problem = self._problem(op) or failed
            outcome = unsuccessful(op, problem) if problem else await self._do(op)
            if outcome.error is not None and not outcome.error.is_refusal:
                failed = outcome.error
            outcomes.append(outcome)
        return outcomes

    async def _do(self, op: Op) -> Outcome:
        native = self.encode(op.key)
        try:
            seen = await self._look(native)
            done = self._without_writing(op, seen)
            if done is not None:
                return done
            try:
                return await self._write(op, native, seen)
            except StaleVersion:
                now = await self._look(native)
                return stale(op, "" if now is None else now.etag)
        except BackendError as error:
            return unsuccessful(op, error)

    def _without_writing(self, op: Op, seen: KeyValue | None) -> Outcome | None:
        """What is known of an operation once the key-value is read."""
        if seen is None:
            if op.verb is Verb.DELETE:
                return Outcome(op, Result.NOOP)
            return stale(op, "") if op.expect else None
        if seen.value is None:
            error = NotOwned(f"{shown(op.key)} refers to a secret of a Key Vault, so it is others'")
            return unsuccessful(op, error, version=seen.etag)
        if op.verb is Verb.PUT and seen.value == op.value:
            return Outcome(op, Result.NOOP, seen.etag)
        if op.expect != seen.etag:
            return stale(op, seen.etag)
        if not seen.is_ours and not op.any_owner:
            error = NotOwned(f"{shown(op.key)} was not created by envd")
            return unsuccessful(op, error, version=seen.etag)
        return None

    async def _write(self, op: Op, native: str, seen: KeyValue | None) -> Outcome:
        """Write or delete under the entity tag that was seen; raises StaleVersion."""
        guard = {"If-Match": f'"{seen.etag}"'} if seen is not None else {"If-None-Match": "*"}
        if op.verb is Verb.DELETE:
            answer = await self._ask("DELETE", native, headers=guard)
            if not answer.is_good:
                raise self._error_of(answer, native)
            return Outcome(op, Result.APPLIED)
        tags = dict(seen.tags) if seen is not None else {}
        tags |= {OWNER: OURS, MARK: f"{self._fingerprint(op.value)} {op.stamp}"}
        body = {
            "value": op.value,
            "content_type": seen.content_type if seen is not None else "",
            "tags": tags,
        }
        kind = "application/vnd.microsoft.appconfig.kv+json"
        answer = await self._ask("PUT", native, body=body, headers={**guard, "Content-Type": kind})
        return Outcome(op, Result.APPLIED, self._key_value(answer, native).etag)

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("App Configuration is asked for changes, again and again")

    def cost(self, load: Load) -> Cost:
        """A change is a read and a write."""
        reads = scan_calls(load, LIMITS.page_items) + load.read + load.changed
        return priced(PRICES, items=load.items, reads=reads, writes=load.changed)


def _is_link(path: object) -> bool:
    """Whether this is the path of a page, "" for none; no other host gets our token."""
    return isinstance(path, str) and (not path or path.startswith("/kv?"))


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "azure-app-configuration",
        "key-values of an Azure App Configuration store, for what is not secret",
        AppConfigurationBackend,
        "STORE[/PREFIX][@LABEL]",
        extra="azure",
        library="azure.appconfiguration",
        settings_section="azure",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
