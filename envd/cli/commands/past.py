"""`envctl history` and `rollback`: who changed what, and the way back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from envd.cli import exits, states, target
from envd.cli.exits import UsageError
from envd.cli.grammar import DRY_RUN, IF_REVISION, WRITE_FLAGS, Command, Flag
from envd.cli.invocation import Invocation, short
from envd.cli.states import Cell, Difference
from envd.core.answers import CommitView, EnvironmentView, HistoryPage
from envd.core.requests import HistoryRequest, RollbackRequest
from envd.wire.plain import to_plain

_DEFAULT_LIMIT = 20
_PAGE = 1000
_NAMES_SHOWN = 5


def _history(invocation: Invocation) -> int:
    reference, key = target.environment_and_key(invocation)
    if reference.at:
        raise UsageError("a history is of an environment, not of a revision")
    limit = invocation.arguments.number("--limit", _DEFAULT_LIMIT)
    page = _pages(invocation, HistoryRequest(reference.environment, key), limit)
    if not invocation.shows_tables():
        invocation.document(to_plain(page))
        return exits.DONE
    rows = [
        (
            short(commit.revision) or "(blind)",
            local_time(commit.time),
            commit.actor,
            in_words(commit),
            commit.message,
        )
        for commit in page.commits
    ]
    if rows:
        invocation.screen.table(("REVISION", "TIME", "WHO", "CHANGES", "MESSAGE"), rows)
    else:
        invocation.screen.note(f"no commit of {reference.environment} touched {key}")
    if page.next:
        invocation.screen.note("note: there are older ones; see more with --limit N")
    elif page.trimmed:
        invocation.screen.note("note: what is older was trimmed")
    return exits.DONE


def _pages(invocation: Invocation, request: HistoryRequest, limit: int) -> HistoryPage:
    commits: list[CommitView] = []
    while True:
        request = replace(request, limit=min(limit - len(commits), _PAGE))
        page = invocation.connection.history(request)
        commits += page.commits
        if not page.next or len(commits) >= limit:
            return replace(page, commits=tuple(commits))
        request = replace(request, before=page.next)


def local_time(time: str) -> str:
    """ISO 8601 in UTC as this machine's own time; what is no time is shown as it is."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return time


def in_words(commit: CommitView) -> str:
    """What a commit did, in words: "set A, B; unset C"."""
    if commit.deleted:
        return "deleted the environment"
    parts = []
    for metadata, noun in ((False, ""), (True, "setting ")):
        for kind in ("set", "unset"):
            names = [
                change.variable
                for change in commit.changes
                if change.kind == kind and change.metadata is metadata
            ]
            if names == ["created"] and metadata:
                parts.append("created")
            elif names:
                more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
                parts.append(f"{kind} {noun}{', '.join(names[:_NAMES_SHOWN])}{more}")
    if commit.resolves:
        count = len(commit.resolves)
        parts.append(f"settled {count} conflict{'s' * (count > 1)}")
    if commit.salvages is not None:
        names = [change.variable for change in commit.salvages.changes]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        lost = ", ".join(names[:_NAMES_SHOWN]) + more
        parts.append(f"put on record as lost: {lost}, by {commit.salvages.actor}")
    return "; ".join(parts)


def _rollback(invocation: Invocation) -> int:
    reference, key = target.environment_and_key(invocation)
    to = _revision(invocation, reference)
    name = reference.environment
    current = states.read_comparable_if_there(invocation, name)
    wanted = states.read_comparable(invocation, name, to)
    found = states.differences(_whole(current), _whole(wanted))
    if key:
        found = [each for each in found if each.name == key]
    dry = invocation.arguments.on("--dry-run")
    if invocation.shows_tables():
        _show_way_back(invocation, found, f"{name}@{to.removeprefix('@')}")
    if dry:
        if not invocation.shows_tables():
            invocation.document({"environment": name, "to": to, **states.named(found)})
        return exits.DONE
    revision = invocation.if_revision or (current.revision if current else "")
    answer = invocation.rollback(
        RollbackRequest(name, to, (key,) if key else (), if_revision=revision)
    )
    if current and answer.revision == current.revision:
        invocation.report(answer, "nothing differs, so no commit was made")
    else:
        invocation.report(answer, "rolled back")
    return exits.DONE


def _whole(view: EnvironmentView | None) -> dict[str, Cell]:
    """Variables and settings: a rollback restores both."""
    settings = view.metadata if view else {}
    shown = {f"setting {name}": Cell(value, False) for name, value in settings.items()}
    return states.cells(view) | shown


def _revision(invocation: Invocation, reference: target.Reference) -> str:
    to = invocation.arguments.text("--to")
    if reference.at:
        raise UsageError("the revision to go back to is given as --to REV")
    if not to:
        raise UsageError(
            "no revision to go back to is named",
            hint=f"--to @~1 is the last but one; see envctl history {reference.environment}",
        )
    return "@deleted" if to == "deleted" else to


def _show_way_back(invocation: Invocation, found: list[Difference], title: str) -> None:
    if found:
        invocation.screen.line(f"back to {title}: {states.counted(found)}")
        states.show(invocation, found, indent="  ")


HISTORY = Command(
    usage=("[ENV] [KEY] [--limit N]",),
    about="""
    Show who changed an environment, when, and why, newest first; with KEY, only the commits
    that touched this variable. Values are not shown: envctl get ENV@REV has them. The history
    of a deleted environment stays.
    """,
    examples=(
        ("envctl history web/prod", "the last 20 commits"),
        ("envctl history web/prod DATABASE_URL", "of one variable"),
        ("envctl diff web/prod@~1 web/prod", "what the last commit changed"),
    ),
    run=_history,
    flags=(Flag("--limit", f"show this many (default {_DEFAULT_LIMIT})", "N"),),
)
ROLLBACK = Command(
    usage=("[ENV] [KEY] --to REV [--dry-run]",),
    about="""
    Go back to an earlier revision, for all variables and settings or for one variable. It is a
    new commit, so it can be undone in the same way. What changes is shown without values.

    REV is a revision from envctl history or its first digits, @~N for N commits ago, or
    @deleted for what the last deletion removed.
    """,
    examples=(
        ("envctl rollback web/prod --to @~1", "undo the last commit"),
        ("envctl rollback web/prod PORT --to 3f2a9c11", "one variable only"),
        ("envctl rollback web/prod --to @~3 --dry-run", "look first"),
    ),
    run=_rollback,
    flags=(
        Flag("--to", "the revision to go back to", "REV"),
        DRY_RUN,
        Flag("--yes", "for scripts that pass it always: a rollback asks nothing", "", "-y"),
        IF_REVISION,
        *WRITE_FLAGS,
    ),
)
