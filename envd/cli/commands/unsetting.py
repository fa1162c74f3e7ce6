"""`envctl unset`: variables removed in one atomic commit."""

from __future__ import annotations

from envd.cli import exits, target
from envd.cli.exits import UsageError
from envd.cli.grammar import IF_REVISION, WRITE_FLAGS, Command
from envd.cli.invocation import Invocation
from envd.core.names import check_variable
from envd.core.requests import Unset, WriteRequest


def _unset(invocation: Invocation) -> int:
    environment, names = target.environment_and_rest(invocation)
    if not names:
        raise UsageError(
            "no variable is named",
            hint=f"envctl unset {environment} KEY...   (all of it: envctl delete {environment})",
        )
    unsets = tuple(Unset(check_variable(name)) for name in names)
    request = WriteRequest(environment, unsets=unsets, if_revision=invocation.if_revision)
    invocation.report(invocation.write(request))
    return exits.DONE


UNSET = Command(
    usage=("[ENV] KEY...",),
    about="""
    Remove variables in one atomic commit, and print the new revision. Where one of them does
    not exist, nothing is removed and the exit code is 3. An environment without variables and
    settings is gone; envctl rollback brings them back.
    """,
    examples=(
        ("envctl unset web/prod OLD_FLAG", "remove one"),
        ("envctl unset web/prod A B --message 'no longer used'", "remove two, and say why"),
        ("envctl rollback web/prod --to @~1", "take it back"),
    ),
    run=_unset,
    flags=(IF_REVISION, *WRITE_FLAGS),
)
