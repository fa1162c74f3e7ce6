"""The `vault` backend passes the conformance kit, over a fake of Vault, in both of its layouts.

With one secret for everything it is tried over a real server (`test_vault_real`).
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from envd.testing.conformance import BackendConformance, Harness
from envd.testing.harness import Layout
from tests.backends.fake_vault import ROOT_TOKEN, fake_vault
from tests.testing.vault_harness import VaultHarness

pytest.importorskip("hvac", reason="hvac is not installed: pip install 'envd-cluster[vault]'")


class FakeVaultHarness(VaultHarness):
    """A fake for each case."""

    def __init__(self, name: str, layout: Layout, *, below: bool) -> None:
        super().__init__(
            f"vault ({name})",
            "place",
            layout=layout,
            below=below,
            token=ROOT_TOKEN,
            others=ROOT_TOKEN,
        )
        self._server = AsyncExitStack()

    async def find_upstream(self) -> str:
        return (await self._server.enter_async_context(fake_vault())).url

    async def end(self) -> None:
        await super().end()
        await self._server.aclose()


class TestVault(BackendConformance):
    """Each case with a secret for each variable."""

    @pytest.fixture
    def harness(self) -> Harness:
        return FakeVaultHarness("fake", "per-variable", below=True)


class TestVaultDocuments(BackendConformance):
    """... with a secret for each environment."""

    @pytest.fixture
    def harness(self) -> Harness:
        return FakeVaultHarness("fake, documents", "document", below=True)
