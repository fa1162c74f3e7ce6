"""A plan: what the rules of a binding say of every variable, and the brake on deletions. Pure.

A plan is named by all that it would do and by the versions of both sides that it was made of, so
a plan that is made again has the same name exactly when nothing it depends on has moved.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final

from envd.backends.contract import Key, Op, Verb
from envd.backends.errors import BackendError
from envd.core.errors import Conflict, EnvdError
from envd.core.names import check_value, check_variable
from envd.core.syncing import Action, BindingView, HeldView, OperationView, PlanView
from envd.sync.anchors import Anchor
from envd.sync.layouts import Place
from envd.sync.merge import ENVD, NEITHER, STORE, Decision, Left, Sides, decide
from envd.sync.picture import Bound, Picture, Written, store_stamp
from envd.sync.ports import Fingerprint

BRAKE_NAMES: Final = 50
BRAKE_SHARE: Final = 0.2
"""More deletions than this, in one go, wait for a person; a single one never does."""
_PLAN_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done with one variable; of a note (`action` None) only the anchor."""

    bound: Bound
    key: Key
    sides: Sides
    decision: Decision
    native: str = ""

    @property
    def deletes(self) -> bool:
        """Whether something is deleted, on either side."""
        return self.decision.action is Action.DELETE

    @property
    def works(self) -> bool:
        """Whether there is something to do besides telling of it."""
        return self.decision.side != NEITHER or bool(self.decision.loses)


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it. `notes` are anchors to be kept anew, where nothing else is to be done.

    `names` counts the variables on any side, `held` says what of the plan is not to be done, `left`
    what is left as it is, for the next picture.
    """

    binding: BindingView
    target: str
    operations: tuple[Planned, ...]
    notes: tuple[Planned, ...]
    in_step: int
    names: int
    held: tuple[HeldView, ...] = ()
    left: Mapping[Key, Left] = field(default_factory=dict, compare=False, repr=False)
    id: str = field(default="", compare=False)

    @property
    def deletions(self) -> int:
        """How many names it deletes, on both sides."""
        return sum(planned.deletes for planned in self.operations)

    def brakes(self, allowed: int = 0) -> bool:
        """Whether it deletes too much at once for nobody to have said so."""
        deletions = self.deletions
        if deletions <= max(1, allowed):
            return False
        return deletions > BRAKE_NAMES or deletions > BRAKE_SHARE * self.names


def make(picture: Picture, place: Place, fingerprint: Fingerprint) -> Plan:
    """The plan that a picture leads to."""
    compared = picture.compared()
    decided = [
        Planned(bound, key, sides, _decided(picture, key, sides, fingerprint))
        for bound, key, sides in compared.differing
    ]
    named = _with_names(decided, place, fingerprint)
    operations = tuple(each for each in named if each.decision.action is not None)
    notes = tuple(
        each
        for each in named
        if each.decision.action is None and each.decision.anchor != each.sides.anchor
    )
    plan = Plan(
        picture.binding,
        picture.target,
        operations,
        notes,
        in_step=compared.in_step + sum(each.decision.action is None for each in named),
        names=compared.in_step + sum(map(_is_there, named)),
        left={
            each.key: Left.of(each.sides, each.decision)
            for each in decided
            if _is_left(each) and each.key not in picture.unread
        },
    )
    plan = replace(plan, held=tuple(_held(plan, picture)))
    return replace(plan, id=_name(plan))


def _is_there(planned: Planned) -> bool:
    return planned.sides.here is not None or planned.sides.there is not None


def _is_left(planned: Planned) -> bool:
    """Whether it is left as it is for what both sides are, not as one of them can't be told."""
    stays = planned.decision.action in (Action.SKIP, Action.CONFLICT) and not planned.works
    return stays and not planned.sides.unsure


def _decided(picture: Picture, key: Key, sides: Sides, fingerprint: Fingerprint) -> Decision:
    unread = picture.unread.get(key)
    if unread is not None:
        return _skipped(sides, f"its value can't be read: {unread.message}")
    left = picture.known(key, sides)
    if left is not None:
        return left.decision
    try:
        decision = decide(picture.binding, sides, fingerprint)
    except UnicodeEncodeError:
        return _skipped(sides, f"the store's value of {key.variable} is not valid UTF-8")
    comes_here = decision.side == ENVD and decision.action is not Action.DELETE
    if sides.there is not None and (comes_here or decision.loses == STORE):
        try:
            check_variable(key.variable)
            if sides.there.value is not None:
                check_value(key.variable, sides.there.value)
        except EnvdError as error:
            return _skipped(sides, error.message)
    return decision


def _skipped(sides: Sides, why: str) -> Decision:
    return Decision(Action.SKIP, NEITHER, why, sides.anchor)


