"""The `vault` backend passes the conformance kit, over a fake of Vault, in both of its layouts.

With one secret for everything it is tried over a real server (`test_vault_real`).
"""

from __future__ import annotations

import pytest

from envd.testing.conformance import BackendConformance, Harness
from tests.testing.vault_harness import FakeVaultHarness

pytest.importorskip("hvac", reason="hvac is not installed: pip install 'envd-cluster[vault]'")


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
