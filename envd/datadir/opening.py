"""Opening a data directory: as the node it holds, or as an empty one that becomes a node.

An empty one either creates a cluster of its own or is admitted to one, whose id and digest key
it is then given. Until that is on disk it is not a node; its uid is drawn at each start.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from envd.core.errors import StorageError
from envd.core.members import Member
from envd.datadir.members import read_members, write_members
from envd.datadir.place import check_own, empty_store, make_directory, take_lock, unusable
from envd.datadir.record import NodeRecord, new_uid, read_record, write_record
from envd.ports import Rng
from envd.security.access import new_admin_token, read_admin_token, write_admin_token
from envd.security.cluster_secret import create_cluster_secret
from envd.security.sealing import (
    LocalSealer,
    create_key_file,
    create_keyring,
    read_key_file,
    read_keyring,
)

_CLUSTER_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _Options:
    """What the settings say of a data directory."""

    path: Path
    key_file: Path
    secret_file: Path
    admin_token: str = field(repr=False)
    insecure: bool
    rng: Rng = field(repr=False)


@dataclass(slots=True)
class DataDirectory:
    """A data directory that this process holds the lock of. `close` lets go.

    `created`: this start made the node, and, where `founded`, the cluster too.
    """

    path: Path
    record: NodeRecord
    created: bool
    sealer: LocalSealer = field(repr=False)
    digest_key: bytes = field(repr=False)
    admin_token: str = field(repr=False)
    _lock: int = field(repr=False)
    founded: bool = False

    def renew_generation(self, above: int = 0) -> NodeRecord:
        """Grow the generation while running, durably, to one that is higher than `above` too.

        Raises StorageError, and it stays.
        """
        return self._become(replace(self.record, generation=max(self.record.generation, above) + 1))

    def renew_identity(self, rng: Rng, relog_from: int) -> NodeRecord:
        """Take a new uid, durably: this one's log went back in time, or it lives elsewhere too.

        Own commits after the lsn `relog_from` are to be logged again. The generation grows.
        Raises StorageError, and the identity stays.
        """
        return self._become(self.record.under_new_uid(rng, relog_from))

    def renew_empty(self, rng: Rng) -> NodeRecord:
        """Note, durably, that the node begins anew: with an empty store, under a new uid.

        The store is emptied at the next opening; until then this process must not rely on it. The
        generation grows. What makes it a node of its cluster stays, and so do backups. Raises
        StorageError, and all stays.
        """
        return self._become(self.record.emptied(rng))

    def relogged(self) -> NodeRecord:
        """Note, durably, that no own commit waits to be logged again; raises StorageError."""
        return self._become(replace(self.record, relog_from=None))

    def known_members(self) -> tuple[Member, ...]:
        """The other members, as they were last remembered."""
        return read_members(self.path)

    def remember_members(self, members: Iterable[Member]) -> None:
        """Keep the other members for the next start, durably; raises StorageError."""
        with _told(self.path):
            write_members(self.path, members)

    def close(self) -> None:
        """Let the next process have it."""
        os.close(self._lock)

    def _become(self, record: NodeRecord) -> NodeRecord:
        with _told(self.path):
            write_record(self.path, record)
        self.record = record
        return record


class EmptyDirectory:
    """A data directory that is locked and holds no node yet.

    Either `create` or `admit` makes it one, and then owns the lock; where they raise, they may
    be tried again. `close` lets go of one that became none.
    """

    def __init__(self, options: _Options, lock: int) -> None:
        self.path: Final = options.path
        self.node_uid: Final = new_uid(options.rng)
        self._options = options
        self._lock: int | None = lock

    def create(self) -> DataDirectory:
        """Make it the first node of a new cluster: with new keys, an admin token, a secret."""
        options, keyring = self._options, self.path / "keyring"
        record = NodeRecord(
            self.node_uid,
            options.rng.token_bytes(_CLUSTER_ID_BYTES).hex(),
            generation=1,
            secured=not options.insecure,
        )
        with _told(self.path):
            if not keyring.exists():
                self._make_key_file()
                create_keyring(keyring, read_key_file(options.key_file), options.rng)
            if record.secured:
                token = options.admin_token or new_admin_token(options.rng)
                write_admin_token(self.path / "admin.token", token)
            directory = self._become(_settle_secret(options, record))
        directory.founded = True
        return directory

    def admit(self, cluster_id: str, digest_key: bytes) -> DataDirectory:
        """Make it a node of the cluster with this id and digest key; writes no admin token."""
        options, keyring = self._options, self.path / "keyring"
        secured = not options.insecure
        record = NodeRecord(self.node_uid, cluster_id, 1, secured, cluster_secret=secured)
        with _told(self.path):
            if keyring.exists():  # Of a creation that was cut off: it sealed nothing yet.
                read_keyring(keyring, read_key_file(options.key_file), options.key_file)
                keyring.unlink()
            self._make_key_file()
            key = read_key_file(options.key_file)
            create_keyring(keyring, key, options.rng, digest_key=digest_key)
            return self._become(record)

    def close(self) -> None:
        """Let the next process have it; of one that became a node it does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make_key_file(self) -> None:
        if not self._options.key_file.exists():
            create_key_file(self._options.key_file, self._options.rng)

    def _become(self, record: NodeRecord) -> DataDirectory:
        assert self._lock is not None
        write_record(self.path, record)
        opened = _opened(self._options, record, self._lock, created=True)
        self._lock = None
        return opened


