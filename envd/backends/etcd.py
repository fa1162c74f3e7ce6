"""The `etcd` backend: keys of etcd 3.4 and later, through its JSON gateway.

CAS             a transaction that compares `mod_revision`; a delete too
STAMP_ATOMIC    under a key beside the value, written in the same transaction (`marked_keys`)
LIST_VALUES     a range brings values; all its pages are of one revision
WATCH           with deletes; where what was not told is compacted away, a hint of anything
no ATOMIC_BATCH a request may have 1.5 MiB, so what one `apply` takes does not always fit one
                transaction: each operation is one

A version is the `mod_revision` of the value. A revision is given once in the life of a cluster.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from envd.backends.contract import Limits, Options, PriceSheet, Registration
from envd.backends.errors import StoreUnavailable
from envd.backends.etcd_client import EtcdClient, decoded, encoded, error_of_words, number
from envd.backends.etcd_settings import CREDENTIALS_HINT, read_settings
from envd.backends.marked_keys import MARK, Kept, Raw, mark_of
from envd.backends.marked_store import CAPABILITIES, Change, MarkedBackend, Sheet, Swapped

LIMITS: Final = Limits(
    max_value_bytes=(3 << 19) - (16 << 10),
    max_name_bytes=1024,
    page_items=50,
    batch=50,
    get_batch=50,
    concurrency=4,
)
"""A request may have 1.5 MiB (`--max-request-bytes`), with the keys and the note. A transaction
may have 128 operations (`--max-txn-ops`)."""
PRICES: Final = PriceSheet(
    "self-hosted",
    "etcd",
    "2026-11-30",
    source="no fee: what the machines cost that it runs on is not counted",
)
_RANGE: Final = "/v3/kv/range"
_TXN: Final = "/v3/kv/txn"


class EtcdKeys:
    """The keys of one cluster."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client

    @property
    def identity(self) -> str:
        return self._client.identity

    async def open(self) -> None:
        await self._client.open()

    async def close(self) -> None:
        await self._client.close()

    async def reach(self, prefix: str) -> None:
        body = {**_below(prefix), "limit": "1", "keys_only": True}
        answer = await self._client.ask(_RANGE, body, anywhere=True)
        if not _revision(answer):
            raise _senseless()

    async def read(self, paths: Sequence[str]) -> dict[str, Kept]:
        """One transaction that only reads: a range for each value with its note."""
        ranges = [{"request_range": _pair(each)} for each in paths]
        answer = await self._client.ask(_TXN, {"success": ranges})
        responses = answer.get("responses")
        if not isinstance(responses, list) or len(responses) != len(paths):
            raise _senseless()
        return {
            path: _kept(path, each.get("response_range") if isinstance(each, dict) else None)
            for path, each in zip(paths, responses, strict=True)
        }

    async def pages(self, prefix: str) -> AsyncIterator[tuple[Sequence[Raw], bool]]:
        """Range by range; the revision of the first is that of all."""
        span = _below(prefix)
        body: dict[str, object] = {**span, "limit": str(2 * LIMITS.page_items)}
        while True:
            answer = await self._client.ask(_RANGE, body)
            raws = _raws(answer)
            is_last = answer.get("more") is not True
            revision = _revision(answer)
            if not revision or (not raws and not is_last):
                raise _senseless()
            yield raws, is_last
            if is_last:
                return
            body.setdefault("revision", str(revision))
            body["key"] = encoded(raws[-1].path.encode(*_AS_IS) + b"\0")

    async def swap(self, over: Kept, value: bytes | None, mark: bytes) -> Swapped:
        path, beside = encoded(over.path), encoded(mark_of(over.path))
        if value is None:
            writes: list[dict[str, object]] = [
                {"request_delete_range": {"key": each}} for each in (path, beside)
            ]
        else:
            writes = [
                {"request_put": {"key": path, "value": encoded(value)}},
                {"request_put": {"key": beside, "value": encoded(mark)}},
            ]
        compare = {"key": path, "target": "MOD", "result": "EQUAL", "mod_revision": over.changed}
        look = {"request_range": {"key": path, "keys_only": True}}
        body = {"compare": [compare], "success": writes, "failure": [look]}
        answer = await self._client.ask(_TXN, body)
        responses = answer.get("responses")
        if not _revision(answer) or not isinstance(responses, list) or not responses:
            raise _senseless()
        if answer.get("succeeded") is True:
            return Swapped(True, 0 if value is None else _revision(answer))
        found = responses[0].get("response_range") if isinstance(responses[0], dict) else None
        return Swapped(False, next((each.changed for each in _raws(found)), 0))

    async def changes(self, prefix: str, cursor: str) -> AsyncIterator[Change]:
        """`cursor` is the last revision that was told of whole."""
        told = number(cursor)
        while True:
            # In pieces, since what was missed is told at once; and in touch also when idle.
            create: dict[str, object] = {
                **_below(prefix),
                "fragment": True,
                "progress_notify": True,
            }
            if told:
                create["start_revision"] = str(told + 1)
            compacted = False
            watching = self._client.stream("/v3/watch", {"create_request": create})
            async with watching as stream, aclosing(stream) as results:
                async for result in results:
                    told = max(told, _revision(result) if result.get("created") else 0)
                    if result.get("canceled") is True:
                        _raise_unless_compacted(result)
                        compacted = True
                        break
                    for change in _told(result):
                        told = number(change.cursor)
                        yield change
            if not compacted:
                raise StoreUnavailable("etcd ended a watch")
            yield Change(None, str(told))


