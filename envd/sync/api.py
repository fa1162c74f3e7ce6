"""What `SyncService`, the Unix socket and `envctl` ask of the reconciler; see `core.syncing`.

Every method raises Denied where the identity lacks the right `sync` on what is bound, besides what
it says here. A node that does not lead a binding has its leader do what only that one can.
"""

from __future__ import annotations

from typing import Protocol

from envd.core.answers import Identity
from envd.core.syncing import (
    AppliedView,
    ApplyRequest,
    BackendList,
    BindingList,
    BindingsRequest,
    BindingView,
    BindRequest,
    CheckList,
    CheckRequest,
    CostView,
    FetchRequest,
    FetchView,
    PauseRequest,
    PlanRequest,
    PlanView,
    SyncStatus,
    UnbindRequest,
)


class SyncApi(Protocol):
    """The reconciler as its callers see it."""

    async def bind(self, identity: Identity, request: BindRequest) -> BindingView:
        """Make or replace a binding; InvalidRequest where it can't be."""
        ...

    async def unbind(self, identity: Identity, request: UnbindRequest) -> BindingView:
        """Remove a binding, and return it as it was; NotFound where there is none."""
        ...

    async def bindings(self, identity: Identity, request: BindingsRequest) -> BindingList:
        """The bindings; NotFound where one that is named does not exist."""
        ...

    async def pause(self, identity: Identity, request: PauseRequest) -> BindingList:
        """Pause or resume bindings, and return them as they are now."""
        ...

    async def status(self, identity: Identity, request: BindingsRequest) -> SyncStatus:
        """How bindings do."""
        ...

    async def plan(self, identity: Identity, request: PlanRequest) -> PlanView:
        """Compare the two sides now; Unavailable where no node that could is reached."""
        ...

    async def apply(self, identity: Identity, request: ApplyRequest) -> AppliedView:
        """Do a plan; Conflict (PLAN_MOVED) where the state is not that of the plan any more."""
        ...

    async def cost(self, identity: Identity, request: BindingsRequest) -> CostView:
        """What bindings cost in a month."""
        ...

    async def backends(self, identity: Identity) -> BackendList:
        """The kinds of stores that this node knows."""
        ...

    async def check(self, identity: Identity, request: CheckRequest) -> CheckList:
        """Probe targets."""
        ...

    async def fetch(self, identity: Identity, request: FetchRequest) -> FetchView:
        """Read all variables at a target once; their values take the right to reveal."""
        ...
