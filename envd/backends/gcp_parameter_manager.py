"""The `gcp-parameter-manager` backend: parameters of Google Cloud's Parameter Manager.

A variable is a parameter, or a whole environment is one in the format JSON (layout "document").
Each write adds a version, and none is ever taken away but with its parameter: who reads them names
the version. What envd created has the label `managed-by=envd`, which is what a write asks for.

POSTCHECK     there are no etags, but whoever adds a version names it, and no name is given twice.
              envd numbers its own (`envd-7`), so of two nodes that saw the same version one is
              refused. Others choose other names. So all are listed after a write, and one that was
              made between the one that was seen and ours was overtaken.
no stamp      a version is nothing but its name and value, and a name is too short for a stamp
no CAS        as far as others are concerned

The newest version is the one that was made last. The API does not say in which order it lists them,
so all are listed. A deletion takes them away one by one, the newest last: where it is broken off
what was so before is still so, and a version that others add meanwhile keeps the parameter.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from envd.backends.contract import (
    Capability,
    Cost,
    Hint,
    Item,
    Limits,
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
from envd.backends.gcp_credentials import CREDENTIALS_HINT, text_setting
from envd.backends.gcp_names import PlaceNames, place_of
from envd.backends.gcp_session import Api, Calls, last_part, listed, microseconds
from envd.backends.gcp_store import LABEL, Marks, Seen, Version, VersionedStore, decoded
from envd.backends.outcomes import priced

CAPABILITIES: Final = Capability.POSTCHECK
LIMITS: Final = Limits(
    max_value_bytes=1 << 20,
    min_value_bytes=1,
    max_name_bytes=63,
    # A page of 20 parameters takes up to 21 calls, 7 reads by name take 21, a put takes 5. A
    # project has 1,200 calls a minute, all its applications together.
    page_items=20,
    batch=1,
    get_batch=7,
    reads_per_s=0.5,
    writes_per_s=1.0,
    burst=5,
    writes_per_item_per_s=1.0,
    concurrency=4,
)
LIST_ITEMS: Final = 1000
PRICES: Final = PriceSheet(
    "gcp",
    "Parameter Manager",
    "2026-11-30",
    item_month=0.06,
    reads_10k=0.03,
    source="Secret Manager pricing, by analogy: no price of its own was found",
)
_READS_OF_GET: Final = 3
_READS_OF_CHANGE: Final = 4
_GLOBAL: Final = "global"
_LOCATION = re.compile(r"[a-z][a-z0-9-]{1,62}")
_OURS = re.compile(r"envd-([0-9]{1,18})")
_FULL: Final = 2
"""The view of a version that has its value (`View.FULL`)."""
_JSON: Final = 3
_UNFORMATTED: Final = 1
_GONE: Final = {"NOT_FOUND": StaleVersion, "INVALID_ARGUMENT": InvalidValue}
_NOT_EMPTY: Final = {"FAILED_PRECONDITION": StaleVersion}


class ParameterManagerBackend(VersionedStore):
    """Parameters whose names begin alike, of one project and location."""

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
        settings = options.settings
        prefix = text_setting(settings, "parameter_manager_prefix", "envd-")
        location = text_setting(settings, "parameter_manager_location") or _GLOBAL
        if not _LOCATION.fullmatch(location):
            raise StoreUnsupported("a location is written like europe-west1")
        place = place_of(options.place, settings, prefix)
        self._parent = f"projects/{place.project}/locations/{location}"
        self._place = f"{place.project}/{place.base}"
        self._list_items = list_items
        api = Api("Parameter Manager", _host(location), _client)
        super().__init__(
            PlaceNames(place.base, options, most=LIMITS.max_name_bytes),
            Calls(api, options, concurrency=LIMITS.concurrency),
            replace(LIMITS, page_items=page_items),
        )

    @property
    def capabilities(self) -> Capability:
        return CAPABILITIES

    @property
    def prices(self) -> PriceSheet:
        return PRICES

    def _name(self, native: str) -> str:
        return f"{self._parent}/parameters/{native}"

    async def _listed(self, token: str, *, most: int = 0) -> tuple[list[Any], str]:
        answer = await self._calls.call(
            "list_parameters",
            self._place,
            parent=self._parent,
            page_size=most or self._list_items,
            page_token=token,
        )
        return listed(answer, "parameters", self._place)

    async def _get(self, native: str) -> Any:
        return await self._calls.call("get_parameter", native, name=self._name(native))

    async def _versions(self, native: str) -> list[Version]:
        """All versions, as they were made."""
        found: list[Version] = []
        token = ""
        while True:
            answer = await self._calls.call(
                "list_parameter_versions",
                native,
                parent=self._name(native),
                page_size=LIST_ITEMS,
                page_token=token,
            )
            page, token = listed(answer, "parameter_versions", native)
            found += [_version(each, native) for each in page]
            if not token:
                return sorted(found, key=lambda each: (each.made_us, each.name))

    async def _newest(self, native: str) -> Version | None:
        versions = await self._versions(native)
        numbers = [int(ours[1]) for each in versions if (ours := _OURS.fullmatch(each.name))]
        return replace(versions[-1], following=max(numbers, default=0) + 1) if versions else None

    async def _value(self, native: str, version: str) -> str:
        answer = await self._calls.call(
            "get_parameter_version",
            native,
            name=f"{self._name(native)}/versions/{version}",
            view=_FULL,
        )
        if not getattr(answer, "name", ""):
            raise StoreUnavailable(f"{native}: an answer without sense")
        if "payload" not in answer:
            raise InvalidValue(f"{native} has no value in its version {version}")
        return decoded(answer.payload.data, native)

    # Writing.

    async def _create(self, native: str) -> Marks | None:
        form = _JSON if self._names.is_document else _UNFORMATTED
        try:
            answer = await self._calls.call(
                "create_parameter",
                native,
                parent=self._parent,
                parameter_id=native,
                parameter={"labels": dict([LABEL]), "format_": form},
            )
        except StaleVersion:
            return None
        return self._marks(answer, native)

    async def _own(self, native: str, marks: Marks) -> Marks:
        """Without an etag: labels that others change in the same moment may be lost."""
        answer = await self._calls.call(
            "update_parameter",
            native,
            parameter={"name": self._name(native), "labels": marks.owned},
            update_mask={"paths": ["labels"]},
        )
        return self._marks(answer, native)

    async def _add(self, op: Op, native: str, seen: Seen) -> Outcome:
        number = 1 if seen.newest is None else seen.newest.following
        answer = await self._calls.call(
            "create_parameter_version",
            native,
            meanings=_GONE,
            parent=self._name(native),
            parameter_version_id=f"envd-{number}",
            parameter_version={"payload": {"data": op.value.encode()}},
        )
        made = _version(answer, native)
        outcome = Outcome(op, Result.APPLIED, made.text)
        # Should this fail nobody knows whom it overtook; the repeat finds it written.
        before = -1 if seen.newest is None else seen.newest.made_us
        since = [
            each for each in await self._versions(native) if before < each.made_us < made.made_us
        ]
        if not since:
            return outcome
        between: Item | None = None
        with suppress(BackendError):  # It is written: what it replaced is told where it can be.
            value = await self._value(native, since[-1].name)
            between = self._item(native, Seen(seen.marks, since[-1], value))
        return replace(outcome, overtaken=True, between=between)

    async def _remove(self, native: str, seen: Seen) -> None:
        name = self._name(native)
        versions = await self._versions(native)
        if versions and (seen.newest is None or versions[-1].name != seen.newest.name):
            raise StaleVersion(f"{native} was changed by somebody else")
        for version in versions:
            with suppress(ItemNotFound):
                await self._calls.call(
                    "delete_parameter_version", native, name=f"{name}/versions/{version.name}"
                )
        await self._calls.call("delete_parameter", native, meanings=_NOT_EMPTY, name=name)

    # Watching, and what it costs.

    def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        raise StoreUnsupported("Parameter Manager tells of no changes")

    def cost(self, load: Load) -> Cost:
        """One price is taken for each parameter, and for each value that is read; see `PRICES`.

        A parameter of more than 1,000 versions takes more calls, and so does a deletion.
        """
        lists = max(1, math.ceil(load.items / self._list_items))
        reads = load.scans * (lists + load.items)
        reads += _READS_OF_GET * load.read + _READS_OF_CHANGE * load.changed
        paid = priced(PRICES, items=load.items, reads=load.read + load.changed, writes=0)
        return Cost(reads, load.changed, paid.dollars)


def _host(location: str) -> str:
    if location == _GLOBAL:
        return "parametermanager.googleapis.com"
    return f"parametermanager.{location}.rep.googleapis.com"


def _version(answer: Any, about: str) -> Version:
    """A version of an answer; StoreUnavailable where it lacks what every one has."""
    name = last_part(getattr(answer, "name", ""))
    made_us = microseconds(getattr(answer, "create_time", None))
    if not name or made_us is None:
        raise StoreUnavailable(f"{about}: an answer without a version")
    return Version(name, made_us, "disabled" if answer.disabled else "")


def _client() -> Any:
    from google.cloud.parametermanager_v1 import ParameterManagerAsyncClient

    return ParameterManagerAsyncClient


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "gcp-parameter-manager",
        "parameters of Google Cloud's Parameter Manager",
        ParameterManagerBackend,
        "PREFIX or PROJECT/PREFIX",
        extra="gcp",
        library="google.cloud.parametermanager_v1",
        settings_section="gcp",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
