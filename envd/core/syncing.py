"""What is asked and told of the stores that envd keeps in step: bindings, plans, status, cost.

A binding ties one environment, or all below a prefix, to a place in one store or several. These are
the words of `SyncService`, of the Unix socket and of `--output json`. No value is ever in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

MAX_LISTED: Final = 5_000
"""Operations in one answer; each takes some 200 bytes, and a message at most 8 MiB."""
_DONE: Final = frozenset({"applied", "noop"})


class Action(Enum):
    """What a plan does with one variable."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    ADOPT = "adopt"
    """Both sides are equal and were not known to be: it is noted, nothing is written."""
    CONFLICT = "conflict"
    """Both sides changed, or nobody knows which is newer: what loses goes on record."""
    SKIP = "skip"
    """The sides differ, and the binding says to leave it so; the reason tells why."""


@dataclass(frozen=True, slots=True)
class BindingView:
    """A binding as it is kept. `origin` is "file" where a node's settings seeded it, or "api".

    Exactly one of `environment` and `prefix` is not None. `paused_by` names who paused it, "" for
    nobody; `revision` changes with every change of it.
    """

    name: str
    environment: str | None
    prefix: str | None
    targets: tuple[str, ...]
    route: str = "failover"
    direction: str = "push"
    conflict_policy: str = "lww"
    delete_policy: str = "owned"
    layout: str = "per-variable"
    name_template: str = ""
    credentials: str = ""
    interval_seconds: int = 60
    windows: tuple[str, ...] = ()
    priority: int = 100
    suspended: bool = False
    paused_by: str = ""
    budget_dollars: float = 0.0
    budget_stops: bool = False
    origin: str = "api"
    revision: str = ""


@dataclass(frozen=True, slots=True)
class BindRequest:
    """Make or replace the binding of this name. A dry run checks it, and the store, only."""

    binding: BindingView
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class UnbindRequest:
    """Remove a binding. What it made stays, in the store and here."""

    name: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class BindingsRequest:
    """Which bindings are meant; none named: all."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PauseRequest:
    """Have these bindings rest, or with `resume` go on; none named: all."""

    names: tuple[str, ...] = ()
    resume: bool = False


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Compare now, and tell what would be done; none named: all bindings."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyRequest:
    """Do what a plan says. With `plan` just that, or Conflict where the state moved on.

    `allow_deletes` lets that many deletes pass the brake. `allow_restart` consents to writes that
    restart something. `message` goes into the history of the environments that are written.
    """

    names: tuple[str, ...] = ()
    plan: str = ""
    allow_deletes: int = 0
    allow_restart: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class OperationView:
    """One operation of a plan. `side` is what is written: "store", "envd", or "" for nothing.

    `native` is the name in the store. After an apply, `result` is "applied", "noop", "conflict",
    "rejected", "failed" or "not tried", and `detail` says why.
    """

    binding: str
    action: str
    environment: str
    variable: str
    reason: str
    side: str = ""
    target: str = ""
    native: str = ""
    result: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HeldView:
    """Why a binding does nothing of its plan: the brake, the store, the policy."""

    binding: str
    reason: str
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class PlanView:
    """What would be done. `plan` names it together with the state that it was made of.

    `in_step` counts the variables that nothing is to be done with. What an idle binding has is no
    operation at all. `unlisted` operations are as much of the plan as those that are listed.
    """

    plan: str
    operations: tuple[OperationView, ...]
    held: tuple[HeldView, ...] = ()
    in_step: int = 0
    unlisted: int = 0

    def in_short(self) -> PlanView:
        """The same with no more operations than an answer should have."""
        operations, left = _most_telling(self.operations)
        return replace(self, operations=operations, unlisted=self.unlisted + left)


@dataclass(frozen=True, slots=True)
class AppliedView:
    """What was done, operation by operation, with `result`; `held` as in a plan.

    Of `unlisted` operations nothing is told, for there are too many; those that failed come first.
    """

    plan: str
    operations: tuple[OperationView, ...]
    held: tuple[HeldView, ...] = ()
    unlisted: int = 0

    def in_short(self) -> AppliedView:
        """The same with no more operations than an answer should have."""
        operations, left = _most_telling(self.operations)
        return replace(self, operations=operations, unlisted=self.unlisted + left)

    @property
    def failed(self) -> int:
        """How many were not done though the plan had them."""
        return sum(
            each.result in ("failed", "rejected", "conflict", "not tried")
            for each in self.operations
        )


def _most_telling(
    operations: tuple[OperationView, ...],
) -> tuple[tuple[OperationView, ...], int]:
    """At most MAX_LISTED of them, in their order, and how many were left out: what is done."""
    left = len(operations) - MAX_LISTED
    if left <= 0:
        return operations, 0
    by_need = sorted(range(len(operations)), key=lambda at: operations[at].result in _DONE)
    kept = sorted(by_need[:MAX_LISTED])
    return tuple(operations[at] for at in kept), left


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How one target of a binding does. `circuit` is "closed", "open" or "half open".

    `calls` counts those since its leader began; `open_until` is a time (ISO 8601) or "".
    """

    target: str
    in_use: bool
    circuit: str
    reads: int = 0
    writes: int = 0
    errors: int = 0
    throttled: int = 0
    latency_ms: float = 0.0
    last_error: str = ""
    open_until: str = ""


