"""A backup of a busy node becomes another node: equal revisions, or a clear no."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from envd.core.backups import BackupRequest
from envd.core.errors import EnvdError
from envd.core.requests import HistoryRequest, ListRequest, Put, ReadRequest, WriteRequest
from envd.security.backup_keys import RecoveryKey, write_recovery_key
from envd.wire._pb import environment_pb2 as pb
from tests.e2e.node import Node, Result

ENVIRONMENTS = int(os.environ.get("ENVD_TEST_BACKUP_ENVIRONMENTS", "5000"))
"""Of 20 variables each; 50000 make the million that the README speaks of."""
VARIABLES = 20
BUSY = 200
"""Environments that writers go on changing all the while."""
KEY = RecoveryKey(bytes(range(32)))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_recovery_key(tmp_path / "recovery.key", KEY, "2026-01-01")
    return tmp_path / "recovery.key"


@pytest.fixture
def restored(stopped: Node) -> Iterator[Node]:
    """Where a backup of the node is restored to; it is not there yet."""
    other = Node(stopped.directory / "restored")
    other.directory.mkdir()
    yield other
    if other.process is not None:
        other.kill()


def restore(node: Node, backup: Path, key: Path, to: Node) -> Result:
    return node.envctl(
        "backup", "restore", str(backup), "--data-dir", str(to.data), "--recovery-key", str(key)
    )


def create(node: Node, backup: Path) -> Result:
    return node.envctl("backup", "create", "--file", str(backup), "--recovery-key", KEY.public)


def revisions(node: Node) -> dict[str, str]:
    """The revision of every environment."""
    found: dict[str, str] = {}
    after = ""
    with node.connection() as connection:
        while True:
            page = connection.list(ListRequest(after=after))
            found |= {each.environment: each.revision for each in page.environments}
            if not page.next:
                return found
            after = page.next


@dataclass
class Writers:
    """One stream of writes to the busy environments; `given` are the revisions answered."""

    node: Node
    address: str
    given: dict[str, list[str]] = field(default_factory=dict)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    warm: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once every busy environment has been written."""

    async def fill(self) -> None:
        """Make ENVIRONMENTS of VARIABLES each."""
        await self._send(ENVIRONMENTS, self._fillings(), {})

    async def run(self) -> None:
        """Change the busy environments one after the other until `stopped`."""
        await self._send(0, self._changes(), self.given)

    async def _fillings(self) -> AsyncIterator[pb.WriteStreamRequest]:
        for start in range(0, ENVIRONMENTS, 50):
            numbers = range(start, min(start + 50, ENVIRONMENTS))
            yield pb.WriteStreamRequest(
                items=[
                    write(
                        n,
                        f"team-{n % 97}/app-{n}",
                        {f"V_{v}": f"{n}-{v}-" + "x" * 70 for v in range(VARIABLES)},
                    )
                    for n in numbers
                ]
            )

    async def _changes(self) -> AsyncIterator[pb.WriteStreamRequest]:
        number = 0
        while not self.stopped.is_set():
            name = f"busy/e{number % BUSY}"
            yield pb.WriteStreamRequest(items=[write(number, name, {"N": str(number), "M": "m"})])
            number += 1

    async def _send(
        self,
        expected: int,
        requests: AsyncIterator[pb.WriteStreamRequest],
        given: dict[str, list[str]],
    ) -> None:
        token = (self.node.data / "admin.token").read_text().strip()
        async with grpc.aio.insecure_channel(self.address) as channel:
            call = channel.stream_stream(
                "/envd.v1.EnvironmentService/WriteStream",
                request_serializer=pb.WriteStreamRequest.SerializeToString,
                response_deserializer=pb.WriteStreamResponse.FromString,
            )(requests, metadata=(("authorization", f"Bearer {token}"),))
            count = 0
            async for response in call:
                for item in response.items:
                    assert item.HasField("done"), item
                    name = item.done.environment
                    given.setdefault(name, []).append(item.done.revision)
                    count += 1
                if given is self.given and len(given) == BUSY:
                    self.warm.set()
        assert count >= expected


def write(number: int, name: str, values: dict[str, str]) -> pb.WriteStreamRequest.Item:
    puts = [pb.Put(name=variable, value=value) for variable, value in values.items()]
    return pb.WriteStreamRequest.Item(id=number, write=pb.WriteRequest(environment=name, puts=puts))


async def test_a_backup_made_under_load_restores_to_equal_revisions(
    stopped: Node, restored: Node, key: Path, tmp_path: Path
) -> None:
    ready = stopped.start()
    writers = Writers(stopped, ready["listen"])
    await writers.fill()
    busy = asyncio.create_task(writers.run())
    await writers.warm.wait()
    before = {name: list(given) for name, given in writers.given.items()}
    backup = tmp_path / "b"

    made = await asyncio.to_thread(create, stopped, backup)
    writers.stopped.set()
    await busy

    assert made.code == 0, made.err
    done = await asyncio.to_thread(restore, stopped, backup, key, restored)
    assert done.code == 0, done.err
    restored.start()
    was, now = await asyncio.to_thread(lambda: (revisions(stopped), revisions(restored)))
    quiet = {name: revision for name, revision in was.items() if not name.startswith("busy/")}
    assert len(quiet) == ENVIRONMENTS
    assert {name: revision for name, revision in now.items() if name in quiet} == quiet
    for name, given in writers.given.items():
        # One of those that were answered, and none older than when the backup was asked for.
        assert now[name] in given[len(before[name]) - 1 :], name
    await asyncio.to_thread(check_other_node, stopped, restored)


