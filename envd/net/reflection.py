"""`grpc.reflection.v1alpha`: which services there are, open to everybody.

The servicer is the ready-made one. Only what is no message does not get to it: there that
would be an error of the server, logged with its trace, for whoever sends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from envd.net.grpc_calls import Handler

SERVICE: Final[str] = reflection.SERVICE_NAME


def handlers(services: Sequence[str]) -> dict[str, Handler]:
    """One handler for each method of the service, which tells of `services` and of itself."""
    servicer = reflection.aio.ReflectionServicer((*services, SERVICE))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        _request,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return {"ServerReflectionInfo": handler}


def _request(raw: bytes) -> Any:
    """The request; one that asks for nothing, which is answered with an error, for no message."""
    try:
        return reflection_pb2.ServerReflectionRequest.FromString(raw)
    except DecodeError:
        return reflection_pb2.ServerReflectionRequest()
