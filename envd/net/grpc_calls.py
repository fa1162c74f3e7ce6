"""What every call of the public gRPC API goes through: who calls, and what errors become.

Handlers take and give bytes, so that messages are read and written here: a message that can't
be read is the caller's error, not a fault, and nothing is decoded for a caller without a
credential.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from envd.core.answers import Identity
from envd.core.errors import EnvdError, InvalidRequest, Unauthenticated, Unavailable
from envd.net.access import Access, bearer_token
from envd.net.faults import Faults, bare
from envd.telemetry.requests import CANCELLED, OK, Kind, MethodFigures, Requests, Underway
from envd.wire.api_errors import DETAILS_KEY, code_name, status_of
from envd.wire.trace_context import TRACEPARENT

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
RequestT = TypeVar("RequestT", bound=Message)

_AUTHORIZATION: Final = "authorization"
_WRITES: Final = frozenset({"Write", "Delete", "Rollback", "Resolve"})
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class ClientGone(Exception):
    """Nobody takes what we send."""


class Stopper:
    """Ends streams that wait for their client when the node stops."""

    def __init__(self) -> None:
        self.stopping = False
        self._waiting: set[asyncio.Task[Any]] = set()

    def stop(self) -> None:
        """Cancel every task inside `ends`, and those that come from now on."""
        self.stopping = True
        for task in self._waiting:
            task.cancel()

    @contextmanager
    def ends(self) -> Iterator[None]:
        """While inside, this task is cancelled when the node stops; raises Unavailable then."""
        task = asyncio.current_task()
        assert task is not None
        if self.stopping:
            raise stopping()
        self._waiting.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if self.stopping:
                raise stopping() from None
            raise
        finally:
            self._waiting.discard(task)


def stopping() -> Unavailable:
    """The error of a stream that the node ends because it stops."""
    return Unavailable(
        "the node is stopping",
        hint="go on with another node, or with this one once it is back",
        reason="STOPPING",
        retry_after_ms=1000,
    )


class Calls:
    """Makes handlers: authenticated, counted, and with errors as rich statuses."""

    def __init__(
        self, access: Access, faults: Faults, requests: Requests | None, most: int
    ) -> None:
        """`most` calls are served at once, open streams included; those above are refused."""
        self._most = most
        self._open = 0
        self._access = access
        self.faults = faults
        self.requests = requests or Requests()

    def unary(
        self,
        name: str,
        parse: Callable[[bytes], RequestT],
        answer: Callable[[Identity, RequestT], Awaitable[Message | bytes]],
    ) -> Handler:
        """A call with one message each way; `answer` may give it as bytes."""
        figures = self.requests.of(name)

        async def handle(raw: bytes, context: Context) -> bytes:
            underway, code = self._begin(figures, context, Kind.CALL), CANCELLED
            try:
                identity = self._admitted(context)
                request = _parsed(parse, raw)
                underway.about(getattr(request, "environment", ""))
                message = await answer(identity, request)
                answered = message if isinstance(message, bytes) else message.SerializeToString()
                code = OK
                return answered
            except EnvdError as error:
                failure, code = bare(error), code_name(error)
            except Exception as error:  # noqa: BLE001 - the call's outermost guard
                failure = self.faults.report(name, error, writes=name in _WRITES)
                code = code_name(failure)
            finally:
                self._open -= 1
                underway.end(code)
            _refuse(context, failure)
            return b""

        return grpc.unary_unary_rpc_method_handler(handle)

    def server_stream(
        self,
        name: str,
        parse: Callable[[bytes], RequestT],
        serve: Callable[[Identity, RequestT, Context], Awaitable[None]],
        kind: Kind = Kind.CALL,
    ) -> Handler:
        """A call with one message in and many out."""
        figures = self.requests.of(name)

        async def handle(raw: bytes, context: Context) -> None:
            async def run(identity: Identity) -> None:
                await serve(identity, _parsed(parse, raw), context)

            await self._guard(figures, kind, context, run)

        return grpc.unary_stream_rpc_method_handler(handle)

    def both_streams(
        self, name: str, serve: Callable[[Identity, Context], Awaitable[None]]
    ) -> Handler:
        """A call with many messages each way; `serve` reads them with `receive`.

        They are writes, and counted by the one who answers them.
        """
        figures = self.requests.of(name)

        async def handle(_: object, context: Context) -> None:
            async def run(identity: Identity) -> None:
                await serve(identity, context)

            await self._guard(figures, Kind.CARRIER, context, run)

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _guard(
        self,
        figures: MethodFigures,
        kind: Kind,
        context: Context,
        run: Callable[[Identity], Awaitable[None]],
    ) -> None:
        underway, code = self._begin(figures, context, kind), CANCELLED
        try:
            await run(self._admitted(context))
            code = OK
            return
        except ClientGone as gone:
            bare(gone)
            return
        except asyncio.CancelledError as gone:
            bare(gone)
            raise
        except EnvdError as error:
            failure, code = bare(error), code_name(error)
        except Exception as error:  # noqa: BLE001 - the call's outermost guard
            failure = self.faults.report(figures.method, error)
            code = code_name(failure)
        finally:
            self._open -= 1
            underway.end(code)
        _refuse(context, failure)

    def _begin(self, figures: MethodFigures, context: Context, kind: Kind) -> Underway:
        self._open += 1
        traceparent = _traceparent(context) if self.requests.traces else ""
        return self.requests.begin(figures, traceparent, kind)

    def _admitted(self, context: Context) -> Identity:
        """Who calls; raises Unavailable where there are too many calls, Unauthenticated."""
        if self._open > self._most:
            raise Unavailable(
                f"the node serves {self._most} calls, as many as it takes",
                hint="try again, or ask another node",
                reason="OVERLOADED",
                retry_after_ms=1000,
            )
        return self._identity(context)

    def _identity(self, context: Context) -> Identity:
        authorization: str | None = None
        for key, value in context.invocation_metadata() or ():
            if key == _AUTHORIZATION:
                if authorization is not None or not isinstance(value, str):
                    raise Unauthenticated("there are two authorizations", reason="TOKEN_INVALID")
                authorization = value
        return self._access.by_token("" if authorization is None else bearer_token(authorization))


def _traceparent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == TRACEPARENT and isinstance(value, str):
            return value
    return ""


async def receive(context: Context, parse: Callable[[bytes], RequestT]) -> RequestT | None:
    """The next message of a stream, None at its end."""
    raw: object = await context.read()  # bytes, or grpc.aio.EOF
    return _parsed(parse, raw) if isinstance(raw, bytes) else None


async def send(context: Context, message: Message) -> None:
    """Send a message of a stream; waits while the client does not read. Raises ClientGone."""
    await send_bytes(context, message.SerializeToString())


async def send_bytes(context: Context, raw: bytes) -> None:
    """`send` of an encoded message."""
    try:
        await context.write(raw)
    except (grpc.aio.InternalError, grpc.aio.UsageError) as error:
        raise ClientGone from error


def _parsed(parse: Callable[[bytes], RequestT], raw: bytes) -> RequestT:
    try:
        return parse(raw)
    except DecodeError:
        # Not chained: what can't be read may still be quoted in the cause.
        raise InvalidRequest(
            "the message can't be read",
            hint="messages are those of proto/envd/v1; texts are UTF-8",
            reason="MALFORMED",
        ) from None


def _refuse(context: Context, error: EnvdError) -> None:
    """Let the call end with this error.

    `context.abort` would raise, and keep what it raised, with the request in its frames, in a
    circle until the cycle collector comes by.
    """
    status = status_of(error)
    context.set_code(_CODES[status.code])
    context.set_details(status.message)
    context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
