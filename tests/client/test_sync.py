"""The synchronous twin: the same from any thread, without a loop of the caller's."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import envd
from envd.client import snapshot
from envd.core.errors import InvalidRequest, NotFound, Unavailable
from tests.client.world import options, serving, unused_port
from tests.net.world import CANARY, PATIENCE_S, TOKEN, Node


class Server:
    """A node served in a thread of its own, so that a test may block."""

    def __init__(self) -> None:
        self.address = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.node = Node()
        async with serving(self.node) as self.address:
            self._ready.set()
            await self._stop.wait()

    def put(self, environment: str, **values: str) -> str:
        put = self.node.put(environment, **values)
        return asyncio.run_coroutine_threadsafe(put, self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def client(server: Server) -> Iterator[envd.SyncClient]:
    with envd.SyncClient(options([server.address])) as made:
        yield made


def test_calls_block_and_answer(client: envd.SyncClient) -> None:
    written = client.set("web/prod", {"A": "1", "B": "2"}, secret=True)
    client.unset("web/prod", "B")
    client.settings("web/prod", {"owner": "me"})
    assert client.get("web/prod").variables["A"].value == "1"
    assert client.list("web").environments[0].environment == "web/prod"
    assert set(client.get_many(["web/prod", "web/none"])) == {"web/prod"}
    assert len(client.history("web/prod").commits) == 3
    client.rollback("web/prod", written.revision)
    client.write(envd.WriteRequest("web/prod", (envd.Put("C", "3"),)))
    assert [dict(one.variables) for one in client.export()] == [{"A": "1", "B": "2", "C": "3"}]
    answers = list(client.import_({"web/b": {"A": "1"}}))
    assert answers[0][0] == "web/b"
    client.delete("web/prod")
    with pytest.raises(NotFound):
        client.get("web/prod")
    assert client.status().node == "node-1"


def test_a_live_environment_is_current_and_tells_changes(
    client: envd.SyncClient, server: Server
) -> None:
    server.put("web/prod", A="1")
    env = client.environment("web/prod")
    assert (env["A"], env.int("A"), env.stale, env.connected) == ("1", 1, False, True)
    assert (env.age_s, env.error) == (0.0, None)
    changes = env.changes(timeout_s=PATIENCE_S)
    told = threading.Event()
    stop = env.on_change(lambda change: told.set())

    revision = server.put("web/prod", A="2")

    assert next(changes).revision == revision
    assert env["A"] == "2"
    assert told.wait(PATIENCE_S)
    stop()
    env.wait_for(lambda now: now["A"] == "2", timeout_s=PATIENCE_S)
    with pytest.raises(TimeoutError):
        env.wait_for(revision="f" * 32, timeout_s=0)
    assert list(env.changes(timeout_s=0)) == []
    env.close()
    assert env["A"] == "2"


def test_many_threads_write_at_once(client: envd.SyncClient) -> None:
    def write(number: int) -> str:
        return client.set("web/prod", {f"V{number}": "x"}).environment

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(write, range(400))) == {"web/prod"}

    assert len(client.get("web/prod").variables) == 400


def test_readers_end_when_the_client_is_closed(server: Server) -> None:
    server.put("web/prod", A="1")
    client = envd.SyncClient(options([server.address]))
    env = client.environment("web/prod")
    changes = env.changes()
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.extend(changes))
    reader.start()

    client.close()
    client.close()
    reader.join(PATIENCE_S)

    assert not reader.is_alive()
    assert seen == []
    assert env["A"] == "1"
    with pytest.raises(InvalidRequest, match="closed"):
        client.get("web/prod")


def test_a_callback_cannot_wait_for_its_own_thread(client: envd.SyncClient, server: Server) -> None:
    server.put("web/prod", A="1")
    env = client.environment("web/prod")
    refused: list[str] = []
    told = threading.Event()

    def ask(_: envd.Change) -> None:
        try:
            client.get("web/prod")
        except InvalidRequest as error:
            refused.append(error.reason)
        told.set()

    env.on_change(ask)
    server.put("web/prod", A="2")

    assert told.wait(PATIENCE_S)
    assert refused == ["WRONG_THREAD"]


def _reasons(client: envd.SyncClient, env: envd.SyncEnvironment, answer: Any) -> None:
    actions: list[Callable[[], object]] = [
        lambda: env["A"],
        lambda: env.get("A"),
        lambda: list(env),
        lambda: client.get("web/prod"),
        client.close,
    ]
    reasons = []
    for action in actions:
        try:
            action()
            reasons.append("done")
        except InvalidRequest as error:
            reasons.append(error.reason)
    answer.put(reasons)


def test_after_a_fork_the_child_is_told_to_connect_anew(
    client: envd.SyncClient, server: Server
) -> None:
    server.put("web/prod", A="1")
    env = client.environment("web/prod")
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    child = context.Process(target=_reasons, args=(client, env, answer))
    child.start()
    child.join(PATIENCE_S)

    assert answer.get() == ["FORKED"] * 4 + ["done"]
    assert env["A"] == "1"


def test_without_a_node_it_says_so_and_closes_at_once(tmp_path: Path) -> None:
    address = f"127.0.0.1:{unused_port()}"
    with (
        envd.SyncClient(options([address], tmp_path, attempts=2)) as client,
        pytest.raises(Unavailable, match=address),
    ):
        client.environment("web/prod")


def test_its_repr_shows_no_token(client: envd.SyncClient, server: Server) -> None:
    server.put("web/prod", A=CANARY)

    assert repr(client) == f"<envd.SyncClient {server.address}>"
    assert repr(client.environment("web/prod")) == "<SyncEnvironment web/prod: 1 variables>"


_AT_EXIT = """
import atexit, sys, envd
client = envd.connect_sync(sys.argv[1], token=sys.argv[2], snapshot=sys.argv[3])
atexit.register(client.close)
env = client.environment("web/prod")
for number in range(20):
    client.set("web/prod", {"N": str(number)})
env.wait_for(lambda now: now["N"] == "19", timeout_s=30)
"""


def test_a_close_at_the_end_of_the_interpreter_keeps_the_last_state(
    server: Server, tmp_path: Path
) -> None:
    server.put("web/prod", N="-1")

    subprocess.run(
        [sys.executable, "-c", _AT_EXIT, server.address, TOKEN, str(tmp_path)],
        check=True,
        timeout=PATIENCE_S,
    )

    now_ms = time.time_ns() // 1_000_000
    kept = snapshot.load(tmp_path, server.address, "web/prod", token=TOKEN, now_ms=now_ms)
    assert kept.state.variables["N"].value == "19"
