"""A backup is made by a process of its own; this is the daemon's side of it.

So the node goes on serving: what reads, checks and seals is another process with its own
interpreter lock, at a lower priority, and damage in the state kills that one. It gets its order,
keys included, over its standard input, which then stays open: where the daemon dies, it ends and
the child with it. It writes the backup to its standard output, or to a file that gets its name
once it is whole.

    order   length u32, msgpack of JobOrder
    errors  on standard error: the JSON document of `wire.plain`; exit code JOB_REFUSED
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

import envd
from envd.core.backups import BackupRequest
from envd.core.errors import EnvdError, StorageError
from envd.storage.disk import unusable
from envd.threads import finish_in_thread
from envd.wire import plain

JOB_REFUSED = 3
ORDER_LENGTH = struct.Struct(">I")
PIECE_BYTES = 256 << 10
"""What is passed on at once: a fraction of a millisecond of the event loop's time."""
_MAX_ERROR_BYTES = 64 << 10
_ENTRY = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from envd.backup_job import main; sys.exit(main())"
)


@dataclass(frozen=True, slots=True)
class JobOrder:
    """All that the child must know. `path` "" means: to standard output."""

    data_dir: str
    storage_keys: dict[int, bytes] = field(repr=False)
    digest_key: bytes = field(repr=False)
    map_size_bytes: int
    cluster: str
    cluster_id: str
    node: str
    node_uid: str
    created_ms: int = 0
    scheduled: bool = False
    path: str = ""
    request: BackupRequest = field(default_factory=BackupRequest)


class BackupProcesses:
    """Makes backups of one node; `order` holds what they have in common.

    `ended` is called whenever a child has ended, however it did.
    """

    def __init__(self, order: JobOrder, ended: Callable[[], None]) -> None:
        self._order = order
        self._ended = ended

    def stream(self, request: BackupRequest, created_ms: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a backup. Whoever stops reading early must close the generator."""
        return self._run(replace(self._order, request=request, created_ms=created_ms))

    async def to_file(self, request: BackupRequest, created_ms: int, path: Path) -> None:
        """A backup that the node's schedule makes, as a new file of mode 0600."""
        order = replace(
            self._order, request=request, created_ms=created_ms, path=str(path), scheduled=True
        )
        async for _ in self._run(order):
            pass  # it writes the file itself

    async def _run(self, order: JobOrder) -> AsyncGenerator[bytes, None]:
        process = await finish_in_thread(_spawn, order)
        assert process.stdout is not None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(PIECE_BYTES, loop=loop)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop), process.stdout
        )
        try:
            while piece := await reader.read(PIECE_BYTES):
                yield piece
            said = await finish_in_thread(_wait, process)
        finally:
            transport.close()
            if process.poll() is None:
                process.kill()
                await finish_in_thread(process.wait)
            for pipe in (process.stdin, process.stderr):
                if pipe is not None:
                    pipe.close()
            self._ended()
        if process.returncode:
            raise _failure(process.returncode, said)


def _spawn(order: JobOrder) -> subprocess.Popen[bytes]:
    root = str(Path(envd.__file__).parent.parent)
    # Settings may be secrets, and it reads none.
    environment = {name: each for name, each in os.environ.items() if name[:5] != "ENVD_"}
    try:
        process = subprocess.Popen(
            # -P: what lies in the working directory is not ours to import.
            [sys.executable, "-P", "-c", _ENTRY, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            process_group=0,  # Ctrl-C is the daemon's to handle
        )
    except OSError as error:
        raise unusable(Path(sys.executable), error) from error
    encoded = msgspec.msgpack.encode(order)
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):  # the kernel's 64 KiB make many small pieces; a limit may forbid more
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4 * PIECE_BYTES)
    with suppress(BrokenPipeError):  # it died at once; its exit code tells
        process.stdin.write(ORDER_LENGTH.pack(len(encoded)) + encoded)
        process.stdin.flush()
    return process


def _wait(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stderr is not None
    said = process.stderr.read(_MAX_ERROR_BYTES)
    process.wait()
    return said


def _failure(code: int, said: bytes) -> EnvdError:
    if code == JOB_REFUSED:
        with suppress(ValueError, KeyError, TypeError):
            return plain.error_from_plain(json.loads(said))
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return StorageError(
        f"the process that makes the backup ended with code {code}"
        + (f" ({lines[-1][:200]})" if lines else ""),
        hint="look at the daemon's log and the disk, then try again",
        reason="BACKUP_FAILED",
    )


def read_order() -> JobOrder:
    """The child's side: its order; raises EOFError where none came."""
    (length,) = ORDER_LENGTH.unpack(_read_exactly(ORDER_LENGTH.size))
    return msgspec.msgpack.decode(_read_exactly(length), type=JobOrder)


def _read_exactly(size: int) -> bytes:
    received = b""
    while len(received) < size:
        more = os.read(0, size - len(received))
        if not more:
            raise EOFError
        received += more
    return received
