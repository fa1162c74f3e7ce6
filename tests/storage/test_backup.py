"""A backup and the node that is restored from it: the same content, under other keys."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import lmdb
import pytest

from envd.core.backups import BackupRequest
from envd.core.environment import Environment
from envd.core.errors import Corrupt, KeyFileError, StorageError
from envd.core.ring import partition_of
from envd.core.topology import TOPOLOGY
from envd.core.versions import Cursor
from envd.datadir import DataDirectory, open_data_directory
from envd.restoring import Credential
from envd.security.backup_keys import RecoveryKey
from envd.storage import pages
from envd.storage.backup_read import BackupFile, facts
from envd.storage.store import DurableStore
from envd.system import SystemRng
from tests.storage.backups import (
    KEEPING,
    PASSPHRASE,
    RECOVERY,
    backup_of,
    by_passphrase,
    made_state,
    opened,
)
from tests.storage.others import at, base_of, commit_at, merged, shipped
from tests.storage.test_state import overwrite
from tests.storage.world import (
    DIGEST_KEY,
    CountingRng,
    StillClock,
    Writer,
    open_store,
    values_of,
)

NAMES = ("web/prod", "web/dev", "gone", "large")


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    await made_state(tmp_path / "data")
    return tmp_path / "data"


def restore(backup: Path, to: Path, rng: SystemRng | CountingRng | None = None) -> None:
    with BackupFile(backup) as file:
        opened(file).restore(to, to / "local.key", rng or SystemRng())


def flip(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)


def open_directory(path: Path) -> DataDirectory:
    return open_data_directory(
        path, key_file=path / "local.key", admin_token="", insecure=False, rng=SystemRng()
    )


class Restored:
    """A restored directory, opened as a daemon does."""

    def __init__(self, path: Path) -> None:
        self.directory = open_directory(path)
        self.store: DurableStore

    async def __aenter__(self) -> Self:
        self.store = await DurableStore.open(
            self.directory.path,
            self.directory.sealer,
            self.directory.digest_key,
            self.directory.record.node_uid,
            StillClock(),
            KEEPING,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()
        self.directory.close()


@pytest.fixture
async def backup(data: Path, tmp_path: Path) -> Path:
    return backup_of(data, tmp_path / "b")


@pytest.fixture
async def source(data: Path, backup: Path) -> AsyncIterator[DurableStore]:
    """The node that the backup is of; it is opened behind it: LMDB opens a file once only."""
    store = await open_store(data, options=KEEPING)
    yield store
    await store.close()


async def test_a_restored_node_holds_the_same_states_histories_and_operations(
    backup: Path, source: DurableStore, tmp_path: Path
) -> None:
    restore(backup, tmp_path / "new")

    async with Restored(tmp_path / "new") as node:
        for name in NAMES:
            assert node.store.visible(name) == source.visible(name), name
            assert node.store.commits(name, None, 99) == source.commits(name, None, 99)
            assert node.store.base(name) == source.base(name)
        assert node.store.base("web/prod").variables
        assert node.store.environments("", "", 99) == source.environments("", "", 99)
        assert node.store.environment_count() == source.environment_count() == 3
        assert node.store.find_operation("ann", "op-1") == source.find_operation("ann", "op-1")
        assert node.store.find_operation("ann", "op-1") is not None
        partition = partition_of("web/dev")
        assert [node.store.last_seq(partition, origin) for origin in (7, 99)] == [1, 1]


async def test_a_restored_node_tells_the_same_conflicts_and_fingerprints(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    store = await open_store(data, options=KEEPING)
    for uid in (8, 9):
        for name in ("web/prod", "a", "web"):
            await shipped(store, commit_at(at(1, uid), name, {"X": str(uid)}))
    await merged(store, base_of("based", [commit_at(at(1), "based", {"X": "1"})]))
    store.advance({}, {9: Cursor(5, 5)})
    await store.quarantine(b"\x63 of another time")
    await store.flush()
    conflicts, roots = store.conflicts("", "", 99), store.roots()
    await store.close()

    restore(backup_of(data, tmp_path / "b"), tmp_path / "new")

    async with Restored(tmp_path / "new") as node:
        assert [record.environment for record in conflicts] == ["a", "web", "web/prod"]
        assert node.store.conflicts("", "", 99) == conflicts
        assert node.store.roots() == roots
        assert node.store.base("based").variables.keys() == {"X"}
        assert node.store.cursor(9) == Cursor()  # Whose logs those are, the new node never read.
        assert node.store.quarantined() == []


async def test_the_topology_stays_behind_and_the_system_s_other_environments_do_not(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    store = await open_store(data, options=KEEPING)
    for n in range(5):  # More than is kept, so that there is a base too.
        for name in (TOPOLOGY, "sys/other", "sysadmin"):
            for uid in (8, 9):
                await shipped(store, commit_at(at(n, uid), name, {"X": f"{uid} {n}"}))
    await store.flush()
    await store.close()
    made = backup_of(data, tmp_path / "b")
    with BackupFile(made) as file:
        figures = opened(file).verify()

    restore(made, tmp_path / "new")

    async with Restored(tmp_path / "new") as node:
        found = node.store
        assert found.visible(TOPOLOGY) is None
        assert (found.commits(TOPOLOGY, None, 9), found.base(TOPOLOGY)) == (
            *([], Environment(TOPOLOGY)),
        )
        for name in ("sys/other", "sysadmin"):
            assert found.visible(name) is not None
            assert found.commits(name, None, 9)
            assert found.base(name).variables
        assert {record.environment for record in found.conflicts("sys", "", 99)} == {"sys/other"}
        assert [each.environment for each in found.environments("", "", 99)] == ["sysadmin"]
        assert [each.environment for each in found.environments("sys", "", 99)] == ["sys/other"]
        assert (found.environment_count(), found.variable_count()) == (1, 1)
        assert (figures.environments, figures.variables) == (1, 1)


async def test_a_restored_node_is_another_one_in_a_cluster_of_its_own(
    backup: Path, tmp_path: Path
) -> None:

    restore(backup, tmp_path / "one")
    restore(backup, tmp_path / "two")

    directories = [open_directory(tmp_path / name) for name in ("one", "two")]
    records = [directory.record for directory in directories]
    assert len({record.node_uid for record in records} | {7}) == 3
    assert len({record.cluster_id for record in records} | {"c" * 32}) == 3
    assert [record.generation for record in records] == [1, 1]
    assert all(directory.digest_key == DIGEST_KEY for directory in directories)
    assert directories[0].admin_token != directories[1].admin_token
    assert directories[0].sealer.storage_keys() != directories[1].sealer.storage_keys()
    for directory in directories:
        directory.close()


async def test_a_restored_node_stamps_above_everything_it_holds(
    backup: Path, tmp_path: Path
) -> None:
    restore(backup, tmp_path / "new")

    async with Restored(tmp_path / "new") as node:
        highest = max(
            commit.stamp.hlc for name in NAMES for commit in node.store.commits(name, None, 99)
        )
        assert node.store.highest_hlc() >= highest


async def test_a_restored_node_takes_writes_and_keeps_them(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "new")
    async with Restored(tmp_path / "new") as node:
        writer = Writer(node.store, node.directory.record.node_uid, hlc=node.store.highest_hlc())
        await writer.commit("web/dev", {"NEW": "3"})

    async with Restored(tmp_path / "new") as node:
        assert values_of(node.store, "web/dev") == {"ONE": "1", "FROM_ELSEWHERE": "2", "NEW": "3"}
        assert node.store.visible("gone") is not None


async def test_the_facts_of_a_backup_are_told_without_a_key(data: Path, tmp_path: Path) -> None:
    path = backup_of(data, tmp_path / "b", by_passphrase())

    told = facts(path)

    assert (told.environments, told.variables, told.commits) == (3, 108, 8)
    assert (told.node, told.cluster, told.locks) == ("node-1", "default", ("passphrase",))
    assert (told.state, told.created) == ("whole", "2023-11-14T22:13:20Z")
    assert facts(path, check=True).state == "checked"


async def test_no_value_name_or_key_of_the_node_stands_in_a_backup(
    data: Path, tmp_path: Path
) -> None:
    raw = backup_of(data, tmp_path / "b").read_bytes()

    assert not [word for word in (b"canary", b"KEY_", b"web/", DIGEST_KEY) if word in raw]


async def test_a_passphrase_opens_what_it_locked_and_no_other_does(
    data: Path, tmp_path: Path
) -> None:
    with BackupFile(backup_of(data, tmp_path / "b", by_passphrase())) as file:
        figures = opened(file, Credential(passphrase=PASSPHRASE)).verify()
        for other in (Credential(passphrase="correct horse"), Credential(recovery_key=OTHER)):
            with pytest.raises(KeyFileError) as refused:
                opened(file, other)
            assert refused.value.reason == "BACKUP_KEY_WRONG"
            assert str(file.path) in refused.value.message

    assert figures.environments == 3


OTHER = RecoveryKey(bytes(32))


async def test_any_of_several_recovery_keys_opens_a_backup(data: Path, tmp_path: Path) -> None:
    request = BackupRequest((RECOVERY.public, OTHER.public))

    with BackupFile(backup_of(data, tmp_path / "b", request)) as file:
        for key in (RECOVERY, OTHER):
            assert opened(file, Credential(recovery_key=key)).verify().environments == 3


async def test_damage_in_the_state_stops_a_backup(data: Path, tmp_path: Path) -> None:
    overwrite(data / "state", b"history", b"another counter", at=30)

    with pytest.raises(Corrupt) as refused:
        backup_of(data, tmp_path / "b")

    assert "history" in refused.value.message


async def test_a_state_whose_history_lacks_a_commit_is_not_backed_up_as_if_it_were_whole(
    data: Path, tmp_path: Path
) -> None:
    with (
        lmdb.open(str(data / "state"), max_dbs=len(pages.TABLES), map_size=64 << 20) as env,
        env.begin(write=True) as transaction,
    ):
        table = env.open_db(b"history", txn=transaction)
        with transaction.cursor(db=table) as cursor:
            cursor.first()
            cursor.delete()

    with pytest.raises(Corrupt) as refused:
        backup_of(data, tmp_path / "b")

    assert "history" in refused.value.message


# -- the directory ---------------------------------------------------------------------------------


async def test_a_restore_overwrites_nothing(backup: Path, tmp_path: Path) -> None:
    for name in ("node.json", "local.key", "precious.txt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")

        with pytest.raises(StorageError) as refused:
            restore(backup, tmp_path / name)

        assert refused.value.reason == "NOT_EMPTY"
        assert [path.name for path in (tmp_path / name).iterdir()] == [name]
        assert (tmp_path / name / name).read_text() == "mine"


async def test_a_restore_that_fails_leaves_the_directory_as_it_was(
    backup: Path, tmp_path: Path
) -> None:
    flip(backup, -2000)  # behind the first rows, which are read before anything is written
    (tmp_path / "there").mkdir()

    for name in ("there", "new"):
        with pytest.raises(Corrupt):
            restore(backup, tmp_path / name)

    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["lock"]


@pytest.mark.parametrize("step", range(1, 9))
async def test_a_restore_cut_off_anywhere_is_no_node_and_is_begun_anew(
    backup: Path, tmp_path: Path, step: int
) -> None:
    new, whole = tmp_path / "new", tmp_path / "whole"
    restore(backup, whole)
    new.mkdir()
    partial = new / "restore.partial"
    partial.mkdir()
    moved = ("local.key", "keyring", "admin.token", "state")
    for number, name in enumerate(moved, 1):  # what is there after `step` steps
        (whole / name).rename((new if number < step - 3 else partial) / name)

    with pytest.raises(StorageError) as refused:
        open_directory(new)
    assert refused.value.reason == "RESTORE_CUT_OFF"
    restore(backup, new)

    async with Restored(new) as node:
        assert values_of(node.store, "web/dev") == {"ONE": "1", "FROM_ELSEWHERE": "2"}
    assert not partial.exists()


def test_a_key_file_of_another_name_may_lie_in_the_directory(backup: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    key = new / "my.key"
    flip(backup, -2000)
    with pytest.raises(Corrupt), BackupFile(backup) as file:
        opened(file).restore(new, key, SystemRng())
    made = key.read_bytes()  # what a restore that failed has left

    flip(backup, -2000)
    with BackupFile(backup) as file:
        opened(file).restore(new, key, SystemRng())

    assert key.read_bytes() == made
    assert not (new / "local.key").exists()
    with pytest.raises(StorageError), BackupFile(backup) as file:
        opened(file).restore(new, new / "node.json", SystemRng())


async def test_a_key_file_elsewhere_is_used_or_made(backup: Path, tmp_path: Path) -> None:
    key = tmp_path / "keys.key"

    for name in ("one", "two"):
        with BackupFile(backup) as file:
            opened(file).restore(tmp_path / name, key, SystemRng())
        assert not (tmp_path / name / "local.key").exists()
        assert json.loads((tmp_path / name / "node.json").read_text())["secured"]

    opened_again = open_data_directory(
        tmp_path / "two", key_file=key, admin_token="", insecure=False, rng=SystemRng()
    )
    assert opened_again.digest_key == DIGEST_KEY
    opened_again.close()
