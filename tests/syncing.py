"""A reconciler that does as it is told, and things that it may tell."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from envd.core.answers import Identity
from envd.core.errors import Denied, NotFound
from envd.core.syncing import (
    AppliedView,
    ApplyRequest,
    BackendList,
    BackendView,
    BindingCost,
    BindingList,
    BindingsRequest,
    BindingStatus,
    BindingView,
    BindRequest,
    CheckList,
    CheckRequest,
    CheckView,
    CostView,
    FetchedVariable,
    FetchRequest,
    FetchView,
    HeldView,
    OperationView,
    PauseRequest,
    PlanRequest,
    PlanView,
    Saving,
    SyncStatus,
    TargetStatus,
    UnbindRequest,
)

SSM: Final = "aws-ssm:/payments/prod"
VAULT: Final = "azure-key-vault:acme-batch"
PAYMENTS: Final = BindingView(
    *("payments", "payments/prod", None, (SSM, "vault:payments/prod")),
    direction="both",
    credentials="profile:payments",
    windows=("Mon-Fri 08:00-18:00",),
    budget_dollars=5.0,
    revision="00112233",
)
BATCH: Final = BindingView("batch", None, "batch", (VAULT,), interval_seconds=300, origin="file")


def operation(
    action: str, variable: str, reason: str = "", side: str = "store", **more: str
) -> OperationView:
    """An operation of the binding `payments`, unless `more` says otherwise."""
    native = f"/payments/prod/{variable}"
    made = OperationView("payments", action, "payments/prod", variable, reason, side, SSM, native)
    return replace(made, **more)


PLAN: Final = PlanView(
    "5c1d0e4f9a7b2233",
    (
        operation("create", "DATABASE_URL", "not in the store yet"),
        operation("update", "POOL_SIZE", "changed here"),
        operation("update", "LOG_LEVEL", "changed in the store", "envd"),
        operation("adopt", "REGION", "equal on both sides", ""),
        operation("skip", "OWNER", "the store has it from somebody else", ""),
    ),
    in_step=37,
)
STATUS: Final = SyncStatus(
    (
        BindingStatus("batch", "no leader", told="2023-11-14T22:13:20.000Z"),
        BindingStatus(
            "payments",
            "in step",
            leader="node-1",
            last_success="2023-11-14T22:13:00.000Z",
            last_try="2023-11-14T22:13:00.000Z",
            next_run="2023-11-14T22:14:00.000Z",
            dollars_month=2.05,
            targets=(
                TargetStatus(SSM, True, "closed", reads=120, writes=7, latency_ms=48.5),
                TargetStatus("vault:payments/prod", False, "closed"),
            ),
        ),
    )
)
COST: Final = CostView(
    (
        BindingCost(
            *("payments", SSM, "aws", "Parameter Store", "eu-central-1"),
            items=42,
            reads_month=43_200,
            writes_month=310,
            dollars_month=2.05,
            prices_as_of="2026-11-01",
            measured_s=86_400,
            budget_dollars=5.0,
            savings=(
                Saving(
                    "one document instead of 42 parameters",
                    *("aws", "eu-central-1", "Secrets Manager", 1.65, "high", "low"),
                ),
            ),
        ),
    ),
    2.05,
)
BACKENDS: Final = BackendList(
    (
        BackendView(
            "aws-ssm",
            "AWS Systems Manager Parameter Store",
            "/payments/prod",
            ("POSTCHECK", "STAMP_SIDE"),
            "boto3 is not installed",
            "pip install 'envd-cluster[aws]'",
            "envd-cluster",
        ),
        BackendView("file", "a dotenv, JSON or YAML file", "/etc/app/.env", ("CAS",)),
    )
)


@dataclass
class FakeSync:
    """Answers what its fields hold, and keeps who asked what; the reader may do nothing."""

    kept: dict[str, BindingView] = field(default_factory=lambda: {"payments": PAYMENTS})
    status_now: SyncStatus = STATUS
    plan_now: PlanView = PLAN
    results: dict[str, tuple[str, str]] = field(default_factory=dict)
    held: tuple[HeldView, ...] = ()
    cost_now: CostView = COST
    found: FetchView = field(
        default_factory=lambda: FetchView(SSM, (FetchedVariable("", "A", "A", "1", False),))
    )
    error: Exception | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def _note(self, identity: Identity, call: str, request: object = None) -> None:
        if identity.name == "reader":
            raise Denied("reader may not sync", reason="RIGHT_MISSING")
        self.asked.append((call, request))
        if self.error is not None:
            raise self.error

    def _named(self, names: tuple[str, ...]) -> list[BindingView]:
        for name in names:
            if name not in self.kept:
                raise NotFound(f"there is no binding {name}", reason="BINDING_NOT_FOUND")
        return [self.kept[name] for name in sorted(names or self.kept)]

    async def bind(self, identity: Identity, request: BindRequest) -> BindingView:
        self._note(identity, "bind", request)
        binding = replace(request.binding, revision="44556677")
        if not request.dry_run:
            self.kept[binding.name] = binding
        return binding

    async def unbind(self, identity: Identity, request: UnbindRequest) -> BindingView:
        self._note(identity, "unbind", request)
        (binding,) = self._named((request.name,))
        if not request.dry_run:
            del self.kept[request.name]
        return binding

    async def bindings(self, identity: Identity, request: BindingsRequest) -> BindingList:
        self._note(identity, "bindings", request)
        return BindingList(tuple(self._named(request.names)))

    async def pause(self, identity: Identity, request: PauseRequest) -> BindingList:
        self._note(identity, "pause", request)
        by = "" if request.resume else identity.name
        for each in self._named(request.names):
            self.kept[each.name] = replace(each, paused_by=by)
        return BindingList(tuple(self._named(request.names)))

    async def status(self, identity: Identity, request: BindingsRequest) -> SyncStatus:
        self._note(identity, "status", request)
        wanted = request.names or tuple(each.binding for each in self.status_now.bindings)
        return SyncStatus(
            tuple(each for each in self.status_now.bindings if each.binding in wanted)
        )

    async def plan(self, identity: Identity, request: PlanRequest) -> PlanView:
        self._note(identity, "plan", request)
        return self.plan_now

    async def apply(self, identity: Identity, request: ApplyRequest) -> AppliedView:
        """What the plan says is done, but for the variables in `results`."""
        self._note(identity, "apply", request)
        done = []
        for each in self.plan_now.operations:
            result, detail = self.results.get(each.variable, ("applied", ""))
            if each.action == "skip":
                result = ""
            done.append(replace(each, result=result, detail=detail))
        return AppliedView(self.plan_now.plan, tuple(done), self.held)

    async def cost(self, identity: Identity, request: BindingsRequest) -> CostView:
        self._note(identity, "cost", request)
        return self.cost_now

    async def backends(self, identity: Identity) -> BackendList:
        self._note(identity, "backends")
        return BACKENDS

    async def check(self, identity: Identity, request: CheckRequest) -> CheckList:
        """All can be reached but what has "down" in its name."""
        self._note(identity, "check", request)
        targets = [*request.targets]
        for each in self._named(request.bindings) if request.bindings else ():
            targets += each.targets
        return CheckList(tuple(map(_checked, targets)))

    async def fetch(self, identity: Identity, request: FetchRequest) -> FetchView:
        self._note(identity, "fetch", request)
        return self.found


def _checked(target: str) -> CheckView:
    if "down" in target:
        return CheckView(target, False, detail="no answer in 5 s", hint="is it up?")
    return CheckView(target, True, 48.5, "arn:aws:iam::123456789012:role/envd")
