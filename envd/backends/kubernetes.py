"""The `kubernetes` backend: Secrets and ConfigMaps, one for each environment.

WHOLE_DOCUMENT  an object is an environment. That is how pods take it (`envFrom`), and the object
                has one version: with a variable as an item, each would change with every other
CAS             `resourceVersion`, with a read before it; a delete too, by its preconditions
STAMP_ATOMIC    in an annotation (`kubernetes_object`)
LIST_VALUES     a list brings the objects whole; all its pages are of one version of the store
WATCH           with deletes, and bookmarks; what was forgotten meanwhile is a hint of anything

A scan of a prefix lists all objects of the namespace of that sort, since names can't be asked for
by their beginning; of Secrets only the opaque ones.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

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
from envd.backends.documents import document, document_problem
from envd.backends.errors import (
    BackendError,
    InvalidName,
    InvalidValue,
    ItemNotFound,
    NotOwned,
    StaleVersion,
    StoreUnavailable,
    StoreUnsupported,
)
from envd.backends.kubernetes_client import SERVICE_ACCOUNT, KubernetesClient
from envd.backends.kubernetes_object import OPAQUE, Found, key_problem
from envd.backends.kubernetes_settings import (
    CREDENTIALS_HINT,
    MAX_NAME,
    PLACE_HINT,
    ObjectNames,
    Sort,
    read_settings,
)
from envd.backends.naming import shown
from envd.backends.outcomes import (
    check_batch,
    priced,
    rejected,
    scan_calls,
    stale,
    unsuccessful,
    value_problem,
)

CAPABILITIES: Final = (
    Capability.CAS
    | Capability.STAMP_ATOMIC
    | Capability.LIST_VALUES
    | Capability.WATCH
    | Capability.WHOLE_DOCUMENT
)
LIMITS: Final = Limits(
    max_value_bytes=1 << 20,
    max_name_bytes=MAX_NAME,
    page_items=50,
    batch=50,
    get_batch=50,
    concurrency=4,
)
"""The values of an object may have 1 MiB in all."""
PRICES: Final = PriceSheet(
    "self-hosted",
    "Kubernetes",
    "2026-11-30",
    source="no fee: what the machines cost that it runs on is not counted",
)
_WRITER: Final = {"fieldManager": "envd"}
WATCH_S: Final = 290
"""How long the server is to let a watch go on: one that goes on for longer is dead."""


class KubernetesBackend:
    """One object, or all below a name, in one namespace."""

    def __init__(
        self,
        options: Options,
        *,
        environ: Mapping[str, str] = os.environ,
        service_account: Path = SERVICE_ACCOUNT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`environ` and the files in `service_account` say who we are, `clock` is a steady one
        (s). Raises StoreUnsupported or InvalidName for options that can't be."""
        settings = read_settings(options)
        self._sort = settings.sort
        self._names = ObjectNames(settings.name, below=options.below)
        self._below = options.below
        self._name = settings.name
        self._path = f"/api/v1/namespaces/{settings.namespace}/{settings.sort.plural}"
        self._fingerprint = options.fingerprint
        self._clock = clock
        self._client = KubernetesClient(settings, environ, service_account)

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
        await self._client.open()

    async def close(self) -> None:
        await self._client.close()

    async def probe(self) -> Health:
        """Read the object of the place, or list one."""
        began_s = self._clock()
        try:
            if self._below:
                await self._listed({"limit": "1"})
            else:
                await self._found(self._name)
        except BackendError as error:
            identity = self._client.identity
            return Health(False, identity=identity, detail=error.message, hint=error.hint)
        return Health(True, (self._clock() - began_s) * 1000, self._client.identity)

    # Names.

    def encode(self, key: Key) -> str:
        """The name of the environment's object."""
        return self._names.encode(key)

    def decode(self, native: str) -> Key | None:
        return self._names.decode(native)

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
        return value_problem(op, LIMITS) or document_problem(op) or key_problem(op)

    # Reading.

    async def scan(self, scope: Scope, cursor: str | None = None) -> AsyncIterator[Page]:
        """The objects of the place as they were at one time. There are no cursors."""
        if not self._below:
            yield Page(self._items([await self._found(self._name)], scope), complete=not cursor)
            return
        query = {"limit": str(LIMITS.page_items)}
        while True:
            listed = await self._listed(query)
            following = _about(listed).get("continue") or ""
            found = [Found(self._sort, each) for each in _rows(listed)]
            yield Page(self._items(found, scope), complete=not following and not cursor)
            if not following:
                return
            query["continue"] = str(following)

    async def _listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of the objects of the namespace."""
        listed = await self._client.ask("GET", self._path, query={**self._selected, **query})
        if listed is None or listed.get("kind") != f"{self._sort.kind}List":
            raise StoreUnavailable("Kubernetes answered no list")
        return listed

    @property
    def _selected(self) -> dict[str, str]:
        """Leaves out what the server can tell is not ours."""
        if not self._below:
            return {"fieldSelector": f"metadata.name={self._name}"}
        return {"fieldSelector": f"type={OPAQUE}"} if self._sort is Sort.SECRET else {}

    async def _found(self, name: str) -> Found:
        """An object that only waits for its finalizers is gone: nothing brings it back."""
        found = Found(self._sort, await self._client.ask("GET", f"{self._path}/{name}"))
        return Found(self._sort) if found.is_going else found

    def _items(self, found: Sequence[Found], scope: Scope) -> list[Item]:
        items: list[Item] = []
        for each in found:
            is_one = each.raw is not None and each.is_opaque and not each.is_going
            key = self.decode(each.name) if is_one else None
            if key is not None and scope.holds(key):
                items.append(self._item(key, each))
        return items

    def _item(self, key: Key, found: Found) -> Item:
        return Item(
            key,
            found.name,
            found.version,
            value=found.value(),
            managed=found.is_ours,
            stamp=found.stamp(self._fingerprint),
        )

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Item | BackendError]:
        """Each by a call of its own, several at once. An error that the next call would meet as
        well is raised; one of a single name is its answer."""
        check_batch(len(keys), LIMITS.get_batch, what="keys")
        names = {key: self.encode(key) for key in keys}
        found: dict[Key, Item | BackendError] = {}
        waiting = iter(keys)
        failed: list[BackendError] = []

        async def work() -> None:
            for key in waiting:
                if failed:
                    return
                try:
                    found[key] = self._answer(key, await self._found(names[key]))
                except BackendError as error:
                    found[key] = error
                    if not error.is_refusal:
                        failed.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(keys), LIMITS.concurrency)):
                group.create_task(work())
        if failed:
            raise failed[0]
        return {key: found[key] for key in keys}

    def _answer(self, key: Key, found: Found) -> Item | BackendError:
        if found.raw is None:
            return ItemNotFound(f"there is no {shown(key)} here")
        if not found.is_opaque:
            return InvalidValue(f"{shown(key)} is a Secret of another type than {OPAQUE}")
        return self._item(key, found)

    # Writing.

    async def apply(self, ops: Sequence[Op], *, idempotency: str) -> list[Outcome]:
        """One after the other. A repeat finds everything as it is to be, and is a NOOP.

        After an operation that met a server that does not answer, the others are not tried.
        """
        try:
            check_batch(len(ops), LIMITS.batch, what="operations")
        except BackendError as error:
            return [unsuccessful(op, error) for op in ops]
        refused = rejected(list(ops), self.check(ops))
        outcomes: list[Outcome] = []
        failed: BackendError | None = None
        for at, op in enumerate(ops):
            outcome = refused.get(at)
            if outcome is None and failed is not None:
                outcome = unsuccessful(op, failed)
            elif outcome is None:
                outcome = await self._do(op)
                failed = outcome.error if outcome.result is Result.FAILED else None
            outcomes.append(outcome)
        return outcomes

    async def _do(self, op: Op) -> Outcome:
        name = self.encode(op.key)
        try:
            found = await self._found(name)
            done = self._without_writing(op, found)
            if done is not None:
                return done
            if op.verb is Verb.PUT:
                return await self._put(op, name, found)
            return await self._delete(op, name, found)
        except BackendError as error:
            return unsuccessful(op, error)

    def _without_writing(self, op: Op, found: Found) -> Outcome | None:
        """What is known of an operation once the object is read."""
        is_there = found.raw is not None
        if op.verb is Verb.DELETE and not is_there:
            return Outcome(op, Result.NOOP)
        is_so = is_there and found.is_opaque and found.variables == document(op.value)
        if op.verb is Verb.PUT and is_so:
            return Outcome(op, Result.NOOP, found.version)
        if op.expect != found.version:
            return stale(op, found.version)
        problem = found.intrusion(op) if op.verb is Verb.PUT or not found.is_opaque else None
        if problem is None and is_there and not found.is_ours and not op.any_owner:
            problem = NotOwned(f"{shown(op.key)} was not created by envd")
        return None if problem is None else unsuccessful(op, problem, version=found.version)

    async def _put(self, op: Op, name: str, found: Found) -> Outcome:
        """Create, or replace under the version that was read, which is in the object."""
        body = found.written(op, name, self._fingerprint)
        if found.raw is None:
            made = await self._client.ask("POST", self._path, query=_WRITER, body=body)
            if made is None:
                raise StoreUnsupported("there is no such namespace in the cluster")
        else:
            path = f"{self._path}/{name}"
            made = await self._client.ask("PUT", path, query=_WRITER, body=body)
            if made is None:
                raise StaleVersion(f"{shown(op.key)} is not there any more")
        return Outcome(op, Result.APPLIED, Found(self._sort, made).version)

    async def _delete(self, op: Op, name: str, found: Found) -> Outcome:
        path = f"{self._path}/{name}"
        if found.has_others:
            kept = await self._client.ask("PUT", path, query=_WRITER, body=found.emptied())
            version = Found(self._sort, kept).version
            return Outcome(op, Result.APPLIED if kept is not None else Result.NOOP, version)
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": found.uid, "resourceVersion": found.resource_version},
        }
        gone = await self._client.ask("DELETE", path, body=body)
        return Outcome(op, Result.APPLIED if gone is not None else Result.NOOP)

    # Watching, and what it costs.

    async def watch(self, scope: Scope, cursor: str | None) -> AsyncIterator[Hint]:
        """Hints of objects that were written or deleted, after `cursor` or from now on. The server
        ends a watch after a while; it is gone on with."""
        seen = cursor or await self._newest()
        while True:
            query = {
                **self._selected,
                "watch": "true",
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(WATCH_S),
                "resourceVersion": seen,
            }
            told = False
            watching = self._client.watch(self._path, query)
            async with watching as stream, aclosing(stream) as events:
                async for event in events:
                    told = True
                    about = _about(event["object"])
                    if event.get("type") == "ERROR":
                        _raise_unless_gone(event["object"])
                        seen = ""
                        break
                    seen = str(about.get("resourceVersion") or seen)
                    key = self.decode(str(about.get("name") or ""))
                    if event.get("type") != "BOOKMARK" and key is not None and scope.holds(key):
                        yield Hint(key, seen)
            if not told:
                raise StoreUnavailable("Kubernetes ended a watch at once")
            if not seen:
                seen = await self._newest()
                yield Hint(None, seen)

    async def _newest(self) -> str:
        """The version of the store now."""
        version = _about(await self._listed({"limit": "1"})).get("resourceVersion")
        if not isinstance(version, str) or not version:
            raise StoreUnavailable("Kubernetes answered a list without a version")
        return version

    def cost(self, load: Load) -> Cost:
        """A scan is a call for each page, of one object one; all others of the namespace, which a
        load does not tell, count too. A change is one call to read and one to write."""
        scans = scan_calls(load, LIMITS.page_items) if self._below else load.scans
        reads = scans + load.read + load.changed
        return priced(PRICES, items=load.items, reads=reads, writes=load.changed)


def _about(found: Mapping[str, Any]) -> Mapping[str, Any]:
    about = found.get("metadata")
    return about if isinstance(about, dict) else {}


def _rows(listed: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = listed.get("items")
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise StoreUnavailable("Kubernetes answered a list without items")
    return rows


def _raise_unless_gone(status: Mapping[str, Any]) -> None:
    if status.get("code") != HTTPStatus.GONE:
        raise StoreUnavailable("Kubernetes ended a watch with an error")


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "kubernetes",
        "Secrets and ConfigMaps of Kubernetes, one for each environment",
        KubernetesBackend,
        PLACE_HINT,
        extra="k8s",
        library="kubernetes_asyncio",
        settings_section="kubernetes",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
