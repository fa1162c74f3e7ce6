"""Which process is at the other end of a TCP connection of this machine (proc_net(5))."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def owner_of(host: str, port: int, pids: Iterable[int]) -> int | None:
    """The one of `pids` that has a TCP socket at this IPv4 address, None where none has.

    Sockets for both families, as gRPC has them, stand in a table of their own.
    """
    number = int.from_bytes(ipaddress.IPv4Address(host).packed, sys.byteorder)
    mapped = int.from_bytes(b"\0\0\xff\xff", sys.byteorder)
    inodes = {
        _inode("tcp", f"{number:08X}:{port:04X}"),
        _inode("tcp6", f"{0:016X}{mapped:08X}{number:08X}:{port:04X}"),
    }
    wanted = {f"socket:[{inode}]" for inode in inodes if inode}
    if not wanted:
        return None
    return next((pid for pid in pids if wanted & _open_files(pid)), None)


def _inode(table: str, address: str) -> str:
    """Of the socket at an address, told in words of the machine's byte order; "" for none."""
    with suppress(OSError):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == address and fields[9] != "0":
                return fields[9]
    return ""


def _open_files(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(entry))  # noqa: PTH115 - no path
    return found