def _with_names(
    decided: Sequence[Planned], place: Place, fingerprint: Fingerprint
) -> list[Planned]:
    """The same with their names in the store; what the store can't have is skipped."""
    named = []
    for planned in decided:
        try:
            there = planned.sides.there
            native = there.native if there is not None else place.name(planned.key)
            named.append(replace(planned, native=native))
        except BackendError as error:
            if planned.decision.side == STORE:
                decision = _skipped(planned.sides, error.message)
                named.append(replace(planned, decision=decision))
            else:
                named.append(planned)
    ops = [op_of(each, fingerprint) for each in named if each.decision.side == STORE]
    problems = place.problems(ops)
    return [
        replace(each, decision=_skipped(each.sides, problems[each.key].message))
        if each.key in problems
        else each
        for each in _without_collisions(named, place)
    ]


def _without_collisions(named: Sequence[Planned], place: Place) -> list[Planned]:
    """Two variables of one name in the store would overwrite each other: neither is written."""
    if place.has_documents:
        return list(named)
    counts = Counter(each.native for each in named if each.sides.here is not None and each.native)
    return [
        replace(each, decision=_skipped(each.sides, f"another variable is {each.native} too"))
        if each.decision.side == STORE and counts[each.native] > 1
        else each
        for each in named
    ]


def op_of(planned: Planned, fingerprint: Fingerprint) -> Op:
    """The write to the store that is planned."""
    sides, decision = planned.sides, planned.decision
    expect = sides.version
    if decision.action is Action.DELETE:
        created = sides.anchor is not None and sides.anchor.made == STORE
        return Op(Verb.DELETE, planned.key, expect, any_owner=not created)
    here = sides.here
    assert here is not None, "what is put in the store is here"
    written = Written(planned.bound.environment, planned.key.variable, here.value)
    stamp = store_stamp(fingerprint, written, sides.stamp)
    return Op(Verb.PUT, planned.key, expect, here.value, here.secret, stamp, any_owner=True)


def _held(plan: Plan, picture: Picture) -> Iterable[HeldView]:
    binding = plan.binding
    if plan.brakes():
        yield HeldView(
            binding.name,
            "BRAKE",
            f"it would delete {plan.deletions:,} of {plan.names:,} names, so it deletes none",
            f"look at the plan; if it is right: envctl sync apply {binding.name} "
            f"--allow-deletes {plan.deletions}",
        )
    for relative in sorted(picture.illegal):
        yield HeldView(
            binding.name,
            "NO_ENVIRONMENT",
            f"the store has {relative!r}, which no environment can be called",
            "rename it in the store, or bind a narrower place",
        )
    for relative, error in sorted(picture.unreadable.items()):
        yield HeldView(
            binding.name,
            "UNREADABLE",
            f"what the store has of {relative or 'the environment'} can't be read, so it is left "
            f"as it is: {error.message}",
            error.hint or "mend it in the store, or delete it there",
        )


def _name(plan: Plan) -> str:
    """The plan's id: a hash of what it does, and of the versions of both sides."""
    rows = [
        [
            each.bound.environment,
            each.key.variable,
            each.decision.action.value if each.decision.action else "",
            each.decision.side,
            each.sides.stamp,
            each.sides.version,
            each.native,
        ]
        for each in plan.operations
    ]
    text = json.dumps([plan.binding.name, plan.binding.revision, plan.target, rows])
    return blake2b(text.encode(), digest_size=_PLAN_BYTES, person=b"envd plan").hexdigest()


def view(plans: Sequence[Plan]) -> PlanView:
    """What users see of plans; several have one name together."""
    return PlanView(
        joined_name([each.id for each in plans]),
        tuple(operation_view(plan, each) for plan in plans for each in plan.operations),
        tuple(held for plan in plans for held in plan.held),
        sum(plan.in_step for plan in plans),
    )


def joined_name(names: Sequence[str]) -> str:
    """The name of several plans together; of one, its own."""
    if len(names) == 1:
        return names[0]
    text = "\0".join(names)
    return blake2b(text.encode(), digest_size=_PLAN_BYTES, person=b"envd plans").hexdigest()


def operation_view(
    plan: Plan, planned: Planned, result: str = "", detail: str = ""
) -> OperationView:
    """One operation as users see it."""
    decision = planned.decision
    return OperationView(
        plan.binding.name,
        "" if decision.action is None else decision.action.value,
        planned.bound.environment,
        planned.key.variable,
        decision.reason,
        decision.side,
        plan.target,
        planned.native,
        result,
        detail,
    )


def final_anchor(planned: Planned, *, version: str = "", stamp: str = "") -> Anchor | None:
    """The anchor once it is done: with the version, or the stamp, of the side that was written."""
    anchor = planned.decision.anchor
    if anchor is None:
        return None
    match planned.decision.side:
        case "store":
            return replace(anchor, version=version)
        case "envd":
            return replace(anchor, stamp=stamp)
        case _:
            return anchor


def moved() -> Conflict:
    """The refusal of a plan that is not the present one any more."""
    return Conflict(
        "the state moved on since the plan was made; nothing was done",
        hint="look at the new one: envctl sync plan",
        reason="PLAN_MOVED",
    )
