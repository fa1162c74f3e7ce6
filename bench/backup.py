"""What a backup costs a busy node: `python -m bench.backup [--environments N]`.

A fresh daemon is filled with N environments of 20 variables of about 86 bytes. While one stream
of writes goes on, `envctl backup create` makes a backup; a second connection asks for the node's
status as fast as it can all the while, and its slowest answer bounds how long the event loop was
blocked (it also waits for the processor, like any client). Then the backup is verified and
restored, and all revisions are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from envd.client.unix import UnixConnection
from envd.core.requests import ListRequest
from envd.wire._pb import environment_pb2 as pb

VARIABLES = 20
_ITEMS = 50
_TEXT = "x" * 70


class Daemon:
    """One `envd` on free ports with its data in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        command = [sys.executable, "-m", "envd.daemon", "--data-dir", str(directory)]
        command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--gossip", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event = json.loads(line)
            if event["event"] == "node.ready":
                self.listen: str = event["listen"]
                break
        else:
            sys.exit("envd did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def connect(self) -> UnixConnection:
        return UnixConnection(str(self.directory / "envd.sock"))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def revisions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        connection, after = self.connect(), ""
        while True:
            page = connection.list(ListRequest(after=after))
            found |= {each.environment: each.revision for each in page.environments}
            if not page.next:
                return found
            after = page.next


def anonymous_mib(pid: int) -> float:
    """Memory of its own that a process has: what is mapped from files can be had back."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    return int(text.partition("RssAnon:")[2].split()[0]) / 1024 if "RssAnon:" in text else 0.0


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(each) for each in (task / "children").read_text().split()]
        except FileNotFoundError:
            continue
    return found


async def write(
    daemon: Daemon, items: AsyncIterator[list[pb.WriteStreamRequest.Item]], done: list[int]
) -> None:
    """Send batches over one WriteStream; count the answers in `done`."""

    async def requests() -> AsyncIterator[pb.WriteStreamRequest]:
        async for batch in items:
            yield pb.WriteStreamRequest(items=batch)

    token = (daemon.directory / "admin.token").read_text().strip()
    async with grpc.aio.insecure_channel(daemon.listen) as channel:
        call = channel.stream_stream(
            "/envd.v1.EnvironmentService/WriteStream",
            request_serializer=pb.WriteStreamRequest.SerializeToString,
            response_deserializer=pb.WriteStreamResponse.FromString,
        )(requests(), metadata=(("authorization", f"Bearer {token}"),))
        async for response in call:
            done[0] += len(response.items)


def item(number: int, name: str, values: dict[str, str]) -> pb.WriteStreamRequest.Item:
    puts = [pb.Put(name=variable, value=value) for variable, value in values.items()]
    return pb.WriteStreamRequest.Item(id=number, write=pb.WriteRequest(environment=name, puts=puts))


async def fillings(environments: int) -> AsyncIterator[list[pb.WriteStreamRequest.Item]]:
    for start in range(0, environments, _ITEMS):
        yield [
            item(
                n,
                f"team-{n % 97}/app-{n}",
                {f"V_{v}": f"{n}-{v}-{_TEXT}" for v in range(VARIABLES)},
            )
            for n in range(start, min(start + _ITEMS, environments))
        ]


async def changes(over: threading.Event) -> AsyncIterator[list[pb.WriteStreamRequest.Item]]:
    number = 0
    while not over.is_set():
        yield [
            item(number + k, f"busy/e{(number + k) % 200}", {"N": str(number)}) for k in range(10)
        ]
        number += 10


def ask(daemon: Daemon, over: threading.Event, waits_ms: list[float]) -> None:
    """Ask for the status again and again; note how long each answer took."""
    connection = daemon.connect()
    while not over.is_set():
        began = time.perf_counter()
        connection.status()
        waits_ms.append((time.perf_counter() - began) * 1000)


def envctl(*arguments: str, daemon: Daemon | None = None) -> float:
    """Run it; return its seconds."""
    environ = dict(os.environ)
    if daemon is not None:
        environ["ENVD_ADDR"] = f"unix:{daemon.directory / 'envd.sock'}"
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "envd.cli.main", *arguments],
        env=environ,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


async def under_load(daemon: Daemon, make: Any) -> dict[str, float]:
    """Run `make` (or wait as long as it says) under load; return what was seen meanwhile."""
    over, waits_ms, done = threading.Event(), [0.0], [0]
    asking = threading.Thread(target=ask, args=(daemon, over, waits_ms))
    asking.start()
    writing = asyncio.create_task(write(daemon, changes(over), done))
    peaks = {"daemon": 0.0, "child": 0.0}
    began = time.perf_counter()
    making = asyncio.create_task(make())
    while not making.done():
        peaks["daemon"] = max(peaks["daemon"], anonymous_mib(daemon.process.pid))
        for child in children(daemon.process.pid):
            peaks["child"] = max(peaks["child"], anonymous_mib(child))
        await asyncio.sleep(0.02)
    # Before the rest is waited for: it was sent meanwhile, but is answered later.
    seconds, answered = time.perf_counter() - began, done[0]
    over.set()
    await writing
    asking.join()
    ordered = sorted(waits_ms)
    return {
        "seconds": seconds,
        "writes_per_s": answered / seconds,
        "slowest_answer_ms": ordered[-1],
        "p99_answer_ms": ordered[len(ordered) * 99 // 100],
        "daemon_anonymous_mib": peaks["daemon"],
        "child_anonymous_mib": peaks["child"],
    }


async def run(environments: int, scratch: Path) -> dict[str, Any]:
    daemon = Daemon(scratch / "node")
    backup, key = scratch / "b", scratch / "key"
    try:
        await write(daemon, fillings(environments), [0])

        async def create() -> None:
            words = ("backup", "create", "--file", str(backup), "--new-recovery-key", str(key))
            await asyncio.to_thread(lambda: envctl(*words, daemon=daemon))

        figures: dict[str, Any] = {"environments": environments}
        figures["without"] = await under_load(daemon, lambda: asyncio.sleep(5))
        figures["backup"] = await under_load(daemon, create)
        figures["backup"]["mib"] = backup.stat().st_size / (1 << 20)
        figures["check_s"] = envctl("backup", "verify", str(backup))
        opening = ("--recovery-key", str(key))
        figures["verify_s"] = envctl("backup", "verify", str(backup), *opening)
        to = ("--data-dir", str(scratch / "restored"))
        figures["restore_s"] = envctl("backup", "restore", str(backup), *to, *opening)
        restored = Daemon(scratch / "restored")
        try:
            was, now = daemon.revisions(), restored.revisions()
        finally:
            restored.stop()
        quiet = {name for name in was if not name.startswith("busy/")}
        figures["equal_revisions"] = sum(was[name] == now.get(name) for name in quiet)
        if figures["equal_revisions"] != environments:
            sys.exit(f"revisions differ: {figures}")
        return figures
    finally:
        daemon.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=int, default=50_000, help="of 20 variables each")
    environments = parser.parse_args().environments
    with tempfile.TemporaryDirectory(prefix="envd-bench-") as scratch:
        print(json.dumps(asyncio.run(run(environments, Path(scratch))), indent=1))


if __name__ == "__main__":
    main()
