"""`envctl apply`: carry out a plan, one commit for each environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from envd.cli import exits
from envd.cli.commands import planning
from envd.cli.commands.planning import EXIT_CODE, SCOPE_FLAGS, Plan, Planned
from envd.cli.exits import Failed, PartlyDone, UsageError
from envd.cli.grammar import DRY_RUN, WRITE_FLAGS, YES, Command, Flag
from envd.cli.invocation import Invocation, short
from envd.cli.steps import Step
from envd.core.answers import WriteAnswer
from envd.core.errors import (
    Conflict,
    EnvdError,
    InvalidRequest,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
)
from envd.core.syncing import BindRequest
from envd.wire.plain import to_plain

_MAX_OPERATION_BYTES = 100


@dataclass(slots=True)
class Outcome:
    """What became of the steps."""

    done: list[WriteAnswer] = field(default_factory=list)
    failed: list[tuple[str, EnvdError]] = field(default_factory=list)
    not_tried: list[str] = field(default_factory=list)


def _apply(invocation: Invocation) -> int:
    arguments = invocation.arguments
    if arguments.on("--exit-code") and not arguments.on("--dry-run"):
        raise UsageError("--exit-code goes with --dry-run")
    planning.refuse_empty(invocation, "--plan")
    plan = planning.make_plan(invocation)
    planning.refuse_other_plan(invocation, plan)
    if arguments.on("--dry-run"):
        return planning.end_plan(invocation, plan)
    planning.refuse_obstacles(plan)
    if not plan.steps:
        return _nothing(invocation, plan)
    figures = planning.in_figures(plan)
    if invocation.shows_tables():
        invocation.screen.line()
        invocation.screen.line(figures)
    invocation.confirm("do this?")
    return _told(invocation, plan, _performed(invocation, plan))


def _nothing(invocation: Invocation, plan: Plan) -> int:
    if invocation.shows_tables():
        invocation.screen.line("nothing differs; no commit was made")
    else:
        invocation.document({**plan.document(), "applied": [], "failed": []})
    return exits.DONE


def _performed(invocation: Invocation, plan: Plan) -> Outcome:
    """Carry the steps out; where nothing more can work, the rest is not tried."""
    outcome = Outcome()
    with invocation.progress("applying", len(plan.steps)) as progress:
        for at, planned in enumerate(plan.steps):
            try:
                answer = _carried_out(invocation, planned)
            except EnvdError as error:
                outcome.failed.append((planned.environment, error))
                if isinstance(error, Unavailable | Unauthenticated | OutcomeUnknown):
                    outcome.not_tried = [each.environment for each in plan.steps[at + 1 :]]
                    break
            else:
                outcome.done.append(answer)
                _show_done(invocation, planned, answer)
            progress.advance()
    return outcome


def _carried_out(invocation: Invocation, planned: Planned) -> WriteAnswer:
    if planned.place is None:
        step = planning.removal_now(invocation, planned.environment)
        message = "its file is gone"
    else:
        step = planning.step_now(invocation, planned.place)
        message = f"applied from {planned.place.shown}"
    if step.digest != planned.digest:
        raise Conflict("it or its file changed meanwhile, so it was left alone", hint="plan again")
    message = invocation.message or message
    operation = _operation(invocation, planned.environment)
    try:
        if step.deletes:
            return invocation.delete(step.delete_request(message, operation))
        return _written(invocation, step, message, operation)
    except InvalidRequest as error:
        # It is the file that asks too much, not the command line.
        raise Failed(error.message, hint=error.hint, reason=error.reason) from error


def _written(invocation: Invocation, step: Step, message: str, operation: str) -> WriteAnswer:
    """Write the environment where it changes, then bind; the answer is that of the write."""
    if step.writes:
        answer = invocation.write(step.write_request(message, operation))
    else:
        assert step.view is not None, "an environment that is not there is written"
        answer = WriteAnswer(step.environment, step.revision, step.view.stamp, token="")
    for each in step.bindings:
        invocation.connection.sync.bind(BindRequest(each))
    return answer


def _operation(invocation: Invocation, environment: str) -> str:
    """An id is for one environment; this one is the same in each try with the same --operation."""
    whole = invocation.operation
    of_this = blake2b(f"{whole}\0{environment}".encode(), digest_size=8).hexdigest()
    return f"{whole.encode()[:_MAX_OPERATION_BYTES].decode(errors='ignore')}.{of_this}"


def _show_done(invocation: Invocation, planned: Planned, answer: WriteAnswer) -> None:
    if not invocation.shows_tables():
        return
    if planned.place is None:
        invocation.screen.line(f"{planned.environment}: deleted")
    else:
        invocation.screen.line(f"{planned.environment}: at revision {short(answer.revision)}")


def _told(invocation: Invocation, plan: Plan, outcome: Outcome) -> int:
    if not invocation.shows_tables():
        invocation.document({**plan.document(), **_document(outcome)})
    if not outcome.failed:
        if invocation.shows_tables():
            invocation.screen.line(
                f"applied; {planning.counted(len(outcome.done), 'environment')} changed"
            )
        return exits.DONE
    environment, first = outcome.failed[0]
    alone = len(outcome.failed) == 1 and not outcome.not_tried
    if not outcome.done and alone:
        raise _again(first, f"{environment}: {first.message}") from first
    lines = [f"{name}: {error.message}" for name, error in outcome.failed]
    lines += [f"{name}: not tried" for name in outcome.not_tried]
    count = f"{len(outcome.done)} of {len(plan.steps)} environments were changed; these were not:"
    told = "\n       ".join([count, *lines])
    if not outcome.done and outcome.not_tried and len(outcome.failed) == 1:
        raise _again(first, told) from first  # Nothing is done, so it is not done in part.
    raise PartlyDone(
        told,
        hint="what is done is done; mend the rest and apply again, which does only that",
    )


def _again(error: EnvdError, message: str) -> EnvdError:
    return type(error)(message, hint=error.hint, reason=error.reason)


def _document(outcome: Outcome) -> dict[str, Any]:
    failed = [
        {"environment": name, "error": error.message, "hint": error.hint, "reason": error.reason}
        for name, error in outcome.failed
    ]
    failed += [
        {"environment": name, "error": "not tried", "hint": "", "reason": "NOT_TRIED"}
        for name in outcome.not_tried
    ]
    return {"applied": [to_plain(answer) for answer in outcome.done], "failed": failed}


APPLY = Command(
    usage=("-f DIR [--plan NAME] [--dry-run] [--yes]",),
    about="""
    Bring environments to what the files of a directory say; envctl plan --help tells what the
    files are. The plan is shown first, then it asks. Each environment is one commit, bases
    before what extends them, and only if it is still as it was compared. Where that fails for
    some, the others are done, each is listed, and the exit code is 7.

    With --plan, it goes on only if there is exactly this to do: the name that envctl plan
    showed for a review. --delete-missing deletes the environments below a prefix that have no
    file; their history stays.
    """,
    examples=(
        ("envctl apply -f envs", "shows what changes, and asks"),
        ("envctl apply -f envs --plan 5c1d0e4f9a7b2233 --yes", "what was reviewed, or nothing"),
        ("envctl apply -f envs --dry-run --exit-code", "only look"),
    ),
    run=_apply,
    flags=(
        *SCOPE_FLAGS,
        Flag("--plan", "only if the plan has this name", "NAME"),
        DRY_RUN,
        EXIT_CODE,
        YES,
        *WRITE_FLAGS,
    ),
)