@dataclass(frozen=True, slots=True)
class BindingStatus:
    """How a binding does, as its leader last told. Times are ISO 8601, "" for never.

    `state` is "in step", "behind", "failing", "braked", "paused", "suspended", "waiting" (outside
    its windows), "no leader" or "over budget". `drift` counts the variables that differ; `lag_s` is
    the age of the oldest change that is not there yet. `dollars_month` is estimated. Of the run
    under way `run_done` of `run_total` operations are done; both are 0 while there is none.
    """

    binding: str
    state: str
    leader: str = ""
    last_success: str = ""
    last_try: str = ""
    next_run: str = ""
    drift: int = 0
    conflicts: int = 0
    lag_s: float = 0.0
    detail: str = ""
    hint: str = ""
    dollars_month: float = 0.0
    targets: tuple[TargetStatus, ...] = ()
    told: str = ""
    run_done: int = 0
    run_total: int = 0


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """How all of the asked bindings do."""

    bindings: tuple[BindingStatus, ...]


@dataclass(frozen=True, slots=True)
class BindingList:
    """The bindings, in order of name."""

    bindings: tuple[BindingView, ...]


@dataclass(frozen=True, slots=True)
class Saving:
    """A cheaper way. `confidence` and `effort` are "low", "medium" or "high"."""

    what: str
    provider: str
    region: str
    service: str
    saves_dollars_month: float
    confidence: str
    effort: str


@dataclass(frozen=True, slots=True)
class BindingCost:
    """What a binding costs a month at the traffic measured over `measured_s` seconds."""

    binding: str
    target: str
    provider: str
    service: str
    region: str
    items: int
    reads_month: int
    writes_month: int
    dollars_month: float
    prices_as_of: str
    measured_s: float = 0.0
    budget_dollars: float = 0.0
    savings: tuple[Saving, ...] = ()


@dataclass(frozen=True, slots=True)
class CostView:
    """What the asked bindings cost."""

    bindings: tuple[BindingCost, ...]
    dollars_month: float = 0.0


@dataclass(frozen=True, slots=True)
class BackendView:
    """A kind of store that this node knows. `problem` says why it can't be used, "" if it can."""

    name: str
    summary: str
    place_hint: str
    capabilities: tuple[str, ...] = ()
    problem: str = ""
    hint: str = ""
    distribution: str = ""


@dataclass(frozen=True, slots=True)
class BackendList:
    """The kinds of stores, in order of name."""

    backends: tuple[BackendView, ...]


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """Try to reach a place: a target such as `aws-ssm:/payments/prod`, or those of bindings."""

    targets: tuple[str, ...] = ()
    credentials: str = ""
    bindings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckView:
    """What a probe of one target found."""

    target: str
    ok: bool
    round_trip_ms: float = 0.0
    identity: str = ""
    detail: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class CheckList:
    """What the probes found."""

    checks: tuple[CheckView, ...]


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Read all variables at a target once, for an import. `reveal` as in ReadRequest."""

    target: str
    credentials: str = ""
    reveal: bool = False


@dataclass(frozen=True, slots=True)
class FetchedVariable:
    """One variable as the store has it; `native` is its name there."""

    environment: str
    variable: str
    native: str
    value: str | None = field(repr=False, default=None)
    secret: bool | None = None


@dataclass(frozen=True, slots=True)
class FetchView:
    """All variables at a target; `skipped` has names there that are no variables, and why."""

    target: str
    variables: tuple[FetchedVariable, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
