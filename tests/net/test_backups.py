"""Backups over gRPC and over the Unix socket, through the clients that envctl uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from envd.client.connection import Connection
from envd.client.rpc import GrpcConnection
from envd.client.unix import UnixConnection
from envd.core.backups import BackupFacts, BackupListing, BackupRequest, PassphraseLock
from envd.core.errors import Denied, EnvdError, InvalidRequest, StorageError, Unavailable
from envd.net.grpc_server import GrpcServer
from envd.net.unix import UnixServer
from envd.node.backups import Backups
from tests.net.world import (
    ANY_PORT,
    READER_TOKEN,
    TOKEN,
    FakeAccess,
    Node,
    StillClock,
    until,
)

ResultT = TypeVar("ResultT")
LOCK = PassphraseLock("00" * 16, 17, 8, 1, "11" * 48, "22" * 32)
REQUEST = BackupRequest(passphrase=LOCK)
PIECES = [b"first", bytes(range(256)) * 4096, b"last"]
WAYS = ["grpc", "unix"]


@dataclass
class Maker:
    """Gives `pieces`, and then raises `error` if there is one."""

    pieces: Sequence[bytes] = tuple(PIECES)
    error: Exception | None = None
    asked: list[BackupRequest] = field(default_factory=list)
    ended: int = 0

    async def stream(self, request: BackupRequest, created_ms: int) -> AsyncGenerator[bytes, None]:
        self.asked.append(request)
        try:
            for piece in self.pieces:
                yield piece
            if self.error is not None:
                raise self.error
        finally:
            self.ended += 1


class Shelf:
    directory = "/backups"

    async def add(self, request: BackupRequest, created_ms: int) -> BackupFacts:
        raise NotImplementedError

    async def prune(self, now_ms: int) -> Sequence[str]:
        raise NotImplementedError

    async def list(self) -> Sequence[BackupFacts]:
        return [FACTS]

    async def newest_ms(self) -> int | None:
        return None


FACTS = BackupFacts(
    file="/backups/one",
    size_bytes=1 << 40,
    state="damaged",
    detail="at byte 7",
    created="2026-01-01T00:00:00Z",
    node="node-1",
    node_uid="7",
    cluster="default",
    cluster_id="c",
    version="0.1.0",
    environments=1,
    variables=2,
    commits=3,
    scheduled=True,
    locks=("passphrase", "envd_recovery_pub_x"),
)


@dataclass
class Served:
    """A node with backups, and the way to it."""

    backups: Backups
    connect: Callable[[str], Connection]

    async def use(self, action: Callable[[Connection], ResultT], token: str = TOKEN) -> ResultT:
        """Do something with a connection, in a thread, for it blocks."""

        def run() -> ResultT:
            connection = self.connect(token)
            try:
                return action(connection)
            finally:
                connection.close()

        return await asyncio.to_thread(run)

    async def received(self, request: BackupRequest = REQUEST, token: str = TOKEN) -> list[bytes]:
        return await self.use(lambda connection: list(connection.backup(request)), token)


@asynccontextmanager
async def served(
    way: str, maker: Maker, path: Path, *, offered: bool = True
) -> AsyncIterator[Served]:
    node = Node()
    backups = Backups(node.store, StillClock(), maker, node.authorizer, Shelf())
    given = backups if offered else None
    server: GrpcServer | UnixServer
    connect: Callable[[str], Connection]
    if way == "grpc":
        server = GrpcServer(node.api, FakeAccess(), ANY_PORT, backups=given)
        port = await server.start()

        def connect(token: str) -> Connection:
            return GrpcConnection([f"127.0.0.1:{port}"], token=token)
    else:
        server = UnixServer(node.api, FakeAccess(), path / "s", backups=given)
        await server.start()

        def connect(token: str) -> Connection:
            return UnixConnection(str(path / "s"), token=token)

    try:
        yield Served(backups, connect)
    finally:
        node.api.stop()
        backups.stop()
        await server.stop(0)


@pytest.mark.parametrize("way", WAYS)
async def test_a_backup_comes_whole_and_what_locks_it_arrives(way: str, tmp_path: Path) -> None:
    maker = Maker()
    by_key = BackupRequest(("envd_recovery_pub_a", "envd_recovery_pub_b"))

    async with served(way, maker, tmp_path) as node:
        first, second = await node.received(), await node.received(by_key)

    assert b"".join(first) == b"".join(second) == b"".join(PIECES)
    assert maker.asked == [REQUEST, by_key]
    assert maker.ended == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "error", [StorageError("the disk fails"), InvalidRequest("no key"), RuntimeError("a fault")]
)
async def test_a_backup_that_fails_in_the_middle_does_not_end_as_if_it_were_whole(
    way: str, error: Exception, tmp_path: Path
) -> None:
    async with served(way, Maker(error=error), tmp_path) as node:
        with pytest.raises(EnvdError) as refused:
            await node.received()

    expected = error.args[0] if isinstance(error, EnvdError) else "internal error"
    assert refused.value.message == expected


@pytest.mark.parametrize("way", WAYS)
async def test_who_lacks_the_right_gets_nothing(way: str, tmp_path: Path) -> None:
    maker = Maker()

    async with served(way, maker, tmp_path) as node:
        for action in (
            lambda connection: list(connection.backup(REQUEST)),
            lambda connection: connection.backups(),
        ):
            with pytest.raises(Denied):
                await node.use(action, READER_TOKEN)

    assert not maker.asked


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_goes_away_ends_the_work(way: str, tmp_path: Path) -> None:
    maker = Maker(pieces=[bytes(1 << 20)] * 200)

    async with served(way, maker, tmp_path) as node:
        await node.use(lambda connection: next(connection.backup(REQUEST)))
        await until(lambda: maker.ended == 1)
        maker.pieces = PIECES

        assert b"".join(await node.received()) == b"".join(PIECES)


@pytest.mark.parametrize("way", WAYS)
async def test_the_list_arrives_as_it_is(way: str, tmp_path: Path) -> None:
    async with served(way, Maker(), tmp_path) as node:
        listing = await node.use(lambda connection: connection.backups())

    assert listing == BackupListing((FACTS,), "/backups")


@pytest.mark.parametrize("way", WAYS)
async def test_a_node_that_stops_or_makes_none_says_so(way: str, tmp_path: Path) -> None:
    async with served(way, Maker(), tmp_path) as node:
        node.backups.stop()
        with pytest.raises(Unavailable, match="stopping"):
            await node.received()

    async with served(way, Maker(), tmp_path, offered=False) as node:
        with pytest.raises(EnvdError, match="makes no backups"):
            await node.received()
