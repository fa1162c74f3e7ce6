"""Doing exactly what a plan says, so that a crash at any point loses nothing and repeats nothing.

In this order, for all of a binding at once:

1. What a write to the store will overwrite unseen goes on record here, as a conflict.
2. The intents of all writes to the store are kept: the stamp and hash of each.
3. The store is written, each name under the version that the plan saw.
4. Environments are written, each in one commit, under the revision that the plan saw. What such a
   write had not seen goes on record in that same commit.
5. The anchors are kept.

A crash after 2 or 3 is told by the intents, one after 4 by equal values on both sides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final

from envd.backends.contract import Item, Key, Outcome, Result
from envd.core.errors import Conflict, EnvdError, OutcomeUnknown, Unavailable
from envd.core.requests import Put, Seen, Unset, WriteRequest
from envd.core.stamp import COUNTER_BITS, Stamp
from envd.core.syncing import Action, OperationView
from envd.formats.secrets import looks_secret
from envd.sync import anchors
from envd.sync.anchors import ABSENT, NOTHING, Anchor, Intent
from envd.sync.layouts import Place
from envd.sync.merge import ENVD, SETTLED, STORE
from envd.sync.picture import DOCUMENT, ENVIRONMENT, TARGET, Bound, Looking, Picture
from envd.sync.plan import Plan, Planned, final_anchor, op_of, operation_view
from envd.sync.ports import Local, Lost

NOT_TRIED: Final = "not tried"
WAITS: Final = "waits"
_ABOUT: Final = (ENVIRONMENT, TARGET, DOCUMENT)
_log = logging.getLogger(__name__)
_ABOVE_ERAS: Final = (1 << 32) - 1
_FAILED: Final = {
    Result.CONFLICT: "conflict",
    Result.REJECTED: "rejected",
    Result.FAILED: "failed",
}
_TRIED_AGAIN: Final = frozenset((_FAILED[Result.CONFLICT], _FAILED[Result.FAILED]))


Told = Callable[[int, int], None]
"""(how many writes are done, of how many)"""


@dataclass(frozen=True, slots=True)
class Leave:
    """What a plan is allowed, besides what it may do by itself."""

    deletes: int = 0
    restart: bool = False
    message: str = ""


@dataclass(slots=True)
class _Course:
    """One application of a plan, as far as it has come.

    `told` hears how many of how many writes are done; those of the store come first.
    """

    plan: Plan
    picture: Picture
    place: Place
    looking: Looking
    wall_ms: int
    told: Told
    writes: int = 0
    done: int = 0
    results: dict[int, tuple[str, str]] = field(default_factory=dict)
    kept: dict[str, dict[str, Anchor | None]] = field(default_factory=dict)
    """By record: the anchors that are to be kept, None for those that are to go."""

    def keep(self, planned: Planned, anchor: Anchor | None) -> None:
        self.kept.setdefault(planned.bound.record, {})[planned.key.variable] = anchor

    def has_done(self, writes: int) -> None:
        self.done = writes
        self.told(writes, self.writes)

    def ended(self, planned: Planned, result: str, detail: str = "") -> None:
        self.results[id(planned)] = (result, detail)


async def apply(
    plan: Plan,
    picture: Picture,
    place: Place,
    looking: Looking,
    leave: Leave,
    wall_ms: int,
    told: Told = lambda _done, _writes: None,
    *,
    withheld: str = "",
) -> list[OperationView]:
    """Do a plan that was made of this picture; what became of each operation, in its order.

    `told` hears how many writes are done, and of how many, as it goes on. `withheld` is why the
    store must not be written now, "" where it may: all else is done then.
    Failures of single operations are told, not raised. Raises EnvdError where the conflicts or
    intents can't be kept: then the store was not written.
    """
    course = _Course(plan, picture, place, looking, wall_ms, told)
    braked = plan.brakes(leave.deletes)
    todo = []
    for planned in plan.operations:
        if withheld and planned.decision.side == STORE:
            course.ended(planned, NOT_TRIED, withheld)
        elif planned.deletes and braked:
            course.ended(planned, NOT_TRIED, "it is one of too many deletions at once")
        elif planned.works:
            todo.append(planned)
        else:
            course.ended(planned, _left(planned))
    for planned in plan.notes:
        course.keep(planned, planned.decision.anchor)
    for planned in plan.operations:
        if planned.decision.action is Action.ADOPT:
            course.keep(planned, planned.decision.anchor)
            course.ended(planned, "applied")
    await _put_on_record(course, todo)
    course.writes = sum(bool(each.decision.side) for each in todo)
    course.has_done(0)
    await _write_store(course, [each for each in todo if each.decision.side == STORE])
    await _write_environments(course, [each for each in todo if each.decision.side == ENVD], leave)
    try:
        await _keep(course)
    except EnvdError as error:
        raise OutcomeUnknown(
            f"the plan was done, and that could not be noted: {error.message}",
            hint="the next comparison finds out what was done",
            reason="NOT_NOTED",
        ) from error
    return [_view(course, each) for each in plan.operations]


def _view(course: _Course, planned: Planned) -> OperationView:
    result, detail = course.results.get(id(planned), ("", ""))
    return operation_view(course.plan, planned, result, detail)


def author_of(plan: Plan) -> str:
    """Who is told as the author of what a store had: `store aws-ssm:/payments/prod`."""
    return f"store {plan.target}"


# -- 1: what is overwritten goes on record ---------------------------------------------------


async def _put_on_record(course: _Course, todo: Sequence[Planned]) -> None:
    losing = [each for each in todo if each.decision.loses == STORE]
    for name, group in _by_environment(losing).items():
        lost = [_lost(course, each, each.sides.there) for each in group]
        ids = await course.looking.environments.put_on_record(name, lost)
        for planned, conflict in zip(group, ids, strict=True):
            anchor = planned.decision.anchor
            if not planned.decision.side and anchor is not None:
                if not conflict:  # Somebody settled it before: what is here is right.
                    anchor = replace(anchor, stamp=SETTLED)
                course.keep(planned, replace(anchor, conflict=conflict))
                course.ended(planned, WAITS)


def _lost(course: _Course, planned: Planned, item: Item | None) -> Lost:
    """What the store had of a variable that the plan is about."""
    assert item is not None, "what is lost was in the store"
    return _lost_upon(course, planned.sides.here, planned.key.variable, item)


def _lost_upon(course: _Course, here: Local | None, variable: str, item: Item) -> Lost:
    """What the store had, as a write of its own: after what is here, and by the store's time.

    The stamp follows from what it was and what is here, so the same loss is the same record. Where
    nothing is here, it may have been deleted later than the store's write, and not known of it.
    """
    named = f"{course.plan.target}\0{item.native}\0{item.version}".encode()
    actor = int.from_bytes(blake2b(named, digest_size=8, person=b"envd store actor").digest())
    when_ms = min(item.changed_ms or 0, course.wall_ms)
    hlc = when_ms << COUNTER_BITS
    era = _ABOVE_ERAS
    if here is not None:
        era, hlc = here.stamp.era, max(hlc, here.stamp.hlc + 1)
    secret = item.secret if item.secret is not None else here is None or here.secret
    return Lost(
        variable,
        item.value,
        secret,
        Stamp(era, hlc, actor),
        author_of(course.plan),
        when_ms or course.wall_ms,
    )


# -- 2 and 3: the store ----------------------------------------------------------------------


async def _write_store(course: _Course, todo: Sequence[Planned]) -> None:
    if not todo:
        return
    await _keep_intents(course, todo)
    named = f"{course.plan.id}-{course.wall_ms}"
    ops = [op_of(each, course.looking.fingerprint) for each in todo]
    others: list[Item] = []
    outcomes = await course.place.apply(ops, named, course.has_done, others.append)
    for planned, outcome in zip(todo, outcomes, strict=True):
        _note(course, planned, outcome)
    await _record_overtaken(course, todo, outcomes)
    await _record_others(course, others)


async def _keep_intents(course: _Course, todo: Sequence[Planned]) -> None:
    records = course.looking.records
    for bound, group in _by_bound(todo):
        await _tell_whose(course, bound)
        puts = {
            each.key.variable: anchors.encoded(
                (each.sides.anchor or NOTHING).intending(_intent(course, each))
            )
            for each in group
            if not each.deletes
        }
        if puts:
            await records.update(bound.record, puts)


def _intent(course: _Course, planned: Planned) -> Intent:
    here = planned.sides.here
    assert here is not None, "what is put in the store is here"
    return Intent(planned.sides.stamp, course.looking.fingerprint(here.value))


def _note(course: _Course, planned: Planned, outcome: Outcome) -> None:
    """Take in what became of one write to the store."""
    if outcome.result in (Result.APPLIED, Result.NOOP):
        course.keep(planned, final_anchor(planned, version=outcome.version))
        unseen = outcome.overtaken and outcome.between is None
        why = "somebody changed it in the very moment, and what it was can't be read any more"
        course.ended(planned, outcome.result.value, why if unseen else "")
        return
    detail = "" if outcome.error is None else outcome.error.message
    course.ended(planned, _FAILED[outcome.result], detail)
    if outcome.result is not Result.FAILED:  # Else it may be done, which the intent will tell.
        course.keep(planned, planned.sides.anchor)


async def _record_overtaken(
    course: _Course, todo: Sequence[Planned], outcomes: Sequence[Outcome]
) -> None:
    """Put on record what others wrote in the very moment before a write that replaced it."""
    between = {
        id(planned): outcome.between
        for planned, outcome in zip(todo, outcomes, strict=True)
        if outcome.overtaken and outcome.between is not None
    }
    overtaken = [each for each in todo if id(each) in between]
    for name, group in _by_environment(overtaken).items():
        lost = [_lost(course, each, between[id(each)]) for each in group]
        try:
            await course.looking.environments.put_on_record(name, lost)
        except EnvdError as error:
            for planned in group:
                _not_on_record(course, planned, error)


async def _record_others(course: _Course, items: Sequence[Item]) -> None:
    """Put on record what others wrote beside the plan's variables, and is in the store no more."""
    bounds = {bound.relative: bound for bound in course.picture.bound.values()}
    for item in items:
        bound, variable = bounds[item.key.environment], item.key.variable
        lost = _lost_upon(course, bound.state.variables.get(variable), variable, item)
        try:
            await course.looking.environments.put_on_record(bound.environment, [lost])
        except EnvdError as error:
            _log_not_on_record(course, bound, variable, error)


