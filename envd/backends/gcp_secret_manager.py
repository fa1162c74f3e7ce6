"""The `gcp-secret-manager` backend: secrets of Google Cloud's Secret Manager.

A variable is a secret, or a whole environment is one (layout "document"). Each write adds a
version; those before it stay, unless the settings say how many. What envd created has the label
`managed-by=envd`, which is what a write asks for.

POSTCHECK     the etag is of a secret's metadata alone, and a new version does not change it. So the
              newest version is looked at, one is added, and its number must be the next one. Else
              others wrote in between, and what they wrote is read by its number.
STAMP_SIDE    an annotation, written after the value, under the etag. It names the version that it
              belongs to, so that it is never taken for that of another; should the call fail, the
              value is written all the same and has no stamp. In documents nobody asks for one.
no CAS        a deletion has the etag, which shows who relabelled a secret, not who wrote it

A scan asks for each secret's newest version, which costs nothing. It is read by its number:
`latest` is no version that one could hold on to, and can't be read while the newest is disabled.

What lists may be minutes behind; only a version that is asked for by its number is as it is now. So
the number of each version that was added here is kept, and where less is listed that one is asked
for: what envd wrote is taken neither for undone nor for deleted.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from envd.backends.contract import (
    Capability,
    Cost,
    Hint,
    Item,
    Load,
    Op,
    Options,
    Outcome,
    PriceSheet,
    Registration,
    Result,
    Scope,
)
from envd.backends.errors import (
    BackendError,
    InvalidValue,
    ItemNotFound,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.gcp_credentials import CREDENTIALS_HINT
from envd.backends.gcp_names import PlaceNames, place_of
from envd.backends.gcp_secret import (
    LIMITS,
    LIST_ITEMS,
    PRICES,
    SecretSettings,
    marks_of,
    payload_of,
    stamp_of,
    stamped,
    value_of,
    version_of,
)
from envd.backends.gcp_session import Api, Calls, listed
from envd.backends.gcp_store import LABEL, Marks, Seen, Version, VersionedStore
from envd.backends.outcomes import priced

CAPABILITIES: Final = Capability.POSTCHECK | Capability.STAMP_SIDE
_READS_OF_GET: Final = 3
_READS_OF_CHANGE: Final = 3
_MAX_ADDED: Final = 10_000
_CHANGED: Final = {"FAILED_PRECONDITION": StaleVersion}
"""What an etag that is not that of now is answered with."""
_GONE: Final = {"NOT_FOUND": StaleVersion, "INVALID_ARGUMENT": InvalidValue}
_UNREADABLE: Final = {"FAILED_PRECONDITION": InvalidValue}


class SecretManagerBackend(VersionedStore):
    """Secrets whose names begin alike, of one project."""

    def __init__(
        self,
        options: Options,
        *,
        page_items: int = LIMITS.page_items,
        list_items: int = LIST_ITEMS,
    ) -> None:
        """Raise InvalidName or StoreUnsupported for options that can't be.

        `page_items` are in a page of a scan, and `list_items` are asked for in a call that lists.
        """
        self._settings = SecretSettings.of(options.settings)
        place = place_of(options.place, options.settings, self._settings.prefix)
        self._parent = self._settings.parent(place.project)
        self._list_items = list_items
        api = Api("Secret Manager", self._settings.host, _client)
        super().__init__(
            PlaceNames(place.base, options, most=LIMITS.max_name_bytes),
            Calls(api, options, concurrency=LIMITS.concurrency),
            replace(LIMITS, page_items=page_items),
        )
        self._place = f"{place.project}/{place.base}"
        self._added: dict[str, int] = {}

    @property
    def capabilities(self) -> Capability:
        return Capability.POSTCHECK if self._names.is_document else CAPABILITIES

    @property
    def prices(self) -> PriceSheet:
        return PRICES

    def _name(self, native: str) -> str:
        return f"{self._parent}/secrets/{native}"

    async def _listed(self, token: str, *, most: int = 0) -> tuple[list[Any], str]:
        answer = await self._calls.call(
            "list_secrets",
            self._place,
            parent=self._parent,
            page_size=most or self._list_items,
            page_token=token,
        )
        return listed(answer, "secrets", self._place)

    async def _get(self, native: str) -> Any:
        with suppress(ItemNotFound):
            return await self._calls.call("get_secret", native, name=self._name(native))
        if await self._last_added(native) is None:
            raise ItemNotFound(f"there is no {native}")
        raise StoreUnavailable(f"{native}: what Google tells is behind what was written")

    def _marks(self, answer: Any, native: str) -> Marks:
        return marks_of(answer, native)

    def _stamp(self, marks: Marks, version: Version) -> str:
        return "" if self._names.is_document else stamp_of(marks, int(version.name))

    async def _newest(self, native: str) -> Version | None:
        answer = await self._calls.call(
            "list_secret_versions", native, parent=self._name(native), page_size=1
        )
        found, token = listed(answer, "versions", native)
        if not found and token:
            raise StoreUnavailable(f"{native}: a listing that begins with nothing")
        newest = version_of(found[0], native) if found else None
        if self._added.get(native, 0) <= (0 if newest is None else int(newest.name)):
            return newest
        return await self._last_added(native) or newest

    async def _last_added(self, native: str) -> Version | None:
        """The version that was added here last; None without any, and where it is gone."""
        number = self._added.get(native)
        if number is None:
            return None
        with suppress(ItemNotFound):
            return await self._numbered(native, number)
        self._added.pop(native, None)
        return None

    async def _numbered(self, native: str, number: int) -> Version:
        name = f"{self._name(native)}/versions/{number}"
        return version_of(await self._calls.call("get_secret_version", native, name=name), native)

    async def _value(self, native: str, version: str) -> str:
        answer = await self._calls.call(
            "access_secret_version",
            native,
            meanings=_UNREADABLE,
            name=f"{self._name(native)}/versions/{version}",
        )
        return value_of(answer, native)

    async def _create(self, native: str) -> Marks | None:
        secret: dict[str, object] = {"labels": dict([LABEL])}
        if self._settings.replication is not None:
            secret["replication"] = self._settings.replication
        try:
            answer = await self._calls.call(
                "create_secret", native, parent=self._parent, secret_id=native, secret=secret
            )
        except StaleVersion:
            return None
        return marks_of(answer, native)

    async def _add(self, op: Op, native: str, seen: Seen) -> Outcome:
        answer = await self._calls.call(
            "add_secret_version",
            native,
            meanings=_GONE,
            parent=self._name(native),
            payload=payload_of(op.value),
        )
        made = version_of(answer, native)
        number, before = int(made.name), int(seen.newest.name) if seen.newest is not None else 0
        self._keep_in_mind(native, number)
        outcome = Outcome(op, Result.APPLIED, made.text)
        is_next = number == before + 1
        if not is_next:
            between = None
            if number > before:
                with suppress(BackendError):  # It is written: what it replaced is told if it can.
                    between = await self._between(native, seen.marks, number - 1)
            outcome = replace(outcome, overtaken=True, between=between)
        with suppress(BackendError):  # ... and so it is without a stamp.
            await self._leave(op, native, seen.marks, number)
        if is_next:  # Else it might be what others wrote and nobody has read.
            with suppress(BackendError):
                await self._shed(native, number)
        return outcome

    def _keep_in_mind(self, native: str, number: int) -> None:
        if len(self._added) >= _MAX_ADDED and native not in self._added:
            self._added.pop(next(iter(self._added)))
        self._added[native] = number

    async def _between(self, native: str, marks: Marks, number: int) -> Item:
        """What others wrote as this version; it has no stamp."""
        found = await self._numbered(native, number)
        value = await self._value(native, found.name)
        return self._item(native, Seen(replace(marks, annotations={}), found, value))

    async def _leave(self, op: Op, native: str, marks: Marks, number: int) -> None:
        """Leave the stamp of what was written."""
        if not self._names.is_document:
            await self._mark(native, marks, "annotations", stamped(marks, number, op.stamp))

    async def _own(self, native: str, marks: Marks) -> Marks:
        """Raises StaleVersion where somebody else relabelled it."""
        return await self._mark(native, marks, "labels", marks.owned)

    async def _mark(self, native: str, marks: Marks, what: str, marked: object) -> Marks:
        answer = await self._calls.call(
            "update_secret",
            native,
            meanings=_CHANGED,
            secret={"name": self._name(native), "etag": marks.etag, what: marked},
            update_mask={"paths": [what]},
        )
        return marks_of(answer, native)

    async def _shed(self, native: str, number: int) -> None:
        """Destroy the one version that is now beyond those that are kept."""
        keep = self._settings.keep_versions
        if keep and number > keep:
            name = f"{self._name(native)}/versions/{number - keep}"
            await self._calls.call("destroy_secret_version", native, name=name)

    async def _remove(self, native: str, seen: Seen) -> None:
        await self._calls.call(
            "delete_secret",
            native,
            meanings=_CHANGED,
            name=self._name(native),
            etag=seen.marks.etag,
        )
        self._added.pop(native, None)

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("Secret Manager tells of changes by Pub/Sub only")

    def cost(self, load: Load) -> Cost:
        """Only reading a value costs money: one for each read by name, and for each change.

        Versions that are kept besides the newest cost as much as that, and are not in a load; nor
        are secrets of others in the project, which make a listing longer.
        """
        lists = max(1, math.ceil(load.items / self._list_items))
        reads = load.scans * (lists + load.items)
        reads += _READS_OF_GET * load.read + _READS_OF_CHANGE * load.changed
        writes = load.changed * (1 + (not self._names.is_document) + self._sheds)
        paid = priced(PRICES, items=load.items, reads=load.read + load.changed, writes=0)
        return Cost(reads, writes, paid.dollars)

    @property
    def _sheds(self) -> bool:
        return self._settings.keep_versions > 0


def _client() -> Any:
    from google.cloud.secretmanager_v1 import SecretManagerServiceAsyncClient

    return SecretManagerServiceAsyncClient


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "gcp-secret-manager",
        "secrets of Google Cloud's Secret Manager",
        SecretManagerBackend,
        "PREFIX or PROJECT/PREFIX",
        extra="gcp",
        library="google.cloud.secretmanager_v1",
        settings_section="gcp",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
