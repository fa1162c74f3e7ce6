"""Two sides, the other of which is a store behind a proxy: each that has a harness for the kit.

`STORES` is the table: a name, and how a harness is made for one example. A harness opens the
backend, does what others do in the store, and says what goes wrong on the wire; nothing else needs
to be told of a store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from envd.backends.contract import Backend, Capability, Key, Options
from envd.backends.errors import BackendError
from envd.core.syncing import BindingView
from envd.sync.layouts import Place, place_of
from envd.testing.faulty import Call, Fault, Kind
from envd.testing.harness import Harness, Layout
from tests.sync.two_sides import NAMES, TwoSides
from tests.sync.world import StillClock, World, fingerprint


class Wire(Protocol):
    """What is between a backend and its store, and does what its rules say."""

    @property
    def rules(self) -> Sequence[Any]: ...

    def remove(self, rule: Any) -> None: ...


class StoreHarness(Harness, Protocol):
    """A harness whose faults are on the wire, be that HTTP or gRPC."""

    @property
    def proxy(self) -> Wire: ...

    def backend(self, options: Options) -> Backend: ...

    def before_write(self, native: str, do: Callable[[], Coroutine[Any, Any, None]]) -> object: ...


MakeHarness = Callable[[], StoreHarness]
_ON_THE_WIRE: Final = (
    Kind.THROTTLED,
    Kind.AUTH_EXPIRED,
    Kind.FORBIDDEN,
    Kind.UNAVAILABLE,
    Kind.RESET,
    Kind.MALFORMED,
)
_TRIES: Final = 40


class StoreWorld(World):
    """A world with a backend that stays open from one comparison to the next."""

    def __init__(self, clock: StillClock) -> None:
        super().__init__(clock=clock)
        self.backend: Backend | None = None

    async def open(self, harness: StoreHarness) -> None:
        """Open a backend on the place of a harness."""
        options = Options(
            harness.place, harness.layout, wall_ms=self.clock.wall_ms, fingerprint=fingerprint
        )
        self.backend = harness.backend(options)
        await self.backend.open()

    async def close(self) -> None:
        """Close it, where there is one."""
        if self.backend is not None:
            await self.backend.close()

    def place(self, binding: BindingView) -> Place:
        assert self.backend is not None, "it is open"
        return place_of(binding, self.backend, fingerprint)


class InAStore(TwoSides):
    """The store is reached by its own backend, and by others behind its back."""

    def make(self) -> StoreHarness:
        """The harness of one example, not begun yet."""
        raise NotImplementedError(f"{type(self).__name__} has no store")

    def make_world(self, clock: StillClock) -> World:
        self.armed: list[object] = []
        self.harness = self.make()
        self.layout = self.harness.layout
        self.run(self.harness.begin())
        self.stays = tuple(self.harness.proxy.rules)
        self.store_world = StoreWorld(clock)
        self.run(self.store_world.open(self.harness))
        return self.store_world

    @property
    def backend(self) -> Backend:
        assert self.store_world.backend is not None, "it is open"
        return self.store_world.backend

    def close(self) -> None:
        with self.runner:
            self.run(self.backend.close())
            self.run(self.harness.end())

    # What goes wrong.

    @rule()
    def restart_with_another_backend(self) -> None:
        self.restart()
        self.run(self.backend.close())
        for _ in range(_TRIES):
            try:
                self.run(self.store_world.open(self.harness))
            except BackendError:
                continue  # Something that was to go wrong did so here.
            return
        raise AssertionError("the backend can't be opened any more")

    @rule(
        kind=st.sampled_from(_ON_THE_WIRE),
        call=st.sampled_from((Call.SCAN, Call.GET, Call.APPLY)),
        after=st.integers(0, 2),
    )
    def have_a_call_go_wrong(self, kind: Kind, call: Call, after: int) -> None:
        if kind in self.harness.wire_faults:
            self.run(self.harness.inject(Fault(kind, call, after=after)))

    def heal(self) -> None:
        proxy = self.harness.proxy
        for each in tuple(proxy.rules):
            if not any(each is stays for stays in self.stays):
                proxy.remove(each)

    def fail_write(self, *, done: bool) -> None:
        kind = Kind.LOST_REPLY if done else Kind.RESET
        self.run(self.harness.inject(Fault(kind, Call.APPLY)))

    def fail_listing(self) -> None:
        self.run(self.harness.inject(Fault(Kind.UNAVAILABLE, Call.SCAN)))

    @rule(name=NAMES)
    def edit_in_the_very_moment(self, name: str) -> None:
        """Unlike what is done in memory it is known when this happens, so it must not be lost.

        But for a store that compares nothing and has whole documents: who writes into one twice in
        the moments of one change is overtaken, so that does not happen here. And what has no
        versions either can't even tell of it afterwards.
        """
        if not self.backend.capabilities & (Capability.CAS | Capability.POSTCHECK):
            return
        if self.layout == "document" and Capability.CAS not in self.backend.capabilities:
            self._disarm()
        value = self._value()

        async def edit() -> None:
            before = (await self._there()).get(name)
            if before is not None:
                self.replaced.add((name, before))
            await self._edit(name, value)
            self.written.add((name, value))

        self.armed.append(self.harness.before_write(self._native(name), edit))

    def spare_the_moment(self) -> None:
        """Where the store compares nothing and the cluster is cut off right after a write, what
        that overtook is told of and logged, but only the store's history has it."""
        if Capability.CAS not in self.backend.capabilities:
            self._disarm()

    def _disarm(self) -> None:
        """Have nobody write in the very moment."""
        for each in self.armed:
            if any(each is rule for rule in self.harness.proxy.rules):
                self.harness.proxy.remove(each)
        self.armed.clear()

    # The store, as others see it.

    def _native(self, name: str) -> str:
        return self.backend.encode(Key("", "" if self.layout == "document" else name))

    async def _there(self) -> dict[str, str]:
        contents = await self.harness.contents()
        if self.layout == "document":
            text = contents.get(self._native(""))
            found: dict[str, str] = {} if text is None else json.loads(text)
            return found
        keys = {native: self.backend.decode(native) for native in contents}
        return {
            key.variable: value
            for native, value in contents.items()
            if (key := keys[native]) is not None and value is not None
        }

    async def _edit(self, name: str, value: str) -> None:
        if self.layout == "document":
            value = json.dumps({**await self._there(), name: value})
        await self.harness.others_put(self._native(name), value)

    async def _remove(self, name: str) -> None:
        left = await self._there()
        left.pop(name, None)
        if self.layout == "document" and left:
            await self.harness.others_put(self._native(""), json.dumps(left))
        else:
            await self.harness.others_delete(self._native(name))

    def there(self) -> dict[str, str]:
        found: dict[str, str] = self.run(self._there())
        return found

    def edit(self, name: str, value: str) -> None:
        self.run(self._edit(name, value))

    def remove(self, name: str) -> None:
        self.run(self._remove(name))

    def writes(self) -> int:
        return self.harness.calls().writes


