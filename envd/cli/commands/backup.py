"""`envctl backup`: what it takes, and which of its parts is meant."""

from __future__ import annotations

from envd.cli import parts
from envd.cli.grammar import DRY_RUN, Command, Flag
from envd.cli.invocation import Invocation
from envd.cli.parts import Part

_OPENING = ("--passphrase-file", "--recovery-key")
_PARTS = {
    "create": Part("backup_making:create", ("--file", "--new-recovery-key", *_OPENING)),
    "list": Part("backup_reading:list_backups", ("--check",)),
    "verify": Part("backup_reading:verify", ("--open", *_OPENING)),
    "restore": Part(
        "backup_restoring:restore",
        ("--data-dir", "--key-file", "--insecure", "--dry-run", *_OPENING),
    ),
}


def _backup(invocation: Invocation) -> int:
    return parts.perform(invocation, _PARTS, "what about backups?")


BACKUP = Command(
    usage=(
        "create [--file PATH|-] [--recovery-key KEY...]",
        "list [FILE|DIR...] [--check]",
        "verify FILE... [--open]",
        "restore FILE --data-dir DIR",
    ),
    about="""
    create makes a backup of all that the node has acknowledged, while it goes on working, and
    writes it as one encrypted file (mode 0600). It is opened with a passphrase, which is asked
    for twice unless --passphrase-file or ENVD_BACKUP_PASSPHRASE gives it, or with a recovery
    key: a file with a secret that is best kept offline, and of which the node and its settings
    need to know the public half only. The node's token is in no backup.

    list shows the backups in the node's directory and its schedule ([backup] in its settings);
    with FILE or DIR, what is there on this machine. verify checks every checksum, which takes
    no key, and with the key opens and checks all that is inside. restore makes a new node in an
    empty directory, after it has verified the backup: a new uid and a cluster of its own, with
    the environments, their history and their revisions as they were.
    """,
    examples=(
        ("envctl backup create", "asks for a passphrase; a file in this directory"),
        ("envctl backup create --new-recovery-key ~/envd.key", "makes a recovery key too"),
        ("envctl backup create --recovery-key envd_recovery_pub_...", "for a recovery key"),
        ("envctl backup list /var/backups/envd --check", "and check the checksums"),
        ("envctl backup verify FILE --recovery-key ~/envd.key", "open it and check all of it"),
        ("envctl backup restore FILE --data-dir /var/lib/envd", "on an empty machine"),
    ),
    run=_backup,
    flags=(
        Flag("--file", "create: the file to write, - for standard output", "PATH"),
        Flag("--passphrase-file", "the passphrase: its first line; - for input", "FILE"),
        Flag(
            "--recovery-key",
            "create: a public recovery key, or a file with one (repeatable); else the secret file",
            "KEY",
            repeat=True,
        ),
        Flag("--new-recovery-key", "create: make one and write it to this file", "FILE"),
        Flag("--check", "list: check the checksums too"),
        Flag("--open", "verify: open it, and ask for the passphrase"),
        Flag("--data-dir", "restore: an empty or new directory", "DIR"),
        Flag("--insecure", "restore: a node to be started with envd --insecure"),
        Flag("--key-file", "restore: the key file, if not local.key in DIR", "FILE"),
        DRY_RUN,
    ),
)
