"""`envctl rename`: a new environment with the content of the old, then the old one deleted.

These are two commits, so an interruption may leave both. Running it again completes it: a new
environment that holds exactly what the old one holds is taken for the first half.
"""

from __future__ import annotations

import os

from envd.cli import exits, states, target
from envd.cli.exits import PartlyDone, UsageError
from envd.cli.grammar import IF_REVISION, WRITE_FLAGS, Command
from envd.cli.invocation import Invocation, short
from envd.core.answers import EnvironmentView
from envd.core.commit import Kind
from envd.core.errors import Conflict, EnvdError, NotFound, OutcomeUnknown
from envd.core.metadata import is_setting
from envd.core.requests import DeleteRequest, Put, WriteRequest
from envd.wire.plain import to_plain


def _rename(invocation: Invocation) -> int:
    words = invocation.take_words(most=2, least=2)
    old, new = (target.environment_only(word) for word in words)
    if old == new:
        raise UsageError("the two names are the same")
    before = _existing(invocation, old, new)
    _copy(invocation, before, new)
    try:
        answer = invocation.delete(
            DeleteRequest(
                old,
                before.revision,
                invocation.message or f"renamed to {new}",
                os.urandom(12).hex(),  # An id is for one environment; the first half has ours.
            )
        )
    except OutcomeUnknown:
        raise
    except EnvdError as error:
        raise PartlyDone(
            f"{new} was created\n       {old} was not deleted: {error.message}",
            hint=f"compare with envctl diff {old} {new}, then repeat it or delete one",
        ) from error
    if invocation.shows_tables():
        invocation.screen.line(f"renamed {old} to {new}")
    else:
        invocation.document({**to_plain(answer), "renamed_to": new})
    return exits.DONE


def _existing(invocation: Invocation, old: str, new: str) -> EnvironmentView:
    """The old environment as it is, with its real values."""
    try:
        before = invocation.read_real(old)
    except NotFound as error:
        if invocation.read_if_there(new, reveal=False) is None:
            raise
        raise NotFound(
            f"there is no environment {old}; {new} exists, so it may be renamed already",
            hint=f"envctl history {old}",
            reason=error.reason,
        ) from error
    wanted = invocation.if_revision
    if wanted and not before.revision.startswith(wanted.lower()):
        raise Conflict(
            f"{old} is at revision {short(before.revision)}; nothing was changed",
            reason="STALE_REVISION",
        )
    return before


def _copy(invocation: Invocation, before: EnvironmentView, new: str) -> None:
    """Create the new environment, unless an earlier run did."""
    there = invocation.read_if_there(new, reveal=False)
    if there is not None:
        there = invocation.read_real(new)
        if not _same_content(before, there):
            raise Conflict(
                f"{new} exists already, with other content; nothing was changed",
                hint=f"envctl diff {before.environment} {new}",
                reason="ALREADY_EXISTS",
            )
        invocation.screen.note(f"note: {new} is there already with the same content")
        return
    puts = [Put(name, each.value or "", each.secret) for name, each in before.variables.items()]
    puts += [Put(name, value, kind=Kind.METADATA) for name, value in _settings(before).items()]
    invocation.write(
        WriteRequest(
            new,
            tuple(puts),
            bulk=True,
            must_not_exist=True,
            message=invocation.message or f"renamed from {before.environment}",
        )
    )


def _settings(view: EnvironmentView) -> dict[str, str]:
    """The settings that callers may set; the time of creation is a new environment's own."""
    return {name: value for name, value in view.metadata.items() if is_setting(name)}


def _same_content(one: EnvironmentView, other: EnvironmentView) -> bool:
    found = states.differences(states.cells(one), states.cells(other))
    return not found and _settings(one) == _settings(other)


RENAME = Command(
    usage=("OLD NEW",),
    about="""
    Give an environment another name: NEW is created with the variables, secret flags and
    settings of OLD, then OLD is deleted. The history of OLD stays under the old name. The copy
    takes the right to reveal if something is secret.

    These are two commits. Where the second fails, both exist, the exit code is 7, and running
    it again completes it.
    """,
    examples=(
        ("envctl rename web/live web/prod", "web/live is now called web/prod"),
        ("envctl history web/live", "its history before that"),
    ),
    run=_rename,
    flags=(IF_REVISION, *WRITE_FLAGS),
)