def open_data_directory(
    path: Path,
    *,
    key_file: Path,
    admin_token: str,
    insecure: bool,
    rng: Rng,
    secret_file: Path | None = None,
) -> DataDirectory:
    """Open the data directory, or create a cluster of its own in an empty one.

    `admin_token` "" means: draw one at creation, read it from the file later. `secret_file` is
    where the cluster's secret is, by default `cluster.secret` in the directory, and only there
    is it ever made. Raises StorageError or a child that says what to do.
    """
    opened = prepare_data_directory(
        path,
        key_file=key_file,
        admin_token=admin_token,
        insecure=insecure,
        rng=rng,
        secret_file=secret_file,
    )
    if isinstance(opened, DataDirectory):
        return opened
    try:
        return opened.create()
    except BaseException:
        opened.close()
        raise


def prepare_data_directory(
    path: Path,
    *,
    key_file: Path,
    admin_token: str,
    insecure: bool,
    rng: Rng,
    secret_file: Path | None = None,
) -> DataDirectory | EmptyDirectory:
    """Lock the data directory and open the node in it; an empty one is left for the caller.

    Where it was noted that the store is to be emptied, that is done here, and then the note goes.
    The arguments and errors are those of `open_data_directory`.
    """
    secret_file = secret_file or path / "cluster.secret"
    options = _Options(path, key_file, secret_file, admin_token, insecure, rng)
    make_directory(path)
    check_own(path, key_file, secret_file)
    lock = take_lock(path)
    try:
        with _told(path):
            for left_over in path.glob(".*.tmp"):  # of a write that a crash cut off
                left_over.unlink()
            if not (path / "node.json").exists():
                return EmptyDirectory(options, lock)
            record = _settle_secret(options, _next_start(options))
            if record.empties:
                empty_store(path)
                record = replace(record, empties=False)
            write_record(path, record)
            return _opened(options, record, lock, created=False)
    except BaseException:
        os.close(lock)
        raise


def _next_start(options: _Options) -> NodeRecord:
    """The record of this start of a node that was there before."""
    record = read_record(options.path)
    if options.insecure and record.secured:
        raise StorageError(
            f"{options.path} belongs to a secured node, and --insecure would open it to everybody",
            hint="leave --insecure out, or use another --data-dir",
            reason="SECURED",
        )
    if not options.insecure and not record.secured:
        token = options.admin_token or new_admin_token(options.rng)
        write_admin_token(options.path / "admin.token", token)
        record = replace(record, secured=True)
    return replace(record, generation=record.generation + 1)


def _settle_secret(options: _Options, record: NodeRecord) -> NodeRecord:
    """Make the cluster's secret where there never was one and no other node could have it.

    That is a new cluster, or a node of before there were secrets, or one that becomes secured.
    With members to be found, the operator has to say which secret they share.
    """
    if not record.secured or record.cluster_secret:
        return record
    own = options.path / "cluster.secret"
    if (
        options.secret_file.absolute() == own.absolute()
        and not own.exists()
        and not read_members(options.path)
    ):
        create_cluster_secret(own, options.rng)
    return replace(record, cluster_secret=options.secret_file.exists())


def _opened(options: _Options, record: NodeRecord, lock: int, *, created: bool) -> DataDirectory:
    path, key_file = options.path, options.key_file
    keyring = read_keyring(path / "keyring", read_key_file(key_file), key_file)
    token = options.admin_token or read_admin_token(path / "admin.token")
    sealer = LocalSealer(keyring.storage_keys, options.rng)
    return DataDirectory(path, record, created, sealer, keyring.digest_key, token, lock)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors of the system inside become errors that say what to do."""
    try:
        yield
    except OSError as error:
        raise unusable(path, error) from error
