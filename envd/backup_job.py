"""The process that makes one backup for a running node; see `storage.backup_process`.

It is started by the daemon and by nobody else. It has no settings, no log and no port: an order
comes in, a file or a stream of bytes goes out, or one error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import envd
from envd.core.errors import EnvdError, StorageError
from envd.ports import Rng
from envd.security.backup_keys import locked
from envd.security.sealing import LocalSealer
from envd.storage.backup_directory import NewFile
from envd.storage.backup_format import (
    CHUNK_BYTES,
    ChunkCipher,
    Header,
    preamble,
    preamble_digest,
    proved_part,
)
from envd.storage.backup_process import JOB_REFUSED, JobOrder, read_order
from envd.storage.backup_write import Snapshot, encoded
from envd.system import SystemRng
from envd.wire import plain

_PRIORITY = 10
_SALT_BYTES = 32


def main() -> int:
    """Make the backup that is ordered on standard input; return the exit code."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        order = read_order()
        threading.Thread(target=_end_with_the_daemon, daemon=True).start()
        os.nice(_PRIORITY)
        _deliver(order)
    except EnvdError as error:
        return _refused(error)
    except (OSError, EOFError, MemoryError) as error:
        name = type(error).__name__
        return _refused(StorageError(f"the backup could not be made ({name})"))
    return 0


def _refused(error: EnvdError) -> int:
    sys.stderr.write(json.dumps(plain.error_to_plain(error)))
    return JOB_REFUSED


def _end_with_the_daemon() -> None:
    """The daemon holds the other end of standard input; it says nothing more on it."""
    with suppress(OSError):
        os.read(0, 1)
    os._exit(1)


def _deliver(order: JobOrder) -> None:
    rng = SystemRng()
    sealer = LocalSealer(order.storage_keys, rng)
    state = Snapshot(
        Path(order.data_dir), sealer, order.digest_key, map_size_bytes=order.map_size_bytes
    )
    with state as snapshot:
        pieces = backup(order, snapshot, rng)
        if order.path:
            with NewFile(Path(order.path)) as file:
                for piece in pieces:
                    file.write(piece)
        else:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def backup(
    order: JobOrder, snapshot: Snapshot, rng: Rng, *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[bytes]:
    """The bytes of a backup; raises InvalidRequest, Corrupt, StorageError."""
    file_key, locks = locked(order.request, rng)
    salt = rng.token_bytes(_SALT_BYTES)
    proved = proved_part(
        Header(
            created_ms=order.created_ms,
            cluster=order.cluster,
            cluster_id=order.cluster_id,
            node=order.node,
            node_uid=order.node_uid,
            version=envd.__version__,
            covered_lsn=snapshot.covered_lsn,
            scheduled=order.scheduled,
            chunk_bytes=chunk_bytes,
            salt=salt.hex(),
            locks=tuple(dict(lock) for lock in locks),
        )
    )
    start = preamble(proved, file_key.mac(proved))
    cipher = ChunkCipher(file_key.payload(salt), preamble_digest(start))
    return encoded(start, cipher, snapshot.rows(), chunk_bytes)