_AS_IS: Final = ("utf-8", "surrogateescape")
"""Keys of others may be no text."""


def _below(prefix: str) -> dict[str, object]:
    """The span of keys that begin so. Example: "web/" is ["web/", "web0")."""
    raw = prefix.encode()
    return {"key": encoded(raw), "range_end": encoded(raw[:-1] + bytes([raw[-1] + 1]))}


def _pair(path: str) -> dict[str, object]:
    """The span from a value to its note, in which hardly anything else can be."""
    return {"key": encoded(path), "range_end": encoded(mark_of(path).encode() + b"\0")}


def _raws(answer: object) -> list[Raw]:
    """The keys in the answer to a range."""
    found = answer.get("kvs", []) if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise _senseless()
    return [_raw(each) for each in found]


def _raw(found: object) -> Raw:
    entry: dict[str, Any] = found if isinstance(found, dict) else {}
    path = _path_of(entry)
    made, changed = number(entry.get("create_revision")), number(entry.get("mod_revision"))
    if not path or not made or not changed:
        raise _senseless()
    return Raw(path, made, changed, decoded(entry.get("value")))


def _kept(path: str, answer: object) -> Kept:
    raws = {each.path: each for each in _raws(answer)}
    return Kept(path, raws.get(path), raws.get(mark_of(path)))


def _revision(answer: object) -> int:
    header = answer.get("header") if isinstance(answer, dict) else None
    return number(header.get("revision")) if isinstance(header, dict) else 0


def _told(result: Mapping[str, Any]) -> list[Change]:
    """What a message of a watch tells: one change for each value, with the last revision that it
    has told of whole by then."""
    events = result.get("events", [])
    if not isinstance(events, list):
        raise _senseless()
    found = [(_path_of(_kv(each)), number(_kv(each).get("mod_revision"))) for each in events]
    values = [each for each in found if not each[0].endswith(MARK)]
    # The rest of a message in pieces may go on with the same revision.
    last = found[-1][1] if found and result.get("fragment") is True else 0
    after = [revision for _, revision in values[1:]] + [last]
    return [
        Change(path, str(revision if revision != following else revision - 1))
        for (path, revision), following in zip(values, after, strict=False)
    ]


def _path_of(entry: Mapping[str, Any]) -> str:
    return decoded(entry.get("key")).decode(*_AS_IS)


def _kv(event: object) -> dict[str, Any]:
    found = event.get("kv") if isinstance(event, dict) else None
    if not isinstance(found, dict):
        raise _senseless()
    return found


def _raise_unless_compacted(result: Mapping[str, Any]) -> None:
    if number(result.get("compact_revision")):
        return
    reason = str(result.get("cancel_reason", ""))
    raise error_of_words(reason) or StoreUnavailable("etcd ended a watch")


def _senseless() -> StoreUnavailable:
    return StoreUnavailable("etcd's answer makes no sense")


class EtcdBackend(MarkedBackend):
    """One place in one cluster of etcd."""

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
        keys = EtcdKeys(EtcdClient(settings, environ))
        sheet = Sheet(LIMITS, PRICES, read_at_once=LIMITS.get_batch)
        super().__init__(options, keys, place=settings.place, sheet=sheet, clock=clock)


def registration() -> Registration:
    """The registration of the backend."""
    return Registration(
        "etcd",
        "etcd 3.4 and later, through its JSON gateway",
        EtcdBackend,
        "PATH or /PATH",
        settings_section="etcd",
        credentials_hint=CREDENTIALS_HINT,
        capabilities=CAPABILITIES,
    )
