"""How a client's calls are made: encoded, refused where they can't be sent, tried again.

Every write has an operation id, its caller's or one made here, so a node does it once however
often it is sent.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final

from google.protobuf.message import Message

from envd.client.servers import MAX_MESSAGE_BYTES, Servers, closed
from envd.client.write_stream import WriteStream
from envd.core.answers import WriteAnswer
from envd.core.errors import InvalidRequest, LimitExceeded, Unavailable
from envd.wire._pb import cluster_pb2 as cluster
from envd.wire._pb import environment_pb2 as pb

ENVIRONMENTS: Final = pb.DESCRIPTOR.services_by_name["EnvironmentService"].full_name
CLUSTER: Final = cluster.DESCRIPTOR.services_by_name["ClusterService"].full_name
_FRAME_BYTES: Final = 64
_NOBODY_THERE: Final = frozenset({"TIMEOUT", "NO_DAEMON", "NO_ANSWER"})
"""What the stream has tried again by itself, as often as it may."""


class Calls:
    """The calls of one client over `servers`; `timeout_s` is the deadline where none is given."""

    def __init__(self, servers: Servers, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._servers = servers
        self._writes = WriteStream(servers, f"/{ENVIRONMENTS}/WriteStream")
        self._number = partial(next, count(1))
        self._run_id = secrets.token_hex(10)
        self._process = os.getpid()
        self._closed = False

    def new_operation(self) -> str:
        """An operation id that no other write has."""
        return f"{self._run_id}{self._number():x}"

    async def write(
        self, raw: bytes, operation: str, timeout_s: float | None, *, anywhere: bool
    ) -> WriteAnswer:
        """Over the stream, again where the node has no room for it at the moment."""
        self.check_open()
        if len(raw) > MAX_MESSAGE_BYTES - _FRAME_BYTES:
            raise _too_large(len(raw))
        left_s = self.timeout_s if timeout_s is None else timeout_s
        world, backoff = self._servers.world, self._servers.backoff
        failures = 0
        while True:
            begun_s = world.monotonic_s()
            try:
                return await self._writes.write(raw, operation, timeout_s=left_s, anywhere=anywhere)
            except Unavailable as error:
                failures += 1
                wait_s = backoff.delay_s(failures, error.retry_after_ms)
                left_s -= world.monotonic_s() - begun_s + wait_s
                if error.reason in _NOBODY_THERE or left_s <= 0 or backoff.gives_up(failures):
                    raise
                await world.sleep(wait_s)

    async def single(
        self,
        method: str,
        build: Callable[[], Message],
        timeout_s: float | None,
        *,
        service: str = ENVIRONMENTS,
        operation: str | None = None,
        anywhere: bool = False,
    ) -> bytes:
        """One message each way; `operation` is the id of a write; see `Servers.call`."""
        self.check_open()
        return await self._servers.call(
            f"/{service}/{method}",
            serialized(build),
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            operation=operation,
            anywhere=anywhere,
        )

    def check_open(self) -> None:
        """Raise InvalidRequest where the client is closed, or of the process before a fork."""
        if self._process != os.getpid():
            raise forked()
        if self._closed:
            raise closed()

    async def close(self) -> None:
        """Fail the writes under way; refuse every call from now on."""
        self._closed = True
        await self._writes.close()


def forked() -> InvalidRequest:
    """The error of a client that is used after a fork."""
    return InvalidRequest(
        "this client was made before the process forked, and works in the parent only",
        hint="connect in each process that was forked, after the fork",
        reason="FORKED",
    )


def serialized(build: Callable[[], Message]) -> bytes:
    """The bytes of a message; raises InvalidRequest or LimitExceeded where it can't be sent."""
    try:
        raw = build().SerializeToString()
    except (ValueError, TypeError):
        raise not_sendable() from None
    if len(raw) > MAX_MESSAGE_BYTES - _FRAME_BYTES:
        raise _too_large(len(raw))
    return raw


def not_sendable() -> InvalidRequest:
    """Never chained to its cause: an encoding error carries the whole text."""
    return InvalidRequest(
        "the request can't be sent: a text is none or not valid UTF-8, or a number out of range"
    )


def _too_large(size: int) -> LimitExceeded:
    return LimitExceeded(
        f"the request is {size} bytes long; at most {MAX_MESSAGE_BYTES} are allowed",
        hint="write in several steps",
    )