def check_other_node(node: Node, restored: Node) -> None:
    """The restored node is another one, with the history, and it takes writes."""
    with node.connection() as one, restored.connection() as other:
        assert one.status().node_uid != other.status().node_uid
        assert other.status().generation == 1
        assert other.status().environments == ENVIRONMENTS + BUSY
        request = HistoryRequest("team-0/app-0")
        assert (
            one.history(request).commits[0].revision == other.history(request).commits[0].revision
        )
        assert other.write(WriteRequest("busy/e0", (Put("AFTER", "1"),))).revision
        assert other.get(ReadRequest("busy/e0", ("AFTER",))).variables["AFTER"].value == "1"
    assert (node.data / "admin.token").read_text() != (restored.data / "admin.token").read_text()


def test_one_flipped_byte_is_refused_by_name_and_nothing_is_made(
    node: Node, restored: Node, key: Path, tmp_path: Path
) -> None:
    node.envctl("set", "web/prod", "A=1")
    backup = tmp_path / "precious.envd-backup"
    assert create(node, backup).code == 0
    whole = backup.read_bytes()

    for position in range(5, len(whole), len(whole) // 5):
        changed = bytearray(whole)
        changed[position] ^= 0x20
        backup.write_bytes(changed)
        for result in (
            node.envctl("backup", "verify", str(backup)),
            restore(node, backup, key, restored),
        ):
            assert result.code == 1
            assert str(backup) in result.err
        assert not restored.data.exists()


def test_a_killed_node_ends_its_backup_and_a_killed_envctl_leaves_no_file(
    node: Node, tmp_path: Path
) -> None:
    big = tuple(Put(f"K{n}", "x" * 1000) for n in range(1000))
    with node.connection() as connection:
        for n in range(12):
            connection.write(WriteRequest(f"big/e{n}", big))
    request = BackupRequest((KEY.public,))

    with node.connection() as connection:
        pieces = connection.backup(request)
        next(pieces)
        node.kill()
        with pytest.raises(EnvdError):
            list(pieces)
    node.start()
    backup = tmp_path / "b"
    envctl = subprocess.Popen(
        [sys.executable, "-m", "envd.cli.main", "backup", "create", "--file", str(backup),
         "--new-recovery-key", str(tmp_path / "k")],
        env=node.environ(ENVD_ADDR=f"unix:{node.socket}"),
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(tmp_path.glob(".b.*.tmp")) and envctl.poll() is None:
        pass
    envctl.send_signal(signal.SIGKILL)
    envctl.wait()

    assert not backup.exists()
    assert create(node, backup).code == 0
    assert node.envctl("backup", "verify", str(backup)).code == 0


def test_a_killed_restore_is_no_node_and_can_be_repeated(
    node: Node, restored: Node, key: Path, tmp_path: Path
) -> None:
    node.envctl("set", "web/prod", "A=1")
    backup = tmp_path / "b"
    assert create(node, backup).code == 0
    restoring = subprocess.Popen(
        [sys.executable, "-m", "envd.cli.main", "backup", "restore", str(backup),
         "--data-dir", str(restored.data), "--recovery-key", str(key)],
        env=node.environ(),
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not (restored.data / "restore.partial").exists() and restoring.poll() is None:
        pass
    restoring.send_signal(signal.SIGKILL)
    with suppress(ProcessLookupError):
        restoring.wait()

    if not (restored.data / "node.json").exists():  # it may have been quicker than the signal
        assert restored.fails_to_start().code == 1
        assert restore(node, backup, key, restored).code == 0
    restored.start()
    assert restored.envctl("get", "web/prod", "A").out == "1"


def test_a_node_tells_of_its_schedule_and_of_the_backups_in_its_directory(
    stopped: Node, tmp_path: Path
) -> None:
    backups = tmp_path / "backups"
    config = tmp_path / "envd.toml"
    config.write_text(
        f'[backup]\ndirectory = "{backups}"\nevery = "24h"\nrecovery_keys = ["{KEY.public}"]\n'
    )
    stopped.start("--config", str(config))
    backups.mkdir()
    assert create(stopped, backups / "by-hand.envd-backup").code == 0

    listed = stopped.envctl("backup", "list")

    assert "by-hand.envd-backup" in listed.out
    assert f"they are in {backups} of the node; every 1d; the next at 20" in listed.err
    assert stopped.stop() == 0
    config.write_text(f'[backup]\ndirectory = "{backups}"\nevery = "24h"\n')
    refused = stopped.fails_to_start("--config", str(config))
    assert refused.code == 1
    assert "recovery_keys" in refused.err
    assert "hint: make one with" in refused.err


def test_a_backup_over_grpc_is_the_same(node: Node, tmp_path: Path) -> None:
    listen = next(event for event in node.events if event["event"] == "node.ready")["listen"]
    token = (node.data / "admin.token").read_text().strip()
    node.envctl("set", "web/prod", "A=1")

    made = node.envctl(
        "--server", listen, "backup", "create", "--file", str(tmp_path / "b"),
        "--recovery-key", KEY.public, ENVD_TOKEN=token,
    )  # fmt: skip

    assert made.code == 0, made.err
    assert "1 environment, 1 variable" in made.out
    assert node.envctl("backup", "verify", str(tmp_path / "b")).code == 0
