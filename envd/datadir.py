"""The data directory of a node: one process at a time, its identity, its keys.

    lock            held with flock by the running node; holds its process id
    node.json       format, node uid, cluster id, generation (grows at each start), secured
    local.key       the key-encryption key, unless `security.key_file` names another place
    keyring         storage key and digest key, wrapped
    admin.token     the token that the creating start made
    journal/ state/ the data

`node.json` is written last when a node is created: a creation that was cut off is simply
done again. Nothing that exists is ever replaced by something new: what is missing or wrong
is an error that says what to do.

A restore builds a node in `restore.partial` and moves it into place, `node.json` last. While
that directory is there no daemon starts, and the next restore begins anew.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from envd.core.errors import Corrupt, StorageError
from envd.files import sync_directory, write_private
from envd.ports import Rng
from envd.security.access import new_admin_token, read_admin_token, write_admin_token
from envd.security.sealing import (
    Keyring,
    LocalSealer,
    create_key_file,
    create_keyring,
    read_key_file,
    read_keyring,
)

FORMAT = 1
_MAY_STAND_BEFORE = {
    "lock",
    "local.key",
    "keyring",
    "admin.token",
    "cluster.secret",
    "envd.log",
    "envd.toml",
    "lost+found",
}

_PARTIAL = "restore.partial"
_RESTORED = ("local.key", "keyring", "admin.token", "state", "node.json")
_NOBODYS = {"lock", "lost+found", "envd.log", "envd.toml"}


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What `node.json` holds; `generation` is that of the running start."""

    node_uid: int
    cluster_id: str
    generation: int
    secured: bool

    def to_document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "node_uid": f"{self.node_uid:016x}",
            "cluster_id": self.cluster_id,
            "generation": self.generation,
            "secured": self.secured,
        }


@dataclass(slots=True)
class DataDirectory:
    """A data directory that this process holds the lock of. `close` lets go."""

    path: Path
    record: NodeRecord
    created: bool
    sealer: LocalSealer = field(repr=False)
    digest_key: bytes = field(repr=False)
    admin_token: str = field(repr=False)
    _lock: int = field(repr=False)

    def close(self) -> None:
        """Let the next process have it."""
        os.close(self._lock)


def open_data_directory(
    path: Path, *, key_file: Path, admin_token: str, insecure: bool, rng: Rng
) -> DataDirectory:
    """Open or create the data directory; raises StorageError or a child that says what to do.

    `admin_token` "" means: draw one at creation, read it from the file later.
    """
    _make(path)
    _check_own(path, key_file)
    lock = _take_lock(path)
    try:
        for left_over in path.glob(".*.tmp"):  # of a write that a crash cut off
            left_over.unlink()
        created = not (path / "node.json").exists()
        if created:
            record = _create(path, key_file, admin_token, insecure, rng)
        else:
            record = _next_generation(path, insecure)
            if not insecure and not record.secured:
                record = replace(record, secured=True)
                write_admin_token(path / "admin.token", admin_token or new_admin_token(rng))
            _write_record(path, record)
        keyring = _keys(path, key_file)
        token = admin_token or read_admin_token(path / "admin.token")
    except OSError as error:
        os.close(lock)
        raise _unusable(path, error) from error
    except BaseException:
        os.close(lock)
        raise
    sealer = LocalSealer(keyring.storage_keys, rng)
    return DataDirectory(path, record, created, sealer, keyring.digest_key, token, lock)


def create_restored(
    path: Path,
    *,
    key_file: Path,
    digest_key: bytes,
    rng: Rng,
    fill: Callable[[Path, LocalSealer], None],
) -> NodeRecord:
    """Create a node that was not started yet, of a cluster of its own, from a backup.

    `fill(state, sealer)` writes its state. The directory must be empty or not there; a key file
    elsewhere is used if it is there. Raises StorageError or a child, or what `fill` raises;
    then the directory is as it was.
    """
    made = not path.exists()
    _make(path)
    check_empty(path, key_file)
    lock = _take_lock(path)
    record = NodeRecord(
        int.from_bytes(rng.token_bytes(8)) or 1, rng.token_bytes(16).hex(), 0, secured=True
    )
    try:
        check_empty(path, key_file)
        _clear(path)
        try:
            _build(path / _PARTIAL, path, record, key_file, digest_key, rng, fill)
            _move_into_place(path)
        except BaseException:
            _clear(path)
            if made:
                with suppress(OSError):
                    (path / "lock").unlink()
                    path.rmdir()
            raise
    except OSError as error:
        raise _unusable(path, error) from error
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
        raise _unusable(path, error) from error
    if _PARTIAL in present and "node.json" not in present:
        present -= {_PARTIAL, *_RESTORED}
    if present:
        raise StorageError(
            f"{path} is not empty (it has {min(present)}), and a restore overwrites nothing",
            hint="name an empty or new directory with --data-dir",
            reason="NOT_EMPTY",
        )