def _not_on_record(course: _Course, planned: Planned, error: EnvdError) -> None:
    """Tell of what was overwritten in the store and is kept nowhere here: its history may help."""
    why = f"somebody wrote it in the very moment, which could not go on record: {error.message}"
    course.ended(planned, "failed", why)
    _log_not_on_record(course, planned.bound, planned.key.variable, error)


def _log_not_on_record(course: _Course, bound: Bound, variable: str, error: EnvdError) -> None:
    extra = {"binding": course.plan.binding.name, "target": course.plan.target}
    names = {"environment": bound.environment, "variable": variable}
    _log.error("sync.not_on_record", extra={**extra, **names, "reason": error.reason})


# -- 4: environments -------------------------------------------------------------------------


async def _write_environments(course: _Course, todo: Sequence[Planned], leave: Leave) -> None:
    for bound, group in _by_bound(todo):
        request = _request(course, bound, group, leave)
        try:
            answer = await course.looking.environments.write(request, author_of(course.plan))
        except Conflict:
            for planned in group:
                course.ended(planned, "conflict", "it was changed here meanwhile")
        except EnvdError as error:
            passes = isinstance(error, OutcomeUnknown | Unavailable)
            for planned in group:
                course.ended(planned, "failed" if passes else "rejected", error.message)
        else:
            for planned in group:
                course.keep(planned, final_anchor(planned, stamp=answer.stamp))
                course.ended(planned, "applied")
        course.has_done(course.done + len(group))


