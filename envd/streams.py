"""The standard streams of a process that whoever started it may have closed."""

from __future__ import annotations

import os
import sys


def open_missing() -> None:
    """Point those that are closed at /dev/null, where Python has None.

    So nothing fails for want of a stream, and no file or socket opened later gets the number of
    one, for what others write to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
