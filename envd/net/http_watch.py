"""`/v1/watch`: changes as server-sent events.

    event: snapshot      an environment, once each as the watch begins
    event: snapshot-end  the snapshot is whole; id: resumes from here
    event: change        a commit became visible; id: resumes after it
    event: reset         forget what you hold: a snapshot follows
    event: problem       the watch ends for this reason (problem details)
    event: partial       nobody follows some of what is watched at the moment; id: resumes from here
    : heartbeat          nothing happened; id: resumes from here

An `id:` is a token of the node. A browser sends the last one as `Last-Event-ID` when it
connects again, so it misses nothing; other clients may send it as `token` too. Nothing is
queued for a slow client: each event is written before the next is read. A watch ends when
the client goes, or when the node stops.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, fields
from typing import Annotated, Final, assert_never

from aiohttp import hdrs, web
from msgspec import Meta

from envd.core.answers import (
    Changed,
    CommitView,
    EnvironmentView,
    Heartbeat,
    Reset,
    SnapshotEnd,
    SnapshotItem,
    WatchEvent,
)
from envd.core.errors import EnvdError
from envd.core.requests import WatchRequest
from envd.net.faults import Faults
from envd.net.http_problems import Problem, details, problem_document
from envd.net.http_routes import AnyOperation, Call, Header, Operation, Prefix, Reveal
from envd.node.api import EnvironmentApi
from envd.wire.plain import snapshot_end_to_plain, to_plain

MEDIA_TYPE: Final = "text/event-stream"
PATH: Final = "/v1/watch"
_BEGIN: Final = b"retry: 1000\n\n"
"""How long, in milliseconds, a browser waits before it connects again."""
_EVENTS_A_TURN: Final = 16
_LAST_EVENT_ID: Final = "Last-Event-ID"


@dataclass(frozen=True, slots=True)
class WatchQuery:
    prefix: Prefix = ""
    token: Annotated[
        str, Meta(description="changes after this `id`; without it, a snapshot comes first")
    ] = ""
    values: Annotated[bool, Meta(description="tell the new state with each change")] = False
    reveal: Reveal = False
    resolve: Annotated[
        bool,
        Meta(
            description="states have the variables of what they extend, and a change of one of "
            "those is a change of what extends it"
        ),
    ] = False
    exact: Annotated[
        bool, Meta(description="only the environment `prefix`, not what is below it")
    ] = False


@dataclass(frozen=True, slots=True)
class ChangeEvent(CommitView):
    """A commit that became visible.

    `state` is there where values were asked for, and null where the environment is gone.
    `through` names the base to which the commit was made, where layers are resolved and it
    was not made to `environment` itself; `revision` and `deleted` are those of `environment`.
    """

    token: str = ""
    state: EnvironmentView | None = None
    through: str = ""


@dataclass(frozen=True, slots=True)
class PartialEvent:
    """Nobody follows some of what is watched: a reset and a snapshot tell of it once it is."""

    partial_reason: str


def operations(api: EnvironmentApi, faults: Faults) -> tuple[AnyOperation, ...]:
    """The operations of this resource."""
    return (
        Operation(
            "watch",
            hdrs.METH_GET,
            PATH,
            "Follow environments by server-sent events: a snapshot, then changes.",
            _Watches(api, faults).watch,
            WatchQuery,
            headers=(Header(_LAST_EVENT_ID, "as `token`, which it beats"),),
            events={
                "snapshot": EnvironmentView,
                "snapshot-end": SnapshotEnd,
                "change": ChangeEvent,
                "reset": Reset,
                "partial": PartialEvent,
                "problem": Problem,
            },
        ),
    )


class _Watches:
    def __init__(self, api: EnvironmentApi, faults: Faults) -> None:
        self._api = api
        self._faults = faults

    async def watch(self, call: Call[WatchQuery]) -> web.StreamResponse:
        """Stream the events for as long as client and node are there."""
        query = call.query
        token = call.request.headers.get(_LAST_EVENT_ID, "") or query.token
        request = WatchRequest(
            query.prefix, token, query.values, query.reveal, query.resolve, query.exact
        )
        async with aclosing(self._api.watch(call.identity, request)) as events:
            first = asyncio.ensure_future(anext(events, None))
            try:
                # Refusals come in the first step, so they are still answered with their status.
                await asyncio.wait((first,), timeout=0)
                if first.done():
                    first.result()
                response = _response()
                await response.prepare(call.request)
                await response.write(_BEGIN)
                await self._send(response, first, events, values=query.values)
            finally:
                if not first.done():
                    first.cancel()
                    await asyncio.wait((first,))
        with suppress(ConnectionError):  # the client went away
            await response.write_eof()
        return response

    async def _send(
        self,
        response: web.StreamResponse,
        first: asyncio.Future[WatchEvent | None],
        events: AsyncGenerator[WatchEvent, None],
        *,
        values: bool,
    ) -> None:
        """Write the events; what ends them after the beginning is an event too."""
        try:
            event = await first
            sent = 0
            while event is not None:
                await response.write(event_text(event, values=values).encode())
                sent += 1
                if sent % _EVENTS_A_TURN == 0:
                    await asyncio.sleep(0)  # A write waits only where the client is slow.
                event = await anext(events, None)
        except EnvdError as error:
            await response.write(_problem(error))
        except (asyncio.CancelledError, ConnectionError):
            raise  # the client went away
        except Exception as error:  # noqa: BLE001 - the watch's outermost guard
            await response.write(_problem(self._faults.report(f"GET {PATH}", error)))


def event_text(event: WatchEvent, *, values: bool) -> str:
    """One event as it is sent; `values` says whether states go with changes."""
    match event:
        case Heartbeat(token, partial, why):
            if partial:
                return _event("partial", to_plain(PartialEvent(why)), token)
            return f": heartbeat\nid: {token}\n\n"
        case Reset():
            return _event("reset", to_plain(event))
        case SnapshotItem(state):
            return _event("snapshot", to_plain(state))
        case SnapshotEnd(token):
            return _event("snapshot-end", snapshot_end_to_plain(event), token)
        case Changed(commit, token, state, through):
            told = {one.name: getattr(commit, one.name) for one in fields(commit)}
            document = to_plain(ChangeEvent(**told, token=token, state=state, through=through))
            if not values:
                del document["state"]
            return _event("change", document, token)
        case _:
            assert_never(event)


def _event(name: str, document: object, token: str = "") -> str:
    """One event. JSON in one line holds no line break, so it is one `data:` field."""
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n" + (f"id: {token}\n\n" if token else "\n")


def _problem(error: EnvdError) -> bytes:
    return _event("problem", problem_document(details(error))).encode()


def _response() -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = MEDIA_TYPE
    response.charset = "utf-8"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
    return response
