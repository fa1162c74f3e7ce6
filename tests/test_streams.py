"""Only we write to the standard error of our processes."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading

_CALLER = """
import sys
from envd import streams
if sys.argv[2] == "silent":
    streams.silence_grpc()
import grpc
channel = grpc.insecure_channel(sys.argv[1])
try:
    channel.unary_unary("/any/Call")(b"", timeout=30)
except grpc.RpcError as error:
    print(error.code().name)
"""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _SETTINGS, _GOAWAY = 1, 4, 7
_INTERNAL_ERROR = 2


def _frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, 0, 0) + payload


def _goes_away(listening: socket.socket) -> None:
    """Be a server that fails when it is called, and is not there any more."""
    accepted, _ = listening.accept()
    listening.close()
    with accepted, accepted.makefile("rb") as received:
        accepted.sendall(_frame(_SETTINGS))
        received.read(len(_PREFACE))
        while (head := received.read(9))[3] != _HEADERS:
            received.read(int.from_bytes(head[:3]))
        accepted.sendall(_frame(_GOAWAY, struct.pack(">II", 0, _INTERNAL_ERROR)))
        received.read()


def _heard(how: str) -> tuple[str, str]:
    """What a caller of such a server prints: to its output and to its error stream."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=_goes_away, args=(listening,))
        server.start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", _CALLER, address, how],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        server.join()
    return done.stdout, done.stderr


def test_grpc_writes_nothing_when_a_peer_fails() -> None:
    assert _heard("silent") == ("UNAVAILABLE\n", "")


def test_it_would() -> None:
    output, errors = _heard("loud")
    assert output == "UNAVAILABLE\n"
    assert "goaway" in errors
