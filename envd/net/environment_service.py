"""`envd.v1.EnvironmentService` over the node's API: messages in, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, TypeVar

from envd.core.answers import ExportGap, Identity
from envd.core.errors import EnvdError, LimitExceeded
from envd.core.requests import Consistency, ReadRequest, WriteRequest
from envd.net.grpc_calls import Calls, Context, Handler, Stopper, receive, send, stopping
from envd.net.outbox import Outbox
from envd.net.pipeline import WINDOW, Outcome, Pipeline
from envd.node.api import EnvironmentApi
from envd.node.session_reads import STALE
from envd.node.writing import Writing
from envd.telemetry.requests import Kind
from envd.wire import api as wire
from envd.wire import api_conflicts as conflicts
from envd.wire import api_streams as streams
from envd.wire._pb import environment_pb2 as pb
from envd.wire.api_errors import item_error

KeyT = TypeVar("KeyT")
SERVICE: Final = pb.DESCRIPTOR.services_by_name["EnvironmentService"].full_name
MAX_BATCH_GET: Final = 1000
MAX_BATCH_BYTES: Final = 3 << 20
"""What a BatchGet answers with, but always one: most clients take 4 MiB unless told otherwise."""
MAX_EXPORT_ITEMS: Final = 256
_READS_A_TURN: Final = 16


class EnvironmentService:
    """The methods; `handlers` is what a server registers."""

    def __init__(
        self, api: EnvironmentApi, calls: Calls, stopper: Stopper, *, window: int = WINDOW
    ) -> None:
        self._api = api
        self._calls = calls
        self._stopper = stopper
        self._window = window

    def handlers(self) -> Mapping[str, Handler]:
        """One handler for each method of the service."""
        calls = self._calls
        return {
            "Get": calls.unary("Get", pb.GetRequest.FromString, self._get),
            "BatchGet": calls.unary("BatchGet", pb.BatchGetRequest.FromString, self._batch_get),
            "List": calls.unary("List", pb.ListRequest.FromString, self._list),
            "Write": calls.unary("Write", pb.WriteRequest.FromString, self._write),
            "WriteStream": calls.both_streams("WriteStream", self._write_stream),
            "Delete": calls.unary("Delete", pb.DeleteRequest.FromString, self._delete),
            "Watch": calls.server_stream(
                "Watch", pb.WatchRequest.FromString, self._watch, Kind.WAIT
            ),
            "History": calls.unary("History", pb.HistoryRequest.FromString, self._history),
            "Rollback": calls.unary("Rollback", pb.RollbackRequest.FromString, self._rollback),
            "Conflicts": calls.unary("Conflicts", pb.ConflictsRequest.FromString, self._conflicts),
            "Resolve": calls.unary("Resolve", pb.ResolveRequest.FromString, self._resolve),
            "Export": calls.server_stream("Export", pb.ExportRequest.FromString, self._export),
            "Import": calls.both_streams("Import", self._import),
        }

    # -- one message each way ----------------------------------------------------------

    async def _get(self, identity: Identity, message: pb.GetRequest) -> bytes:
        request = wire.read_from(message)
        return await self._api.get_rendered(identity, request, wire.get_bytes)

    async def _batch_get(self, identity: Identity, message: pb.BatchGetRequest) -> bytes:
        if len(message.environments) > MAX_BATCH_GET:
            raise LimitExceeded(
                f"{len(message.environments)} environments in one call; "
                f"at most {MAX_BATCH_GET} are allowed",
                hint="ask in several calls",
            )
        level = wire.consistency_from(message.consistency)
        get = self._api.get_rendered
        asks_first = bool(message.token) and level is not Consistency.STRONG
        if asks_first and not await self._api.reaches(message.token):
            get = self._api.get_rendered_elsewhere
        results: list[bytes] = []
        size = 0
        for number, name in enumerate(message.environments, 1):
            request = ReadRequest(
                name,
                reveal=message.reveal,
                consistency=level,
                token=message.token,
                resolve=message.resolve,
            )
            result = await _batch_item(get(identity, request, wire.get_bytes), taken=size)
            size += len(result)
            results.append(result)
            if number % _READS_A_TURN == 0:
                await asyncio.sleep(0)
        return wire.batch_bytes(results)

    async def _list(self, identity: Identity, message: pb.ListRequest) -> pb.ListResponse:
        return wire.page_message(await self._api.list(identity, wire.list_from(message)))

    async def _write(self, identity: Identity, message: pb.WriteRequest) -> pb.WriteResponse:
        return wire.written_message(await self._api.write(identity, wire.write_from(message)))

    async def _delete(self, identity: Identity, message: pb.DeleteRequest) -> pb.WriteResponse:
        return wire.written_message(await self._api.delete(identity, wire.delete_from(message)))

    async def _rollback(self, identity: Identity, message: pb.RollbackRequest) -> pb.WriteResponse:
        answer = await self._api.rollback(identity, wire.rollback_from(message))
        return wire.written_message(answer)

    async def _history(self, identity: Identity, message: pb.HistoryRequest) -> pb.HistoryResponse:
        page = await self._api.history(identity, wire.history_from(message))
        return wire.history_page_message(page)

    async def _conflicts(
        self, identity: Identity, message: pb.ConflictsRequest
    ) -> pb.ConflictsResponse:
        page = await self._api.conflicts(identity, conflicts.conflicts_from(message))
        return conflicts.conflict_page_message(page)

    async def _resolve(self, identity: Identity, message: pb.ResolveRequest) -> pb.WriteResponse:
        answer = await self._api.resolve(identity, conflicts.resolve_from(message))
        return wire.written_message(answer)

    # -- streams -----------------------------------------------------------------------

    async def _watch(self, identity: Identity, message: pb.WatchRequest, context: Context) -> None:
        request = streams.watch_from(message)
        outbox = Outbox(context, streams.batch_bytes, together=message.batched)
        async with aclosing(self._api.watch(identity, request)) as events, aclosing(outbox):
            async for event in events:
                await outbox.put(
                    streams.event_message(event, values=request.values).SerializeToString()
                )
            await outbox.flush()
        raise stopping()  # a watch ends by itself only where the node stops

    async def _export(
        self, identity: Identity, message: pb.ExportRequest, context: Context
    ) -> None:
        batch: list[pb.ExportResponse.Item] = []
        size = 0
        views = self._api.export(
            identity, message.prefix, reveal=message.reveal, resolve=message.resolve
        )
        async with aclosing(views):
            async for view in views:
                if isinstance(view, ExportGap):
                    last = pb.ExportResponse(partial=True, partial_reason=view.reason)
                    last.environments.extend(batch)
                    await send(context, last)
                    return
                characters = streams.characters(view)
                full = size + characters > streams.MAX_BATCH_CHARACTERS
                if batch and (full or len(batch) == MAX_EXPORT_ITEMS):
                    await send(context, pb.ExportResponse(environments=batch))
                    batch, size = [], 0
                batch.append(streams.export_item(view))
                size += characters
        if batch:
            await send(context, pb.ExportResponse(environments=batch))

    async def _write_stream(self, identity: Identity, context: Context) -> None:
        pipeline: Pipeline[int] = self._pipeline("WriteStream", identity)
        parse = pb.WriteStreamRequest.FromString

        async def read() -> None:
            while (message := await receive(context, parse)) is not None:
                for item in message.items:
                    await pipeline.begin(item.id, partial(wire.write_from, item.write))

        async def answer(outcomes: Sequence[tuple[int, Outcome]]) -> None:
            items = [streams.stream_result(key, outcome) for key, outcome in outcomes]
            await send(context, pb.WriteStreamResponse(items=items))

        await pipeline.run(read, answer)

    async def _import(self, identity: Identity, context: Context) -> None:
        pipeline: Pipeline[str] = self._pipeline("Import", identity)
        parse = pb.ImportRequest.FromString

        async def read() -> None:
            while (message := await receive(context, parse)) is not None:
                for item in message.environments:
                    write = partial(streams.import_item_from, item, message.message)
                    await pipeline.begin(item.environment, write)

        async def answer(outcomes: Sequence[tuple[str, Outcome]]) -> None:
            results = [streams.import_result(name, outcome) for name, outcome in outcomes]
            await send(context, pb.ImportResponse(results=results))

        await pipeline.run(read, answer)

    def _pipeline(self, call: str, identity: Identity) -> Pipeline[KeyT]:
        async def begin_write(request: WriteRequest) -> Writing:
            return await self._api.begin_write(identity, request)

        return Pipeline(
            call,
            begin_write,
            self._calls.faults,
            self._stopper,
            window=self._window,
            requests=self._calls.requests,
        )


async def _batch_item(reading: Awaitable[bytes], *, taken: int) -> bytes:
    """The result of one read; raises Unavailable where no node has what the token stands for."""
    try:
        found = await reading
        if taken and taken + len(found) > MAX_BATCH_BYTES:
            raise LimitExceeded(
                "the answer is full",
                hint="ask for this environment in another call",
                reason="ANSWER_FULL",
            )
        return wire.found_bytes(found)
    except EnvdError as error:
        if error.reason == STALE:
            raise
        failed = pb.BatchGetResponse.Result(error=item_error(error))
        return failed.SerializeToString()
