"""`envctl backup restore`: a new node from a backup, without any daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envd.cli import exits
from envd.cli.commands.backup_reading import Steps, figures_in_words
from envd.cli.commands.backup_secrets import credential
from envd.cli.commands.past import local_time
from envd.cli.exits import UsageError
from envd.cli.invocation import Invocation
from envd.wire.plain import to_plain


def restore(invocation: Invocation, words: Sequence[str]) -> int:
    """Verify the backup, then make a node of it in an empty directory."""
    from envd.datadir import check_empty
    from envd.restoring import OpenBackup, unlock
    from envd.storage.backup_read import BackupFile, facts
    from envd.system import SystemRng

    if len(words) != 1:
        raise UsageError(
            "restore takes one backup", hint="envctl backup restore FILE --data-dir DIR"
        )
    named = invocation.arguments.text("--data-dir")
    if not named:
        raise UsageError("no directory is named", hint="name an empty or new one: --data-dir DIR")
    cwd = Path(invocation.world.cwd)
    path, data_dir = cwd / words[0], cwd / named
    secured = not invocation.arguments.on("--insecure")
    key_file = cwd / (invocation.arguments.text("--key-file") or data_dir / "local.key")
    with BackupFile(path) as file:
        if data_dir.exists():
            check_empty(data_dir, key_file)
        file.check()
        key = unlock(file, credential(invocation))
        size_mib = file.size_bytes >> 20
        with invocation.progress("MiB verified", size_mib) as progress:
            OpenBackup(file, key, Steps(progress.advance)).verify()
        found = facts(path)
        if invocation.arguments.on("--dry-run"):
            invocation.tell(f"{path} is whole and would be restored: {figures_in_words(found)}")
            return exits.DONE
        with invocation.progress("MiB restored", size_mib) as progress:
            backup = OpenBackup(file, key, Steps(progress.advance))
            record = backup.restore(data_dir, key_file, SystemRng(), secured=secured)
    if not invocation.shows_tables():
        node = {"node_uid": f"{record.node_uid:016x}", "cluster_id": record.cluster_id}
        invocation.document({**node, "data_dir": str(data_dir), "backup": to_plain(found)})
        return exits.DONE
    line = invocation.screen.line
    line(f"restored {figures_in_words(found)}")
    line(f"as of {local_time(found.created)} on node {found.node}; revisions are as they were")
    line(f"node {record.node_uid:016x} of the new cluster {record.cluster_id}")
    line()
    line(f"start it:   envd --data-dir {data_dir}{'' if secured else ' --insecure'}")
    if secured:
        line(f"its token:  {data_dir / 'admin.token'}")
    line(f"its key:    {key_file} (keep a copy in a safe place)")
    return exits.DONE
