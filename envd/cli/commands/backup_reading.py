"""`envctl backup list` and `verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from envd.cli import exits
from envd.cli.commands.backup_secrets import credential, is_passphrase_given
from envd.cli.commands.past import local_time
from envd.cli.exits import UsageError
from envd.cli.invocation import Invocation
from envd.core.errors import Corrupt, EnvdError
from envd.wire.plain import to_plain

if TYPE_CHECKING:
    from envd.core.backups import BackupFacts, BackupListing
    from envd.restoring import Credential

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def list_backups(invocation: Invocation, words: Sequence[str]) -> int:
    """Show the node's backups, or those in files and directories of this machine."""
    from envd.core.backups import BackupListing

    paths = [Path(invocation.world.cwd) / word for word in words]
    if words:
        from envd.storage import backup_directory

        check = invocation.arguments.on("--check")
        found = tuple(backup_directory.list_backups(paths, check=check))
        listing = BackupListing(found)
    elif invocation.arguments.on("--check"):
        raise UsageError("--check reads files of this machine", hint="name them: FILE or DIR")
    else:
        listing = invocation.connection.backups()
    if not invocation.shows_tables():
        invocation.document(to_plain(listing))
    elif len(words) == 1 and [each.file for each in listing.backups] == [str(paths[0])]:
        _show_one(invocation, listing.backups[0])
    else:
        _show(invocation, listing, of_node=not words, short=len(words) < 2)
    return exits.DONE


def _show(invocation: Invocation, listing: BackupListing, *, of_node: bool, short: bool) -> None:
    screen = invocation.screen
    if listing.backups:
        header = ("CREATED", "ENVIRONMENTS", "VARIABLES", "SIZE", "STATE", "FILE")
        screen.table(header, [_row(each, short=short) for each in listing.backups])
    else:
        screen.note("there are no backups here")
    for each in listing.backups:
        if each.detail:
            screen.note(f"note: {each.detail}")
    if not of_node:
        return
    if not listing.directory:
        screen.note("the node keeps none: its settings name no [backup] directory")
    elif not listing.every:
        screen.note(f"they are in {listing.directory} of the node; it has no schedule")
    else:
        due = f"; the next at {local_time(listing.next)}" if listing.next else ""
        screen.note(f"they are in {listing.directory} of the node; every {listing.every}{due}")
    if listing.failure:
        screen.note(f"note: the last try failed: {listing.failure}")


def _row(each: BackupFacts, *, short: bool) -> tuple[str, ...]:
    return (
        local_time(each.created),
        f"{each.environments:,}",
        f"{each.variables:,}",
        size_in_words(each.size_bytes),
        each.state,
        Path(each.file).name if short else each.file,
    )


def _show_one(invocation: Invocation, each: BackupFacts) -> None:
    lines = {
        "file": each.file,
        "state": each.state,
        "created": f"{local_time(each.created)} by node {each.node} ({each.node_uid})",
        "cluster": f"{each.cluster} ({each.cluster_id})",
        "holds": figures_in_words(each),
        "version": f"envd {each.version}",
        "opened by": ", ".join(each.locks),
    }
    for label, text in lines.items():
        invocation.screen.line(f"{label:<10} {text}")
    if each.detail:
        invocation.screen.note(f"note: {each.detail}")


def figures_in_words(facts: BackupFacts) -> str:
    """`2 environments, 40 variables, 3 commits, 12.0 KiB`."""
    counted = [
        _counted(facts.environments, "environment"),
        _counted(facts.variables, "variable"),
        _counted(facts.commits, "commit"),
        size_in_words(facts.size_bytes),
    ]
    return ", ".join(counted)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_in_words(size_bytes: int) -> str:
    """Example: size_in_words(1536) is "1.5 KiB"."""
    amount, unit = float(size_bytes), 0
    while amount >= _STEP and unit < len(_UNITS) - 1:
        amount, unit = amount / _STEP, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{size_bytes} B"


# -- verify ------------------------------------------------------------------------


def verify(invocation: Invocation, words: Sequence[str]) -> int:
    """Check files; exit code 1 where none is good, 7 where some are not."""
    if not words:
        raise UsageError("no backup is named", hint="envctl backup verify FILE")
    opening = (
        invocation.arguments.on("--open")
        or bool(invocation.arguments.texts("--recovery-key"))
        or is_passphrase_given(invocation)
    )
    key = credential(invocation) if opening else None
    outcomes = [_verified(invocation, Path(invocation.world.cwd) / word, key) for word in words]
    if not invocation.shows_tables():
        invocation.document({"backups": [to_plain(facts) for facts, _ in outcomes]})
    wrong = [error for _, error in outcomes if error is not None]
    for error in wrong:
        invocation.screen.error(error.message, error.hint)
    if invocation.shows_tables() and key is None and len(wrong) < len(outcomes):
        invocation.screen.note(
            "what is inside was not looked at: that takes --open, which asks for the passphrase, "
            "or --recovery-key FILE"
        )
    if not wrong:
        return exits.DONE
    return exits.PARTLY if len(wrong) < len(outcomes) else exits.exit_code(wrong[0])


def _verified(
    invocation: Invocation, path: Path, key: Credential | None
) -> tuple[BackupFacts, EnvdError | None]:
    """The facts of a file, and what is wrong with it."""
    from dataclasses import replace

    from envd.restoring import OpenBackup, unlock
    from envd.storage.backup_read import BackupFile, facts

    try:
        with BackupFile(path) as file:
            file.check()
            if key is not None:
                with invocation.progress("MiB opened", file.size_bytes >> 20) as progress:
                    OpenBackup(file, unlock(file, key), Steps(progress.advance)).verify()
    except EnvdError as error:
        found = facts(path)
        state = "damaged" if isinstance(error, Corrupt) else found.state
        return replace(found, state=state, detail=error.message), error
    found = replace(facts(path), state="checked" if key is None else "opened")
    if invocation.shows_tables():
        what = "its checksums hold" if key is None else "whole, opened and checked"
        invocation.screen.line(f"{path}: {what}; {figures_in_words(found)}")
    return found, None


class Steps:
    """Turns "so many bytes are done" into steps of a MiB."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._told = 0

    def __call__(self, done_bytes: int) -> None:
        done = done_bytes >> 20
        if done > self._told:
            self._advance(done - self._told)
            self._told = done