def _clear(path: Path) -> None:
    """Remove what a restore that did not come to its end left; its directory goes last."""
    if not (path / _PARTIAL).exists():
        return
    for name in _RESTORED:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / _PARTIAL)


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
    write_admin_token(partial / "admin.token", new_admin_token(rng))
    _write_record(partial, record)


def _move_into_place(path: Path) -> None:
    """Make the node one; until node.json is there no daemon takes the directory."""
    for name in _RESTORED:
        if (path / _PARTIAL / name).exists():
            (path / _PARTIAL / name).rename(path / name)
            sync_directory(path)
    (path / _PARTIAL).rmdir()
    sync_directory(path)


def _make(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise StorageError(
            f"{path} is a file, not a directory", hint="name a directory with --data-dir"
        ) from None
    except OSError as error:
        raise _unusable(path, error) from error


def _take_lock(path: Path) -> int:
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StorageError(
            f"{path} is in use by another envd (process {holder})",
            hint="stop that one, or name another directory with --data-dir",
            reason="LOCKED",
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise _unusable(path, error) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _check_own(path: Path, key_file: Path) -> None:
    """Refuse to create a node among somebody else's files, or over what a lost one left."""
    try:
        present = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise _unusable(path, error) from error
    if "node.json" in present:
        return
    if _PARTIAL in present:
        raise StorageError(
            f"a restore into {path} was cut off; there is no node yet",
            hint=f"restore again: envctl backup restore FILE --data-dir {path}",
            reason="RESTORE_CUT_OFF",
        )
    if "journal" in present or "state" in present:
        raise Corrupt(
            f"{path} holds data but its node.json is missing",
            hint="put node.json back, or restore the whole directory from a backup",
            reason="NODE_RECORD_MISSING",
        )
    foreign = sorted(
        name
        for name in present - _MAY_STAND_BEFORE - {key_file.name}
        if not name.startswith("envd.sock") and not name.endswith(".tmp")
    )
    if foreign:
        raise StorageError(
            f"{path} is not empty and no envd data directory (it has {foreign[0]})",
            hint="name an empty or new directory with --data-dir",
            reason="NOT_EMPTY",
        )


def _create(path: Path, key_file: Path, admin_token: str, insecure: bool, rng: Rng) -> NodeRecord:
    if not key_file.exists() and not (path / "keyring").exists():
        create_key_file(key_file, rng)
    if not (path / "keyring").exists():
        create_keyring(path / "keyring", read_key_file(key_file), rng)
    if not insecure:
        write_admin_token(path / "admin.token", admin_token or new_admin_token(rng))
    record = NodeRecord(
        int.from_bytes(rng.token_bytes(8)) or 1, rng.token_bytes(16).hex(), 1, not insecure
    )
    _write_record(path, record)
    return record


def _next_generation(path: Path, insecure: bool) -> NodeRecord:
    try:
        document = json.loads((path / "node.json").read_bytes())
        if document["format"] != FORMAT:
            raise StorageError(
                f"{path} has format {document['format']}; this version reads format {FORMAT}",
                hint="a newer envd wrote it: run that version or a later one",
                reason="NEWER_FORMAT",
            )
        record = NodeRecord(
            int(document["node_uid"], 16),
            str(document["cluster_id"]),
            int(document["generation"]) + 1,
            document["secured"] is True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            f"{path / 'node.json'} is damaged",
            hint="put it back from a backup; the data itself is untouched",
        ) from error
    if insecure and record.secured:
        raise StorageError(
            f"{path} belongs to a secured node, and --insecure would open it to everybody",
            hint="leave --insecure out, or use another --data-dir",
            reason="SECURED",
        )
    return record


def _keys(path: Path, key_file: Path) -> Keyring:
    return read_keyring(path / "keyring", read_key_file(key_file), key_file)


def _write_record(path: Path, record: NodeRecord) -> None:
    text = json.dumps(record.to_document(), indent=1) + "\n"
    write_private(path / "node.json", text.encode())


def _unusable(path: Path, error: OSError) -> StorageError:
    cause = errno.errorcode.get(error.errno or 0, type(error).__name__)
    hints = {
        errno.EACCES: "give the user that runs envd the right to write there",
        errno.EROFS: "the file system is read-only: remount it, or use another --data-dir",
        errno.ENOSPC: "free some disk space",
    }
    return StorageError(
        f"the data directory {path} can't be used: {error.strerror or cause}",
        hint=hints.get(error.errno or 0, "name another one with --data-dir"),
        reason="DATA_DIR_UNUSABLE",
    )
