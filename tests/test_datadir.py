from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from envd.core.errors import Corrupt, KeyFileError, StorageError
from envd.datadir import DataDirectory, open_data_directory
from envd.system import SystemRng


def open_at(path: Path, **overrides: object) -> DataDirectory:
    options: dict[str, object] = {
        "key_file": path / "local.key",
        "admin_token": "",
        "insecure": False,
        "rng": SystemRng(),
    }
    return open_data_directory(path, **{**options, **overrides})  # type: ignore[arg-type]


def reopen(path: Path, **overrides: object) -> DataDirectory:
    open_at(path).close()
    return open_at(path, **overrides)


def test_the_first_start_makes_identity_keys_and_token_for_its_owner_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "node"

    opened = open_at(path)

    assert opened.created
    assert opened.admin_token.startswith("envd_admin_")
    assert path.stat().st_mode & 0o777 == 0o700
    for name in ("local.key", "keyring", "admin.token", "node.json"):
        assert (path / name).stat().st_mode & 0o777 == 0o600, name
    opened.close()


def test_later_starts_keep_identity_keys_and_token_and_count_the_generation(
    tmp_path: Path,
) -> None:
    first = open_at(tmp_path / "node")
    first.close()

    second = open_at(tmp_path / "node")

    assert not second.created
    assert second.record.node_uid == first.record.node_uid
    assert second.record.cluster_id == first.record.cluster_id
    assert second.record.generation == first.record.generation + 1
    assert (second.digest_key, second.admin_token) == (first.digest_key, first.admin_token)
    second.close()


def test_a_second_process_is_refused_with_the_first_ones_id(tmp_path: Path) -> None:
    opened = open_at(tmp_path / "node")

    with pytest.raises(StorageError) as caught:
        open_at(tmp_path / "node")

    assert caught.value.reason == "LOCKED"
    assert str(os.getpid()) in caught.value.message
    opened.close()
    open_at(tmp_path / "node").close()


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "node"
    script = (
        "import os, sys; from pathlib import Path\n"
        "from tests.test_datadir import open_at\n"
        "open_at(Path(sys.argv[1])); os._exit(9)\n"
    )

    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    opened = open_at(path)

    assert opened.record.generation == 2
    opened.close()


@pytest.mark.parametrize("left", ["local.key", "keyring", "admin.token"])
def test_a_creation_that_was_cut_off_is_done_again(tmp_path: Path, left: str) -> None:
    path = tmp_path / "node"
    open_at(path).close()
    order = ["local.key", "keyring", "admin.token", "node.json"]
    for name in order[order.index(left) + 1 :]:
        (path / name).unlink()

    opened = open_at(path)

    assert opened.created
    opened.close()
    open_at(path).close()


def remove(name: str) -> object:
    return lambda path: (path / name).unlink()


def write(name: str, text: str) -> object:
    return lambda path: (path / name).write_text(text)


def change(name: str, key: str, value: object) -> object:
    def apply(path: Path) -> None:
        document = json.loads((path / name).read_text())
        document[key] = value
        (path / name).write_text(json.dumps(document))

    return apply


@pytest.mark.parametrize(
    ("damage", "error", "reason"),
    [
        (remove("local.key"), KeyFileError, "KEY_FILE_MISSING"),
        (remove("keyring"), StorageError, "KEYRING_MISSING"),
        (write("local.key", "rubbish"), KeyFileError, "KEY_FILE_DAMAGED"),
        (write("keyring", "{}"), Corrupt, "CORRUPT"),
        (write("node.json", "{"), Corrupt, "CORRUPT"),
        (write("node.json", "[]"), Corrupt, "CORRUPT"),
        (change("node.json", "format", 2), StorageError, "NEWER_FORMAT"),
        (change("node.json", "node_uid", "xyz"), Corrupt, "CORRUPT"),
        (change("keyring", "format", 2), StorageError, "NEWER_FORMAT"),
        (lambda path: (path / "local.key").chmod(0o644), KeyFileError, "KEY_FILE_EXPOSED"),
        (lambda path: (path / "admin.token").chmod(0o640), KeyFileError, "TOKEN_FILE_EXPOSED"),
    ],
)
def test_what_is_missing_or_wrong_is_an_error_with_its_mend_and_changes_no_key(
    tmp_path: Path, damage: object, error: type[StorageError], reason: str
) -> None:
    path = tmp_path / "node"
    open_at(path).close()
    assert callable(damage)
    damage(path)
    keys = {name.name: name.read_bytes() for name in path.glob("*ke*")}

    with pytest.raises(error) as caught:
        open_at(path)

    assert caught.value.reason == reason
    assert caught.value.hint
    assert keys == {name.name: name.read_bytes() for name in path.glob("*ke*")}


def test_another_nodes_key_file_is_told_apart(tmp_path: Path) -> None:
    open_at(tmp_path / "a").close()
    open_at(tmp_path / "b").close()

    with pytest.raises(KeyFileError) as caught:
        open_at(tmp_path / "a", key_file=tmp_path / "b" / "local.key")

    assert caught.value.reason == "KEY_FILE_WRONG"


def test_data_without_its_record_is_never_taken_for_a_new_node(tmp_path: Path) -> None:
    path = tmp_path / "node"
    open_at(path).close()
    (path / "journal").mkdir()
    (path / "node.json").unlink()

    with pytest.raises(Corrupt, match=r"node\.json is missing"):
        open_at(path)


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")

    with pytest.raises(StorageError) as caught:
        open_at(tmp_path)

    assert caught.value.reason == "NOT_EMPTY"
    assert {entry.name for entry in tmp_path.iterdir()} == {"thesis.tex"}


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="is a file"):
        open_at(tmp_path / "file")


def test_insecure_does_not_open_a_secured_node(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        reopen(tmp_path / "node", insecure=True)

    assert caught.value.reason == "SECURED"


def test_an_insecure_node_becomes_secured_for_good(tmp_path: Path) -> None:
    path = tmp_path / "node"
    insecure = open_at(path, insecure=True)
    assert insecure.admin_token == ""
    insecure.close()

    secured = open_at(path)
    secured.close()

    assert secured.admin_token.startswith("envd_admin_")
    with pytest.raises(StorageError):
        open_at(path, insecure=True)


def test_a_key_file_may_lie_elsewhere(tmp_path: Path) -> None:
    key_file = tmp_path / "usb" / "envd.key"
    key_file.parent.mkdir()

    open_at(tmp_path / "node", key_file=key_file).close()

    assert key_file.exists()
    assert not (tmp_path / "node" / "local.key").exists()