def _request(course: _Course, bound: Bound, group: Sequence[Planned], leave: Leave) -> WriteRequest:
    exists = bool(bound.state.revision)
    seen = [
        Seen(each.key.variable, _seen(each.sides.anchor))
        for each in group
        if each.decision.loses == ENVD
    ]
    return WriteRequest(
        bound.environment,
        tuple(_put(each) for each in group if not each.deletes),
        tuple(Unset(each.key.variable) for each in group if each.deletes),
        bulk=True,
        if_revision=bound.state.revision,
        must_not_exist=not exists,
        message=leave.message or f"from {course.plan.target}",
        seen=tuple(seen),
    )


def _seen(anchor: Anchor | None) -> str:
    """The stamp that the store's write was made upon, "" where nobody can tell."""
    return "" if anchor is None or anchor.written is None else anchor.stamp


def _put(planned: Planned) -> Put:
    """The store's value; it is secret where the store says so, or else where it looks like it."""
    there, here = planned.sides.there, planned.sides.here
    assert there is not None, "what is taken is in the store"
    assert there.value is not None, "its value was read"
    secret: bool | None = None
    if here is None:
        guessed = looks_secret(planned.key.variable, there.value)
        secret = guessed if there.secret is None else there.secret
    elif there.secret:
        secret = True
    return Put(planned.key.variable, there.value, secret)


