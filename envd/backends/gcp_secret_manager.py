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

A listing of secrets tells of no versions. So a scan takes a call for each secret besides, which
asks for its newest version: by number, since `latest` is no version that one could hold on to, and
can't be read at all while the newest is disabled. To list costs nothing; each value that is read
does, and is read only where the version is another.

A secret whose newest version is disabled or destroyed is listed without a value, and reading it is
an InvalidValue: nobody knows what it should be. One without any version is not there yet.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from envd.backends.contract import (
    Capability,
    Cost,
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
    Result,
    Scope,
    Verb,
)
from envd.backends.errors import (
    BackendError,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.gcp_credentials import CREDENTIALS_HINT
from envd.backends.gcp_names import PlaceNames, place_of
from envd.backends.gcp_secret import (
    LABEL,
    LIMITS,
    LIST_ITEMS,
    PRICES,
    Marks,
    SecretSettings,
    Seen,
    Version,
    marks_of,
    payload_of,
    value_of,
    version_of,
)
from envd.backends.gcp_session import Api, Calls, last_part, listed
from envd.backends.gcp_store import GcpStore
from envd.backends.naming import shown
from envd.backends.outcomes import check_batch, priced, stale, unsuccessful, value_problem

CAPABILITIES: Final = Capability.POSTCHECK | Capability.STAMP_SIDE
_READS_OF_GET: Final = 3
_READS_OF_CHANGE: Final = 3
_CHANGED: Final = {"FAILED_PRECONDITION": StaleVersion}
"""What an etag that is not that of now is answered with."""
_GONE: Final = {"NOT_FOUND": StaleVersion, "INVALID_ARGUMENT": InvalidValue}
_UNREADABLE: Final = {"FAILED_PRECONDITION": InvalidValue}


class SecretManagerBackend(GcpStore):
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
        self._limits = replace(LIMITS, page_items=page_items)
        self._list_items = list_items
        api = Api("Secret Manager", self._settings.host, _client)
        super().__init__(
            PlaceNames(place.base, options, most=LIMITS.max_name_bytes),
            Calls(api, options, concurrency=LIMITS.concurrency),
        )
        self._place = f"{place.project}/{place.base}"

    @property
    def capabilities(self) -> Capability:
        return Capability.POSTCHECK if self._names.is_document else CAPABILITIES

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def prices(self) -> PriceSheet:
        return PRICES

    async def _reach(self) -> None:
        await self._listed("", most=1)

    def _refusal(self, op: Op) -> BackendError | None:
        return value_problem(op, self.limits)

    def _name(self, native: str) -> str:
        return f"{self._parent}/secrets/{native}"

    # Reading.

    async def _listed(self, token: str, *, most: int = 0) -> tuple[list[Any], str]:
        answer = await self._calls.call(
            "list_secrets",
            self._place,
            parent=self._parent,
            page_size=most or self._list_items,
            page_token=token,
        )
        return listed(answer, "secrets", self._place)

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """A call for each 1,000 secrets of the project, and one for each secret in scope."""
        token, size = cursor or "", self.limits.page_items
        while True:
            found, token = await self._listed(token)
            wanted = [each for each in found if self._is_in(each, scope)]
            for start in range(0, max(1, len(wanted)), size):
                items = await self._items(wanted[start : start + size])
                is_last = start + size >= len(wanted)
                # A call's middle has no token of its own, so a scan can't go on from there.
                yield Page(
                    items,
                    complete=is_last and not token and not cursor,
                    cursor=token if is_last else "",
                )
            if not token:
                return

    def _is_in(self, answer: Any, scope: Scope) -> bool:
        key = self.decode(last_part(answer.name))
        return key is not None and scope.holds(key)

    async def _items(self, answers: Sequence[Any]) -> list[Item]:
        """The items of a listing's secrets, several at once, without their values."""

        async def item(answer: Any) -> Item | BackendError | None:
            native = last_part(answer.name)
            try:
                marks, newest = marks_of(answer, native), await self._newest(native)
            except ItemNotFound:  # It was deleted since.
                return None
            except BackendError as error:
                return error
            return self._item(native, Seen(marks, newest)) if newest is not None else None

        found = await asyncio.gather(*map(item, answers))
        for each in found:
            if isinstance(each, BackendError):
                raise each
        return [each for each in found if isinstance(each, Item)]

    def _item(self, native: str, seen: Seen) -> Item:
        key = self.decode(native)
        if key is None or seen.newest is None:
            raise StoreUnavailable(f"{native}: an answer without sense")
        return Item(
            key,
            native,
            seen.version,
            value=seen.value,
            managed=seen.marks.is_ours,
            stamp="" if self._names.is_document else seen.marks.stamp(seen.number),
            changed_ms=seen.newest.made_ms,
        )

    async def _newest(self, native: str) -> Version | None:
        """The newest version, whatever its state; None where there is none yet."""
        answer = await self._calls.call(
            "list_secret_versions", native, parent=self._name(native), page_size=1
        )
        found, token = listed(answer, "versions", native)
        if not found and token:
            raise StoreUnavailable(f"{native}: a listing that begins with nothing")
        return version_of(found[0], native) if found else None

    async def _value(self, native: str, number: int) -> str:
        answer = await self._calls.call(
            "access_secret_version",
            native,
            meanings=_UNREADABLE,
            name=f"{self._name(native)}/versions/{number}",
        )
        return value_of(answer, native)

    async def _look(self, native: str, *, valued: bool) -> Seen | None:
        """The secret as it is now, None where there is none."""
        try:
            answer = await self._calls.call("get_secret", native, name=self._name(native))
            marks, newest = marks_of(answer, native), await self._newest(native)
            if not valued or newest is None or not newest.is_enabled:
                return Seen(marks, newest)
            return Seen(marks, newest, await self._value(native, newest.number))
        except ItemNotFound:
            return None

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        """Three calls for each. What is refused for one key is the answer for that one."""
        check_batch(len(keys), self.limits.get_batch, what="keys")
        found = await asyncio.gather(*map(self._answer, keys))
        for each in found:
            if isinstance(each, BackendError) and not each.is_refusal:
                raise each
        return dict(zip(keys, found, strict=True))

    async def _answer(self, key: Key) -> Item | BackendError:
        try:
            native = self.encode(key)
            seen = await self._look(native, valued=True)
            if seen is None or seen.newest is None:
                return ItemNotFound(f"there is no {native}")
            if seen.value is None:
                return InvalidValue(
                    f"the newest version of {native} is {seen.newest.state.lower()}",
                    hint=f"gcloud secrets versions enable {seen.number} --secret={native}",
                )
            return self._item(native, seen)
        except BackendError as error:
            return error

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """A repeat finds the secret as it is to be, and is answered with NOOP."""
        try:
            check_batch(len(ops), self.limits.batch, what="operations")
        except StoreUnsupported as error:
            return [unsuccessful(op, error) for op in ops]
        return [await self._do(op) for op in ops]

    async def _do(self, op: Op) -> Outcome:
        problem = self._problem(op)
        if problem is not None:
            return unsuccessful(op, problem)
        native = self.encode(op.key)
        try:
            async with self._turns.of(native):
                if op.verb is Verb.DELETE:
                    return await self._delete(op, native)
                return await self._put(op, native)
        except BackendError as error:
            return unsuccessful(op, error)

    async def _put(self, op: Op, native: str) -> Outcome:
        created = None if op.expect else await self._create(native)
        if created is not None:
            return await self._add(op, native, Seen(created, None))
        seen = await self._seen(native)
        if seen is None:
            return stale(op, "")
        is_so = seen.value == op.value
        if not is_so and op.expect != seen.version:
            return stale(op, seen.version)
        if not seen.marks.is_ours and op.any_owner:
            # Before the value is written: where that is refused, nothing was.
            seen = replace(seen, marks=await self._own(native, seen.marks))
        if is_so:
            return Outcome(op, Result.NOOP, seen.version)
        if not seen.marks.is_ours:
            return self._not_owned(op, seen)
        return await self._add(op, native, seen)

    async def _seen(self, native: str) -> Seen | None:
        """The secret; of one that holds no text it is enough to know that it is another."""
        try:
            return await self._look(native, valued=True)
        except InvalidValue:
            return await self._look(native, valued=False)

    async def _create(self, native: str) -> Marks | None:
        """Create a secret without a version; None where there is one already."""
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
        """Add a version after the one that was seen."""
        answer = await self._calls.call(
            "add_secret_version",
            native,
            meanings=_GONE,
            parent=self._name(native),
            payload=payload_of(op.value),
        )
        made = version_of(answer, native)
        outcome = Outcome(op, Result.APPLIED, made.text)
        if made.number != seen.number + 1:
            between = None
            if made.number > seen.number:
                with suppress(BackendError):  # It is written: what it replaced is told if it can.
                    between = await self._between(native, seen.marks, made.number - 1)
            outcome = replace(outcome, overtaken=True, between=between)
        with suppress(BackendError):  # ... and so it is without a stamp.
            await self._stamp(op, native, seen.marks, made.number)
        with suppress(BackendError):
            await self._shed(native, made.number)
        return outcome

    async def _between(self, native: str, marks: Marks, number: int) -> Item:
        """What others wrote as this version; it has no stamp."""
        name = f"{self._name(native)}/versions/{number}"
        answer = await self._calls.call("get_secret_version", native, name=name)
        found = version_of(answer, native)
        value = await self._value(native, number)
        return self._item(native, Seen(replace(marks, annotations={}), found, value))

    async def _stamp(self, op: Op, native: str, marks: Marks, number: int) -> None:
        if not self._names.is_document:
            await self._mark(native, marks, "annotations", marks.stamped(number, op.stamp))

    async def _own(self, native: str, marks: Marks) -> Marks:
        """Label a secret as ours; raises StaleVersion where somebody else changed it."""
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

    async def _delete(self, op: Op, native: str) -> Outcome:
        seen = await self._look(native, valued=False)
        if seen is None or seen.newest is None:
            return Outcome(op, Result.NOOP)
        if op.expect != seen.version:
            return stale(op, seen.version)
        if not op.any_owner and not seen.marks.is_ours:
            return self._not_owned(op, seen)
        try:
            await self._calls.call(
                "delete_secret",
                native,
                meanings=_CHANGED,
                name=self._name(native),
                etag=seen.marks.etag,
            )
        except ItemNotFound:
            return Outcome(op, Result.NOOP)
        return Outcome(op, Result.APPLIED)

    @staticmethod
    def _not_owned(op: Op, seen: Seen) -> Outcome:
        error = NotOwned(f"{shown(op.key)} was not created by envd")
        return unsuccessful(op, error, version=seen.version)

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
