"""The `consul` backend: the key-value store of Consul 1.11 and later, by its HTTP API.

CAS             a transaction that compares `ModifyIndex`; a delete too
STAMP_ATOMIC    under a key beside the value, written in the same transaction (`marked_keys`)
LIST_VALUES     one answer has all keys of the place with their values
WATCH           with deletes, by blocking queries; they do not say what changed
no ATOMIC_BATCH a request may have 512 KiB, so what one `apply` takes does not always fit one
                transaction: each operation is one

Consul leaves out of a listing what the token may not read, and says so in a header: then there is
no telling what is not there, and the listing is refused. To who shows no token it does not say so:
then the agent is asked whether it has policies at all, and if it has, listings are refused. An
answer that does not come of Consul's store, such as the 404 of some proxy, lacks the index that all
of Consul's have, and is none.

A version is the `ModifyIndex` of the value, which is given once in the life of a datacenter.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from envd.backends.consul_settings import (
    CREDENTIALS_HINT,
    USUAL_ADDRESS,
    ConsulSettings,
    read_settings,
)
from envd.backends.contract import Limits, Options, PriceSheet, Registration
from envd.backends.errors import (
    AuthExpired,
    BackendError,
    Forbidden,
    StoreUnavailable,
)
from envd.backends.http_calls import ANSWER_S, Answer, HttpCalls, error_of
from envd.backends.marked_keys import Kept, Raw, mark_of
from envd.backends.marked_store import CAPABILITIES, Change, MarkedBackend, Sheet, Swapped
from envd.threads import finish_in_thread

LIMITS: Final = Limits(
    max_value_bytes=376 << 10,
    max_name_bytes=1024,
    batch=32,
    get_batch=32,
    concurrency=4,
)
"""The body of a transaction may have 512 KiB (`txn_max_req_len`), with the value in base64."""
PRICES: Final = PriceSheet(
    "self-hosted",
    "Consul",
    "2026-11-30",
    source="no fee: what the machines cost that it runs on is not counted",
)
MAX_ANSWER_BYTES: Final = 128 << 20
"""Of a whole place, in base64."""
WAIT_S: Final = 60
"""How long a blocking query is let wait; Consul adds a sixteenth at most."""

_STORE: Final = "Consul"
_INDEX: Final = "x-consul-index"
_FILTERED: Final = "x-consul-results-filtered-by-acls"
_DENIED: Final = "Permission denied"
_STALE: Final = "index is stale"
_NO_TOKEN: Final = b"ACL not found"
_NO_SUCH_TOKEN: Final = (_NO_TOKEN, b"token does not exist")
_NO_POLICIES: Final = b"ACL support disabled"
_NOBODY: Final = "00000000-0000-0000-0000-000000000002"
"""The token of all who show none."""


class ConsulKeys:
    """The keys of one datacenter, through one agent."""

    def __init__(self, settings: ConsulSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._calls: HttpCalls | None = None
        self._identity = ""
        self._has_token = False

    @property
    def identity(self) -> str:
        return self._identity

    async def open(self) -> None:
        """Read the token; nothing is asked yet."""
        await self.close()
        settings = self._settings
        token = await finish_in_thread(settings.token.read, self._environ)
        address = settings.address or _address_of(self._environ.get("CONSUL_HTTP_ADDR", ""))
        calls = HttpCalls(
            address, tls=settings.tls, headers={"X-Consul-Token": token} if token else None
        )
        await calls.open()
        self._calls, self._has_token = calls, bool(token)
        self._identity = f"the token of {settings.token.name}" if token else "anonymous"

    async def close(self) -> None:
        calls, self._calls = self._calls, None
        if calls is not None:
            await calls.close()

    async def reach(self, prefix: str) -> None:
        await self._know_that_all_is_told()
        await self._listed(prefix, {"keys": "true", "separator": "/", "consistent": "true"})

    async def read(self, paths: Sequence[str]) -> dict[str, Kept]:
        """A listing of what begins like a value has its note as well, of the same time."""
        await self._know_that_all_is_told()
        found: dict[str, Kept] = {}
        waiting = iter(paths)
        failed: list[BackendError] = []

        async def work() -> None:
            for path in waiting:
                if failed:
                    return
                try:
                    raws = {each.path: each for each in await self._raws(path)}
                except BackendError as error:
                    failed.append(error)
                else:
                    found[path] = Kept(path, raws.get(path), raws.get(mark_of(path)))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(paths), LIMITS.concurrency)):
                group.create_task(work())
        if failed:
            raise failed[0]
        return found

    async def pages(self, prefix: str) -> AsyncIterator[tuple[Sequence[Raw], bool]]:
        """One page: Consul has no others."""
        await self._know_that_all_is_told()
        yield await self._raws(prefix), True

    async def _know_that_all_is_told(self) -> None:
        """Raise Forbidden where a listing would not say that it leaves something out.

        Whoever shows a token is told. Without one, the agent may have one of its own to show.
        """
        if self._has_token:
            return
        answer = await self._asked("GET", "/v1/acl/token/self", {})
        if answer.status == HTTPStatus.UNAUTHORIZED and _NO_POLICIES in answer.body:
            return
        whose = answer.table().get("AccessorID") if answer.is_good else ""
        if isinstance(whose, str) and whose not in ("", _NOBODY):
            return
        # There is none for who has none: that is 404 or 403, by the release.
        is_nobody = whose == _NOBODY or any(each in answer.body for each in _NO_SUCH_TOKEN)
        if not is_nobody and answer.status != HTTPStatus.FORBIDDEN:
            error = error_of(answer, _STORE)
            raise _senseless() if answer.is_good or error.is_refusal else error
        raise Forbidden(
            "Consul has policies, and does not tell who has no token what it leaves out",
            hint="set token_env or token_file below [cloud.providers.consul]",
        )

    async def _raws(self, prefix: str) -> list[Raw]:
        answer = await self._listed(prefix, {"recurse": "true", "consistent": "true"})
        rows = answer.rows() if answer.is_good else []
        return sorted(map(_raw, rows), key=lambda raw: raw.path)

    async def swap(self, over: Kept, value: bytes | None, mark: bytes) -> Swapped:
        path, beside = over.path, mark_of(over.path)
        # A write without any would take away what others have there.
        flags = over.value.flags if over.value is not None else 0
        if value is None:
            ops = [
                self._op("delete-cas", path, index=over.changed),
                self._op("delete", beside),
            ]
        else:
            ops = [
                self._op("cas", path, value=value, index=over.changed, flags=flags),
                self._op("set", beside, value=mark),
            ]
        answer = await self._asked("PUT", "/v1/txn", {}, body=json.dumps(ops).encode())
        if answer.status == HTTPStatus.CONFLICT:
            _raise_unless_stale(answer)
            return Swapped(False)
        if not answer.is_good:
            raise error_of_consul(answer)
        results = answer.table().get("Results")
        if value is None:
            return Swapped(True)
        first = results[0] if isinstance(results, list) and results else None
        kv = first.get("KV") if isinstance(first, dict) else None
        number = kv.get("ModifyIndex") if isinstance(kv, dict) else None
        if not isinstance(number, int) or number < 1:
            raise _senseless()
        return Swapped(True, number)

    def _op(
        self, verb: str, path: str, *, value: bytes = b"", index: int = 0, flags: int = 0
    ) -> dict[str, Any]:
        kv: dict[str, Any] = {"Verb": verb, "Key": path}
        if verb in ("cas", "set"):
            kv["Value"] = base64.b64encode(value).decode()
            kv["Flags"] = flags
        if verb in ("cas", "delete-cas"):
            kv["Index"] = index
        settings = self._settings
        fields = {"Namespace": settings.namespace, "Partition": settings.partition}
        return {"KV": {**kv, **{name: each for name, each in fields.items() if each}}}

    async def changes(self, prefix: str, cursor: str) -> AsyncIterator[Change]:
        """Names alone are asked for, so that no value travels for a hint."""
        seen = int(cursor) if cursor.isascii() and cursor.isdecimal() else 0
        while True:
            query = {"keys": "true"}
            if seen:
                query |= {"index": str(seen), "wait": f"{WAIT_S}s"}
            answer = await self._listed(prefix, query, answer_s=WAIT_S * 17 / 16 + ANSWER_S)
            index = max(1, int(answer.headers[_INDEX]))
            # One that went backwards is of other data: begin anew. An equal one tells nothing.
            if seen and index != seen:
                yield Change(None, str(index))
            seen = index if index >= seen else 0

    async def _listed(
        self, prefix: str, query: Mapping[str, str], *, answer_s: float = ANSWER_S
    ) -> Answer:
        """The answer to a listing that is whole, of status 200, or of 404 for no keys at all."""
        path = f"/v1/kv/{quote(prefix, safe='/')}"
        settings = self._settings
        fields = {"ns": settings.namespace, "partition": settings.partition}
        where = {name: each for name, each in fields.items() if each}
        answer = await self._asked("GET", path, {**query, **where}, answer_s=answer_s)
        if not answer.is_good and answer.status != HTTPStatus.NOT_FOUND:
            raise error_of_consul(answer)
        index = answer.headers.get(_INDEX, "")
        if not (index.isascii() and index.isdecimal()):
            raise StoreUnavailable(
                "what answered has no index of Consul's", hint="see whether the address is right"
            )
        if answer.headers.get(_FILTERED, "").lower() == "true":
            raise Forbidden(
                "Consul leaves out keys of the place that the token may not read",
                hint="see docs/backends-consul.md for the policy that envd needs",
            )
        return answer

    async def _asked(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: bytes = b"",
        answer_s: float = ANSWER_S,
    ) -> Answer:
        if self._calls is None:
            raise StoreUnavailable("the backend is not open")
        datacenter = self._settings.datacenter
        return await self._calls.call(
            method,
            path,
            query={**query, "dc": datacenter} if datacenter else query,
            body=body,
            answer_s=answer_s,
            most_bytes=MAX_ANSWER_BYTES,
        )


def _address_of(variable: str) -> str:
    """What CONSUL_HTTP_ADDR says: a URL, or a host with its port alone."""
    if not variable:
        return USUAL_ADDRESS
    return variable if "://" in variable else f"http://{variable}"


def _raw(found: object) -> Raw:
    entry: dict[str, Any] = found if isinstance(found, dict) else {}
    path, value = entry.get("Key"), entry.get("Value") or ""
    made, changed = entry.get("CreateIndex"), entry.get("ModifyIndex")
    flags = entry.get("Flags", 0)
    numbers = isinstance(made, int) and isinstance(changed, int) and made > 0 and changed > 0
    numbers = numbers and isinstance(flags, int)
    if not isinstance(path, str) or not path or not isinstance(value, str) or not numbers:
        raise _senseless()
    assert isinstance(made, int)
    assert isinstance(changed, int)
    try:
        raw = base64.b64decode(value, validate=True)
    except ValueError:
        pass
    else:
        return Raw(path, made, changed, raw, flags)
    raise _senseless()


def _raise_unless_stale(answer: Answer) -> None:
    """A transaction that was rolled back: because of its index, or of something else."""
    errors = answer.table().get("Errors")
    found = errors if isinstance(errors, list) else []
    words = [str(each.get("What", "")) for each in found if isinstance(each, dict)]
    if any(_DENIED in each for each in words):
        raise _forbidden()
    if not any(_STALE in each for each in words):
        raise StoreUnavailable("Consul rolled a transaction back")


def error_of_consul(answer: Answer) -> BackendError:
    """What an answer that is not good means. Consul's own words are not passed on."""
    if answer.status == HTTPStatus.FORBIDDEN:
        if _NO_TOKEN in answer.body:
            return AuthExpired("Consul's token has ended, or was deleted")
        return _forbidden()
    return error_of(answer, _STORE)


def _forbidden() -> Forbidden:
    return Forbidden(
        "Consul does not allow it",
        hint="see docs/backends-consul.md for the policy that envd needs",
    )


def _senseless() -> StoreUnavailable:
    return StoreUnavailable("Consul's answer makes no sense")


class ConsulBackend(MarkedBackend):
    """One place in the key-value store of one datacenter."""

    def __init__(
        self,
        options: Options,
        *,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`environ` has the credentials, `clock` is a steady one (s). Raises StoreUnsupported or
        InvalidName for options that can't be."""
        settings = read_settings(options)
        keys = ConsulKeys(settings, environ)
        sheet = Sheet(LIMITS, PRICES, read_at_once=1)
        super().__init__(options, keys, place=settings.place, sheet=sheet, clock=clock)


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "consul",
        "the key-value store of HashiCorp Consul",
        ConsulBackend,
        "PATH or /PATH",
        settings_section="consul",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
