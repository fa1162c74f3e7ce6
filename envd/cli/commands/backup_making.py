"""`envctl backup create`: from the node into a file of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from envd.cli import exits
from envd.cli.commands.backup_reading import figures_in_words
from envd.cli.commands.backup_secrets import is_passphrase_given, passphrase
from envd.cli.exits import UsageError
from envd.cli.invocation import Invocation
from envd.wire.plain import to_plain

if TYPE_CHECKING:
    from envd.core.backups import BackupRequest

_MIB = 1 << 20


def create(invocation: Invocation, words: Sequence[str]) -> int:
    """Make a backup; nothing bears its name until it is whole."""
    from envd.storage.backup_directory import NewFile, file_name
    from envd.storage.backup_read import facts

    if words:
        raise UsageError("create takes no words", hint=f"the file to write: --file {words[0]!a}")
    world, name = invocation.world, invocation.arguments.text("--file")
    if name == "-":
        _to_standard_output(invocation)
        return exits.DONE
    node = invocation.connection.status().node
    path = Path(world.cwd) / (name or file_name(node, world.wall_ms()))
    with NewFile(path) as file:
        request = _request(invocation)
        for piece in _received(invocation, request):
            file.write(piece)
    made = facts(path)
    if invocation.shows_tables():
        invocation.screen.line(f"wrote {path}: {figures_in_words(made)}")
    else:
        invocation.document(to_plain(made))
    return exits.DONE


def _to_standard_output(invocation: Invocation) -> None:
    if invocation.screen.on_terminal:
        raise UsageError("a backup is no text for a terminal", hint="redirect it, or --file PATH")
    invocation.connection.status()
    request = _request(invocation)
    invocation.world.stdout.flush()
    for piece in _received(invocation, request):
        invocation.world.stdout.buffer.write(piece)
    invocation.world.stdout.buffer.flush()


def _received(invocation: Invocation, request: BackupRequest) -> Iterator[bytes]:
    """The bytes of the backup; raises Corrupt behind the last ones if they are not all."""
    from envd.storage.backup_read import Received

    check = Received()
    with invocation.progress("MiB of the backup") as progress:
        shown = 0
        for piece in invocation.connection.backup(request):
            check.take(piece)
            yield piece
            done = check.size_bytes // _MIB
            progress.advance(done - shown)
            shown = done
    check.check()


def _request(invocation: Invocation) -> BackupRequest:
    """What locks the backup; raises UsageError where several ways are given."""
    from envd.core.backups import BackupRequest
    from envd.security.backup_keys import new_passphrase_lock, public_recovery_key
    from envd.system import SystemRng

    keys = invocation.arguments.texts("--recovery-key")
    new = invocation.arguments.text("--new-recovery-key")
    if (keys or new) and invocation.arguments.text("--passphrase-file"):
        raise UsageError("a backup is opened by a passphrase or by recovery keys, not by both")
    if (keys or new) and is_passphrase_given(invocation):
        invocation.screen.note("note: the passphrase is not used: the recovery key opens it")
    directory = Path(invocation.world.cwd)
    public = [public_recovery_key(key, directory) for key in keys]
    if new:
        public.append(_new_key(invocation, directory / new))
    if public:
        return BackupRequest(tuple(dict.fromkeys(public)))
    chosen = passphrase(invocation, new=True)
    return BackupRequest(passphrase=new_passphrase_lock(chosen, SystemRng()))


def _new_key(invocation: Invocation, path: Path) -> str:
    from datetime import UTC, datetime

    from envd.cli.exits import Failed
    from envd.security.backup_keys import RecoveryKey, write_recovery_key
    from envd.system import SystemRng

    key = RecoveryKey.new(SystemRng())
    made = datetime.fromtimestamp(invocation.world.wall_ms() / 1000, UTC)
    try:
        write_recovery_key(path, key, made.strftime("%Y-%m-%dT%H:%M:%SZ"))
    except FileExistsError:
        raise Failed(
            f"{path} is there already; nothing was done",
            hint=f"use that key: --recovery-key {path}; or name another file",
        ) from None
    except OSError as error:
        raise Failed(f"can't write {path}: {error.strerror}") from error
    invocation.screen.note(f"wrote the recovery key {path}; keep it safe, and away from the node")
    invocation.screen.note(f"its public half, for [backup] recovery_keys: {key.public}")
    return key.public
