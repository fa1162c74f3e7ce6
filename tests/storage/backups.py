"""What the tests of backups stand on: a small state with some of everything, and its backup."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

from envd.backup_job import backup
from envd.core.backups import BackupRequest
from envd.restoring import Credential, OpenBackup, unlock
from envd.security.backup_keys import RecoveryKey, ScryptCost, new_passphrase_lock
from envd.security.sealing import LocalSealer
from envd.storage import backup_format as layout
from envd.storage.backup_process import JobOrder
from envd.storage.backup_read import BackupFile
from envd.storage.backup_write import Snapshot
from envd.storage.disk import make_directory
from envd.storage.store import DurableStore
from tests.storage.world import (
    DIGEST_KEY,
    MIB,
    START_MS,
    STORAGE_KEY,
    CountingRng,
    Writer,
    keeping,
    open_store,
)

PASSPHRASE = "correct horse battery"
CHEAP = ScryptCost(log_n=4)
RECOVERY = RecoveryKey(bytes(range(32)))
SMALL_CHUNK = 4096
KEEPING = keeping(3)


async def fill(store: DurableStore) -> Writer:
    """Environments with values, settings, tombstones, trimmed history, operation ids, one
    deleted, and one larger than a chunk."""
    writer = Writer(store)
    for n in range(6):
        await writer.commit("web/prod", {f"KEY_{n}": f"canary-{n}", "TOUCHED": str(n)})
    await writer.commit("web/prod", {"KEY_0": None}, operation="op-1", message="why")
    await writer.commit("web/dev", {"ONE": "1"}, operation="op-2")
    await writer.commit("gone", {"A": "a"})
    await writer.commit("gone", deletes=True)
    await writer.commit("large", {f"K{n:03}": "x" * 90 for n in range(100)})
    await writer.commit("web/dev", {"FROM_ELSEWHERE": "2"}, origin=99)
    return writer


async def made_state(data_dir: Path) -> None:
    """A data directory with such a state, closed."""
    make_directory(data_dir)
    store = await open_store(data_dir, options=KEEPING)
    await fill(store)
    await store.close()


def order_for(data_dir: Path, request: BackupRequest | None = None) -> JobOrder:
    return JobOrder(
        data_dir=str(data_dir),
        storage_keys={1: STORAGE_KEY},
        digest_key=DIGEST_KEY,
        map_size_bytes=64 * MIB,
        cluster="default",
        cluster_id="c" * 32,
        node="node-1",
        node_uid=f"{7:016x}",
        created_ms=START_MS,
        request=request or BackupRequest((RECOVERY.public,)),
    )


def by_passphrase() -> BackupRequest:
    return BackupRequest(passphrase=new_passphrase_lock(PASSPHRASE, CountingRng(), CHEAP))


def snapshot_of(data_dir: Path) -> Snapshot:
    sealer = LocalSealer({1: STORAGE_KEY}, CountingRng())
    return Snapshot(data_dir, sealer, DIGEST_KEY, map_size_bytes=64 * MIB)


def backup_of(
    data_dir: Path,
    path: Path,
    request: BackupRequest | None = None,
    *,
    chunk_bytes: int = SMALL_CHUNK,
    scheduled: bool = False,
    created_ms: int = START_MS,
) -> Path:
    """Write the backup of a data directory to `path`."""
    order = replace(order_for(data_dir, request), scheduled=scheduled, created_ms=created_ms)
    with snapshot_of(data_dir) as snapshot:
        pieces = backup(order, snapshot, CountingRng(), chunk_bytes=chunk_bytes)
        path.write_bytes(b"".join(pieces))
    return path


def opened(file: BackupFile, credential: Credential | None = None) -> OpenBackup:
    return OpenBackup(file, unlock(file, credential or Credential(recovery_key=RECOVERY)))


# -- a file taken apart, as somebody could who wants to change it ---------------------------------


def parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """The preamble and the frames of a whole backup."""
    start = layout.PREAMBLE_START.size
    position = start + layout.preamble_length(data[:start])
    preamble, frames = data[:position], []
    while position < len(data) - layout.TAIL.size:
        length = layout.FRAME.unpack_from(data, position)[2]
        frames.append(data[position : position + layout.FRAME.size + length])
        position += len(frames[-1])
    return preamble, frames


def put_together(preamble: bytes, frames: Iterable[bytes]) -> bytes:
    """A backup of these parts in which every checksum holds: numbers, CRCs and hash are new."""
    whole, position = preamble, 0
    for number, each in enumerate(frames):
        position = len(whole)
        whole += layout.frame(each[:1], number, each[layout.FRAME.size :])
    hashed = whole + layout.TAIL.pack(position, b"", b"")[:8]
    digest = blake2b(hashed, digest_size=layout.HASH_BYTES).digest()
    return whole + layout.TAIL.pack(position, digest, layout.END_MAGIC)


def with_header(data: bytes, header: bytes) -> bytes:
    """The backup under another header whose CRC holds."""
    preamble, frames = parts(data)
    mac = preamble[-4 - layout.MAC_BYTES : -4]
    changed = layout.PREAMBLE_START.pack(layout.MAGIC, len(header)) + header + mac
    return put_together(changed + crc32(changed).to_bytes(4), frames)
