"""The standard streams of a process: that they are there, and that only we write to them."""

from __future__ import annotations

import os
import sys

GRPC_SILENT = ("GRPC_VERBOSITY", "NONE")
"""What `silence_grpc` adds to this process's environment: name and value."""


def open_missing() -> None:
    """Point those that are closed at /dev/null, where Python has None.

    So nothing fails for want of a stream, and no file or socket opened later gets the number of
    one, for what others write to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def silence_grpc() -> None:
    """Keep gRPC's own library from writing lines in its own form to standard error.

    Otherwise they stand between the lines of a log in JSON, and on a terminal, when a peer
    goes. Counts where nothing imported grpc yet; GRPC_VERBOSITY, where it is set, is left alone.
    """
    os.environ.setdefault(*GRPC_SILENT)
