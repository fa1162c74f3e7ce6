"""Making a node of a backup, in a directory that holds none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from envd.core.errors import StorageError
from envd.datadir.place import PARTIAL, make_directory, take_lock, unusable
from envd.datadir.record import NodeRecord, new_uid, write_record
from envd.files import sync_directory
from envd.ports import Rng
from envd.security.access import new_admin_token, write_admin_token
from envd.security.sealing import (
    LocalSealer,
    create_key_file,
    create_keyring,
    read_key_file,
)

_RESTORED = ("local.key", "keyring", "admin.token", "state", "node.json")
_NOBODYS = {"lock", "lost+found", "envd.log", "envd.toml"}


def create_restored(
    path: Path,
    *,
    key_file: Path,
    digest_key: bytes,
    rng: Rng,
    fill: Callable[[Path, LocalSealer], None],
    secured: bool = True,
) -> NodeRecord:
    """Create a node that was not started yet, of a cluster of its own, from a backup.

    One that is not `secured` has no token, and may be started with `--insecure`.
    `fill(state, sealer)` writes its state. The directory must be empty or not there; a key file
    elsewhere is used if it is there. Raises StorageError or a child, or what `fill` raises;
    then the directory is as it was.
    """
    made = not path.exists()
    make_directory(path)
    check_empty(path, key_file)
    lock = take_lock(path)
    record = NodeRecord(new_uid(rng), rng.token_bytes(16).hex(), 0, secured=secured)
    try:
        check_empty(path, key_file)
        _clear(path)
        try:
            _build(path / PARTIAL, path, record, key_file, digest_key, rng, fill)
            _move_into_place(path)
        except BaseException:
            _clear(path)
            if made:
                with suppress(OSError):
                    (path / "lock").unlink()
                    path.rmdir()
            raise
    except OSError as error:
        raise unusable(path, error) from error
    finally:
        os.close(lock)
    return record


def check_empty(path: Path, key_file: Path) -> None:
    """Refuse to restore over anything but the left-overs of a restore that was cut off.

    A key file of another name than local.key may be there. Raises StorageError.
    """
    try:
        present = {entry.name for entry in path.iterdir()} - _NOBODYS
        if key_file.name != "local.key" and key_file.parent.resolve() == path.resolve():
            present -= {key_file.name} - {*_RESTORED, "journal"}
    except OSError as error:
        raise unusable(path, error) from error
    if PARTIAL in present and "node.json" not in present:
        present -= {PARTIAL, *_RESTORED}
    if present:
        raise StorageError(
            f"{path} is not empty (it has {min(present)}), and a restore overwrites nothing",
            hint="name an empty or new directory with --data-dir",
            reason="NOT_EMPTY",
        )


def _clear(path: Path) -> None:
    """Remove what a restore that did not come to its end left; its directory goes last."""
    if not (path / PARTIAL).exists():
        return
    for name in _RESTORED:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / PARTIAL)


def _build(
    partial: Path,
    path: Path,
    record: NodeRecord,
    key_file: Path,
    digest_key: bytes,
    rng: Rng,
    fill: Callable[[Path, LocalSealer], None],
) -> None:
    """Write all of the node's files into `partial`."""
    partial.mkdir(mode=0o700)
    sync_directory(path)
    if key_file.absolute() == (path / "local.key").absolute():
        key_file = partial / "local.key"
    if not key_file.exists():
        create_key_file(key_file, rng)
    key = read_key_file(key_file)
    keyring = create_keyring(partial / "keyring", key, rng, digest_key=digest_key)
    fill(partial / "state", LocalSealer(keyring.storage_keys, rng))
    if record.secured:
        write_admin_token(partial / "admin.token", new_admin_token(rng))
    write_record(partial, record)


def _move_into_place(path: Path) -> None:
    """Make the node one; until node.json is there no daemon takes the directory."""
    for name in _RESTORED:
        if (path / PARTIAL / name).exists():
            (path / PARTIAL / name).rename(path / name)
            sync_directory(path)
    (path / PARTIAL).rmdir()
    sync_directory(path)
