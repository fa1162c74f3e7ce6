"""Writing the rows of a backup into the state of a node that does not exist yet.

Everything is sealed anew under the new node's keys, and the index is made again. The topology is
left out: its voters belong to the cluster that was backed up, and the new node founds one of its
own. Nothing is synced until the end: whoever calls makes sure that nobody takes a half for a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import lmdb

from envd.core.errors import StorageError
from envd.core.names import is_system
from envd.core.topology import TOPOLOGY
from envd.ports import Sealer
from envd.storage.backup_check import RowCheck
from envd.storage.backup_rows import Row, RowKind
from envd.storage.check import DATA_NAME
from envd.storage.disk import make_directory, sync_file, unusable
from envd.storage.pages import TABLES
from envd.storage.rows import PURPOSE, RowOpener, RowWriter, environment_key, index_value

_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 100_000
_MIN_MAP_BYTES = 1 << 30
_TOPOLOGY = TOPOLOGY.encode()
_TABLES = {
    RowKind.VECTOR: b"vectors",
    RowKind.OPERATION: b"operations",
    RowKind.CONFLICT: b"conflicts",
}


def restore_state(
    rows: Iterable[Row], check: RowCheck, directory: Path, sealer: Sealer, *, backup_bytes: int
) -> None:
    """Write the state of a new node into `directory`, which is made; durable when it returns.

    `check` is the one that `rows` go through. Raises what `rows` raise, and StorageError where
    the disk does not take it; what is written then is good for nothing.
    """
    make_directory(directory)
    try:
        with lmdb.open(
            str(directory),
            # Address space only: pages are half full at worst, and every row has its framing.
            map_size=_MIN_MAP_BYTES + 16 * backup_bytes // 4096 * 4096,
            max_dbs=len(TABLES),
            sync=False,
            mode=0o600,
        ) as env:
            _Restore(env, sealer, check, directory / DATA_NAME).run(rows)
            env.sync(True)
        for path in (directory / DATA_NAME, directory):
            sync_file(path)
    except lmdb.Error as error:
        raise StorageError(
            f"the state in {directory} can't be written: {error}",
            hint="check the disk (space, permissions); nothing was restored",
            reason="STATE_UNUSABLE",
        ) from error
    except OSError as error:
        raise unusable(directory, error) from error


class _Restore:
    """One state that is being written."""

    def __init__(self, env: lmdb.Environment, sealer: Sealer, check: RowCheck, path: Path) -> None:
        self._env = env
        self._sealer = sealer
        self._check = check
        self._environment = b""
        self._leaves_out = False
        self._opener = RowOpener(sealer, path)
        with env.begin(write=True) as transaction:
            self._tables = {name: env.open_db(name, txn=transaction) for name in TABLES}

    def run(self, rows: Iterable[Row]) -> None:
        rest, check = iter(rows), self._check
        while self._batch(rest):
            pass
        assert check.node is not None
        counters = {
            b"covered_lsn": 0,  # the new node's journal begins with its first record
            b"hlc_bound": max(check.node.hlc_bound, check.highest_hlc),
            b"environments": check.figures.environments,
        }
        with self._env.begin(write=True) as transaction:
            writer = self._writer(transaction)
            for name, value in counters.items():
                writer.put(b"system", name, value.to_bytes(8))

    def _batch(self, rows: Iterable[Row]) -> bool:
        """Write some rows in one transaction; tell whether there may be more."""
        size = 0
        with self._env.begin(write=True) as transaction:
            writer = self._writer(transaction)
            for number, row in enumerate(rows, 1):
                self._put(writer, row)
                size += len(row.value)
                if size >= _BATCH_BYTES or number >= _BATCH_ROWS:
                    return True
        return False

    def _writer(self, transaction: lmdb.Transaction) -> RowWriter:
        return RowWriter(transaction, self._tables, self._sealer.new_subkey(PURPOSE), self._opener)

    def _put(self, writer: RowWriter, row: Row) -> None:
        kind, key, value = row
        match kind:
            case RowKind.NODE:
                return
            case RowKind.ENVIRONMENT:
                self._put_environment(writer, key, value)
            case RowKind.BASE | RowKind.COMMIT if self._leaves_out:
                return
            case RowKind.BASE:
                writer.put(b"bases", self._environment, value)
            case RowKind.COMMIT:
                writer.put(b"history", self._environment + b"\0" + key, value)
            case RowKind.CONFLICT if key.startswith(_TOPOLOGY + b"\0"):
                return
            case _:
                writer.put(_TABLES[kind], key, value)

    def _put_environment(self, writer: RowWriter, key: bytes, value: bytes) -> None:
        name = key.decode()
        self._environment = environment_key(name)
        self._leaves_out = name == TOPOLOGY
        if self._leaves_out:
            return
        writer.put(b"environments", self._environment, value)
        if not is_system(name):
            writer.put_clear(b"index", key, index_value(key, self._check.stored.state))
