"""`envd.v1.BackupService`, and the same two calls on the Unix socket.

A client that takes nothing for STALL_S loses its backup: while one is made, the state can't reuse
what is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

from envd.core.answers import Identity
from envd.core.backups import BackupListing, BackupRequest
from envd.core.errors import Unavailable, Unsupported
from envd.net.grpc_calls import Calls, Context, Handler, send
from envd.node.backups import Backups
from envd.telemetry.requests import Kind
from envd.wire import api_backup as wire
from envd.wire import plain_backup
from envd.wire._pb import backup_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["BackupService"].full_name
STALL_S: Final = 60.0


class BackupService:
    """The methods; `handlers` is what a server registers. Without `backups` it refuses all."""

    def __init__(self, backups: Backups | None, calls: Calls, *, stall_s: float = STALL_S) -> None:
        self._backups = backups
        self._calls = calls
        self._stall_s = stall_s

    def handlers(self) -> Mapping[str, Handler]:
        """One handler for each method of the service."""
        calls = self._calls
        return {
            "Create": calls.server_stream(
                "Create", pb.CreateBackupRequest.FromString, self._create, Kind.WAIT
            ),
            "List": calls.unary("ListBackups", pb.ListBackupsRequest.FromString, self._list),
        }

    async def _create(
        self, identity: Identity, message: pb.CreateBackupRequest, context: Context
    ) -> None:
        backups = offered(self._backups)
        async with aclosing(backups.create(identity, wire.create_from(message))) as chunks:
            async for chunk in chunks:
                try:
                    async with asyncio.timeout(self._stall_s):
                        await send(context, pb.CreateBackupResponse(data=chunk.data))
                except TimeoutError:
                    raise stalled() from None

    async def _list(self, identity: Identity, _: pb.ListBackupsRequest) -> pb.ListBackupsResponse:
        return wire.listing_message(await offered(self._backups).list(identity))


def offered(backups: Backups | None) -> Backups:
    """Raise Unsupported where the node makes no backups."""
    if backups is None:
        raise Unsupported("this node makes no backups")
    return backups


def stalled() -> Unavailable:
    """The error for a client that takes nothing any more."""
    return Unavailable(
        "the backup was given up: nobody took its bytes for too long",
        hint="try again, with a faster way to the file",
        reason="STALLED",
    )


async def items(
    backups: Backups | None, identity: Identity, request: BackupRequest
) -> AsyncGenerator[dict[str, Any], None]:
    """A backup as items of the Unix socket."""
    async with aclosing(offered(backups).create(identity, request)) as chunks:
        async for chunk in chunks:
            yield plain_backup.chunk_to_plain(chunk.data)
    yield plain_backup.END


async def listing(backups: Backups | None, identity: Identity) -> BackupListing:
    """The list, for the Unix socket."""
    return await offered(backups).list(identity)
