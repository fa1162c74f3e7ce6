"""The passphrase or the recovery key of a backup, from wherever it is given."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from envd.cli.exits import Failed, UsageError
from envd.cli.invocation import Invocation

if TYPE_CHECKING:
    from envd.restoring import Credential

VARIABLE = "ENVD_BACKUP_PASSPHRASE"
_MAX_LINE_BYTES = 8192


def passphrase(invocation: Invocation, *, new: bool) -> str:
    """The passphrase; a `new` one is asked for twice. Raises UsageError where there is none."""
    file = invocation.arguments.text("--passphrase-file")
    if file:
        return _first_line(invocation, file)
    if given := invocation.world.environ.get(VARIABLE):
        return given
    if not invocation.world.stdin.isatty():
        raise UsageError(
            "a passphrase or a recovery key is needed, and nobody can be asked",
            hint=f"--passphrase-file FILE, {VARIABLE}, or --recovery-key",
        )
    asked = _asked(invocation, "Passphrase of the backup: ")
    if new:
        from envd.security.backup_keys import check_passphrase

        check_passphrase(asked)  # before it is typed again
        if _asked(invocation, "The same again: ") != asked:
            raise Failed(
                "the two passphrases differ; nothing was done", reason="PASSPHRASES_DIFFER"
            )
    return asked


def _asked(invocation: Invocation, prompt: str) -> str:
    try:
        answer = invocation.world.ask_secret(prompt)
    except EOFError:
        answer = ""
    if not answer:
        raise Failed("no passphrase was typed; nothing was done", reason="PASSPHRASE_MISSING")
    return answer


def is_passphrase_given(invocation: Invocation) -> bool:
    """Tell whether a passphrase need not be asked for."""
    return bool(
        invocation.arguments.text("--passphrase-file") or invocation.world.environ.get(VARIABLE)
    )


def credential(invocation: Invocation) -> Credential:
    """What opens a backup; raises UsageError, Failed or KeyFileError where it can't be had."""
    from envd.restoring import Credential
    from envd.security.backup_keys import read_recovery_key

    files = invocation.arguments.texts("--recovery-key")
    if len(files) > 1:
        raise UsageError("one recovery key opens a backup", hint="give --recovery-key once")
    if files:
        if files[0].startswith("envd_recovery_"):
            raise UsageError(
                "--recovery-key takes the file with the secret half here",
                hint="a secret on a command line can be seen by others",
            )
        return Credential(recovery_key=read_recovery_key(Path(invocation.world.cwd) / files[0]))
    return Credential(passphrase=passphrase(invocation, new=False))


def _first_line(invocation: Invocation, file: str) -> str:
    try:
        if file == "-":
            raw = invocation.world.stdin.buffer.readline(_MAX_LINE_BYTES)
        else:
            path = Path(invocation.world.cwd) / file
            with path.open("rb") as opened:
                raw = opened.readline(_MAX_LINE_BYTES)
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                invocation.screen.note(f"note: others can read {file}: chmod 600 {file}")
        line = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no UTF-8"
        # Not chained: a decoding error carries the bytes.
        raise Failed(f"can't read the passphrase file {file}: {why}") from None
    text = line.removesuffix("\n").removesuffix("\r")
    if not text:
        raise Failed(f"the first line of {file} is empty", hint="it must be the passphrase")
    return text
