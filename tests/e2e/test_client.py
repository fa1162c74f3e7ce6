"""A program that follows environments while its daemon is killed and restarted under it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pytest

import envd
from tests.e2e.node import PATIENCE_S, Node

CHANGES = 10_000
ENVIRONMENTS = 8
RESTARTS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)
NAMES = [f"app/e{number}" for number in range(ENVIRONMENTS)]


@dataclass
class Progress:
    """How many changes each follower has seen, and a way to wait until all have seen so many."""

    seen: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(NAMES, 0)))
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def step(self, name: str) -> None:
        async with self.news:
            self.seen[name] += 1
            self.news.notify_all()

    async def reach(self, enough: int) -> None:
        async with self.news:
            await self.news.wait_for(lambda: min(self.seen.values()) >= enough)


def fixed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def client_of(node: Node, address: str) -> envd.Client:
    token = (node.data / "admin.token").read_text().strip()
    return envd.connect(address, token=token, attempts=200, snapshot=node.directory / "snapshots")


async def write(client: envd.Client, name: str, count: int) -> Sequence[str]:
    """Write N = 1, 2, ... and return the revisions."""
    return [(await client.set(name, {"N": str(number)})).revision for number in range(1, count + 1)]


async def follow(
    env: envd.LiveEnvironment, changes: AsyncIterator[envd.Change], last: str, progress: Progress
) -> Sequence[str]:
    """The revisions of the changes up to the one after which N is `last`."""
    seen = []
    async for change in changes:
        assert (change.commits, change.caught_up) == (1, False)
        seen.append(change.revision)
        await progress.step(env.name)
        if env["N"] == last and change.revision == env.revision:
            break
    return seen


async def restart(node: Node, progress: Progress) -> None:
    """Restart the daemon again and again while the writes go on."""
    for number, kind in enumerate(RESTARTS, 1):
        await progress.reach(CHANGES // ENVIRONMENTS * number // (len(RESTARTS) + 1))
        await asyncio.to_thread(node.stop, kind)
        await asyncio.to_thread(node.start)


async def run(node: Node, address: str) -> Mapping[str, tuple[Sequence[str], Sequence[str]]]:
    """What was written and what was seen of each environment, by revision."""
    count = CHANGES // ENVIRONMENTS
    progress = Progress()
    async with client_of(node, address) as writer, client_of(node, address) as app:
        for name in NAMES:
            await writer.set(name, {"N": "0"})
        lives = [await app.environment(name) for name in NAMES]
        async with asyncio.TaskGroup() as group:
            seen = [
                group.create_task(follow(live, live.changes(), str(count), progress))
                for live in lives
            ]
            written = [group.create_task(write(writer, name, count)) for name in NAMES]
            group.create_task(restart(node, progress))
        assert [live["N"] for live in lives] == [str(count)] * len(lives)
    return {
        name: (list(wrote.result()), list(saw.result()))
        for name, wrote, saw in zip(NAMES, written, seen, strict=True)
    }


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{fixed_port()}"


@pytest.fixture
def node(stopped: Node, address: str) -> Node:
    stopped.flags = ("--listen", address)
    stopped.start()
    return stopped


async def test_a_program_sees_every_change_in_order_over_restarts(node: Node, address: str) -> None:
    async with asyncio.timeout(3 * PATIENCE_S):
        found = await run(node, address)

    assert sum(len(written) for written, _ in found.values()) == CHANGES
    for written, seen in found.values():
        assert [revision for revision, _ in groupby(seen)] == written


async def test_a_program_starts_from_its_snapshot_while_the_daemon_is_down(
    node: Node, address: str, tmp_path: Path
) -> None:
    async with client_of(node, address) as client:
        await client.set("app/prod", {"N": "1", "KEY": "canary-41f7"}, secret=True)
        await client.environment("app/prod")
    await asyncio.to_thread(node.kill)

    async with client_of(node, address) as client:
        env = await client.environment("app/prod")
        assert dict(env) == {"N": "1", "KEY": "canary-41f7"}
        assert env.stale
        changes = env.changes()

        await asyncio.to_thread(node.start)
        async with client_of(node, address) as writer:
            await writer.set("app/prod", {"N": "2"})
        async with asyncio.timeout(PATIENCE_S):
            change = await anext(changes)

        assert change.names == {"N"}
        assert env["N"] == "2"
        assert env.connected
    kept = [path.read_bytes() for path in (tmp_path / "snapshots").iterdir()]
    assert kept
    assert not any(b"canary-41f7" in raw for raw in kept)