# -- the stores ------------------------------------------------------------------------------


def _ssm(request: pytest.FixtureRequest, layout: Layout) -> MakeHarness:
    url = request.getfixturevalue("aws")
    from envd.backends.aws_session import Sessions
    from tests.backends import aws_emulator
    from tests.backends.aws_harness import SsmHarness

    return partial(SsmHarness, url, Sessions(aws_emulator.ENVIRONMENT), layout)


def _secrets(request: pytest.FixtureRequest, layout: Layout) -> MakeHarness:
    url = request.getfixturevalue("aws")
    from envd.backends.aws_session import Sessions
    from tests.backends import aws_emulator
    from tests.backends.aws_harness import SecretsHarness

    return partial(SecretsHarness, url, Sessions(aws_emulator.ENVIRONMENT), layout)


def _lambda(request: pytest.FixtureRequest) -> MakeHarness:
    pytest.importorskip("botocore")
    from envd.backends.aws_session import Sessions
    from tests.backends.lambda_harness import KEYS, LambdaHarness

    del request
    return partial(LambdaHarness, Sessions(KEYS))


def _vault(request: pytest.FixtureRequest, layout: Layout) -> MakeHarness:
    pytest.importorskip("hvac")
    from tests.testing.vault_harness import FakeVaultHarness

    del request
    return partial(FakeVaultHarness, "fake", layout, below=layout == "per-variable")


