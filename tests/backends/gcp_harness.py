"""The stores of Google Cloud for the conformance kit: fakes over real gRPC, faults on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import grpc

from envd.backends.contract import Backend, Options
from envd.backends.gcp_cloud_run import CloudRunBackend
from envd.backends.gcp_parameter_manager import ParameterManagerBackend
from envd.backends.gcp_secret_manager import SecretManagerBackend
from envd.testing.conformance import ALL_ABILITIES, Ability
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Calls, Layout, ScriptedHarness
from tests.backends.fake_cloud_run import PLACE, FakeCloudRun
from tests.backends.fake_grpc import (
    Action,
    Answer,
    Before,
    FakeGrpc,
    Garble,
    LoseReply,
    Refuse,
    Rule,
)
from tests.backends.fake_parameter_manager import FakeParameterManager
from tests.backends.fake_secret_manager import PROJECT, FakeSecretManager

PAGE = 10
"""Items a page: with as many as usual, most of the time would go into filling them."""
SETTINGS: Mapping[str, object] = {"project_id": PROJECT}


class GrpcHarness(ScriptedHarness):
    """A subclass has the server, and says which of its methods is which call of the contract."""

    abilities = ALL_ABILITIES
    wire_faults = frozenset(
        {
            Kind.THROTTLED,
            Kind.AUTH_EXPIRED,
            Kind.FORBIDDEN,
            Kind.UNAVAILABLE,
            Kind.RESET,
            Kind.LOST_REPLY,
            Kind.MALFORMED,
            Kind.EMPTY_PAGE,
        }
    )
    scanning: ClassVar[Sequence[str]] = ()
    getting: ClassVar[Sequence[str]] = ()
    writing: ClassVar[Sequence[str]] = ()
    deciding: ClassVar[Sequence[str]] = ()
    """Of those that write, the one that does what is asked, where it takes several."""
    valuing: ClassVar[str] = ""
    """The one that writes a value."""

    @property
    def server(self) -> FakeGrpc:
        raise NotImplementedError

    def empty_page(self) -> Any:
        raise NotImplementedError

    def options(self, options: Options) -> Options:
        settings = {**SETTINGS, **options.settings}
        return replace(options, endpoint=self.server.endpoint, settings=settings)

    async def inject(self, *faults: Fault) -> None:
        for fault in faults:
            if fault.kind in self.wire_faults:
                self.server.on(
                    self._methods(fault), self._action(fault), after=fault.after, times=fault.times
                )
            else:
                await super().inject(fault)

    def _methods(self, fault: Fault) -> Sequence[str]:
        match fault.call:
            case Call.SCAN | Call.PROBE:
                return self.scanning
            case Call.GET:
                return self.getting
            case Call.APPLY:
                return self.deciding if fault.kind is Kind.LOST_REPLY else self.writing
        raise NotImplementedError(f"no faults of {fault.call}")

    def _action(self, fault: Fault) -> Action:
        match fault.kind:
            case Kind.THROTTLED:
                return Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, fault.retry_after_s)
            case Kind.AUTH_EXPIRED:
                return Refuse(grpc.StatusCode.UNAUTHENTICATED)
            case Kind.FORBIDDEN:
                return Refuse(grpc.StatusCode.PERMISSION_DENIED)
            case Kind.UNAVAILABLE:
                return Refuse(grpc.StatusCode.INTERNAL)
            case Kind.RESET:
                return Refuse(grpc.StatusCode.UNAVAILABLE)
            case Kind.LOST_REPLY:
                return LoseReply()
            case Kind.MALFORMED:
                return Garble()
            case Kind.EMPTY_PAGE:
                return Answer(self.empty_page())
        raise NotImplementedError(f"no fault {fault.kind}")

    @property
    def proxy(self) -> FakeGrpc:
        """Where things go wrong: that is the server itself."""
        return self.server

    def is_about(self, native: str, request: Any) -> bool:
        """Whether a request of `valuing` writes this item."""
        raise NotImplementedError

    def before_write(self, native: str, do: Callable[[], Coroutine[Any, Any, None]]) -> Rule:
        """Do something right before the next write of this item, in the thread of the server."""
        about = partial(self.is_about, native)
        rule = Rule(frozenset({self.valuing}), Before(lambda: asyncio.run(do())), about=about)
        self.server.add(rule)
        return rule

    async def others_put_meanwhile(self, native: str, value: str) -> None:
        async def put() -> None:
            await self.others_put(native, value)

        self.before_write(native, put)

    def calls(self) -> Calls:
        writes = self.server.count(*self.writing)
        return Calls(len(self.server.calls) - writes, writes)


class SecretManagerHarness(GrpcHarness):
    """Secret Manager, in one of its layouts."""

    place = "conformance"
    scanning = ("ListSecrets",)
    getting = ("GetSecret",)
    writing = ("CreateSecret", "AddSecretVersion", "UpdateSecret", "DeleteSecret")
    deciding = ("AddSecretVersion", "DeleteSecret")
    valuing = "AddSecretVersion"

    def __init__(self, store: FakeSecretManager, layout: Layout) -> None:
        super().__init__()
        self.store = store
        self.layout = layout
        self.name = f"gcp-secret-manager ({layout})"
        if layout == "document":
            self.foreign = ("envd-conformance2", "envd-conformance--No", "other")
            self.missing = {"STAMP_SIDE": "nobody asks for the stamp of a document"}
        else:
            self.foreign = ("envd-conformance--two--LEVELS", "envd-conformance2--NAME", "other")

    @property
    def server(self) -> FakeGrpc:
        return self.store.server

    async def begin(self) -> None:
        self.store.clear()

    def backend(self, options: Options) -> Backend:
        return SecretManagerBackend(self.options(options), page_items=PAGE, list_items=PAGE)

    def empty_page(self) -> Any:
        from google.cloud import secretmanager_v1 as api

        return api.ListSecretsResponse(next_page_token=f"after:{1 << 60}")

    async def contents(self) -> Mapping[str, str | None]:
        return dict(self.store.values())

    async def others_put(self, native: str, value: str) -> None:
        self.store.put(native, value)

    async def others_delete(self, native: str) -> None:
        self.store.delete(native)

    def is_about(self, native: str, request: Any) -> bool:
        return bool(request.parent.endswith(f"/{native}"))


class ParameterManagerHarness(GrpcHarness):
    """Parameter Manager, in one of its layouts."""

    place = "conformance"
    scanning = ("ListParameters",)
    getting = ("GetParameter",)
    writing = (
        "CreateParameter",
        "CreateParameterVersion",
        "UpdateParameter",
        "DeleteParameterVersion",
        "DeleteParameter",
    )
    deciding = ("CreateParameterVersion", "DeleteParameter")
    valuing = "CreateParameterVersion"

    def __init__(self, store: FakeParameterManager, layout: Layout) -> None:
        super().__init__()
        self.store = store
        self.layout = layout
        self.name = f"gcp-parameter-manager ({layout})"
        if layout == "document":
            self.foreign = ("envd-conformance2", "envd-conformance--No", "other")
        else:
            self.foreign = ("envd-conformance--two--LEVELS", "envd-conformance2--NAME", "other")

    @property
    def server(self) -> FakeGrpc:
        return self.store.server

    async def begin(self) -> None:
        self.store.clear()

    def backend(self, options: Options) -> Backend:
        return ParameterManagerBackend(self.options(options), page_items=PAGE, list_items=PAGE)

    def empty_page(self) -> Any:
        from google.cloud import parametermanager_v1 as api

        return api.ListParametersResponse(next_page_token="after:0")

    async def contents(self) -> Mapping[str, str | None]:
        return dict(self.store.values())

    async def others_put(self, native: str, value: str) -> None:
        self.store.put(native, value)

    async def others_delete(self, native: str) -> None:
        self.store.delete(native)

    def is_about(self, native: str, request: Any) -> bool:
        return bool(request.parent.endswith(f"/{native}"))


class CloudRunHarness(GrpcHarness):
    """The variables of a service of Cloud Run."""

    name = "gcp-cloud-run"
    place = PLACE
    layout: Layout = "document"
    abilities = ALL_ABILITIES & ~(
        Ability.BELOW | Ability.FOREIGN_NAMES | Ability.TEMPLATES | Ability.CURSORS
    )
    missing = {  # noqa: RUF012
        "BELOW": "a service holds one environment",
        "FOREIGN_NAMES": "there is nothing but the service",
        "TEMPLATES": "it has one name, the service's",
        "CURSORS": "a scan is one page",
        "STAMP_ATOMIC": "nobody asks for the stamp of a document",
        "STAMP_SIDE": "nobody asks for the stamp of a document",
    }
    scanning = ("GetService",)
    getting = scanning
    writing = ("UpdateService",)
    deciding = writing
    valuing = "UpdateService"

    def __init__(self, store: FakeCloudRun) -> None:
        super().__init__()
        self.store = store

    @property
    def server(self) -> FakeGrpc:
        return self.store.server

    async def begin(self) -> None:
        self.store.clear()

    def backend(self, options: Options) -> Backend:
        return CloudRunBackend(self.options(options))

    async def contents(self) -> Mapping[str, str | None]:
        values = self.store.values()
        return {"web": json.dumps(values, ensure_ascii=False)} if values else {}

    async def others_put(self, native: str, value: str) -> None:
        self.store.put(value)

    async def others_delete(self, native: str) -> None:
        self.store.put("{}")

    def is_about(self, native: str, request: Any) -> bool:
        return True
