"""A data directory that joins a cluster, changes its identity, shares a secret, finds members."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from envd.core.errors import KeyFileError, StorageError
from envd.core.members import Member, MemberState
from envd.datadir import (
    DataDirectory,
    EmptyDirectory,
    open_data_directory,
    prepare_data_directory,
    read_members,
    write_members,
)
from envd.security.cluster_secret import read_cluster_secret
from envd.system import SystemRng

CLUSTER_ID, DIGEST_KEY, OTHER_DIGEST_KEY = "c1" * 16, b"d" * 32, b"e" * 32


def prepare(path: Path, **overrides: object) -> DataDirectory | EmptyDirectory:
    options: dict[str, object] = {
        "key_file": path / "local.key",
        "admin_token": "",
        "insecure": False,
        "rng": SystemRng(),
    }
    return prepare_data_directory(path, **{**options, **overrides})  # type: ignore[arg-type]


def empty(path: Path, **overrides: object) -> EmptyDirectory:
    found = prepare(path, **overrides)
    assert isinstance(found, EmptyDirectory)
    return found


def node(path: Path, **overrides: object) -> DataDirectory:
    found = prepare(path, **overrides)
    assert isinstance(found, DataDirectory)
    return found


def created(path: Path, **overrides: object) -> None:
    empty(path, **overrides).create().close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node"


# -- joining ---------------------------------------------------------------------------


def test_an_empty_directory_is_locked_and_no_node_yet(path: Path) -> None:
    found = empty(path)

    assert found.node_uid != 0
    assert {entry.name for entry in path.iterdir()} == {"lock"}
    with pytest.raises(StorageError, match="is in use"):
        prepare(path)
    found.close()
    empty(path).close()


def test_a_joiner_takes_the_clusters_id_and_digest_key_and_writes_no_token(path: Path) -> None:
    joining = empty(path)

    joined = joining.admit(CLUSTER_ID, DIGEST_KEY)
    joining.close()

    assert (joined.created, joined.digest_key, joined.admin_token) == (True, DIGEST_KEY, "")
    assert joined.record.node_uid == joining.node_uid
    assert (joined.record.cluster_id, joined.record.generation) == (CLUSTER_ID, 1)
    assert {entry.name for entry in path.iterdir()} == {"lock", "local.key", "keyring", "node.json"}
    with pytest.raises(StorageError, match="is in use"):
        prepare(path)
    joined.close()
    again = node(path)
    assert (again.record.cluster_id, again.digest_key) == (CLUSTER_ID, DIGEST_KEY)
    assert again.record.node_uid == joining.node_uid
    again.close()


@pytest.mark.parametrize("left", ["local.key", "keyring"])
@pytest.mark.parametrize("digest_key", [DIGEST_KEY, OTHER_DIGEST_KEY])
def test_an_admission_that_was_cut_off_is_done_again(
    path: Path, left: str, digest_key: bytes
) -> None:
    empty(path).admit(CLUSTER_ID, digest_key).close()
    (path / "node.json").unlink()
    if left == "local.key":
        (path / "keyring").unlink()

    joined = empty(path).admit(CLUSTER_ID, DIGEST_KEY)

    assert joined.digest_key == DIGEST_KEY
    joined.close()
    node(path).close()


def test_a_key_file_that_is_not_of_this_directory_stops_an_admission(
    tmp_path: Path, path: Path
) -> None:
    created(path)
    (path / "node.json").unlink()
    created(tmp_path / "other")
    joining = empty(path, key_file=tmp_path / "other" / "local.key")

    with pytest.raises(KeyFileError):
        joining.admit(CLUSTER_ID, DIGEST_KEY)
    joining.close()

    assert (path / "keyring").exists()
    empty(path).admit(CLUSTER_ID, DIGEST_KEY).close()


# -- the cluster's secret --------------------------------------------------------------


def test_only_the_start_that_made_a_cluster_founded_it(path: Path, tmp_path: Path) -> None:
    made = empty(path).create()
    joined = empty(tmp_path / "joined").admit(CLUSTER_ID, DIGEST_KEY)
    found = [made.founded, joined.founded]
    made.close()
    joined.close()

    again = node(path)

    assert [*found, again.founded] == [True, False, False]
    again.close()


def test_who_creates_a_cluster_makes_its_secret_once(path: Path) -> None:
    created(path)
    secret = read_cluster_secret(path / "cluster.secret")

    node(path).close()

    assert read_cluster_secret(path / "cluster.secret") == secret


@pytest.mark.parametrize(
    ("options", "what"),
    [
        pytest.param({"insecure": True}, "insecure", id="insecure"),
        pytest.param({"secret_file": Path("/etc/envd/cluster.secret")}, "elsewhere", id="given"),
    ],
)
def test_no_secret_is_made_where_none_is_wanted(
    path: Path, options: dict[str, object], what: str
) -> None:
    created(path, **options)
    node(path, **options).close()

    assert not (path / "cluster.secret").exists(), what


def test_a_secret_that_is_there_is_kept_under_whatever_name(path: Path) -> None:
    created(path.with_name("first"))
    path.mkdir()
    secret = (path.with_name("first") / "cluster.secret").read_bytes()
    (path / "ours.secret").write_bytes(secret)

    created(path, secret_file=path / "ours.secret")

    assert (path / "ours.secret").read_bytes() == secret
    assert not (path / "cluster.secret").exists()


def test_a_secret_that_got_lost_is_not_made_anew(path: Path) -> None:
    created(path)
    (path / "cluster.secret").unlink()

    node(path).close()

    assert not (path / "cluster.secret").exists()


def before_secrets(path: Path) -> None:
    """Make it what a version without cluster secrets left."""
    (path / "cluster.secret").unlink(missing_ok=True)
    document = json.loads((path / "node.json").read_text())
    del document["cluster_secret"]
    (path / "node.json").write_text(json.dumps(document))


def test_a_node_of_before_there_were_secrets_gets_one(path: Path) -> None:
    created(path)
    before_secrets(path)

    node(path).close()

    assert read_cluster_secret(path / "cluster.secret")


def test_an_insecure_node_that_is_secured_makes_a_secret_if_it_is_alone(path: Path) -> None:
    created(path, insecure=True)

    node(path).close()

    assert read_cluster_secret(path / "cluster.secret")


def test_an_insecure_node_with_others_is_left_for_the_operator_to_give_one(path: Path) -> None:
    created(path, insecure=True)
    write_members(path, [member(1)])

    node(path).close()

    assert not (path / "cluster.secret").exists()


# -- identity --------------------------------------------------------------------------


def test_the_generation_grows_while_running_and_for_good(path: Path) -> None:
    created(path)
    running = node(path)
    before = running.record

    after = running.renew_generation()
    running.close()

    assert after.generation == before.generation + 1
    assert running.record == after
    again = node(path)
    assert again.record.generation == before.generation + 2
    assert again.renew_generation(above=40).generation == 41
    again.close()


def test_a_clone_gets_a_uid_of_its_own_and_remembers_what_it_was(path: Path) -> None:
    created(path)
    running = node(path)
    first = running.record

    second = running.renew_identity(SystemRng(), relog_from=70)
    third = running.renew_identity(SystemRng(), relog_from=90)
    running.close()
    again = node(path)

    assert len({first.node_uid, second.node_uid, third.node_uid}) == 3
    assert third.generation == first.generation + 2
    assert again.record.former_uids == (first.node_uid, second.node_uid)
    assert again.record.node_uid == third.node_uid
    assert again.record.cluster_id == first.cluster_id
    assert again.record.relog_from == 70
    again.relogged()
    again.close()
    last = node(path)
    assert last.record.relog_from is None
    assert last.record.former_uids == (first.node_uid, second.node_uid)
    last.close()


def test_an_identity_that_cannot_be_written_stays_what_it_was(path: Path) -> None:
    created(path)
    running = node(path)
    before = running.record
    (path / "node.json").unlink()
    (path / "node.json").mkdir()

    with pytest.raises(StorageError):
        running.renew_generation()

    assert running.record == before
    running.close()


# -- members ---------------------------------------------------------------------------


def member(uid: int, gossip: str = "10.0.0.1:7421") -> Member:
    return Member(
        uid, 3, 0, MemberState.ALIVE, f"n{uid}", gossip, "10.0.0.1:7420", "10.0.0.1:7422", "eu", "a"
    )


def test_members_are_found_again_at_the_next_start(path: Path) -> None:
    created(path)
    first = node(path)
    assert first.known_members() == ()

    first.remember_members([member(1), member(2, "[fd00::1]:7421"), member(3, "web-3:7421")])
    first.close()

    again = node(path)
    assert again.known_members() == (
        member(1),
        member(2, "[fd00::1]:7421"),
        member(3, "web-3:7421"),
    )
    assert (path / "members.json").stat().st_mode & 0o777 == 0o600
    again.close()


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"{", b"[]", b"null", b'{"format": 2, "gossip": []}', b'{"format": 1}',
        b'{"format": 1, "gossip": 7}', b'{"format": 1, "gossip": [7]}',
        b'{"format": 1, "gossip": ["no address"]}', b"\xff" * 100, b"[" * 100_000,
    ],
)  # fmt: skip
def test_damaged_members_are_none_with_a_warning(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "members.json").write_bytes(damage)

    assert read_members(tmp_path) == ()
    assert "members.unreadable" in caplog.text

    write_members(tmp_path, [member(1)])
    assert read_members(tmp_path) == (member(1),)


def test_the_list_of_members_has_a_bound(tmp_path: Path) -> None:
    write_members(tmp_path, (member(uid) for uid in range(1, 5000)))

    assert len(read_members(tmp_path)) == 1024


def test_members_that_cannot_be_written_are_an_error_that_says_so(path: Path) -> None:
    created(path)
    running = node(path)
    (path / "members.json").mkdir()

    with pytest.raises(StorageError, match="can't be used"):
        running.remember_members([member(1)])

    assert running.known_members() == ()
    running.close()


@pytest.mark.parametrize("open_", [open_data_directory, prepare_data_directory])
def test_a_failed_start_lets_go_of_the_lock(
    path: Path, open_: Callable[..., DataDirectory | EmptyDirectory]
) -> None:
    created(path)
    (path / "keyring").unlink()

    for _ in range(2):
        with pytest.raises(StorageError) as caught:
            open_(
                path,
                key_file=path / "local.key",
                admin_token="",
                insecure=False,
                rng=SystemRng(),
            )
        assert caught.value.reason == "KEYRING_MISSING"
