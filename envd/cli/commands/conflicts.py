"""`envctl conflicts` and `resolve`: writes that lost to others unseen, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from envd.cli import exits, target
from envd.cli.commands.past import local_time
from envd.cli.commands.reading import MASK
from envd.cli.exits import PartlyDone, UsageError
from envd.cli.grammar import IF_REVISION, REVEAL, WRITE_FLAGS, Command, Flag
from envd.cli.invocation import Invocation
from envd.core.answers import ConflictPage, ConflictSide, ConflictView
from envd.core.commit import Kind
from envd.core.requests import ConflictsRequest, ResolveRequest
from envd.wire.plain import to_plain

_DEFAULT_LIMIT = 100
_PAGE = 1000
_SHORT_ID = 8
_KEPT, _LOST = "kept", "lost"


def _conflicts(invocation: Invocation) -> int:
    environment = _environment(invocation)
    limit = invocation.arguments.number("--limit", _DEFAULT_LIMIT)
    request = ConflictsRequest(environment, reveal=invocation.arguments.on("--reveal"))
    page = _pages(invocation, request, limit)
    if not invocation.shows_tables():
        invocation.document(to_plain(page))
    elif page.conflicts:
        _show(invocation, page.conflicts, named=not environment)
        if page.next:
            invocation.screen.note("note: there are more; see them with --limit N")
    elif not page.partial:
        where = f" in {environment}" if environment else ""
        invocation.screen.note(f"there are no conflicts to settle{where}")
    if page.partial:
        raise PartlyDone(f"the conflicts are not all of them: {page.partial_reason}")
    return exits.DONE


def _environment(invocation: Invocation) -> str:
    """ENV, else the default; "" (all) where there is none, or with --all."""
    words = invocation.take_words(most=1)
    if invocation.arguments.on("--all"):
        if words:
            raise UsageError("ENV and --all exclude each other")
        return ""
    if words:
        return target.environment_only(words[0])
    default = target.default_environment(invocation)
    return default.environment if default else ""


def _pages(invocation: Invocation, request: ConflictsRequest, limit: int) -> ConflictPage:
    found: list[ConflictView] = []
    reasons: dict[str, None] = {}
    while True:
        request = replace(request, limit=min(limit - len(found), _PAGE))
        page = invocation.connection.conflicts(request)
        found += page.conflicts
        reasons |= dict.fromkeys(filter(None, (page.partial_reason,)))
        if not page.next or len(found) >= limit:
            return replace(
                page,
                conflicts=tuple(found),
                partial=bool(reasons),
                partial_reason="; ".join(reasons),
            )
        request = replace(request, after=page.next)


def _show(invocation: Invocation, found: Sequence[ConflictView], *, named: bool) -> None:
    rows = []
    for each in found:
        name = f"setting {each.variable}" if each.metadata else each.variable
        rows.append(_row(each.id[:_SHORT_ID], each.environment, name, _KEPT, each.kept))
        rows.append(_row("", "", "", _LOST, each.lost))
    header = ("ID", "ENVIRONMENT", "NAME", "SIDE", "VALUE", "TIME", "BY")
    drop = () if named else (1,)
    invocation.screen.table(_without(header, drop), [_without(row, drop) for row in rows])
    first = found[0]
    setting = " --setting" if first.metadata else ""
    way = f"envctl resolve {first.environment} {first.variable}{setting} --take"
    invocation.screen.note(
        f"what is kept is in force. To have what was lost: {way} {first.id[:_SHORT_ID]}"
    )
    invocation.screen.note(f"To leave it as it is, and settle it: {way} {_KEPT}")


def _without(row: Sequence[str], drop: Sequence[int]) -> list[str]:
    return [cell for at, cell in enumerate(row) if at not in drop]


def _row(
    number: str, environment: str, name: str, side: str, told: ConflictSide
) -> tuple[str, ...]:
    by = " on ".join(filter(None, (told.actor, told.node)))
    return (number, environment, name, side, _value(told), local_time(told.time), by)


def _value(side: ConflictSide) -> str:
    if side.kind == "unset":
        return "(unset)"
    return MASK if side.value is None else side.value


def _resolve(invocation: Invocation) -> int:
    reference, key = target.environment_and_key(invocation)
    if reference.at or not key:
        raise UsageError(
            "resolve takes the name of a variable, and the environment as it is now",
            hint=f"usage: envctl resolve {RESOLVE.usage[0]}",
        )
    take = invocation.arguments.text("--take")
    if not take:
        raise UsageError(
            "what to take is not said",
            hint=f"--take ID for what the conflict ID lost, --take {_KEPT} to leave it as it is; "
            f"ids: envctl conflicts {reference.environment}",
        )
    answer = invocation.resolve(
        ResolveRequest(
            reference.environment,
            key,
            take,
            Kind.METADATA if invocation.arguments.on("--setting") else Kind.VARIABLE,
            invocation.if_revision,
        )
    )
    done = "stays as it is" if take == _KEPT else "is as the side that you took"
    invocation.report(answer, f"settled: {key} {done}")
    return exits.DONE


CONFLICTS = Command(
    usage=("[ENV] [--all] [--reveal] [--limit N]",),
    about="""
    Show writes that lost to others. Nodes that can't reach each other both take writes. Where
    two of them write the same variable, neither knows of the other, and once they meet again,
    the later write is kept on every node. The other one is lost, but not gone: it is in the
    history, and here until somebody says which one is right.

    Without ENV, and where no default is in force, all environments are shown. Values are masked
    where one of the two was secret, or the variable is by now.
    """,
    examples=(
        ("envctl conflicts web/prod", "what was kept and what was lost, and by whom"),
        ("envctl resolve web/prod PORT --take 3f2a9c11", "have what was lost in 3f2a9c11"),
        ("envctl resolve web/prod PORT --take kept", "it is right as it is"),
        ("envctl conflicts --all -o json | jq '.conflicts | length'", "how many there are"),
    ),
    run=_conflicts,
    flags=(
        Flag("--all", "of all environments, also where a default is in force"),
        REVEAL,
        Flag("--limit", f"show this many (default {_DEFAULT_LIMIT})", "N"),
    ),
)
RESOLVE = Command(
    usage=("[ENV] KEY --take ID|kept|lost [--setting]",),
    about="""
    Say which of two writes is right, and so settle all conflicts of a variable. It is one
    commit, which goes to every node and can be rolled back.

    --take ID writes again what the conflict ID lost; the first digits of ID, as envctl
    conflicts shows them, are enough, and 'lost' will do where there is one conflict. --take kept
    leaves the variable as it is now, also where it was set to something else since. The full
    stamp of a side (envctl conflicts -o json) takes that side.
    """,
    examples=(
        ("envctl conflicts web/prod", "find the ID"),
        ("envctl resolve web/prod PORT --take 3f2a9c11", "have what was lost"),
        ("envctl resolve web/prod PORT --take kept", "leave it as it is"),
        ("envctl resolve web/prod owner --setting --take kept", "of a setting"),
    ),
    run=_resolve,
    flags=(
        Flag("--take", "a conflict's ID (what it lost), kept, or lost", "ID"),
        Flag("--setting", "KEY is a setting of the environment, not a variable"),
        IF_REVISION,
        *WRITE_FLAGS,
    ),
)
