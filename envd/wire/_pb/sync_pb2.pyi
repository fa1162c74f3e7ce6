from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Binding(_message.Message):
    __slots__ = ("name", "environment", "prefix", "targets", "route", "direction", "conflict_policy", "delete_policy", "layout", "name_template", "credentials", "interval_seconds", "windows", "priority", "suspended", "paused_by", "budget_dollars", "budget_stops", "origin", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_POLICY_FIELD_NUMBER: _ClassVar[int]
    DELETE_POLICY_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    NAME_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    PAUSED_BY_FIELD_NUMBER: _ClassVar[int]
    BUDGET_DOLLARS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_STOPS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    environment: str
    prefix: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    route: str
    direction: str
    conflict_policy: str
    delete_policy: str
    layout: str
    name_template: str
    credentials: str
    interval_seconds: int
    windows: _containers.RepeatedScalarFieldContainer[str]
    priority: int
    suspended: bool
    paused_by: str
    budget_dollars: float
    budget_stops: bool
    origin: str
    revision: str
    def __init__(self, name: _Optional[str] = ..., environment: _Optional[str] = ..., prefix: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., route: _Optional[str] = ..., direction: _Optional[str] = ..., conflict_policy: _Optional[str] = ..., delete_policy: _Optional[str] = ..., layout: _Optional[str] = ..., name_template: _Optional[str] = ..., credentials: _Optional[str] = ..., interval_seconds: _Optional[int] = ..., windows: _Optional[_Iterable[str]] = ..., priority: _Optional[int] = ..., suspended: _Optional[bool] = ..., paused_by: _Optional[str] = ..., budget_dollars: _Optional[float] = ..., budget_stops: _Optional[bool] = ..., origin: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class BindRequest(_message.Message):
    __slots__ = ("binding", "dry_run")
    BINDING_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    binding: Binding
    dry_run: bool
    def __init__(self, binding: _Optional[_Union[Binding, _Mapping]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class BindResponse(_message.Message):
    __slots__ = ("binding",)
    BINDING_FIELD_NUMBER: _ClassVar[int]
    binding: Binding
    def __init__(self, binding: _Optional[_Union[Binding, _Mapping]] = ...) -> None: ...

class UnbindRequest(_message.Message):
    __slots__ = ("name", "dry_run")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    name: str
    dry_run: bool
    def __init__(self, name: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class UnbindResponse(_message.Message):
    __slots__ = ("binding",)
    BINDING_FIELD_NUMBER: _ClassVar[int]
    binding: Binding
    def __init__(self, binding: _Optional[_Union[Binding, _Mapping]] = ...) -> None: ...

class BindingsRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class BindingsResponse(_message.Message):
    __slots__ = ("bindings",)
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    bindings: _containers.RepeatedCompositeFieldContainer[Binding]
    def __init__(self, bindings: _Optional[_Iterable[_Union[Binding, _Mapping]]] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("names", "resume")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    resume: bool
    def __init__(self, names: _Optional[_Iterable[str]] = ..., resume: _Optional[bool] = ...) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ("bindings",)
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    bindings: _containers.RepeatedCompositeFieldContainer[Binding]
    def __init__(self, bindings: _Optional[_Iterable[_Union[Binding, _Mapping]]] = ...) -> None: ...

class SyncStatusRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class SyncStatusResponse(_message.Message):
    __slots__ = ("bindings",)
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    bindings: _containers.RepeatedCompositeFieldContainer[BindingStatus]
    def __init__(self, bindings: _Optional[_Iterable[_Union[BindingStatus, _Mapping]]] = ...) -> None: ...

class BindingStatus(_message.Message):
    __slots__ = ("binding", "state", "leader", "last_success", "last_try", "next_run", "drift", "conflicts", "lag_s", "detail", "hint", "dollars_month", "targets", "told", "run_done", "run_total")
    BINDING_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LAST_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    LAST_TRY_FIELD_NUMBER: _ClassVar[int]
    NEXT_RUN_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    LAG_S_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    DOLLARS_MONTH_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    TOLD_FIELD_NUMBER: _ClassVar[int]
    RUN_DONE_FIELD_NUMBER: _ClassVar[int]
    RUN_TOTAL_FIELD_NUMBER: _ClassVar[int]
    binding: str
    state: str
    leader: str
    last_success: str
    last_try: str
    next_run: str
    drift: int
    conflicts: int
    lag_s: float
    detail: str
    hint: str
    dollars_month: float
    targets: _containers.RepeatedCompositeFieldContainer[TargetStatus]
    told: str
    run_done: int
    run_total: int
    def __init__(self, binding: _Optional[str] = ..., state: _Optional[str] = ..., leader: _Optional[str] = ..., last_success: _Optional[str] = ..., last_try: _Optional[str] = ..., next_run: _Optional[str] = ..., drift: _Optional[int] = ..., conflicts: _Optional[int] = ..., lag_s: _Optional[float] = ..., detail: _Optional[str] = ..., hint: _Optional[str] = ..., dollars_month: _Optional[float] = ..., targets: _Optional[_Iterable[_Union[TargetStatus, _Mapping]]] = ..., told: _Optional[str] = ..., run_done: _Optional[int] = ..., run_total: _Optional[int] = ...) -> None: ...

class TargetStatus(_message.Message):
    __slots__ = ("target", "in_use", "circuit", "reads", "writes", "errors", "throttled", "latency_ms", "last_error", "open_until")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    IN_USE_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    OPEN_UNTIL_FIELD_NUMBER: _ClassVar[int]
    target: str
    in_use: bool
    circuit: str
    reads: int
    writes: int
    errors: int
    throttled: int
    latency_ms: float
    last_error: str
    open_until: str
    def __init__(self, target: _Optional[str] = ..., in_use: _Optional[bool] = ..., circuit: _Optional[str] = ..., reads: _Optional[int] = ..., writes: _Optional[int] = ..., errors: _Optional[int] = ..., throttled: _Optional[int] = ..., latency_ms: _Optional[float] = ..., last_error: _Optional[str] = ..., open_until: _Optional[str] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("plan", "operations", "held", "in_step", "unlisted")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    IN_STEP_FIELD_NUMBER: _ClassVar[int]
    UNLISTED_FIELD_NUMBER: _ClassVar[int]
    plan: str
    operations: _containers.RepeatedCompositeFieldContainer[PlannedOperation]
    held: _containers.RepeatedCompositeFieldContainer[HeldBinding]
    in_step: int
    unlisted: int
    def __init__(self, plan: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[PlannedOperation, _Mapping]]] = ..., held: _Optional[_Iterable[_Union[HeldBinding, _Mapping]]] = ..., in_step: _Optional[int] = ..., unlisted: _Optional[int] = ...) -> None: ...

class PlannedOperation(_message.Message):
    __slots__ = ("binding", "action", "environment", "variable", "reason", "side", "target", "native", "result", "detail")
    BINDING_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NATIVE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    binding: str
    action: str
    environment: str
    variable: str
    reason: str
    side: str
    target: str
    native: str
    result: str
    detail: str
    def __init__(self, binding: _Optional[str] = ..., action: _Optional[str] = ..., environment: _Optional[str] = ..., variable: _Optional[str] = ..., reason: _Optional[str] = ..., side: _Optional[str] = ..., target: _Optional[str] = ..., native: _Optional[str] = ..., result: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class HeldBinding(_message.Message):
    __slots__ = ("binding", "reason", "detail", "hint")
    BINDING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    binding: str
    reason: str
    detail: str
    hint: str
    def __init__(self, binding: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("names", "plan", "allow_deletes", "allow_restart", "message")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ALLOW_DELETES_FIELD_NUMBER: _ClassVar[int]
    ALLOW_RESTART_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    plan: str
    allow_deletes: int
    allow_restart: bool
    message: str
    def __init__(self, names: _Optional[_Iterable[str]] = ..., plan: _Optional[str] = ..., allow_deletes: _Optional[int] = ..., allow_restart: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("plan", "operations", "held", "unlisted")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    UNLISTED_FIELD_NUMBER: _ClassVar[int]
    plan: str
    operations: _containers.RepeatedCompositeFieldContainer[PlannedOperation]
    held: _containers.RepeatedCompositeFieldContainer[HeldBinding]
    unlisted: int
    def __init__(self, plan: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[PlannedOperation, _Mapping]]] = ..., held: _Optional[_Iterable[_Union[HeldBinding, _Mapping]]] = ..., unlisted: _Optional[int] = ...) -> None: ...

class CostRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class CostResponse(_message.Message):
    __slots__ = ("bindings", "dollars_month")
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    DOLLARS_MONTH_FIELD_NUMBER: _ClassVar[int]
    bindings: _containers.RepeatedCompositeFieldContainer[BindingCost]
    dollars_month: float
    def __init__(self, bindings: _Optional[_Iterable[_Union[BindingCost, _Mapping]]] = ..., dollars_month: _Optional[float] = ...) -> None: ...

class BindingCost(_message.Message):
    __slots__ = ("binding", "target", "provider", "service", "region", "items", "reads_month", "writes_month", "dollars_month", "prices_as_of", "measured_s", "budget_dollars", "savings")
    BINDING_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    READS_MONTH_FIELD_NUMBER: _ClassVar[int]
    WRITES_MONTH_FIELD_NUMBER: _ClassVar[int]
    DOLLARS_MONTH_FIELD_NUMBER: _ClassVar[int]
    PRICES_AS_OF_FIELD_NUMBER: _ClassVar[int]
    MEASURED_S_FIELD_NUMBER: _ClassVar[int]
    BUDGET_DOLLARS_FIELD_NUMBER: _ClassVar[int]
    SAVINGS_FIELD_NUMBER: _ClassVar[int]
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
    measured_s: float
    budget_dollars: float
    savings: _containers.RepeatedCompositeFieldContainer[Saving]
    def __init__(self, binding: _Optional[str] = ..., target: _Optional[str] = ..., provider: _Optional[str] = ..., service: _Optional[str] = ..., region: _Optional[str] = ..., items: _Optional[int] = ..., reads_month: _Optional[int] = ..., writes_month: _Optional[int] = ..., dollars_month: _Optional[float] = ..., prices_as_of: _Optional[str] = ..., measured_s: _Optional[float] = ..., budget_dollars: _Optional[float] = ..., savings: _Optional[_Iterable[_Union[Saving, _Mapping]]] = ...) -> None: ...

class Saving(_message.Message):
    __slots__ = ("what", "provider", "region", "service", "saves_dollars_month", "confidence", "effort")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SAVES_DOLLARS_MONTH_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    EFFORT_FIELD_NUMBER: _ClassVar[int]
    what: str
    provider: str
    region: str
    service: str
    saves_dollars_month: float
    confidence: str
    effort: str
    def __init__(self, what: _Optional[str] = ..., provider: _Optional[str] = ..., region: _Optional[str] = ..., service: _Optional[str] = ..., saves_dollars_month: _Optional[float] = ..., confidence: _Optional[str] = ..., effort: _Optional[str] = ...) -> None: ...

class BackendsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackendsResponse(_message.Message):
    __slots__ = ("backends",)
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    backends: _containers.RepeatedCompositeFieldContainer[Backend]
    def __init__(self, backends: _Optional[_Iterable[_Union[Backend, _Mapping]]] = ...) -> None: ...

class Backend(_message.Message):
    __slots__ = ("name", "summary", "place_hint", "capabilities", "problem", "hint", "distribution")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    PLACE_HINT_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    summary: str
    place_hint: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    problem: str
    hint: str
    distribution: str
    def __init__(self, name: _Optional[str] = ..., summary: _Optional[str] = ..., place_hint: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., problem: _Optional[str] = ..., hint: _Optional[str] = ..., distribution: _Optional[str] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ("targets", "credentials", "bindings")
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedScalarFieldContainer[str]
    credentials: str
    bindings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, targets: _Optional[_Iterable[str]] = ..., credentials: _Optional[str] = ..., bindings: _Optional[_Iterable[str]] = ...) -> None: ...

class CheckResponse(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[Check]
    def __init__(self, checks: _Optional[_Iterable[_Union[Check, _Mapping]]] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("target", "ok", "round_trip_ms", "identity", "detail", "hint")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_MS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    target: str
    ok: bool
    round_trip_ms: float
    identity: str
    detail: str
    hint: str
    def __init__(self, target: _Optional[str] = ..., ok: _Optional[bool] = ..., round_trip_ms: _Optional[float] = ..., identity: _Optional[str] = ..., detail: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("target", "credentials", "reveal")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    target: str
    credentials: str
    reveal: bool
    def __init__(self, target: _Optional[str] = ..., credentials: _Optional[str] = ..., reveal: _Optional[bool] = ...) -> None: ...

class FetchResponse(_message.Message):
    __slots__ = ("target", "variables", "skipped")
    class SkippedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TARGET_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    target: str
    variables: _containers.RepeatedCompositeFieldContainer[FetchedVariable]
    skipped: _containers.ScalarMap[str, str]
    def __init__(self, target: _Optional[str] = ..., variables: _Optional[_Iterable[_Union[FetchedVariable, _Mapping]]] = ..., skipped: _Optional[_Mapping[str, str]] = ...) -> None: ...

class FetchedVariable(_message.Message):
    __slots__ = ("environment", "variable", "native", "value", "secret")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    NATIVE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    environment: str
    variable: str
    native: str
    value: str
    secret: bool
    def __init__(self, environment: _Optional[str] = ..., variable: _Optional[str] = ..., native: _Optional[str] = ..., value: _Optional[str] = ..., secret: _Optional[bool] = ...) -> None: ...