def _key_vault(request: pytest.FixtureRequest, layout: Layout) -> MakeHarness:
    """Its times are whole seconds and its versions have no order, so nobody can tell which of two
    edits by others within one second is the later: here they are never so close."""
    pytest.importorskip("azure.core")
    from tests.backends.azure_harness import KeyVaultHarness

    del request
    return partial(KeyVaultHarness, layout, second_each=True)


def _app_configuration(request: pytest.FixtureRequest) -> MakeHarness:
    """Variables are plain in this world, as they have to be in this store."""
    pytest.importorskip("azure.core")
    from tests.backends.azure_harness import AppConfigurationHarness

    del request
    return partial(AppConfigurationHarness, "prod", for_the_kit=False)


def _functions(request: pytest.FixtureRequest) -> MakeHarness:
    pytest.importorskip("azure.core")
    from tests.backends.azure_harness import FunctionsHarness

    del request
    return FunctionsHarness


def _secret_manager(request: pytest.FixtureRequest, layout: Layout) -> MakeHarness:
    store = request.getfixturevalue("secret_manager")
    from tests.backends.gcp_harness import SecretManagerHarness

    return partial(SecretManagerHarness, store, layout)


def _parameter_manager(request: pytest.FixtureRequest, layout: Layout) -> MakeHarness:
    store = request.getfixturevalue("parameter_manager")
    from tests.backends.gcp_harness import ParameterManagerHarness

    return partial(ParameterManagerHarness, store, layout)


def _cloud_run(request: pytest.FixtureRequest) -> MakeHarness:
    store = request.getfixturevalue("cloud_run")
    from tests.backends.gcp_harness import CloudRunHarness

    return partial(CloudRunHarness, store)


def _etcd(request: pytest.FixtureRequest, layout: Layout) -> MakeHarness:
    from tests.testing.test_etcd import FakeEtcdHarness

    del request
    return partial(FakeEtcdHarness, "fake", layout, below=True)


def _consul(request: pytest.FixtureRequest, layout: Layout) -> MakeHarness:
    from tests.testing.test_consul import ConsulHarness

    del request
    return partial(ConsulHarness, "fake", layout, below=True)


def _kubernetes(request: pytest.FixtureRequest) -> MakeHarness:
    pytest.importorskip("kubernetes_asyncio")
    from tests.testing.test_kubernetes import KubernetesHarness

    home = request.getfixturevalue("tmp_path")
    return partial(KubernetesHarness, "fake", "secret", home, below=False)


STORES: Final[Mapping[str, Callable[[pytest.FixtureRequest], MakeHarness]]] = {
    "aws-ssm": partial(_ssm, layout="per-variable"),
    "aws-ssm, documents": partial(_ssm, layout="document"),
    "aws-secrets-manager": partial(_secrets, layout="per-variable"),
    "aws-secrets-manager, documents": partial(_secrets, layout="document"),
    "aws-lambda": _lambda,
    "vault": partial(_vault, layout="per-variable"),
    "vault, documents": partial(_vault, layout="document"),
    "azure-key-vault": partial(_key_vault, layout="per-variable"),
    "azure-key-vault, documents": partial(_key_vault, layout="document"),
    "azure-app-configuration": _app_configuration,
    "azure-functions": _functions,
    "gcp-secret-manager": partial(_secret_manager, layout="per-variable"),
    "gcp-parameter-manager": partial(_parameter_manager, layout="per-variable"),
    "gcp-cloud-run": _cloud_run,
    "etcd": partial(_etcd, layout="per-variable"),
    "consul": partial(_consul, layout="per-variable"),
    "kubernetes": _kubernetes,
}
