"""The servers of a client: one connection for all, what its failures count, and whom it trusts."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

import envd
from envd.client.backoff import Backoff
from envd.client.picking import RoundRobin, Server
from envd.client.servers import Servers
from envd.core.errors import Unavailable
from envd.net.grpc_server import GrpcServer
from tests.client.world import options, scripted, serving, unused_port
from tests.net.world import ANY_PORT, TOKEN, FakeAccess, HeldStore, Node, until


def servers_at(*addresses: str) -> Servers:
    world = options(addresses).world
    return Servers([Server(address) for address in addresses], RoundRobin(), Backoff(), world)


async def test_all_that_broke_with_one_connection_is_one_failure() -> None:
    async with scripted() as server:
        servers = servers_at(server.address)
        channel = await servers.ready(server.address)

        for _ in range(100):
            servers.failed(server.address, channel)

        assert not servers.is_left_alone(server.address)
        for _ in range(2):
            servers.failed(server.address, await servers.ready(server.address))
        assert servers.is_left_alone(server.address)
        await servers.close()


async def test_who_cannot_wait_does_not_end_the_attempt_of_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        servers = servers_at(address)
        patient = asyncio.create_task(servers.ready(address))
        await asyncio.sleep(0)

        for _ in range(5):
            with pytest.raises(Unavailable) as caught:
                await servers.ready(address, 0)
            assert caught.value.reason == "TIMEOUT"

        assert not patient.done()
        assert not servers.is_left_alone(address)
        patient.cancel()
        await servers.close()


async def test_what_a_stopping_server_still_answers_is_not_cut_off_by_a_new_call() -> None:
    store = HeldStore()
    node = Node(store)
    server = GrpcServer(node.api, FakeAccess(), ANY_PORT)
    address = f"127.0.0.1:{await server.start()}"
    server.set_serving(True)
    async with envd.Client(options([address], attempts=2)) as client:
        writing = asyncio.create_task(client.set("web/other", {"A": "1"}))
        await until(lambda: len(store.appended) == 1)
        stopping = asyncio.create_task(server.stop(30))
        await until(lambda: not _takes_connections(address))

        with pytest.raises(Unavailable):
            await client.get("web/prod")
        store.gate.set()

        assert (await writing).environment == "web/other"
        await stopping
        async with serving(node, address):
            assert (await client.set("web/other", {"A": "2"})).environment == "web/other"


def _takes_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except OSError:
        return False
    return True


async def test_a_token_from_a_file_goes_to_nobody_else(tmp_path: Path) -> None:
    asked: list[str] = []

    def nobody(address: str) -> bool:
        asked.append(address)
        return False

    node = Node()
    await node.put("web/prod", A="1")
    async with serving(node) as address:
        servers = Servers(
            [Server(address)],
            RoundRobin(),
            Backoff(attempts=2),
            options([address]).world,
            token=TOKEN,
            may_have_token=nobody,
        )
        with pytest.raises(Unavailable, match="another user of this machine listens"):
            await servers.call("/x/Y", b"", timeout_s=30)
        await servers.close()

    assert asked == [address] * 2


async def test_the_local_token_is_known_while_the_daemon_is_down(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text(f"{TOKEN}\n")
    environ = {"ENVD_DATA_DIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    client = envd.connect(environ=environ)

    assert client._token == TOKEN
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert client._servers._may_have_token(f"127.0.0.1:{ours.getsockname()[1]}")
    assert not client._servers._may_have_token(f"127.0.0.1:{unused_port()}")
    said = envd.connect(environ={**environ, "ENVD_TOKEN": "said"})
    assert said._servers._may_have_token(f"127.0.0.1:{unused_port()}")
