"""The synchronous twin: the same from any thread, without a loop of the caller's."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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


def test_a_callback_may_end_itself_and_cannot_close_the_client(
    client: envd.SyncClient, server: Server
) -> None:
    server.put("web/prod", A="1")
    env = client.environment("web/prod")
    refused: list[str] = []
    seen: list[str] = []

    def once(change: envd.Change) -> None:
        seen.append(change.revision)
        stop()
        try:
            client.close()
        except InvalidRequest as error:
            refused.append(error.reason)

    stop = env.on_change(once)
    changes = env.changes(timeout_s=PATIENCE_S)
    first = server.put("web/prod", A="2")
    assert next(changes).revision == first
    server.put("web/prod", A="3")
    env.wait_for(lambda now: now["A"] == "3", timeout_s=PATIENCE_S)

    assert client.get("web/prod").variables["A"].value == "3"
    assert (seen, refused) == ([first], ["WRONG_THREAD"])


def test_threads_that_call_while_it_closes_get_an_answer_or_that_it_is_closed(
    server: Server,
) -> None:
    server.put("web/prod", A="1")
    client = envd.SyncClient(options([server.address]))
    begun = threading.Barrier(9)

    def ask() -> str:
        begun.wait(PATIENCE_S)
        try:
            while True:
                client.get("web/prod")
                client.set("web/prod", {"A": "2"})
        except envd.EnvdError as error:
            return error.reason

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        begun.wait(PATIENCE_S)
        closing = [threading.Thread(target=client.close) for _ in range(2)]
        for thread in closing:
            thread.start()
        reasons = {future.result(PATIENCE_S) for future in asking}
        for thread in closing:
            thread.join(PATIENCE_S)

    assert reasons <= {"CLOSED", "OUTCOME_UNKNOWN"}


def test_one_that_is_closed_is_followed_anew_and_not_kept(
    client: envd.SyncClient, server: Server
) -> None:
    server.put("web/prod", A="1")

    for _ in range(5):
        env = client.environment("web/prod")
        assert env.connected
        env.close()
        env.close()

    assert client._environments == {}
    assert env["A"] == "1"
    assert list(env.changes()) == []


_NO_FILES = """
import resource, envd
from envd.client import client, sync
connect = envd.connect_sync
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    connect("127.0.0.1:1", token="x", snapshot=False)
except OSError as error:
    print(error.strerror)
"""


def test_where_no_loop_can_be_made_it_raises_and_does_not_hang() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NO_FILES],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )

    assert (done.stdout, done.returncode) == ("Too many open files\n", 0)


_UNCLOSED = """
import sys, envd
client = envd.connect_sync(sys.argv[1], token=sys.argv[2], snapshot=False)
env = client.environment("web/prod")
env.on_change(lambda change: None)
client.set("web/prod", {"N": "0"})
changes = env.changes()
print(env["N"] != "")
"""


def test_one_that_is_never_closed_does_not_disturb_the_end(server: Server) -> None:
    server.put("web/prod", N="-1")

    done = subprocess.run(
        [sys.executable, "-c", _UNCLOSED, server.address, TOKEN],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def _reasons(client: envd.SyncClient, env: envd.SyncEnvironment, answer: Any) -> None:
    actions: list[Callable[[], object]] = [
        lambda: env["A"],
        lambda: env.get("A"),
        lambda: list(env),
        lambda: list(env.items()),
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


def test_after_a_fork_the_child_is_told_to_connect_anew(server: Server) -> None:
    """Without calls of its own in the background: gRPC can't be forked while it is called."""
    with envd.SyncClient(replace(options([server.address]), learn=False)) as client:
        _fork_with(client, server)


def _fork_with(client: envd.SyncClient, server: Server) -> None:
    server.put("web/prod", A="1")
    env = client.environment("web/prod")
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    child = context.Process(target=_reasons, args=(client, env, answer))
    gc.collect()
    gc.freeze()  # What other tests left of gRPC's can't be collected in a child: it crashes.
    child.start()
    gc.unfreeze()
    child.join(PATIENCE_S)

    assert child.exitcode == 0
    assert answer.get() == ["FORKED"] * 5 + ["done"]
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
