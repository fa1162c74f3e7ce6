"""`grpc.health.v1`: whether the node takes requests, open to everybody.

A watch of it ends when the node stops, after it has told so; the ready-made servicer holds it
open, and with it the whole stop, until the grace is over.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from envd.net.grpc_calls import Handler

SERVICE: Final = "grpc.health.v1.Health"
MAX_WATCHES: Final = 100
"""Health is asked without a credential, so what it holds is bounded tightly."""
_MALFORMED: Final = (grpc.StatusCode.INVALID_ARGUMENT, "the message can't be read")


class Health:
    """The status of the server and of the services that it names."""

    def __init__(self, *services: str) -> None:
        self._services = frozenset({"", *services})
        self._serving = False
        self._ending = False
        self._watches = 0
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Tell whether the node takes requests."""
        self._serving = serving
        self._tell()

    def end(self) -> None:
        """The node stops: not serving, and every watch ends."""
        self._serving, self._ending = False, True
        self._tell()

    def handlers(self) -> dict[str, Handler]:
        """One handler for each method of the service."""
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, _parsed, serialize),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, _parsed, serialize),
        }

    async def _check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if request is None:
            return _refuse(context, *_MALFORMED)
        if request.service not in self._services:
            return _refuse(context, grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return self._response(request.service)

    async def _watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if request is None:
            return _refuse(context, *_MALFORMED)
        if self._watches >= MAX_WATCHES:
            exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
            return _refuse(context, exhausted, "too many watches of health")
        self._watches += 1
        try:
            told = None
            while True:
                changed = self._changed
                response = self._response(request.service)
                if response != told:
                    await context.write(response)
                    told = response
                elif self._ending:
                    return None
                else:
                    await changed.wait()
        finally:
            self._watches -= 1

    def _response(self, service: str) -> Any:
        statuses = health_pb2.HealthCheckResponse
        if service not in self._services:
            return statuses(status=statuses.SERVICE_UNKNOWN)
        return statuses(status=statuses.SERVING if self._serving else statuses.NOT_SERVING)

    def _tell(self) -> None:
        """Wake those that wait; the next wait is for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()


def _parsed(raw: bytes) -> Any:
    """The request, None for what is no message: raised here, it would be logged as our error."""
    try:
        return health_pb2.HealthCheckRequest.FromString(raw)
    except DecodeError:
        return None


def _refuse(
    context: grpc.aio.ServicerContext[Any, Any], code: grpc.StatusCode, details: str
) -> None:
    """Let the call end so; not by `abort`, see `grpc_calls`."""
    context.set_code(code)
    context.set_details(details)
