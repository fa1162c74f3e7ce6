"""`envctl create`, `delete` and `undelete`: environments as wholes."""

from __future__ import annotations

from envd.cli import exits, target
from envd.cli.grammar import DRY_RUN, IF_REVISION, WRITE_FLAGS, YES, Command
from envd.cli.invocation import Invocation, short
from envd.core.answers import EnvironmentView
from envd.core.errors import Conflict
from envd.core.requests import DeleteRequest, RollbackRequest, WriteRequest
from envd.wire.plain import to_plain

# Where it is gone already, the node knows whether this operation did it. Should somebody
# create it anew in this moment, no state has this revision, and nothing is deleted.
_NO_REVISION = "0" * 32


def _create(invocation: Invocation) -> int:
    environment = target.environment(invocation)
    answer = invocation.write(WriteRequest(environment, must_not_exist=True))
    invocation.report(answer, f"created {environment}")
    return exits.DONE


def _delete(invocation: Invocation) -> int:
    environment = target.environment(invocation)
    if invocation.arguments.on("--dry-run"):
        return _show_what_goes(invocation, invocation.read(environment, reveal=False))
    view = invocation.read_if_there(environment, reveal=False)
    if view is not None and not invocation.arguments.on("--yes"):
        _show_what_goes(invocation, view)
        invocation.confirm(f"delete {environment}?")
    revision = invocation.if_revision or (view.revision if view else _NO_REVISION)
    answer = invocation.delete(DeleteRequest(environment, revision))
    if invocation.shows_tables():
        invocation.screen.line(f"deleted {environment}; to take it back:")
        invocation.screen.line(f"  envctl undelete {environment}")
    else:
        invocation.report(answer)
    return exits.DONE


def _show_what_goes(invocation: Invocation, view: EnvironmentView) -> int:
    if not invocation.shows_tables():
        if invocation.arguments.on("--dry-run"):
            invocation.document(to_plain(view))
        return exits.DONE
    note = invocation.screen.line
    note(f"{view.environment} at revision {short(view.revision)} would be deleted with")
    for kind, names in (("variables", view.variables), ("settings", view.metadata)):
        if names:
            note(f"  {len(names)} {kind}: {', '.join(names)}")
    return exits.DONE


def _undelete(invocation: Invocation) -> int:
    environment = target.environment(invocation)
    if invocation.read_if_there(environment, reveal=False) is not None:
        raise Conflict(
            f"{environment} exists; nothing was changed",
            hint=f"to replace it by what was deleted: envctl rollback {environment} --to @deleted",
            reason="ALREADY_EXISTS",
        )
    answer = invocation.rollback(RollbackRequest(environment, "@deleted"))
    invocation.report(answer, f"{environment} is back")
    return exits.DONE


CREATE = Command(
    usage=("[ENV]",),
    about="""
    Create an empty environment. envctl set creates one with its first variable, so this is for
    those that shall exist before. Where it exists already the exit code is 4.
    """,
    examples=(
        ("envctl create web/prod", "an empty environment"),
        ("envctl settings web/prod owner=ops@example.com", "then say whose it is"),
    ),
    run=_create,
    flags=WRITE_FLAGS,
)
DELETE = Command(
    usage=("[ENV] [--yes|--dry-run]",),
    about="""
    Delete an environment with its variables and settings, after showing what goes and asking.
    Its history stays, so envctl undelete brings it back. If somebody changes it between the
    question and the deletion, nothing is deleted and the exit code is 4.
    """,
    examples=(
        ("envctl delete web/old", "shows what goes, and asks"),
        ("envctl delete web/old --dry-run", "shows what would go"),
        ("envctl delete web/old --yes --message 'moved to web/new'", "in a script"),
    ),
    run=_delete,
    flags=(YES, DRY_RUN, IF_REVISION, *WRITE_FLAGS),
)
UNDELETE = Command(
    usage=("[ENV]",),
    about="""
    Bring a deleted environment back as it was before its last deletion: variables, settings
    and secret flags. Where it exists again already, the exit code is 4.
    """,
    examples=(
        ("envctl undelete web/old", "as it was"),
        ("envctl get web/old@deleted", "look at it first"),
    ),
    run=_undelete,
    flags=WRITE_FLAGS,
)
