"""Opening a backup with its passphrase or recovery key: to verify it, or to make a node of it.

A restore reads the file twice: first all of it is opened and checked, and only then is anything
written. The new node has a uid, keys and a token of its own and starts a cluster of its own;
what it keeps is the digest key, so revisions stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from envd.core.errors import InvalidRequest, StorageError
from envd.datadir import NodeRecord, create_restored
from envd.ports import Rng
from envd.security.backup_keys import FileKey, RecoveryKey, by_passphrase, by_recovery_key
from envd.security.sealing import LocalSealer
from envd.storage.backup_check import RowCheck
from envd.storage.backup_format import Figures
from envd.storage.backup_read import BackupFile
from envd.storage.backup_restore import restore_state
from envd.storage.backup_rows import Row

_TOLD_EVERY_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Credential:
    """What opens a backup: a passphrase or a recovery key."""

    passphrase: str = field(default="", repr=False)
    recovery_key: RecoveryKey | None = None


@dataclass(frozen=True, slots=True)
class OpenBackup:
    """A backup whose key is known. `told(bytes)` is called now and then with the bytes read."""

    file: BackupFile
    key: FileKey = field(repr=False)
    told: Callable[[int], None] = lambda done: None

    def rows(self, check: RowCheck) -> Iterator[Row]:
        """All rows; raises Corrupt that names the file and, where it can, the byte."""
        header = self.file.header
        rows = self.file.rows(self.key.payload(bytes.fromhex(header.salt)), self.key.proves, check)
        for number, row in enumerate(rows):
            if number % _TOLD_EVERY_ROWS == 0:
                self.told(check.figures.row_bytes)
            yield row

    def verify(self) -> Figures:
        """Open and check all of it; raises Corrupt."""
        check = RowCheck()
        for _ in self.rows(check):
            pass
        return check.figures

    def restore(
        self, data_dir: Path, key_file: Path, rng: Rng, *, secured: bool = True
    ) -> NodeRecord:
        """Make a node of it in `data_dir`, which must be empty or not there.

        One that is not `secured` has no token and is started with `--insecure`.
        Raises Corrupt for damage, StorageError or a child for the directory; nothing is left
        then. `verify` comes before.
        """
        node_check = RowCheck()
        next(self.rows(node_check))
        assert node_check.node is not None

        def fill(state: Path, sealer: LocalSealer) -> None:
            check = RowCheck()
            restore_state(self.rows(check), check, state, sealer, backup_bytes=self.file.size_bytes)

        digest_key = node_check.node.digest_key
        return create_restored(
            data_dir,
            key_file=key_file,
            digest_key=digest_key,
            rng=rng,
            fill=fill,
            secured=secured,
        )


def unlock(file: BackupFile, credential: Credential) -> FileKey:
    """The key of a backup; raises KeyFileError where the credential is another one's.

    Raises Corrupt for a lock that can't be, StorageError for locks of a newer version.
    """
    locks = file.header.locks
    try:
        if credential.recovery_key is not None:
            return by_recovery_key(locks, credential.recovery_key)
        if credential.passphrase:
            return by_passphrase(locks, credential.passphrase)
    except StorageError as error:
        raise type(error)(
            f"{file.path}: {error.message}", hint=error.hint, reason=error.reason
        ) from error
    raise InvalidRequest("a passphrase or a recovery key is needed", reason="BACKUP_LOCKED")
