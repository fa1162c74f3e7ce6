"""Files of variables that a command reads or writes."""

from __future__ import annotations

from pathlib import Path

from envd.cli.exits import Failed
from envd.cli.invocation import Invocation
from envd.formats.read import Assignment, guess_format, parse

MAX_FILE_BYTES = 32 << 20
"""More than an environment can hold however its values are escaped."""

INPUT_FORMATS = ("dotenv", "json", "yaml")
DIALECTS = ("python", "node")


def read_assignments(
    invocation: Invocation, name: str, *, format_name: str = "", dialect: str = ""
) -> list[Assignment]:
    """Parse a file, or standard input for "-"; the format goes by the file's name."""
    raw = _bytes_of(invocation, name)
    known = {each: each for each in INPUT_FORMATS}
    chosen = known.get(format_name) or ("dotenv" if name == "-" else guess_format(name))
    return parse(
        raw,
        format=chosen,  # type: ignore[arg-type]
        dialect="node" if dialect == "node" else "python",
        source=name,
    )


def write_file(path: Path, text: str) -> bool:
    """Write a file of values: atomically, mode 0600; tell whether it is a file.

    A link is followed, and a device or pipe written to: neither is replaced by a file.
    """
    from envd.files import write_private

    try:
        if path.exists() and not path.is_file():
            path.write_bytes(text.encode())
            return False
        write_private(path.resolve(), text.encode())
        return True
    except OSError as error:
        raise Failed(f"can't write {path}: {error.strerror}") from error


def _bytes_of(invocation: Invocation, name: str) -> bytes:
    shown = "standard input" if name == "-" else name
    try:
        if name == "-":
            raw = invocation.world.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with (Path(invocation.world.cwd) / name).open("rb") as opened:
                raw = opened.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no file name"
        raise Failed(f"can't read {shown}: {reason}; nothing was changed") from error
    if len(raw) > MAX_FILE_BYTES:
        raise Failed(f"{shown} is larger than {MAX_FILE_BYTES >> 20} MiB; nothing was changed")
    return raw
