"""A data directory whose store is emptied, because what it holds is not to come back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from envd.core.errors import StorageError
from envd.core.members import Member, MemberState
from envd.core.paxos import NEVER, Acceptor, Ballot
from envd.core.ring import partition_of
from envd.datadir import DataDirectory
from envd.storage.registers import RegisterLog
from envd.storage.store import DurableStore
from envd.system import SystemClock, SystemRng
from tests.storage.world import Writer
from tests.test_datadir import open_at

NAME = "web/prod"
PEER = Member(9, 1, 0, MemberState.ALIVE, "n9", "10.0.0.9:7421", "10.0.0.9:7420", "")
STAYS = ("local.key", "keyring", "admin.token", "cluster.secret", "members.json")
CUT_OFF = """
import sys
from pathlib import Path

left = int(sys.argv[2])


def cut_off(event, arguments):
    global left
    if event in ("os.remove", "os.rmdir", "os.rename"):
        left -= 1
        if left == 0:
            import os
            os._exit(9)


from tests.test_datadir import open_at

sys.addaudithook(cut_off)
open_at(Path(sys.argv[1]))
"""


async def opened_store(directory: DataDirectory) -> DurableStore:
    uid = directory.record.node_uid
    return await DurableStore.open(
        directory.path, directory.sealer, directory.digest_key, uid, SystemClock()
    )


async def opened_registers(directory: DataDirectory) -> RegisterLog:
    return await RegisterLog.open(directory.path, directory.sealer, directory.record.node_uid)


async def filled(path: Path) -> DataDirectory:
    """A node with a commit, a promise, a member that it knows, and a backup."""
    directory = open_at(path)
    store = await opened_store(directory)
    await put(store, directory.record.node_uid, A="1")
    await store.close()
    registers = await opened_registers(directory)
    await registers.save(NAME, Acceptor(promised=Ballot(3, 9)))
    await registers.close()
    directory.remember_members([PEER])
    (path / "backups").mkdir()
    (path / "backups" / "monday.envd-backup").write_bytes(b"backup")
    return directory


async def put(store: DurableStore, uid: int, **values: str) -> None:
    await Writer(store, uid).commit(NAME, values)


async def is_empty(directory: DataDirectory) -> bool:
    """Whether its store says nothing, and promised nothing."""
    store = await opened_store(directory)
    registers = await opened_registers(directory)
    promised = registers.get(NAME).promised
    known = [store.head(NAME), *store.digests(partition_of(NAME)), *store.vectors()]
    await registers.close()
    await store.close()
    return known == [None] and promised == NEVER


async def test_the_next_opening_empties_the_store_and_keeps_what_makes_it_a_node(
    tmp_path: Path,
) -> None:
    path = tmp_path / "node"
    running = await filled(path)
    before, kept = running.record, {name: (path / name).read_bytes() for name in STAYS}

    noted = running.renew_empty(SystemRng())
    running.close()
    again = open_at(path)

    assert await is_empty(again)
    assert noted.node_uid != before.node_uid
    assert again.record.node_uid == noted.node_uid
    assert again.record.former_uids == (before.node_uid,)
    assert before.generation < noted.generation < again.record.generation
    assert again.record.cluster_id == before.cluster_id
    assert again.digest_key == running.digest_key
    assert not again.created
    assert not again.founded
    assert {name: (path / name).read_bytes() for name in STAYS} == kept
    assert again.known_members() == (PEER,)
    assert (path / "backups" / "monday.envd-backup").read_bytes() == b"backup"
    again.close()


async def test_until_then_all_is_there(tmp_path: Path) -> None:
    running = await filled(tmp_path / "node")

    running.renew_empty(SystemRng())

    assert not await is_empty(running)
    running.close()


async def test_what_comes_afterwards_stays(tmp_path: Path) -> None:
    path = tmp_path / "node"
    running = await filled(path)
    running.renew_empty(SystemRng())
    running.close()
    emptied = open_at(path)
    store = await opened_store(emptied)
    await put(store, emptied.record.node_uid, A="2")
    await store.close()
    emptied.close()

    again = open_at(path)

    assert not again.record.empties
    assert not await is_empty(again)
    assert again.record.node_uid == emptied.record.node_uid
    again.close()


@pytest.mark.parametrize("after", range(1, 7))
async def test_an_emptying_that_was_cut_off_is_done_again(tmp_path: Path, after: int) -> None:
    path = tmp_path / "node"
    running = await filled(path)
    running.renew_empty(SystemRng())
    running.close()

    command = [sys.executable, "-c", CUT_OFF, str(path), str(after)]
    cut_off = await asyncio.to_thread(subprocess.run, command, check=False)
    noted = json.loads((path / "node.json").read_text()).get("empties", False)
    again = open_at(path)

    assert cut_off.returncode == 9
    assert noted
    assert await is_empty(again)
    assert not again.record.empties
    again.close()


async def test_nothing_is_logged_again_where_there_will_be_nothing(tmp_path: Path) -> None:
    running = await filled(tmp_path / "node")
    first = running.record.node_uid
    second = running.renew_identity(SystemRng(), 0).node_uid

    running.renew_empty(SystemRng())
    running.close()
    again = open_at(tmp_path / "node")

    assert again.record.relog_from is None
    assert again.record.former_uids == (first, second)
    again.close()


async def test_directories_that_lead_elsewhere_are_emptied_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "node"
    running = await filled(path)
    (path / "journal").rename(tmp_path / "elsewhere")
    (path / "journal").symlink_to(tmp_path / "elsewhere")
    running.renew_empty(SystemRng())
    running.close()

    again = open_at(path)

    assert (path / "journal").is_symlink()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert await is_empty(again)
    again.close()


async def test_a_note_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "node"
    running = await filled(path)
    before = running.record
    (path / "node.json").rename(path / "aside")
    (path / "node.json").mkdir()

    with pytest.raises(StorageError):
        running.renew_empty(SystemRng())

    assert running.record == before
    assert not await is_empty(running)
    running.close()
