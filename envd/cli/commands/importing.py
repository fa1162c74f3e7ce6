"""`envctl import`: a file of variables, or a place in a store, becomes one commit.

It is shown before it is made. What is read is compared with the environment, and only what
differs is written, under the condition that the environment is still at the revision that it was
compared with. Where it is not, the comparison is made again, a few times.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from envd.cli import exits, sources, states, target
from envd.cli.exits import Failed, UsageError
from envd.cli.grammar import DRY_RUN, IF_REVISION, WRITE_FLAGS, YES, Command, Flag
from envd.cli.invocation import Invocation, short
from envd.cli.states import Cell, Difference
from envd.core.answers import EnvironmentView, WriteAnswer
from envd.core.errors import Conflict, InvalidRequest
from envd.core.requests import Put, Unset, WriteRequest
from envd.formats.read import Assignment
from envd.formats.secrets import select_secret
from envd.wire.plain import to_plain

_ATTEMPTS = 3


class Plan(NamedTuple):
    """What an import would do to the environment as it was read."""

    environment: str
    view: EnvironmentView | None
    wanted: dict[str, Cell]
    differences: list[Difference]
    unchanged: int

    @property
    def removed(self) -> set[str]:
        """The names that --prune takes away."""
        return {each.name for each in self.differences if each.sign == "-"}


def _import(invocation: Invocation) -> int:
    arguments = invocation.arguments
    if arguments.on("--exit-code") and not arguments.on("--dry-run"):
        raise UsageError("--exit-code goes with --dry-run")
    environment, assignments, left_out = _wanted(invocation)
    plan = make_plan(invocation, environment, assignments)
    if invocation.shows_tables():
        show_plan(invocation, plan)
    if arguments.on("--dry-run"):
        return dry_exit(invocation, plan, left_out)
    if plan.removed:
        invocation.confirm(f"remove {len(plan.removed)} variables from {environment}?")
    agreed = plan.removed
    for _ in range(_ATTEMPTS):
        try:
            return perform_plan(invocation, plan, "imported", left_out=left_out)
        except Conflict as conflict:
            if invocation.if_revision or conflict.reason == "OPERATION_REUSED":
                raise
        plan = make_plan(invocation, environment, assignments)
        if not plan.removed <= agreed:
            break
    raise Conflict(
        f"{environment} is being changed by others at the same time; nothing was imported",
        hint="repeat it",
        reason="STALE_REVISION",
    )


def _wanted(invocation: Invocation) -> tuple[str, list[Assignment], Mapping[str, str] | None]:
    """The environment, and the variables that it shall have, of a file or of a store.

    Of a store also the names there that are left out, and why.
    """
    arguments = invocation.arguments
    store = arguments.text("--from")
    if not store:
        for flag in ("--rename", "--credentials"):
            if arguments.text(flag):
                raise UsageError(f"{flag} goes with --from STORE:PLACE")
        environment, file = _words(invocation)
        return environment, read_file(invocation, file), None
    for flag in ("--format", "--dialect"):
        if arguments.text(flag):
            raise UsageError(f"{flag} is about a file, and --from is about a store")
    environment = target.environment(invocation)
    from envd.cli.fetching import fetch

    fetched = fetch(invocation, store)
    return environment, decided(invocation, fetched.assignments), fetched.left_out


def _words(invocation: Invocation) -> tuple[str, str]:
    words = invocation.take_words(most=2)
    if not words:
        raise UsageError("no file is named", hint="envctl import ENV .env   (or - for a pipe)")
    if len(words) == 2:
        return target.environment_only(words[0]), words[1]
    return target.required_default(invocation), words[0]


def read_file(invocation: Invocation, file: str) -> list[Assignment]:
    """The variables of the file, each with its secret flag decided."""
    arguments = invocation.arguments
    found = sources.read_assignments(
        invocation,
        file,
        format_name=arguments.text("--format"),
        dialect=arguments.text("--dialect"),
    )
    return decided(invocation, found)


def decided(invocation: Invocation, found: list[Assignment]) -> list[Assignment]:
    """The variables, each with its secret flag, as --secret and --plain have it."""
    globs = {kind: invocation.arguments.texts(kind) for kind in ("--secret", "--plain")}
    for kind, patterns in globs.items():
        for pattern in patterns:
            if not any(fnmatchcase(each.name, pattern) for each in found):
                invocation.screen.note(f"note: {kind} {pattern} matches no name there")
    return select_secret(found, secret_globs=globs["--secret"], plain_globs=globs["--plain"])


def make_plan(invocation: Invocation, environment: str, assignments: list[Assignment]) -> Plan:
    """Compare the file with the environment as it is now."""
    with invocation.waiting(f"reading {environment}"):
        view = states.read_comparable_if_there(invocation, environment)
    current = states.cells(view)
    plain_globs = invocation.arguments.texts("--plain")
    wanted: dict[str, Cell] = {}
    for each in assignments:
        known = current.get(each.name)
        lowers = any(fnmatchcase(each.name, pattern) for pattern in plain_globs)
        stays = known is not None and known.secret and not lowers
        wanted[each.name] = Cell(each.value, bool(each.secret or stays))
    after = dict(wanted)
    if not invocation.arguments.on("--prune"):
        after = {**current, **wanted}
    found = states.differences(current, after)
    touched = {each.name for each in found}
    return Plan(environment, view, wanted, found, len(wanted.keys() - touched))


def show_plan(invocation: Invocation, plan: Plan) -> None:
    """The changes by name, the figures, and which variables are secret."""
    states.show(invocation, plan.differences)
    figures = f"{states.counted(plan.differences)}, {plan.unchanged} the same"
    invocation.screen.line(f"{plan.environment}: {figures}")
    secret = _newly_secret(plan)
    if secret:
        invocation.screen.line(f"secret: {', '.join(secret)}")
        if any(flag.name == "--plain" for flag in invocation.command.flags):
            invocation.screen.line("  (to keep one plain: --plain NAME)")


def _newly_secret(plan: Plan) -> list[str]:
    return [
        each.name
        for each in plan.differences
        if each.after and each.after.secret and not (each.before and each.before.secret)
    ]


def dry_exit(invocation: Invocation, plan: Plan, left_out: Mapping[str, str] | None = None) -> int:
    """End a --dry-run: the plan for programs, and the exit code."""
    if not invocation.shows_tables():
        invocation.document(_document(plan, None, left_out))
    if plan.differences and invocation.arguments.on("--exit-code"):
        return exits.DIFFERENCES
    return exits.DONE


def perform_plan(
    invocation: Invocation,
    plan: Plan,
    done: str,
    message: str = "",
    left_out: Mapping[str, str] | None = None,
) -> int:
    """Write what differs, and tell; `done` is the word for it, `message` the history's.

    Raises Conflict where the environment has moved on.
    """
    answer = write_plan(invocation, plan, message) if plan.differences else None
    if not invocation.shows_tables():
        invocation.document(_document(plan, answer, left_out))
    elif answer is None:
        invocation.screen.line("nothing differs; no commit was made")
    else:
        where = f"{plan.environment} is at revision {short(answer.revision)}"
        invocation.screen.line(f"{done}; {where}")
    return exits.DONE


def write_plan(invocation: Invocation, plan: Plan, message: str = "") -> WriteAnswer:
    """Write the plan as one commit; raises Conflict where the environment has moved on."""
    puts = [put_of(each) for each in plan.differences if each.after is not None]
    unsets = tuple(Unset(name) for name in sorted(plan.removed))
    request = WriteRequest(
        plan.environment,
        tuple(puts),
        unsets,
        bulk=True,
        if_revision=invocation.if_revision or (plan.view.revision if plan.view else ""),
        must_not_exist=plan.view is None,
        message=invocation.message or message,
    )
    try:
        with invocation.waiting(f"writing {len(puts) + len(unsets):,} variables"):
            return invocation.write(request)
    except InvalidRequest as error:
        # It is the file that asks too much, not the command line.
        raise Failed(error.message, hint=error.hint, reason=error.reason) from error


def put_of(difference: Difference) -> Put:
    """Say the flag only where it is raised or lowered; else it stays as it is."""
    after, before = difference.after, difference.before
    assert after is not None
    assert after.value is not None
    was_secret = bool(before and before.secret)
    return Put(difference.name, after.value, after.secret if after.secret != was_secret else None)


def _document(
    plan: Plan, answer: WriteAnswer | None, left_out: Mapping[str, str] | None
) -> dict[str, Any]:
    """The write answer, if there is one, with what it did; of a store with what it did not take."""
    revision = plan.view.revision if plan.view else ""
    head = to_plain(answer) if answer else {"environment": plan.environment, "revision": revision}
    return {
        **head,
        **states.named(plan.differences),
        "unchanged": plan.unchanged,
        "secret": _newly_secret(plan),
        **({} if left_out is None else {"left_out": dict(left_out)}),
    }


IMPORT = Command(
    usage=(
        "[ENV] FILE|- [--prune] [--dry-run [--exit-code]]",
        "[ENV] --from STORE:PLACE [--rename MAP] [--credentials REF]",
    ),
    about="""
    Bring the variables of a file, or of a store elsewhere, into an environment, as one commit. What
    will be added (+), changed (~) and removed (-) is shown first, without values; what is the same
    is not written. A file that can't be read whole changes nothing.

    Variables that look like credentials, by name or by value, become secret, and the summary
    says which. --plain keeps them plain, --secret marks more; both take a pattern such as
    'AWS_*' and may be repeated. A variable that is secret already stays so unless --plain
    matches it.

    With --from the node reads a place in a store once (envctl backend list tells the kinds; to
    keep both sides in step use envctl sync). --rename gives names in the store others here:
    OLD=NEW,OLD2=NEW2, or a file with one of them a line. One '*' in OLD stands for anything, and in
    NEW for the same, so 'prod_*=*' takes a prefix off; 'OLD=' leaves a name out. Names that no
    variable can have are left out and listed.
    """,
    examples=(
        ("envctl import web/prod .env --dry-run", "show what would change"),
        ("envctl import web/prod .env --plain 'PUBLIC_*'", "bring it in"),
        ("envctl import web/prod config.json --prune", "and remove what the file lacks"),
        (
            "jq .data secrets.json | envctl import web/prod - --format json",
            "from a pipe",
        ),
        (
            "envctl import web/prod --from aws-ssm:/web/prod --rename 'web-*=*' --dry-run",
            "from a store",
        ),
    ),
    run=_import,
    flags=(
        Flag(
            "--format",
            "dotenv, json or yaml (default: by the file's name)",
            "FORMAT",
            "",
            sources.INPUT_FORMATS,
        ),
        Flag(
            "--dialect",
            "of dotenv: python or node (default python)",
            "DIALECT",
            "",
            sources.DIALECTS,
        ),
        Flag("--secret", "make names like this secret", "GLOB", repeat=True),
        Flag("--plain", "make names like this not secret", "GLOB", repeat=True),
        Flag("--prune", "remove the variables that the file lacks (asks)"),
        DRY_RUN,
        Flag("--exit-code", "with --dry-run: exit 9 if something would change"),
        YES,
        Flag("--from", "read a place in a store instead of a file", "STORE:PLACE"),
        Flag("--rename", "with --from: OLD=NEW,... or a file; names may hold one *", "MAP"),
        Flag("--credentials", "with --from: which ones to use, such as profile:prod", "REF"),
        IF_REVISION,
        *WRITE_FLAGS,
    ),
)
