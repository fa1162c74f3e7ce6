"""Whole environments, many at a time: the streams of Import and Export, by column."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import grpc

from envd.client.servers import Servers
from envd.client.tasks import end
from envd.core.answers import WriteAnswer
from envd.core.errors import EnvdError, InvalidRequest, OutcomeUnknown, Unavailable
from envd.wire import api_streams
from envd.wire._pb import environment_pb2 as pb

_MAX_MESSAGE: Final = 1 << 20
_MAX_ITEMS: Final = 256
Environments: TypeAlias = (
    Mapping[str, Mapping[str, str]]
    | Iterable["tuple[str, Mapping[str, str]] | Imported"]
    | AsyncIterable["tuple[str, Mapping[str, str]] | Imported"]
)


@dataclass(frozen=True, slots=True)
class Imported:
    """One environment to import: `secret` are the names to mark, `prune` unsets all others."""

    environment: str
    variables: Mapping[str, str] = field(repr=False)
    secret: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    prune: bool = False
    if_revision: str = ""
    must_not_exist: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """One exported environment; with `masked`, values of its secret variables are missing.

    `unresolved` says why what it extends could not be read, where that was asked for.
    """

    environment: str
    revision: str
    variables: Mapping[str, str] = field(repr=False)
    secret: frozenset[str]
    settings: Mapping[str, str] = field(repr=False)
    masked: bool = False
    unresolved: str = ""


async def export(
    servers: Servers, path: str, prefix: str, *, reveal: bool, resolve: bool
) -> AsyncIterator[Exported]:
    """Every environment below a prefix; raises where the connection breaks.

    Raises Unavailable (PARTIAL) at the end where some of them could not be had.
    """
    raw = pb.ExportRequest(prefix=prefix, reveal=reveal, resolve=resolve).SerializeToString()
    at = servers.choose()
    open_stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
    channel = await servers.ready(at)
    open_stream = channel.unary_stream(path, None, None)
    call = open_stream(raw, metadata=servers.metadata())
    try:
        while isinstance(answer := await call.read(), bytes):
            message = pb.ExportResponse.FromString(answer)
            for item in message.environments:
                yield _exported(item)
            if message.partial:
                raise Unavailable(
                    f"the export is not whole: {message.partial_reason}",
                    hint="export again once the nodes that hold the rest answer",
                    reason="PARTIAL",
                )
    except grpc.aio.AioRpcError as error:
        raise servers.outcome(at, channel, error) from error
    finally:
        call.cancel()
    servers.answered(at)


async def import_(
    servers: Servers,
    path: str,
    environments: Environments,
    *,
    message: str,
    new_operation: Callable[[], str],
) -> AsyncIterator[tuple[str, WriteAnswer | EnvdError]]:
    """Write environments, one commit each; every one is answered, in order.

    Raises OutcomeUnknown where the connection breaks: those not answered may be written.
    """
    at = servers.choose()
    open_stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    channel = await servers.ready(at)
    open_stream = channel.stream_stream(path, None, None)
    call = open_stream(metadata=servers.metadata())
    sender = asyncio.create_task(
        _send(call, environments, message, new_operation), name="envd import"
    )
    try:
        while isinstance(answer := await call.read(), bytes):
            for result in pb.ImportResponse.FromString(answer).results:
                yield result.environment, api_streams.import_result_from(result)
        await sender  # An error of what gave the environments comes from here.
    except grpc.aio.AioRpcError as error:
        broken = servers.outcome(at, channel, error, "import")
        if isinstance(broken, OutcomeUnknown):
            broken.hint = "import again what was not answered; what was written stays as it is"
        raise broken from error
    except asyncio.CancelledError:
        if sender.done() and not sender.cancelled() and (failure := sender.exception()):
            raise failure from None
        raise
    finally:
        call.cancel()
        await end(sender)
    servers.answered(at)


async def _send(
    call: grpc.aio.StreamStreamCall[bytes, bytes],
    environments: Environments,
    message: str,
    new_operation: Callable[[], str],
) -> None:
    try:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            request, size = pb.ImportRequest(message=message), 0
            async for given in _each(environments):
                item = _item(given, new_operation())
                length = item.ByteSize()
                if size and (
                    size + length > _MAX_MESSAGE or len(request.environments) == _MAX_ITEMS
                ):
                    await call.write(request.SerializeToString())
                    request, size = pb.ImportRequest(message=message), 0
                request.environments.append(item)
                size += length
            if size:
                await call.write(request.SerializeToString())
            await call.done_writing()
    except BaseException:
        call.cancel()
        raise


async def _each(
    environments: Environments,
) -> AsyncIterator[tuple[str, Mapping[str, str]] | Imported]:
    if isinstance(environments, AsyncIterable):
        async for one in environments:
            yield one
        return
    items = environments.items() if isinstance(environments, Mapping) else environments
    source: Iterator[tuple[str, Mapping[str, str]] | Imported] = iter(items)
    for one in source:
        yield one


def _item(given: tuple[str, Mapping[str, str]] | Imported, operation: str) -> pb.ImportRequest.Item:
    one = given if isinstance(given, Imported) else Imported(*given)
    try:
        return pb.ImportRequest.Item(
            environment=one.environment,
            variables=pb.VariableColumns(
                names=one.variables,
                values=one.variables.values(),
                secret=[at for at, name in enumerate(one.variables) if name in one.secret]
                if one.secret
                else (),
            ),
            prune=one.prune,
            if_revision=one.if_revision,
            operation=operation,
            must_not_exist=one.must_not_exist,
            metadata=one.settings,
        )
    except (ValueError, TypeError):
        # Not chained: an encoding error carries the whole text.
        raise InvalidRequest(
            f"{one.environment!a} can't be sent: names and values are texts in UTF-8"
        ) from None


def _exported(item: pb.ExportResponse.Item) -> Exported:
    names, values = item.variables.names, item.variables.values
    secret = frozenset(names[at] for at in item.variables.secret)
    if item.masked:
        variables = {
            name: value for name, value in zip(names, values, strict=True) if name not in secret
        }
    else:
        variables = dict(zip(names, values, strict=True))
    return Exported(
        environment=item.environment,
        revision=item.revision,
        variables=variables,
        secret=secret,
        settings=dict(item.metadata),
        masked=item.masked,
        unresolved=item.unresolved,
    )