# -- 5: anchors ------------------------------------------------------------------------------


async def _keep(course: _Course) -> None:
    """Keep all anchors that have changed, and the versions of documents that were read."""
    records, documents = course.looking.records, course.picture.documents
    unknown = _unknown_documents(course) if course.place.has_documents else set[str]()
    present = {key.environment for key in course.picture.items}
    for bound in course.picture.bound.values():
        if _is_gone(bound, present):
            await records.update(anchors.about_name(bound.record), {}, list(_ABOUT))
            continue
        wanted = course.kept.get(bound.record, {})
        puts = {name: anchors.encoded(anchor) for name, anchor in wanted.items() if anchor}
        unsets = [name for name, anchor in wanted.items() if anchor is None]
        if puts or unsets:
            await _tell_whose(course, bound)
            await records.update(bound.record, puts, unsets)
        version = "" if bound.relative in unknown else documents.get(bound.relative, "")
        if course.place.has_documents and version != bound.document:
            await _tell_whose(course, bound)
            await records.update(anchors.about_name(bound.record), {DOCUMENT: version})


def _is_gone(bound: Bound, present: set[str]) -> bool:
    """Whether nothing is left of an environment on either side, nor known of it."""
    is_there = bool(bound.state.revision) or bound.relative in present
    return not (bound.is_new or bound.anchors or is_there)


def _unknown_documents(course: _Course) -> set[str]:
    """The documents that must be read again, by relative environment: no anchors tell all of them.

    They were written, or something in them was left as it is, or could not be taken, or is gone and
    still has an anchor: with the anchors alone that would look as if it were in step. Of what is
    nobody's here nothing is asked.
    """
    unknown, foreign = set[str](), set[Key]()
    for planned in course.plan.operations:
        if planned.decision.side == STORE:
            unknown.add(planned.key.environment)
        if planned.decision.action is Action.SKIP and planned.sides.anchor is None:
            foreign.add(planned.key)
    bounds = {bound.relative: bound for bound in course.picture.bound.values()}
    for key, item in course.picture.items.items():
        bound = bounds.get(key.environment)
        if bound is not None and key not in foreign:
            kept = course.kept.get(bound.record, {})
            anchor = kept.get(key.variable, bound.anchors.get(key.variable))
            if anchor is None or anchor.version != item.version:
                unknown.add(key.environment)
    unknown.update(bound.relative for bound in bounds.values() if _lacks_anchored(course, bound))
    return unknown


def _lacks_anchored(course: _Course, bound: Bound) -> bool:
    """Whether a variable keeps an anchor of which the store has nothing any more."""
    anchors_left = {**bound.anchors, **course.kept.get(bound.record, {})}
    return any(
        anchor is not None
        and anchor.version != ABSENT
        and Key(bound.relative, name) not in course.picture.items
        for name, anchor in anchors_left.items()
    )


async def _tell_whose(course: _Course, bound: Bound) -> None:
    """Keep, before any of the anchors, whose they are."""
    if bound.is_new:
        about: Mapping[str, str] = {ENVIRONMENT: bound.environment, TARGET: course.plan.target}
        await course.looking.records.update(anchors.about_name(bound.record), dict(about))


def _by_environment(todo: Iterable[Planned]) -> dict[str, list[Planned]]:
    groups: dict[str, list[Planned]] = {}
    for planned in todo:
        groups.setdefault(planned.bound.environment, []).append(planned)
    return groups


def _by_bound(todo: Iterable[Planned]) -> list[tuple[Bound, list[Planned]]]:
    return [(group[0].bound, group) for group in _by_environment(todo).values()]


def _left(planned: Planned) -> str:
    """The result of an operation that there is nothing to do for."""
    return WAITS if planned.decision.action is Action.CONFLICT else ""


def is_whole(views: Iterable[OperationView]) -> bool:
    """Whether nothing of a plan failed that another try may mend.

    What waits for somebody's leave is not to be tried soon, and what was refused would be again.
    """
    return not any(each.result in _TRIED_AGAIN for each in views)
