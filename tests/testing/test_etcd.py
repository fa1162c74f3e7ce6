"""The `etcd` backend passes the conformance kit, over a fake of etcd, in both of its layouts.

With one key for everything it is tried over a real server (`test_etcd_real`).
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from envd.testing.conformance import BackendConformance, Harness
from envd.testing.harness import Layout
from tests.backends.fake_etcd import fake_etcd
from tests.testing.etcd_harness import EtcdHarness


class FakeEtcdHarness(EtcdHarness):
    """A fake for each case."""

    def __init__(self, name: str, layout: Layout, *, below: bool) -> None:
        super().__init__(f"etcd ({name})", "place", layout=layout, below=below)
        self._server = AsyncExitStack()

    async def find_upstream(self) -> str:
        return (await self._server.enter_async_context(fake_etcd())).url

    async def end(self) -> None:
        await super().end()
        await self._server.aclose()


class TestEtcd(BackendConformance):
    """Each case with a key for each variable."""

    @pytest.fixture
    def harness(self) -> Harness:
        return FakeEtcdHarness("fake", "per-variable", below=True)


class TestEtcdDocuments(BackendConformance):
    """... with a key for each environment."""

    @pytest.fixture
    def harness(self) -> Harness:
        return FakeEtcdHarness("fake, documents", "document", below=True)
